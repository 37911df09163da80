"""Runs of shards, one of which is killed and repeated, are the run of the whole matrix."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.cli import main
from harness.outdir import link_tree
from reports.model import Cell, Report
from reports.read import read_report
from reports.write import encode_report
from tests.unit.core.workbench import AUTH, Bench
from tests.unit.reports.sample import good_report, make_cell
from tests.unit.reports.test_merge import changed, cut_off, shards

PAGE = (Path(__file__).resolve().parents[3] / "docs/bad-input.md").read_text()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def timeless(cell: Cell) -> Any:
    """A cell without what no two runs have in common: durations, and identities of doubles."""
    data = msgspec.to_builtins(cell)
    for part in [*data["phases"], *data["checks"], *data["installers"]]:
        part["seconds"] = 0
        part.pop("started", None)
    return data


def test_four_shards_one_killed_and_repeated_are_the_whole(bench: Bench) -> None:
    status, output = bench.run("--out", "whole")
    assert status == 0, output
    whole = read_report(bench.path / "whole/latest")
    # The order is the matrix's, not the shards'.
    slow = {f"fake/{cell.id}": [at + 1.0] for at, cell in enumerate(whole.cells)}
    (bench.path / "d.json").write_bytes(msgspec.json.encode(slow))
    words = ["--durations", "d.json", "--out", "out", "--shard"]
    killed = bench.start_run(*words, "2/4", SLOW_CHECK="60")
    deadline = time.monotonic() + 120
    while not bench.slow_began.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    killed.send_signal(signal.SIGINT)
    runs = [_ended(killed, 3)]
    started = [bench.start_run(*words, f"{index}/4") for index in range(1, 5)]
    runs += [_ended(process, 0) for process in started]
    for index, name in enumerate(runs[1:], 1):
        part = bench.report(name)
        assert part.run.shard
        assert (part.run.shard.index, len(part.cells)) == (index, 1)
    merge = bench.start("merge", "out", "--out", "merged")
    output, _ = merge.communicate(timeout=240)
    assert merge.returncode == 0, output
    assert f"run {runs[2]}, instead of {runs[0]}" in output
    merged = read_report(bench.path / "merged/latest")
    assert [cell.id for cell in merged.cells] == [cell.id for cell in whole.cells]
    assert [timeless(cell) for cell in merged.cells] == [timeless(cell) for cell in whole.cells]
    assert merged.summary == whole.summary
    assert [part.run for part in merged.run.merged] == runs[1:]
    assert merged.run.host == whole.run.host
    assert _files(bench.path / "merged/latest/cells") == _files(bench.path / "whole/latest/cells")
    facts = f"cells/{AUTH}/facts.json"
    inodes = {path.stat().st_ino for path in bench.path.glob(f"out/*/{facts}")}
    assert (bench.path / "merged/latest" / facts).stat().st_ino in inodes
    for words in (["gate"], ["report"]):
        verb = bench.start(*words, "merged/latest")
        output, _ = verb.communicate(timeout=240)
        assert verb.returncode == 0, output
    assert "merged from 4 runs" in (bench.path / "merged/latest/summary.md").read_text()
    assert "merged from 4 runs" in (bench.path / "merged/latest/index.html").read_text()


def _ended(process: subprocess.Popen[str], status: int) -> str:
    """The id of a run that has ended so."""
    output, _ = process.communicate(timeout=240)
    assert process.returncode == status, output
    found = re.search(r"^report: out/(.+)/index.html$", output, re.MULTILINE)
    assert found, output
    return found[1]


def _files(place: Path) -> list[str]:
    return sorted(str(path.relative_to(place)) for path in place.rglob("*"))


def _run(folder: Path, report: Report) -> None:
    folder.mkdir(parents=True)
    (folder / "report.json").write_bytes(encode_report(report))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the rows of docs/bad-input.md name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")
    Path("text.json").write_text("seconds")
    Path("list.json").write_text("[]")
    Path("words.json").write_text('{"qemu/a": ["long"]}')
    Path("infinite.json").write_text('{"qemu/a": [Infinity]}')
    Path("empty").mkdir()
    cells = [make_cell(), make_cell("debian-13+proxy-intercept+gpu")]
    one, two = shards(cells, [1, 2])
    _run(Path("whole"), good_report())
    _run(Path("shards/1"), one)
    _run(Path("shards/2"), two)
    _run(Path("others/2"), changed(shards(cells[::-1], [1, 2])[1], id="other"))
    _run(Path("killed/2"), cut_off(two, "killed"))
    _run(Path("again/2"), changed(two, id="again"))
    Path("cut").mkdir()
    Path("cut/report.json").write_bytes(encode_report(two)[:-9])
    strange = msgspec.structs.replace(cells[1], id="../x")
    _run(Path("strange"), shards([cells[0], strange], [1, 2])[1])
    _run(Path("strange1"), shards([cells[0], strange], [1, 2])[0])
    return tmp_path


ROWS = re.findall(
    r"^\| `(.+?)` \| `(.+?)` \| (\d) \|$", PAGE.split("\n## Shards\n")[1].partition("\n#")[0], re.M
)


def test_the_rows_are_all_read() -> None:
    part = PAGE.split("\n## Shards\n")[1].partition("\n#")[0]
    assert len(ROWS) == part.count("\n|") - 2


@pytest.mark.parametrize(("words", "says", "code"), ROWS, ids=[row[0] for row in ROWS])
def test_bad_input_is_refused_in_these_words(
    place: Path, capsys: pytest.CaptureFixture[str], words: str, says: str, code: str
) -> None:
    before = sorted(place.rglob("*"))
    given = words.split()
    if "strange" in given:
        given = ["merge", "strange1", "strange"]
    assert main(given) == int(code)
    said = capsys.readouterr()
    assert says in said.err
    assert not said.out
    if "state" in os.listdir(place):  # noqa: PTH208
        pytest.fail("a refused command made a state directory")
    after = sorted(path for path in place.rglob("*") if path.name != "out")
    assert after == before


def test_capsules_are_linked_where_they_can_be(tmp_path: Path) -> None:
    source = tmp_path / "a"
    (source / "deep").mkdir(parents=True)
    (source / "deep/file").write_text("x")
    (source / "link").symlink_to("deep/file")
    os.mkfifo(source / "pipe")
    link_tree(str(source), str(tmp_path / "b"))
    assert _files(tmp_path / "b") == ["deep", "deep/file", "link"]
    assert (tmp_path / "b/deep/file").samefile(source / "deep/file")
    assert (tmp_path / "b/link").readlink() == Path("deep/file")


def test_capsules_are_copied_to_another_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("x")
    link_tree(str(tmp_path / "a"), str(tmp_path / "b"))
    assert (tmp_path / "b/file").read_text() == "x"
    assert not (tmp_path / "b/file").samefile(tmp_path / "a/file")


def test_what_could_not_be_merged_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk: nothing half done stays, and the latest is the latest that is whole."""
    from harness import merging

    assert main(["merge", "shards"]) == 0
    (made,) = (path for path in Path("out").iterdir() if path.name != "latest")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "link_tree", full)
    Path("shards/1/cells/debian-12+proxy-intercept+gpu").mkdir(parents=True)
    assert main(["merge", "shards"]) == 3
    assert "No space left" in capsys.readouterr().err
    assert sorted(path.name for path in Path("out").iterdir()) == sorted([made.name, "latest"])
    assert Path("out/latest").readlink() == Path(made.name)
    del place
