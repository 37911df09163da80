"""Whatever way a matrix is divided, its shards merged are the whole."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import merge as merging
from reports.division import Division
from reports.errors import ReportError
from reports.gate import Terms, judge
from reports.merge import Merge, find_reports, merge
from reports.model import Cell, HostMachine, Inherited, Report, Shard
from reports.policy import EvidenceRules, Policy
from reports.read import REPORT_NAME, read_report
from reports.summary import build_report
from reports.write import encode_report
from tests.unit.reports.sample import (
    STARTED,
    error_cell,
    failing_cell,
    make_cell,
    make_run,
    mixed_report,
    refused_cell,
)

KINDS = [make_cell, failing_cell, refused_cell, error_cell]


def cells_of(kinds: Sequence[int]) -> list[Cell]:
    """Cells of these kinds, each with a name of its own."""
    return [KINDS[kind](f"image-{at}+proxy+gpu") for at, kind in enumerate(kinds)]


def shards(cells: Sequence[Cell], owner: Sequence[int], **changes: Any) -> list[Report]:
    """The report of each shard; ``owner`` says which, from one, has each cell."""
    count = max(owner)
    division = Division(count)
    for cell, whose in zip(cells, owner, strict=True):
        division.add(whose, cell.provider, cell.expected, cell.id)
    made = []
    for index in range(1, count + 1):
        positions = [at for at, whose in enumerate(owner) if whose == index]
        run = make_run(
            id=f"run-{index}",
            started=STARTED + timedelta(minutes=index),
            finished=STARTED + timedelta(minutes=20 + index),
            shard=Shard(
                index=index,
                count=count,
                total=len(cells),
                positions=positions,
                division=division.hexdigest(),
            ),
            **changes,
        )
        made.append(build_report(run, [cells[at] for at in positions]))
    return made


def changed(report: Report, **changes: Any) -> Report:
    """The same with another run."""
    return build_report(msgspec.structs.replace(report.run, **changes), report.cells)


def cut_off(report: Report, name: str, minutes: int = 0) -> Report:
    """A run of the same shard that began so long before it, and was cut off."""
    run = msgspec.structs.replace(
        report.run,
        id=name,
        finished=None,
        started=report.run.started - timedelta(minutes=minutes),
    )
    return build_report(run, report.cells)


def written(folder: Path, reports: Sequence[Report]) -> list[Path]:
    """Their files, in directories as runs have them."""
    files = [folder / f"{at}-{part.run.id}" / REPORT_NAME for at, part in enumerate(reports)]
    for file, report in zip(files, reports, strict=True):
        file.parent.mkdir(parents=True)
        # Not as a run writes them: that waits for the disk, here hundreds of times.
        file.write_bytes(encode_report(report))
    return files


def merged(folder: Path, files: Sequence[Path]) -> tuple[Report, Merge]:
    home = folder / "home"
    said = merge(files, "merged", folder / "made", home)
    return read_report(folder / "made"), said


@settings(max_examples=25)
@given(data=st.data())
def test_merging_any_partition_is_the_whole(data: st.DataObject) -> None:
    cells = cells_of(data.draw(st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=12)))
    count = data.draw(st.integers(1, len(cells)))
    # Every shard has a cell; who has the others is left to chance, and so is the order.
    rest = st.integers(1, count)
    owner = [*range(1, count + 1), *(data.draw(rest) for _ in cells[count:])]
    owner = data.draw(st.permutations(owner))
    parts = shards(cells, owner)
    again = data.draw(st.sets(st.sampled_from(range(count))))
    given = [*parts, *(cut_off(parts[at], f"killed-{at}", 5) for at in again)]
    given = data.draw(st.permutations(given))
    with tempfile.TemporaryDirectory() as folder:
        report, said = merged(Path(folder), written(Path(folder), given))
    whole = build_report(report.run, cells)
    assert report == whole
    assert (report.summary, report.run) == (said.summary, said.run)
    assert [part.run for part in report.run.merged] == [f"run-{at + 1}" for at in range(count)]
    assert {part.shard - 1: part.instead_of for part in report.run.merged} == {
        at: [f"killed-{at}"] if at in again else [] for at in range(count)
    }


def test_it_is_byte_for_byte_what_a_run_would_have_written(tmp_path: Path) -> None:
    cells = mixed_report().cells
    report, _ = merged(tmp_path, written(tmp_path, shards(cells, [1, 2, 3, 2, 1, 3])))
    assert (tmp_path / "made/report.json").read_bytes() == encode_report(
        build_report(report.run, cells)
    )


def test_provenance_names_the_runs_and_what_they_have_in_common(tmp_path: Path) -> None:
    parts = shards(cells_of([0, 1, 2]), [1, 2, 3])
    parts[1] = changed(parts[1], host=HostMachine(name="other", os="Debian 12", cpus=2))
    parts[2] = changed(parts[2], pyz_sha256="00" * 32)
    files = written(tmp_path, parts)
    run = merged(tmp_path, files)[0].run
    assert (run.host.name, run.host.os, run.host.cpus) == ("", "Debian 12", 2)
    assert (run.id, run.shard, run.pyz_sha256) == ("merged", None, "")
    assert run.started == STARTED + timedelta(minutes=1)
    assert run.finished == STARTED + timedelta(minutes=23)
    assert [part.report_sha256 for part in run.merged] == [
        hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    ]
    assert run.merged[1].host.name == "other"


def test_a_link_to_an_earlier_run_leads_there_from_the_new_place(tmp_path: Path) -> None:
    inherited = Inherited(run="old", finished=STARTED, report="../old")
    cells = [make_cell(inherited=inherited), failing_cell()]
    files = written(tmp_path / "here", shards(cells, [1, 2]))
    merge(files, "merged", tmp_path / "made", tmp_path / "out/runs/merged")
    found = read_report(tmp_path / "made").cells[0].inherited
    assert found
    assert found.report == "../../../here/old"


def test_a_directory_of_runs_and_a_run_that_is_named_twice(tmp_path: Path) -> None:
    files = written(tmp_path / "shards/a", shards(cells_of([0, 1]), [1, 2]))
    (tmp_path / "shards/a/latest").symlink_to(files[1].parent.name)
    (tmp_path / "shards/a/killed").mkdir()
    assert find_reports([tmp_path / "shards"]) == files
    assert find_reports([tmp_path / "shards/a", str(files[0])]) == [*files, files[0]]
    report, _ = merged(tmp_path, find_reports([tmp_path / "shards", files[0].parent]))
    assert len(report.cells) == 2


def test_the_gate_does_not_take_a_shard_for_the_whole() -> None:
    part = shards([make_cell(), refused_cell()], [1, 2])[0]
    assert judge(part).verdict == "pass"
    judgement = judge(part, Terms(whole=True))
    assert judgement.verdict == "error"
    assert "shard 1 of 2" in judgement.findings[0].message


def test_the_oldest_shard_decides_how_fresh_a_merged_report_is(tmp_path: Path) -> None:
    parts = shards([make_cell(), refused_cell()], [1, 2])
    ended = STARTED + timedelta(hours=30)
    parts[1] = changed(parts[1], finished=ended)
    report, _ = merged(tmp_path, written(tmp_path, parts))
    policy = Policy(evidence=EvidenceRules(max_age_hours=24))
    assert judge(report, Terms(policy, now=ended)).verdict == "error"
    fresh = Policy(evidence=EvidenceRules(max_age_hours=48))
    assert judge(report, Terms(fresh, now=ended)).verdict == "pass"


def _edited(file: Path, **changes: Any) -> Path:
    """A report whose shard says something else."""
    data = json.loads(file.read_text())
    data["run"]["shard"].update(changes)
    file.write_text(json.dumps(data))
    return file


def test_refusals(tmp_path: Path) -> None:
    """What does not make a whole is refused in these words, and nothing is written."""
    good = shards(cells_of([0, 1, 2, 3]), [1, 2, 1, 2])
    one, two = good
    other = shards(cells_of([0, 1, 2, 3]), [1, 2, 2, 1])[1]
    more = shards(cells_of([0, 1, 2, 3]), [1, 2, 3, 2])[1]
    cases: dict[str, Sequence[Report]] = {
        "of 2 shards there is no 2": [one],
        "shard 2/2 was cut off: ": [one, cut_off(two, "killed")],
        "shard 2/2 was run again although it was whole": [one, two, changed(two, id="again")],
        "run again although": [cut_off(one, "later", -5), *good],
        "are not of one division": [one, other],
        "not of one division": [one, more],
        "is no shard": [one, changed(two, shard=None)],
        "was made by Airlock 9.9.9": [one, changed(two, airlock_version="9.9.9")],
        "are of one run and differ": [one, two, changed(two, matrix="else.toml")],
    }
    for at, (says, reports) in enumerate(cases.items()):
        folder = tmp_path / str(at)
        with pytest.raises(ReportError, match=re.escape(says)):
            merged(folder, written(folder, reports))
        assert not (folder / "made/report.json").exists()


@pytest.mark.parametrize(
    ("says", "changes"),
    [
        ("its positions are no part of its matrix", {"positions": [3, 1]}),
        ("its positions are no part of its matrix", {"positions": [1, 9]}),
        ("have the same cell", {"positions": [0, 1]}),
        ("no shard has the cell number 4 of 4", {"positions": [1]}),
        ("are not those that were divided", {}),
        ("it says that it is shard 3/2", {"index": 3}),
    ],
)
def test_shards_that_contradict_themselves(
    tmp_path: Path, says: str, changes: dict[str, Any]
) -> None:
    files = written(tmp_path, shards(cells_of([0, 1, 2, 3]), [1, 2, 1, 2]))
    if not changes:
        data = files[1].read_text()
        files[1].write_text(data.replace('"provider":"qemu"', '"provider":"gce"'))
    _edited(files[1], **changes)
    with pytest.raises(ReportError, match=says):
        merged(tmp_path, files)
    assert not (tmp_path / "made/report.json").exists()


def test_more_or_fewer_cells_than_a_shard_says(tmp_path: Path) -> None:
    cells = cells_of([0, 1, 0, 1])
    one, two = shards(cells, [1, 2, 1, 2])
    for at, wrong in enumerate((cells[1:2], [cells[1], cells[3], make_cell()])):
        folder = tmp_path / str(at)
        with pytest.raises(ReportError, match="it has not the cells that its shard says"):
            merged(folder, written(folder, [one, build_report(two.run, wrong)]))


def test_one_cell_in_two_shards(tmp_path: Path) -> None:
    one, two = shards(cells_of([0, 0]), [1, 2])
    with pytest.raises(ReportError, match="of another shard"):
        merged(tmp_path, written(tmp_path, [one, build_report(two.run, one.cells)]))


def test_what_was_edited_is_refused_at_its_end(tmp_path: Path) -> None:
    files = written(tmp_path, shards(cells_of([0, 0]), [1, 2]))
    files[1].write_text(files[1].read_text().replace('"outcome":"pass"', '"outcome":"skip"', 1))
    with pytest.raises(ReportError, match="was edited: its summary says"):
        merged(tmp_path, files)
    assert not (tmp_path / "made/report.json").exists()


def test_a_whole_that_nobody_could_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = written(tmp_path, shards(cells_of([0, 0]), [1, 2]))
    monkeypatch.setattr(merging, "SIZE_LIMIT", sum(file.stat().st_size for file in files) // 2)
    with pytest.raises(ReportError, match="the limit"):
        merged(tmp_path, files)


def test_a_merged_report_is_not_merged_again(tmp_path: Path) -> None:
    merged(tmp_path, written(tmp_path, shards(cells_of([0, 1]), [1, 2])))
    with pytest.raises(ReportError, match="is merged already"):
        merged(tmp_path / "again", [tmp_path / "made/report.json"])
