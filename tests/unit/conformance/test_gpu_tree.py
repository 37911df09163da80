"""The checks of the cards on a node of doubles, told by the node's own program, broken by shell.

The good node passes all of them; each sabotage's shell, run there as it stands, kills what it says.
"""

from __future__ import annotations

import importlib
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.checks import MARKER
from harness.node import CellNames, Node
from harness.pack import pack
from harness.station import CARDS
from tests.unit.conformance import good, gputree, trees
from tests.unit.conformance.conftest import ROOT
from tests.unit.conformance.double import ThisMachine

NAMES = {
    "driver": ("test_driver", "test_errors"),
    **{area: (f"test_{area}",) for area in CARDS if area != "driver"},
}
TABLES: dict[str, dict[str, Any]] = {
    table["name"]: {**table, "area": area}
    for area in CARDS
    for table in tomllib.loads((ROOT / f"conformance/{area}/sabotage.toml").read_text())["sabotage"]
}
#: One a kind of break: a file of the driver, a double's fault, a program, a setting.
FAST = {
    *("", "library-of-another-release", "card-off-the-bus", "card-computes-wrong"),
    *("pytorch-for-the-cpu", "cdi-specification-removed"),
}


def functions() -> dict[str, Callable[..., None]]:
    """Id -> check of all areas of the cards."""
    found = {}
    for area, names in NAMES.items():
        for name in names:
            module = importlib.import_module(f"conformance.{area}.{name}")
            for key, value in vars(module).items():
                marks = getattr(value, "pytestmark", ())
                if key.startswith("test_") and any(mark.name == MARKER for mark in marks):
                    found[marks[0].args[0].id] = value
    return found


CHECKS = functions()


@pytest.fixture(scope="session")
def good_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    why = gputree.why_not()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("cards")
    gputree.make(folder / "tree", pack(folder).path)
    return folder / "tree"


@pytest.fixture
def tree(good_tree: Path, tmp_path: Path) -> Path:
    shutil.copytree(good_tree, tmp_path / "tree", symlinks=True)
    return tmp_path / "tree"


def a_node(tmp_path: Path, facts: dict[str, Any], expect: dict[str, Any] | None = None) -> Node:
    (tmp_path / "home").mkdir(exist_ok=True)
    sample = good.intercepted("", "", "", 80)
    transport = ThisMachine(sample, tmp_path / "home", tmp_path / "none", {})
    cell = CellNames("debian-12", "tree", "cards", "tree")
    return Node("tree", cell, facts, transport, gputree.EXPECT if expect is None else expect)


def ends(node: Node) -> dict[str, tuple[str, str]]:
    return {name: trees.outcome(check, node) for name, check in CHECKS.items()}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.slow)
        for name in ("", *sorted(TABLES))
    ],
)
def test_the_shell_breaks_what_it_says(tree: Path, tmp_path: Path, name: str) -> None:
    if name:
        gputree.enter(tree, "/bin/sh", "-c", TABLES[name]["apply"])
    facts = gputree.facts(tree)
    assert facts["gpu"]["double"] is True
    found = ends(a_node(tmp_path, facts))
    table = TABLES.get(name, {"kills": []})
    failed = {check: said for check, (end, said) in found.items() if end == "fail"}
    assert {*table["kills"]} <= set(failed), found
    assert set(failed) <= {*table["kills"], *table.get("dependants", ())}, failed
    others = {end for end, _ in found.values()}
    assert others <= ({"pass", "fail", "not-verified"} if name else {"pass"}), found


def test_every_check_of_the_cards_has_a_sabotage() -> None:
    assert {check for table in TABLES.values() for check in table["kills"]} == set(CHECKS)
