"""What cells require, what providers offer, and the plan that follows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.catalog import load_catalog
from harness.cells import Cell
from harness.durations import in_turn
from harness.errors import UsageError
from harness.matrix import load_matrix
from harness.plan import Planned, critical_path
from harness.providers.fake import Fake
from harness.requirements import Offer, Requirements, unmet
from tests.unit.core.workbench import AUTH, Bench

MATRIX = """
[matrix]
images = ["debian-12"]
scenarios = ["proxy"]
profiles = ["driver"]
provider = "fake"
inherit = true

[requirements]
features = ["gpu"]
min_disk_mb = 20480
"""


class Small(Fake):
    """A provider that offers little."""

    name = "small"

    def offers(self) -> Offer:
        return Offer(frozenset({"console"}), frozenset({"aarch64"}), 10_000, 1_000)


def cells_of(path: Path, text: str = MATRIX) -> list[Cell]:
    """The cells of a matrix file with this text."""
    file = path / "matrix.toml"
    file.write_text(text)
    return load_matrix(file, load_catalog())


def test_a_provider_says_all_that_it_lacks(tmp_path: Path) -> None:
    (cell,) = cells_of(tmp_path)
    assert cell.inherit
    assert unmet(cell, Small()) == [
        "it needs a GPU (gpu), which small does not offer",
        "it needs Secure Boot with keys of ours (secure-boot), which small does not offer",
        "it needs x86_64, and small makes aarch64 here",
        "it needs 20480 MiB of disk, and small has 10000 here",
        f"it needs {cell.image.memory_mb} MiB of memory, and small has 1000 here",
    ]
    assert unmet(cell, Fake()) == []


def test_requirements_add_up(tmp_path: Path) -> None:
    (cell,) = cells_of(tmp_path)
    picky = replace(cell.profile, requires=Requirements(arch=frozenset({"x86_64", "aarch64"})))
    assert unmet(replace(cell, profile=picky), Fake()) == []
    one, other = Requirements(arch=frozenset({"a"})), Requirements(arch=frozenset({"b"}))
    assert (one | other).arch == {"none"}, "nothing is both"
    assert (one | Requirements(min_disk_mb=5) | Requirements(min_disk_mb=3)).min_disk_mb == 5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ('features = ["gpus"]', r"\[requirements\]: unknown feature 'gpus'"),
        ("disk = 5", r"\[requirements\]: unknown key 'disk'"),
        ('min_disk_mb = "5"', "must be a number of MiB"),
        ('arch = "x86_64"', "must be a list of names"),
    ],
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, wrong: str, words: str) -> None:
    head, _, _ = MATRIX.partition("features =")
    text = head + wrong
    with pytest.raises(UsageError, match=rf"matrix.toml:9: .*{words}"):
        cells_of(tmp_path, text)


def test_a_cell_that_cannot_run_here_says_why_in_plan_and_report(bench: Bench) -> None:
    matrix = bench.path / "m.toml"
    matrix.write_text(MATRIX.replace('provider = "fake"', 'provider = "qemu"'))
    process = bench.start("plan", str(matrix), "--json")
    planned = json.loads(process.communicate(timeout=60)[0])
    assert planned[0]["will"] == "not-run"
    assert "it needs a GPU (gpu), which qemu does not offer" in planned[0]["why"]
    process = bench.start("run", str(matrix), "--checks", str(bench.checks))
    process.communicate(timeout=60)
    assert process.returncode == 4
    (cell,) = bench.report().cells
    assert cell.verdict == "not-run"
    assert "it needs a GPU (gpu), which qemu does not offer" in cell.reason


def planned(*minutes: float) -> list[Planned]:
    """Cells a, b, c ... that take so long."""
    fixed: dict[str, Any] = {"provider": "fake", "expected": "pass", "why": "", "remedy": ""}
    names = "abcdefgh"
    return [
        Planned(cell=names[nth], image="a", will="run", minutes=each, memory_mb=1, **fixed)
        for nth, each in enumerate(minutes)
    ]


def test_the_longest_begins_first_and_each_image_before_another_again() -> None:
    assert in_turn([("a", 1), ("a", 5), ("a", 3)]) == [1, 2, 0]
    assert in_turn([("a", 6), ("b", 6), ("a", 8), ("c", 0)]) == [2, 1, 3, 0]
    assert in_turn([]) == []


def test_the_critical_path_is_the_chain_of_the_worker_that_ends_last() -> None:
    cells = planned(1, 5, 1, 1)
    assert critical_path(cells, 1) == (8, ["b", "a", "c", "d"])
    assert critical_path(cells, 2) == (5, ["b"])
    assert critical_path(planned(2, 1, 4), 2) == (4, ["c"])
    assert critical_path([], 2)[0] == 0


def test_minutes_are_measured_once_a_cell_has_run(bench: Bench) -> None:
    words = ("plan", "--provider", "fake", "--scenario", "proxy-auth+rebooted", "-n", "2")
    before, _ = bench.start(*words).communicate(timeout=60)
    assert "~ is the provider's estimate" in before
    assert bench.run("--scenario", "proxy-auth+rebooted", SLOW_CHECK="2")[0] == 0
    after, _ = bench.start(*words).communicate(timeout=60)
    assert "~" not in after
    assert f"critical path: {AUTH}" in after
    entry = json.loads(bench.start(*words, "--json").communicate(timeout=60)[0])[0]
    assert entry["source"] == "measured"
    assert entry["minutes"] >= 0.03
