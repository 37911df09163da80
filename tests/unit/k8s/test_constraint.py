"""Versions that a chart admits, as Helm's own library has it."""

from __future__ import annotations

import pytest

from harness.k8s.constraint import admits


@pytest.mark.parametrize(
    ("constraint", "admitted", "refused"),
    [
        (">= 1.16.0-0", "1.16.0 1.34.0", "1.15.9"),
        (">=1.24.0-0 <1.33.0", "1.24.0 1.32.9", "1.33.0 1.23.9"),
        (">=1.24, <1.33 || 1.40.x", "1.32.9 1.40.3", "1.33.0 1.41.0"),
        ("^1.20", "1.20.0 1.99.0", "2.0.0 1.19.9"),
        ("^0.2.3", "0.2.9", "0.3.0"),
        ("~1.20.3", "1.20.9", "1.21.0 1.20.2"),
        ("1.20 - 1.22", "1.20.0 1.22.9", "1.23.0"),
        ("1.x", "1.5.0", "2.0.0"),
        ("!=1.30.1", "1.30.0", "1.30.1"),
        (">1.30", "1.31.0", "1.30.9"),
        ("<=1.30", "1.30.9", "1.31.0"),
        ("*", "1.0.0", ""),
    ],
)
def test_a_version_is_admitted(constraint: str, admitted: str, refused: str) -> None:
    for text in admitted.split():
        assert admits(constraint, tuple(map(int, text.split(".")))), text  # type: ignore[arg-type]
    for text in refused.split():
        assert not admits(constraint, tuple(map(int, text.split(".")))), text  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "new", ">= ", "1.2.3.4"])
def test_what_is_no_constraint_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="constraint"):
        admits(text, (1, 30, 0))
