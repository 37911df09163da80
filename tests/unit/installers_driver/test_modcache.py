"""The module cache: what is read was written whole, and what is broken is never used."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installers.errors import NodeError
from installers.modcache import MANIFEST, ModuleCache, key_of

INPUTS: dict[str, Any] = {
    "kernel": "6.1.0",
    "source": {"version": "535", "sha256": "ab"},
    "make": ["modules"],
}
MODULES = {"nvidia.ko": b"one" * 1000, "nvidia-uvm.ko": b"two"}
DETAILS = {"fixups": [], "built": "2026-01-01T00:00:00Z", "seconds": 1.5}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_the_order_of_inputs_does_not_matter(inputs: dict[str, Any]) -> None:
    turned = dict(reversed(inputs.items()))
    assert key_of(inputs) == key_of(turned) == key_of(json.loads(json.dumps(inputs)))


def test_every_input_matters() -> None:
    others = [
        {**INPUTS, "kernel": "6.1.1"},
        {**INPUTS, "source": {"version": "535", "sha256": "ac"}},
        {**INPUTS, "make": ["V=1"]},
        {**INPUTS, "more": None},
    ]
    assert len({key_of(inputs) for inputs in [INPUTS, *others]}) == 5


def test_a_build_comes_back_as_it_was(tmp_path: Path) -> None:
    cache = ModuleCache(tmp_path / "new" / "cache")
    assert cache.get(INPUTS) is None
    stored = cache.put(INPUTS, MODULES, DETAILS)
    assert cache.get(INPUTS) == stored
    assert cache.get({**INPUTS, "kernel": "6.1.1"}) is None
    assert [path.name for path in (tmp_path / "new" / "cache").iterdir()] == [key_of(INPUTS)]


def _broken(place: Path, how: str) -> None:
    manifest = json.loads((place / MANIFEST).read_text())
    if how == "changed":
        (place / "nvidia.ko").write_bytes(b"one" * 999 + b"xxx")
    elif how == "short":
        (place / "nvidia-uvm.ko").write_bytes(b"")
    elif how == "missing":
        (place / "nvidia.ko").unlink()
    elif how == "no manifest":
        (place / MANIFEST).unlink()
    elif how == "half a manifest":
        (place / MANIFEST).write_text('{"schema": 1,')
    elif how == "other shape":
        (place / MANIFEST).write_text("[]")
    elif how == "other inputs":
        (place / MANIFEST).write_text(json.dumps({**manifest, "inputs": {"kernel": "5.10"}}))
    elif how == "no modules":
        (place / MANIFEST).write_text(json.dumps({**manifest, "files": {}}))


@pytest.mark.parametrize(
    "how",
    [
        "changed",
        "short",
        "missing",
        "no manifest",
        "half a manifest",
        "other shape",
        "other inputs",
        "no modules",
    ],
)
def test_a_broken_entry_is_put_aside(tmp_path: Path, how: str) -> None:
    cache = ModuleCache(tmp_path)
    cache.put(INPUTS, MODULES, DETAILS)
    _broken(tmp_path / key_of(INPUTS), how)
    assert cache.get(INPUTS) is None
    assert not (tmp_path / key_of(INPUTS)).exists()
    (aside,) = (tmp_path / "quarantine").iterdir()
    assert (aside / "REASON").read_text().strip()
    assert cache.put(INPUTS, MODULES, DETAILS) == cache.get(INPUTS)


def test_two_builders_at_once(tmp_path: Path) -> None:
    cache = ModuleCache(tmp_path)
    threads = [
        threading.Thread(target=cache.put, args=(INPUTS, MODULES, DETAILS)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry = cache.get(INPUTS)
    assert entry is not None
    assert entry.modules == MODULES
    assert [path.name for path in tmp_path.iterdir()] == [key_of(INPUTS)]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match="cannot be kept"):
        ModuleCache(tmp_path / "file" / "cache").put(INPUTS, MODULES, DETAILS)
