"""A user's own images and profiles mean the same to every verb that makes nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.errors import UsageError
from harness.held import Order
from harness.holder import find_cell
from tests.unit.core.workbench import Bench

MATRIX = """
[matrix]
images = ["our-image"]
scenarios = ["direct"]
profiles = ["mine"]
provider = "fake"
"""
OURS = "our-image+direct+mine"


@pytest.fixture
def matrix(bench: Bench) -> Path:
    """A matrix with names of its own beside it."""
    (bench.path / "images.toml").write_text(
        "[our-image]\ntitle = 'Ours'\nfamily = 'debian'\nversion = '12'\nsuite = 'bookworm'\n"
        "kernel = 'linux-image-cloud-amd64'\n"
    )
    (bench.path / "profiles.toml").write_text("[mine]\ntitle = 'Mine'\ninstallers = ['seal']\n")
    path = bench.path / "ours.toml"
    path.write_text(MATRIX)
    return path


#: Words that make a node of the names; MATRIX stands for the matrix. ``run`` reads it as plan does.
VERBS = {
    "sabotage": ("sabotage", "MATRIX", "--only", "unsigned-module"),
    "reproduce": (
        *("reproduce", "direct", "--image", "our-image", "--profile", "mine"),
        *("--provider", "fake", "--matrix", "MATRIX"),
    ),
}


def test_a_plan_finds_them(matrix: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(matrix)]) == 0
    assert OURS in capsys.readouterr().out


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_verb_finds_them(bench: Bench, matrix: Path, verb: str) -> None:
    bench.script.write_text('["*"]\nbehaviour = "refuses"\n')
    words = [str(matrix) if word == "MATRIX" else word for word in VERBS[verb]]
    process = bench.start(*words)
    output, _ = process.communicate(timeout=300)
    assert process.returncode != 2, output
    (cell,) = bench.report().cells
    assert cell.id == OURS


@pytest.mark.parametrize(
    "words",
    [
        ("reproduce", "direct", "--image", "our-image", "--provider", "fake"),
        ("plan", "--image", "our-image"),
        ("sabotage", "--image", "our-image"),
    ],
)
def test_without_the_matrix_nobody_does(
    matrix: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert matrix.is_file()
    assert main(list(words)) == 2
    assert "unknown image 'our-image'" in capsys.readouterr().err


def test_a_node_by_hand_is_made_of_them(matrix: Path) -> None:
    order = Order("n", "our-image", "direct", "mine", "fake", str(matrix))
    assert find_cell(order).id == OURS
    with pytest.raises(UsageError, match="unknown image 'our-image'"):
        find_cell(Order("n", "our-image", "direct", "mine", "fake", "default.toml"))
