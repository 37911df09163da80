"""Who owns what: records, ledgers, and the sweep after a run that was killed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.state import MARKER, Owned, RunRecord, started_at
from harness.sweep import end_children, remove_tree, sweep


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory for each test."""
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    """A process that would outlive us."""
    return subprocess.Popen(["sleep", "300"], env={**os.environ, **environment})


def forget(record: RunRecord) -> None:
    """What the kernel does when the owner dies: the lock goes, the rest stays."""
    record._lock_file.close()


def test_a_living_run_is_not_swept() -> None:
    with RunRecord() as record:
        assert sweep().runs == []
        assert record.path.is_dir()
    assert not record.path.exists()
    assert MARKER not in os.environ


def test_a_dead_run_loses_its_processes_and_files(tmp_path: Path) -> None:
    record = RunRecord()
    registered = sleeper()
    marked = sleeper(**{MARKER: record.id})
    innocent = sleeper()
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    try:
        record.owned.process(registered.pid, "a proxy")
        record.owned.directory(elsewhere, "a tree")
        forget(record)
        swept = sweep()
        assert swept.runs == [record.id]
        assert swept.refused == []
        assert f"process {registered.pid} (a proxy)" in swept.ended
        assert registered.wait(5) < 0
        assert marked.wait(5) < 0
        assert innocent.poll() is None
        assert not elsewhere.exists()
        assert not record.path.exists()
        assert sweep().runs == []
    finally:
        for process in (registered, marked, innocent):
            process.kill()
            process.wait()


def test_a_pid_that_was_given_to_another_process_is_left_alone(tmp_path: Path) -> None:
    owned = Owned(tmp_path / "owned.jsonl")
    process = sleeper()
    try:
        owned.process(process.pid, "gone long ago")
        text = owned.path.read_text()
        owned.path.write_text(text.replace(str(started_at(process.pid)), "1"))
        assert end_children("no-such-run", owned) == []
        owned.path.write_text(text.replace('"boot": "', '"boot": "another-'))
        assert end_children("no-such-run", owned) == []
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


def test_descendants_end_with_their_parent(tmp_path: Path) -> None:
    owned = Owned(tmp_path / "owned.jsonl")
    command = ["sh", "-c", "env -i sleep 300 & echo $!; wait"]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    owned.process(parent.pid, "a shell")
    try:
        end_children("no-such-run", owned)
        parent.wait(5)
        deadline = time.monotonic() + 5
        while started_at(child) is not None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert started_at(child) is None
    finally:
        parent.kill()
        parent.stdout.close()


def test_a_torn_line_of_a_ledger_is_left_out(tmp_path: Path) -> None:
    owned = Owned(tmp_path / "owned.jsonl")
    owned.directory(tmp_path / "a", "x")
    with owned.path.open("a") as out:
        out.write('{"kind": "pa')
    assert [entry["path"] for entry in owned.entries()] == [str(tmp_path / "a")]


def test_scratch_has_room_for_a_socket_however_long_the_state_directory_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / ("long" * 30)))
    with RunRecord() as record:
        assert len(str(record.scratch)) <= 60
        (record.scratch / "file").write_text("on the state directory's disk")
        assert (record.path / "s" / "file").exists()
    assert not record.scratch.is_symlink()


def test_removing_a_tree_never_crosses_a_mount(tmp_path: Path) -> None:
    """In a mount namespace of its own; where that is not allowed there is no mount to cross."""
    tree, precious = tmp_path / "tree", tmp_path / "precious"
    (tree / "root").mkdir(parents=True)
    precious.mkdir()
    (precious / "data").write_text("keep")
    code = (
        "import sys; from pathlib import Path; from harness.sweep import remove_tree\n"
        "print(remove_tree(Path(sys.argv[1])))"
    )
    script = f"mount --bind {precious} {tree}/root && {sys.executable} -c '{code}' {tree}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    if "True" not in done.stdout:
        pytest.skip(f"no mount namespace here: {done.stderr.strip()[-200:]}")
    assert not tree.exists()
    assert (precious / "data").read_text() == "keep"


def test_removing_takes_links_sockets_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert remove_tree(tmp_path / "link")
    assert (tmp_path / "target").is_dir()
    assert remove_tree(tmp_path / "never-there")


def test_a_nursery_without_a_lock_is_swept_when_it_is_old(own_state: Path) -> None:
    nursery = own_state / "runs" / ".new-abc"
    nursery.mkdir(parents=True)
    sweep()
    assert nursery.exists()
    os.utime(nursery, (0, 0))
    sweep()
    assert not nursery.exists()


def test_a_process_lives_as_long_as_one_of_its_threads() -> None:
    """The first thread may go before the others, which hold the process's locks until they end."""
    number = {"x86_64": 60, "aarch64": 93}[platform.machine()]  # exit(2): of one thread alone
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(300,)).start()\n"
        f"ctypes.CDLL(None).syscall({number}, 0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as process:
        deadline = time.monotonic() + 20
        while ") Z" not in Path(f"/proc/{process.pid}/stat").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert started_at(process.pid) is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert started_at(process.pid) is None
