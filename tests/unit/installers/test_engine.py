# ruff: noqa: ARG002 - overrides keep the names of the base class
"""The engine: values are compared, refusals come first, a kill at any write is survived."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from installers.config import Config
from installers.engine import Change, Contract, Engine, Installer, Problem, Refusal, diff
from installers.errors import NodeError, UnreachableError
from installers.exits import Exit
from installers.host import Host
from installers.journal import Journal, Log, read_journal, read_state, recall, remember

REPOSITORY = Path(__file__).parents[3]


class Files(Installer):
    """A real installer of two files; what it lacks is set by the tests."""

    name = "files"
    wanted = {"/a": "1", "/b": "2"}  # noqa: RUF012 - read only

    def inspect(self, host: Host) -> dict[str, Any]:
        found = {path: host.read(path) for path in self.wanted}
        return {path: text for path, text in found.items() if text is not None}

    def desired(self, host: Host) -> dict[str, Any]:
        return dict(self.wanted)

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        for change in changes:
            with log.step(f"write {change.key}"):
                host.write(change.key, change.after)

    def remove(self, host: Host) -> None:
        for path in self.wanted:
            host.remove(path)


def engine(root: Path, *installers: type[Installer]) -> Engine:
    return Engine(Host(root), [one(Config()) for one in installers])


def test_diff_is_by_value_and_shows_what_goes() -> None:
    assert diff({"a": 1, "old": 2}, {"a": 2, "new": [3]}) == [
        Change("a", 1, 2),
        Change("new", None, [3]),
        Change("old", 2, None),
    ]
    assert diff({"a": {"x": [1]}}, {"a": {"x": [1]}}) == []


def test_second_apply_changes_nothing(tmp_path: Path) -> None:
    first = engine(tmp_path, Files).apply()
    assert (first.exit, first.installers[0].outcome) == (Exit.PASS, "ok")
    before = (tmp_path / "a").stat().st_mtime_ns
    second = engine(tmp_path, Files).apply()
    assert (second.exit, second.installers[0].outcome) == (Exit.PASS, "unchanged")
    assert second.installers[0].changes == []
    assert (tmp_path / "a").stat().st_mtime_ns == before


def test_plan_touches_nothing(tmp_path: Path) -> None:
    summary = engine(tmp_path, Files).plan()
    assert [change.key for change in summary.installers[0].changes] == ["/a", "/b"]
    assert list(tmp_path.iterdir()) == []


def test_stale_value_is_replaced_and_remove_undoes(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("stale")
    assert engine(tmp_path, Files).apply().installers[0].changes[0] == Change("/a", "stale", "1")
    summary = engine(tmp_path, Files).remove()
    assert summary.exit == Exit.PASS
    assert not (tmp_path / "a").exists()
    assert read_state(Host(tmp_path))["installers"] == {}


def test_refusal_comes_before_any_other_installer(tmp_path: Path) -> None:
    class Refuses(Files):
        name = "refuses"

        def refuse(self, host: Host) -> list[Refusal]:
            return [Refusal("kernel.db", "its kernel does not trust db keys", "use debian-12")]

    summary = engine(tmp_path, Files, Refuses).apply()
    assert summary.exit == Exit.FAIL
    assert [(o.name, o.outcome) for o in summary.installers] == [("refuses", "refused")]
    assert summary.not_run == ["files"]
    assert not (tmp_path / "a").exists()
    assert read_journal(Host(tmp_path))[-1]["code"] == "kernel.db"


def test_space_is_checked_per_file_system(tmp_path: Path) -> None:
    class Large(Files):
        def contract(self, host: Host) -> Contract:
            half = host.free("/") // 2 + (1 << 20)
            return Contract(disk={"/usr/src": half, "/var/cache": half})

    summary = engine(tmp_path, Large).apply()
    assert summary.installers[0].refusals[0].code == "disk.space"
    assert "/usr/src, /var/cache" in summary.installers[0].refusals[0].reason
    assert not (tmp_path / "a").exists()


def test_failure_stops_and_names_what_did_not_run(tmp_path: Path) -> None:
    class Fails(Files):
        name = "fails"

        def apply(self, host: Host, changes: list[Change], log: Log) -> None:
            raise UnreachableError("does not answer", where="proxy:1", remedy="check it")

    summary = engine(tmp_path, Fails, Files).apply()
    assert summary.exit == Exit.UNKNOWN
    assert summary.not_run == ["files"]
    outcome = summary.installers[0]
    assert (outcome.outcome, outcome.problems) == (
        "failed",
        [Problem("proxy:1: does not answer", "check it")],
    )
    assert read_journal(Host(tmp_path))[-1]["event"] == "fail"


def test_done_is_what_verify_says(tmp_path: Path) -> None:
    class Lies(Files):
        def apply(self, host: Host, changes: list[Change], log: Log) -> None:
            log("wrote nothing and exited 0")

    summary = engine(tmp_path, Lies).apply()
    assert summary.exit == Exit.FAIL
    assert summary.installers[0].outcome == "failed"
    assert "/a is None, not '1'" in summary.installers[0].problems[0].what


def test_verify_problem_makes_an_unchanged_node_apply_again(tmp_path: Path) -> None:
    class Verifies(Files):
        def verify(self, host: Host) -> list[Problem]:
            return [] if host.exists("/mended") else [Problem("not mended", "mend it")]

        def apply(self, host: Host, changes: list[Change], log: Log) -> None:
            super().apply(host, changes, log)
            host.write("/mended", "")

    engine(tmp_path, Files).apply()
    # The same state as the one that was verified: programs are asked by verify alone.
    assert engine(tmp_path, Verifies).apply().installers[0].outcome == "unchanged"
    assert engine(tmp_path, Verifies).verify().exit == Exit.FAIL
    assert engine(tmp_path, Verifies).apply().installers[0].outcome == "ok"
    assert engine(tmp_path, Verifies).apply().installers[0].outcome == "unchanged"
    assert engine(tmp_path, Verifies).verify().exit == Exit.PASS


def test_a_failed_apply_records_nothing_as_verified(tmp_path: Path) -> None:
    class Verifies(Files):
        right = False

        def verify(self, host: Host) -> list[Problem]:
            return [] if self.right else [Problem("not right", "mend it")]

    assert engine(tmp_path, Verifies).apply().exit == Exit.FAIL
    assert engine(tmp_path, Verifies).apply().exit == Exit.FAIL
    Verifies.right = True
    assert engine(tmp_path, Verifies).apply().exit == Exit.PASS


def test_defect_of_ours_is_not_the_nodes_fault(tmp_path: Path) -> None:
    class Broken(Files):
        def inspect(self, host: Host) -> dict[str, Any]:
            raise KeyError("oops")

    summary = engine(tmp_path, Broken).apply()
    assert summary.exit == Exit.UNKNOWN
    assert "KeyError at test_engine.py:" in summary.installers[0].problems[0].what


def test_secrets_are_redacted_in_summary_journal_and_state(tmp_path: Path) -> None:
    class Secret(Files):
        wanted = {"/a": "http://bob:c%40nary-1@h:1 c@nary-1"}  # noqa: RUF012

        def provenance(self, host: Host) -> dict[str, Any]:
            return {"url": host.read("/a")}

    host = Host(tmp_path)
    host.hide(["c@nary-1"])
    summary = Engine(host, [Secret(Config())]).apply()
    state = (tmp_path / "var/lib/airlock/state.json").read_text()
    journal = (tmp_path / "var/lib/airlock/journal.jsonl").read_text()
    for text in (json.dumps(summary.as_json(host)), state, journal):
        assert "nary-1" not in text
        assert "http://***@h:1" in text


def test_change_of_a_secret_alone_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("http://bob:old@h:1")

    class Secret(Files):
        wanted = {"/a": "http://bob:new@h:1"}  # noqa: RUF012

    host = Host(tmp_path)
    shown = Engine(host, [Secret(Config())]).plan().as_json(host)["installers"][0]["changes"]
    assert shown == [
        {
            "key": "/a",
            "before": "http://***@h:1",
            "after": "http://***@h:1",
            "note": "only a secret differs",
        }
    ]


def test_half_a_journal_line_is_survived(tmp_path: Path) -> None:
    host = Host(tmp_path)
    journal = Journal(host)
    journal.write("x", "one", "end")
    path = tmp_path / "var/lib/airlock/journal.jsonl"
    with path.open("a") as stream:
        stream.write('{"t": 1, "inst')
    journal.write("x", "two", "end")
    assert [line["step"] for line in read_journal(host)] == ["one", "two"]


def test_memory_is_kept_beside_outcomes(tmp_path: Path) -> None:
    host = Host(tmp_path)
    remember(host, "files", {"k": 1})
    engine(tmp_path, Files).apply()
    assert recall(host, "files") == {"k": 1}
    remember(host, "files", {})
    assert recall(host, "files") == {}
    assert read_state(host)["installers"]["files"]["outcome"] == "ok"


def test_state_that_is_damaged_is_replaced(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("/var/lib/airlock/state.json", "{torn")
    assert engine(tmp_path, Files).apply().exit == Exit.PASS


# Runs the real command line; dies by SIGKILL at the n-th fsync: of a journal line, of a file before
# it takes its place, or of a directory after.
KILLED = """
import os, signal, sys
from installers import cli
left, real = int(sys.argv[1]), os.fsync
def fsync(descriptor):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)
os.fsync = fsync
sys.exit(cli.main(sys.argv[2:]))
"""


def apply_until(root: Path, metadata: Path, writes: int) -> int:
    command = f"apply --root={root} --only=proxy --metadata={metadata} --json"
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(writes), *shlex.split(command)],
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        check=False,
    ).returncode


def tree(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): str(path.readlink()) if path.is_symlink() else path.read_text()
        for path in sorted(root.rglob("*"))
        if (path.is_symlink() or path.is_file()) and "var/lib/airlock" not in str(path)
    }


def begun(folder: Path) -> tuple[Path, Path]:
    """A root with files of others, and metadata that names a proxy."""
    metadata = folder / "metadata.json"
    attributes = {"http-proxy": "http://bob:c%40nary@10.0.2.100:3128"}
    metadata.write_text(json.dumps({"instance": {"attributes": attributes}}))
    root = folder / "root"
    (root / "etc/apt").mkdir(parents=True)
    (root / "etc/environment").write_text("LANG=C\n")
    return root, metadata


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run leaves that nobody interrupts."""
    root, metadata = begun(tmp_path_factory.mktemp("whole"))
    assert apply_until(root, metadata, 10_000) == 0
    return tree(root)


