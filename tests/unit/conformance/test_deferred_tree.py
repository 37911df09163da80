"""The deferred configuration's checks on a tree that the installer made and sabotages broke."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from conformance.deferred import test_deferred as deferred
from conformance.deferred import test_finding as finding
from harness.node import CellNames, Node
from installers.collect import gpuconfig, system
from installers.collect.reader import Reader
from installers.deferred import stamp
from tests.unit.conformance import good, good_deferred, trees
from tests.unit.conformance.conftest import ROOT
from tests.unit.conformance.double import ThisMachine
from tests.unit.deferred import tree

CHECKS = {
    "deferred.unit": deferred.test_unit,
    "deferred.applied": deferred.test_applied,
    "deferred.stamp": deferred.test_stamp,
    "deferred.yarn": deferred.test_yarn,
    "deferred.spark": deferred.test_spark,
    "deferred.daemon": deferred.test_daemon,
    "deferred.yarn-program": finding.test_yarn_program,
    "deferred.spark-script": finding.test_spark_script,
    "deferred.amounts-fit": finding.test_amounts_fit,
}
TABLES = {
    table["name"]: table
    for table in tomllib.loads((ROOT / "conformance/deferred/sabotage.toml").read_text())[
        "sabotage"
    ]
}

#: What these break is not in a file, or is seen by running a program.
RUNNING = ("node-manager-stopped", "order-not-loaded", "script-says-more")


@pytest.mark.parametrize(
    "name",
    [
        "",
        *(name for name, table in TABLES.items() if name not in RUNNING and "stage" not in table),
    ],
)
def test_the_shell_breaks_what_it_says(tmp_path: Path, name: str) -> None:
    root = tmp_path / "tree"
    host = tree.make(root, [tree.L4])
    summary = tree.run(host)
    stamp.write_result(host, "configured", provenance=summary.installers[0].provenance)
    if name:
        trees.sabotage(root, TABLES[name]["apply"])
    reader = Reader(str(root))
    identity = {**system.identity(reader), "boot_id": tree.FILES["proc/sys/kernel/random/boot_id"]}
    identity["boot_id"] = identity["boot_id"].strip()
    facts = {
        "unreadable": {},
        "identity": identity,
        "gpu_config": gpuconfig.collect(reader, good_deferred.units()),
    }
    (tmp_path / "home").mkdir()
    sample = good.intercepted("", "", "", 80)
    transport = ThisMachine(sample, tmp_path / "home", tmp_path / "none", {})
    cell = CellNames("debian-12", "tree", "deferred", "tree")
    node = Node("tree", cell, facts, transport, {"deferred": True})
    ends = {check: trees.outcome(function, node) for check, function in CHECKS.items()}
    table = TABLES.get(name, {"kills": []})
    failed = {check for check, end in ends.items() if end[0] == "fail"}
    declared = {*table["kills"], *table.get("dependants", ())}
    # What other areas see of it is not in the tree.
    assert failed == {check for check in declared if check in ends}, ends
    assert {end[0] for end in ends.values()} <= {"pass", "fail"}, ends
