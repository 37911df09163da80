"""Sabotages' own shell on a whole node in a directory: each kills its checks, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.node import CellNames, Node
from harness.sabotage import load_sabotages
from tests.unit.conformance import good, lived_in, trees
from tests.unit.conformance.double import ThisMachine

SABOTAGES = load_sabotages(lived_in.ROOT / "conformance")
CHECKS = lived_in.all_checks()
#: What only a running node, or a card, can answer; the sample has no answer of its own.
APART = {check for check in CHECKS if check in lived_in.RUNNING}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> lived_in.Made:
    directory = tmp_path_factory.mktemp("lived-in")
    for name in lived_in.RINGS:
        if not Path("/usr/share/keyrings", name).exists():
            pytest.skip(f"this machine has no {name}")
    return lived_in.Made(directory / "tree", directory / "keys")


def ends(root: Path, made: lived_in.Made) -> dict[str, tuple[str, str]]:
    """How every check ends on the node that lies below ``root``, and what it says."""
    home = root.parent / f"home-of-{root.name}"
    home.mkdir()
    sample = good.intercepted(made.ca.sha256, lived_in.BUNDLE, "", 80)
    sample.expect.update(boot_kernel=trees.RELEASE, cert_sha256=made.signer.sha256)
    found = lived_in.facts(root, sample, made)
    sample.expect["repository"]["fingerprints"] = made.pinned
    sample.expect["image_built"] = 1_600_000_000.0
    transport = ThisMachine(sample, home, home / "none", {})
    cell = CellNames("debian-12", "tree", "full", "tree")
    node = Node("tree", cell, found, transport, sample.expect, sample.ledger)
    return {
        name: trees.outcome(function, node)
        for name, (_, function) in CHECKS.items()
        if name not in APART
    }


def test_the_tree_is_a_good_node(made: lived_in.Made) -> None:
    said = ends(made.root, made)
    others = {name: end for name, end in said.items() if end[0] not in ("pass", "skip")}
    assert not others


@pytest.mark.parametrize("name", sorted(lived_in.HERE))
def test_the_shell_kills_its_checks_alone(made: lived_in.Made, tmp_path: Path, name: str) -> None:
    sabotage = SABOTAGES[name]
    said = ends(made.broken(tmp_path / "tree", sabotage.apply), made)
    killed = {check for check, end in said.items() if end[0] in ("fail", "error")}
    assert set(sabotage.kills) <= killed, {check: said[check] for check in sabotage.kills}
    declared = {*sabotage.kills, *sabotage.dependants}
    while more := {c for c in killed - declared if declared & set(CHECKS[c][0].depends)}:
        declared |= more
    assert killed <= declared, {check: said[check] for check in killed - declared}