@pytest.mark.parametrize("writes", [0, 1, 2, 4, 7, 12, 19, 30, 40])
def test_kill_between_any_two_writes_then_rerun_converges(
    tmp_path: Path, whole: dict[str, str], writes: int
) -> None:
    torn, metadata = begun(tmp_path)
    assert apply_until(torn, metadata, writes) == -signal.SIGKILL
    assert apply_until(torn, metadata, 10_000) == 0
    assert tree(torn) == whole
    events = [line["event"] for line in read_journal(Host(torn)) if line["step"] == "apply"]
    assert events[-1] == "end"


def test_error_text_has_place_and_remedy() -> None:
    error = NodeError("is wrong", where="/etc/x", remedy="mend it")
    assert str(error) == "/etc/x: is wrong; mend it"


def test_a_failed_apply_says_what_is_half_done_and_the_next_one_converges(tmp_path: Path) -> None:
    class Writes(Files):
        def inspect(self, host: Host) -> dict[str, Any]:
            return super().inspect(host) if host.path("/b").is_file() else {}

    (tmp_path / "b").mkdir()
    failed = engine(tmp_path, Writes).apply()
    first, second = failed.installers[0].problems
    assert first == Problem("/b: is a directory", "move it away")
    assert second.what == "half done; in place are: write /a"
    assert "apply again" in second.remedy
    assert (tmp_path / "a").read_text() == "1"
    (tmp_path / "b").rmdir()
    assert engine(tmp_path, Writes).apply().exit == Exit.PASS
    assert tree(tmp_path) == {"a": "1", "b": "2"}
