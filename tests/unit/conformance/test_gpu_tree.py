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
#: Also by the node's own program, whole, in processes of its own: one a kind of break.
WHOLE = ("", "library-of-another-release", "card-off-the-bus", "pytorch-for-the-cpu")
#: Its waiting has an end in the whole program alone.
HANGS = "driver-hangs"
#: In the required suite: the first break of each area. All of them take minutes.
FAST = ("", *{table["area"]: name for name, table in reversed(TABLES.items())}.values())
BREAKS = [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in ["", *sorted({*TABLES} - {HANGS})]
]


def functions() -> dict[str, Callable[..., None]]:
    """Id -> check of all areas of the cards."""
    found = {}
    for area, names in NAMES.items():
        for name in names:
            module = importlib.import_module(f"conformance.{area}.{name}")
            for key, value in vars(module).items():
                marks: list[pytest.Mark] = getattr(value, "pytestmark", [])
                if key.startswith("test_") and any(mark.name == MARKER for mark in marks):
                    found[marks[0].args[0].id] = value
    return found


CHECKS = functions()
ADDRESS = gputree.ADDRESSES[0]


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


def judge(found: dict[str, tuple[str, str]], name: str) -> None:
    """The sabotage killed what it says; the good node passes everything."""
    table = TABLES.get(name, {"kills": []})
    failed = {check: said for check, (end, said) in found.items() if end == "fail"}
    assert {*table["kills"]} <= set(failed), found
    assert set(failed) <= {*table["kills"], *table.get("dependants", ())}, failed
    others = {end for end, _ in found.values()}
    assert others <= ({"pass", "fail", "not-verified"} if name else {"pass"}), found


@pytest.fixture(scope="session")
def told(
    good_tree: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, dict[str, Any]]:
    """Name of a sabotage that is tried -> what the node tells after it; "" is the good one."""
    folder = tmp_path_factory.mktemp("broken")
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    names = {call.params.get("name") for call in calls if call}
    work = {}
    for number, name in enumerate(["", *sorted(TABLES)]):
        if name == HANGS or name not in names:
            continue
        table = TABLES.get(name, {"apply": "", "area": "frameworks", "kills": []})
        tree = folder / f"tree{number}"
        shutil.copytree(good_tree, tree, symlinks=True)
        concerned = {*table["kills"], *table.get("dependants", ())}
        frameworks = not name or any(check.startswith("frameworks.") for check in concerned)
        work[name] = {"tree": str(tree), "apply": table["apply"], "frameworks": frameworks}
    return gputree.many(good_tree, folder, work)


@pytest.mark.parametrize("name", BREAKS)
def test_the_shell_breaks_what_it_says(
    told: dict[str, dict[str, Any]], tmp_path: Path, name: str
) -> None:
    facts = told[name]
    assert "broken" not in facts, facts
    tried = bool(facts["cards"]["frameworks"])
    found = {
        check: end
        for check, end in ends(a_node(tmp_path, facts)).items()
        if tried or not check.startswith("frameworks.")
    }
    judge(found, name)


@pytest.mark.parametrize("name", WHOLE)
def test_the_node_s_own_program_tells_the_same(tree: Path, tmp_path: Path, name: str) -> None:
    if name:
        gputree.enter(tree, "/bin/sh", "-c", TABLES[name]["apply"])
    facts = gputree.facts(tree)
    assert facts["gpu"]["double"] is True
    assert facts["cards"]["nvml"]["double"] is True
    judge(ends(a_node(tmp_path, facts)), name)


def test_every_check_of_the_cards_has_a_sabotage() -> None:
    assert {check for table in TABLES.values() for check in table["kills"]} == set(CHECKS)
    declared = {check for table in TABLES.values() for check in table.get("dependants", ())}
    assert declared <= set(CHECKS)


def test_what_hangs_is_a_fact(tree: Path, tmp_path: Path) -> None:
    """The rest is told all the same; both parts that hung have an end."""
    gputree.enter(tree, "/bin/sh", "-c", TABLES[HANGS]["apply"])
    facts = gputree.facts(tree, ask=8)
    assert facts["cards"]["nvml"]["error"] == "did not end within 8 s"
    assert facts["cards"]["nvidia_smi"]["error"] == "did not end within 8 s"
    assert len(facts["cards"]["compute"]["cards"]) == 2
    found = ends(a_node(tmp_path, facts))
    failed = {check for check, (end, _) in found.items() if end == "fail"}
    assert failed == {"driver.nvidia-smi", "driver.nvml"}, found


@pytest.mark.parametrize(
    "facts",
    [
        {"gpu": {"cards": []}},
        {"gpu": None, "unreadable": {"gpu": "the disk is gone"}},
        {},
    ],
)
def test_without_a_card_nothing_passes(tmp_path: Path, facts: dict[str, Any]) -> None:
    """On a machine of which nobody said that it has cards."""
    whole = {"unreadable": {}, "installers": [], "cards": _none(), **facts}
    found = ends(a_node(tmp_path, whole, {}))
    # What our installer chose cannot be compared where it chose nothing.
    assert found.pop("driver.release")[0] == "skip"
    assert {end for end, _ in found.values()} == {"not-verified"}, found
    assert all(said for _, said in found.values())


def test_a_node_without_the_cards_it_should_have_fails(tmp_path: Path) -> None:
    found = ends(a_node(tmp_path, {"unreadable": {}, "gpu": {"cards": []}}, {"gpu": 2}))
    assert found["driver.present"] == (
        "fail",
        "0 NVIDIA cards are on the PCI bus, 2 are expected",
    )
    assert {end for name, (end, _) in found.items() if name != "driver.present"} <= {
        *("not-verified", "skip")
    }


def test_a_lab_that_has_no_cards_is_not_asked(tmp_path: Path) -> None:
    found = ends(a_node(tmp_path, {"unreadable": {}}, {"gpu": False}))
    assert {end for end, _ in found.values()} == {"skip"}
    assert all(said.startswith("does not apply: needs ") for _, said in found.values())


@pytest.mark.parametrize("kind", ["ecc", "mig"])
def test_cards_without_it_are_not_judged_by_it(tmp_path: Path, kind: str) -> None:
    """A card of which NVML says that it does not support this; one that is lost says nothing."""
    card: dict[str, Any] = {"index": 0, "errors": {}, "address": ADDRESS, "ecc": None, "mig": None}
    bus = {"address": ADDRESS, "driver": "nvidia", "on_bus": True, "minor": 0, "device": "10de:1"}
    said = {**_none(), "nvml": {"error": None, "cards": [card]}}
    facts = {"unreadable": {}, "gpu": {"cards": [bus]}, "cards": said}
    name = {"ecc": "driver.ecc", "mig": "mig.slices"}[kind]
    assert ends(a_node(tmp_path, facts, {}))[name][0] == "skip"
    card.update(code=15, errors={"handle": "the GPU is lost"})
    assert ends(a_node(tmp_path, facts, {}))[name][0] == "not-verified"


def _none() -> dict[str, Any]:
    """What a machine without anything of NVIDIA's says when its cards are tried."""
    missing = {"version": None, "cuda": None, "error": "cannot open shared object file"}
    return {
        "nvidia_smi": None,
        "nvml": {"error": "libnvidia-ml.so.1: cannot open", "code": 12},
        "toolkits": [],
        "compiled": {},
        "compute": {"error": "there is no libcuda.so.1", "cards": []},
        "libraries": {
            "cudnn": {"name": "libcudnn.so.9", **missing},
            "nccl": {"name": "libnccl.so.2", **missing},
        },
        "frameworks": [],
    }
