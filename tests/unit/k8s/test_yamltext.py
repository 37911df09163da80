"""YAML is read and written as Kubernetes' programs do it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.k8s.yamltext import dump, dump_all, load, load_all


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10:30", "10:30"),
        ("2026-11-22", "2026-11-22"),
        ("1e3", 1000.0),
        ("0x1f", 31),
        ("0755", 493),
        ("yes", True),
        ("v1", "v1"),
        ("1.20", 1.2),
    ],
)
def test_scalars_are_what_the_api_takes_them_for(text: str, value: object) -> None:
    assert load(f"a: {text}", "x") == {"a": value}


@pytest.mark.parametrize(
    "text", ["y", "n", "1e3", "0o17", "on", "null", "~", "1_000", ".5", "=", ""]
)
def test_texts_that_look_like_something_else_are_quoted(text: str) -> None:
    assert dump({"a": text}).strip() in (f"a: '{text}'", f'a: "{text}"')


SCALARS = st.text(max_size=9) | st.integers() | st.booleans() | st.from_regex(r"[-+.0-9eExyno:]+")


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=9), SCALARS, max_size=3))
def test_what_is_written_is_read_back(value: dict[str, object]) -> None:
    assert load_all(dump_all([value]), "x") == [value]
    assert dump(value) == dump(dict(reversed(value.items())))


@pytest.mark.parametrize("text", ["a: [", "a: &x [*x]\nb: *y", "- 1", "a: 1\n---\nb: 2", "\t"])
def test_what_is_no_mapping_is_one_clear_error(text: str) -> None:
    with pytest.raises(UsageError, match=r"^x: is not"):
        load(text, "x")
