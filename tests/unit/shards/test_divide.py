"""Who has which cell: every cell once, the same wherever it is asked, and evenly."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import durations
from harness.catalog import load_catalog
from harness.cells import Cell, Expected
from harness.cli import main
from harness.durations import read_durations, remember
from harness.matrix import find_matrix, load_matrix
from harness.shards import divide, shard_of, weights
from reports.summary import build_report
from reports.write import write_report
from tests.unit.reports.sample import (
    error_cell,
    failing_cell,
    make_cell,
    make_check,
    make_run,
    refused_cell,
)

CATALOG = load_catalog()


def cells_of(count: int, expected: Expected = Expected.PASS) -> list[Cell]:
    """Cells of as many images as that."""
    image = CATALOG.images["debian-12"]
    scenario = CATALOG.scenario("proxy-intercept")
    profile = CATALOG.profiles["full"]
    return [
        Cell(replace(image, name=f"image-{at}"), scenario, profile, "qemu", expected)
        for at in range(count)
    ]


def took(cells: Sequence[Cell], seconds: Sequence[float]) -> Mapping[tuple[str, str], float]:
    return {(cell.provider, cell.id): each for cell, each in zip(cells, seconds, strict=False)}


@given(
    seconds=st.lists(st.floats(0, 10_000), min_size=1, max_size=40),
    count=st.integers(1, 12),
    refused=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_every_cell_has_one_shard_wherever_it_stands(
    seconds: list[float], count: int, refused: int, seed: int
) -> None:
    cells = [*cells_of(len(seconds)), *cells_of(60, Expected.REFUSED)[60 - refused :]]
    count = min(count, len(cells))
    known = took(cells, seconds)
    parts = [shard_of(cells, index, count, known) for index in range(1, count + 1)]
    assert Counter(cell.id for part, _ in parts for cell in part) == Counter(c.id for c in cells)
    assert sorted(at for _, shard in parts for at in shard.positions) == list(range(len(cells)))
    assert len({shard.division for _, shard in parts}) == 1
    for part, shard in parts:
        assert part == [cells[at] for at in shard.positions]
        assert part
    # The order of the matrix file, and of the file of durations, decides nothing.
    shuffled = random.Random(seed).sample(cells, len(cells))
    again = dict(random.Random(seed).sample(sorted(known.items()), len(known)))
    owner = dict(zip((cell.id for cell in cells), divide(cells, count, known), strict=True))
    assert [owner[cell.id] for cell in shuffled] == divide(shuffled, count, again)
    # Graham's bound: no shard has more than the mean and the longest cell.
    weight = weights(cells, known)
    loads = Counter[int]()
    for whose, each in zip(divide(cells, count, known), weight, strict=True):
        loads[whose] += each
    assert max(loads.values()) <= sum(weight) / count + max(weight)


def test_long_cells_are_spread_and_what_nobody_measured_is_taken_for_usual() -> None:
    cells = cells_of(5)
    assert weights(cells, took(cells, [600, 60, 0])) == [600_000, 60_000, 1, 60_000, 60_000]
    owner = divide(cells, 2, took(cells, [600, 60, 60, 60]))
    assert owner[0] not in owner[1:]
    assert weights(cells, {}) == [1000] * 5
    assert Counter(divide(cells, 2, {})) == Counter({1: 3, 2: 2})


def test_what_is_refused_weighs_nothing_and_is_in_one_shard() -> None:
    cells = [*cells_of(2), *cells_of(8, Expected.REFUSED)[2:]]
    assert weights(cells, took(cells, [10, 20, 99])) == [10_000, 20_000, 1, 1, 1, 1, 1, 1]
    owner = divide(cells, 2, took(cells, [20, 20]))
    assert owner[0] != owner[1]
    assert len(owner) == 8


def test_another_division_has_another_name() -> None:
    cells = cells_of(4)
    ours = shard_of(cells, 1, 2, {})[1].division
    assert ours != shard_of(cells[:3], 1, 2, {})[1].division
    assert ours != shard_of(cells, 1, 3, {})[1].division
    assert ours != shard_of(cells, 1, 2, took(cells, [100, 1, 1, 1]))[1].division
    assert ours != shard_of(cells_of(4, Expected.REFUSED), 1, 2, {})[1].division
    assert ours == shard_of(cells, 2, 2, took(cells, [5, 5, 5, 5]))[1].division


def test_durations_of_a_report_are_of_cells_that_ran(tmp_path: Path) -> None:
    cells = [make_cell(), failing_cell(), refused_cell(), error_cell()]
    write_report(build_report(make_run(), cells), tmp_path / "run")
    found = read_durations(tmp_path / "run")
    assert found == read_durations(tmp_path / "run/report.json")
    assert found == {("qemu", cell.id): durations.seconds_of(cell) for cell in cells[:2]}


def test_durations_that_were_measured_here_go_to_all_shards_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    names = [cell.id for cell in load_matrix(find_matrix(None), CATALOG)]
    assert main(["plan", "--emit", "durations"]) == 0
    assert json.loads(capsys.readouterr().out) == {}
    for seconds in (10.0, 30.0, 900.0):
        remember([make_cell(names[1], phases=[], checks=[make_check(seconds=seconds)])])
    assert main(["plan", "--emit", "durations"]) == 0
    text = capsys.readouterr().out
    assert json.loads(text) == {f"qemu/{names[1]}": [30.0]}
    (tmp_path / "d.json").write_text(text)
    # Another machine, which has measured nothing.
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "other"))
    assert read_durations(tmp_path / "d.json") == {("qemu", names[1]): 30.0}
    assert main(["plan", "--json", "--shard", "1/2", "--durations", str(tmp_path / "d.json")]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["ci", "release"])
def test_the_matrices_that_ship_can_be_divided(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every shard of them, refused cells too."""
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    cells = load_matrix(find_matrix(name), CATALOG)
    assert any(cell.expected is Expected.REFUSED for cell in cells)
    planned = []
    for index in (1, 2, 3):
        assert main(["plan", name, "--provider", "fake", "--json", "--shard", f"{index}/3"]) == 0
        planned += json.loads(capsys.readouterr().out)
    assert sorted(each["cell"] for each in planned) == sorted(cell.id for cell in cells)
    assert {e["will"] for e in planned if e["expected"] == "refused"} == {"refuse"}
    assert {e["will"] for e in planned if e["expected"] != "refused"} == {"run"}
