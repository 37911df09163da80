"""One builder among many, also when the builder is killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.storage import Storage
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.lease import MISSED, Lease
from installers.cache.manifest import Manifest
from installers.cache.store import Content, Store, lease_name
from tests.unit.installers_cache import racer
from tests.unit.installers_cache.conftest import BUCKET

KEY = "a" * 64


def start(folder: Path, url: str, marks: Path, seconds: float) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", racer.__name__, str(folder), url, str(marks), str(seconds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def until(condition: Any, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("shared", [True, False], ids=["gs", "file"])
def test_B15_B16_twenty_processes_race_and_one_builds(tmp_path: Path, shared: bool) -> None:
    """B15: the lock had no precondition. B16: only some hosts ever waited."""
    marks = tmp_path / "marks"
    with Storage(BUCKET) as storage:
        racers = [
            start(tmp_path / (str(n) if shared else "one"), storage.url if shared else "", marks, 1)
            for n in range(20)
        ]
        said = [process.communicate(timeout=60) for process in racers]
        assert [process.returncode for process in racers] == [0] * 20, said
        assert len(marks.read_text().splitlines()) == 1
        assert [out.strip() for out, _ in said].count("built") == 1
        if shared:
            assert not [name for name in storage.names(BUCKET) if "/leases/" in name]
        else:
            assert not list((tmp_path / "one" / "leases").glob("[!.]*"))


@pytest.mark.parametrize("cores", [1, 4, 8, 32, 96])
def test_B16_B17_every_host_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    """B16: only hosts named test waited. B17: cores were compared as texts, so 4 and 8 did not."""
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(socket, "gethostname", lambda: "production-m")
    local = FileStore(tmp_path)
    builder, waiter = Cache([local], local), Cache([local], local, every=0.1)
    lease = Lease(local, Manifest("x", {}, {}).key, every=0.05)
    assert lease.acquire()
    built: list[int] = []
    hits: list[str | None] = []

    def build() -> tuple[dict[str, Content], dict[str, Any]]:
        built.append(cores)
        return {"a": b"a"}, {}

    thread = threading.Thread(target=lambda: hits.append(waiter.obtain("x", {}, build).hit))
    thread.start()
    time.sleep(0.3)
    assert not hits
    builder.put("x", {}, {"a": b"a"}, {})
    lease.release()
    thread.join(timeout=20)
    assert (built, hits) == ([], [local.url])


def test_a_killed_builder_is_replaced(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    with Storage(BUCKET) as storage:
        dead = start(tmp_path / "a", storage.url, marks, 60)
        until(marks.exists)
        dead.kill()
        dead.communicate()
        assert [name for name in storage.names(BUCKET) if "/leases/" in name]
        others = [start(tmp_path / str(n), storage.url, marks, 0.2) for n in range(3)]
        said = [process.communicate(timeout=60)[0].strip() for process in others]
        assert sorted(said)[0] == "built"
        assert said.count("built") == 1
        assert len(marks.read_text().splitlines()) == 2


def test_a_slow_builder_is_not_replaced(store: Store) -> None:
    mine, other = Lease(store, KEY, every=0.05), Lease(store, KEY, every=0.05)
    assert mine.acquire()
    end = time.monotonic() + 3 * MISSED * 0.05
    while time.monotonic() < end:
        assert not other.acquire()
        time.sleep(0.02)
    assert mine.held
    mine.release()
    assert other.acquire()
    other.release()
    assert store.read(lease_name(KEY)) is None


def test_only_ones_own_lease_is_released(store: Store) -> None:
    mine, other = Lease(store, KEY, every=60), Lease(store, KEY, every=0.05)
    assert mine.acquire()
    until(other.acquire, 5)  # ours never beats, so it is taken over
    mine.release()
    blob = store.read(lease_name(KEY))
    assert blob is not None
    assert other.owner.encode() in blob.data
    other.release()


def test_a_takeover_has_one_winner(store: Store) -> None:
    store.create(lease_name(KEY), b"somebody who is dead")
    leases = [Lease(store, KEY, every=0.1) for _ in range(6)]
    won: list[Lease] = []
    stop = time.monotonic() + 1.2

    def wait(lease: Lease) -> None:
        while time.monotonic() < stop:
            if lease.acquire():
                won.append(lease)
                return
            time.sleep(0.02)

    threads = [threading.Thread(target=wait, args=(lease,)) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert won[0].held
    won[0].release()


def test_nobody_is_waited_for_for_ever(tmp_path: Path) -> None:
    """A builder that hangs, or somebody who keeps a lease alive to stop all others."""
    local = FileStore(tmp_path)
    said: list[str] = []
    cache = Cache([local], local, say=said.append, every=0.1, longest_wait=0.5)
    hanging = Lease(local, Manifest("x", {}, {}).key, every=0.1)
    assert hanging.acquire()
    entry = cache.obtain("x", {}, lambda: ({"a": b"a"}, {}))
    assert entry.read("a") == b"a"
    assert any("too long" in text for text in said)
    assert hanging.held
    hanging.release()


def test_a_lost_heartbeat_is_noticed(storage: Storage, bucket: Store) -> None:
    mine = Lease(bucket, KEY, every=0.05)
    assert mine.acquire()
    storage.fail("POST", "upload", status=503, lose=True)
    time.sleep(0.6)
    assert mine.held  # the heartbeat was written, only its answer got lost
    storage.put(BUCKET, f"airlock-cache/{lease_name(KEY)}", b"taken over")
    until(lambda: not mine.held, 5)
    mine.release()
    assert storage.get(BUCKET, f"airlock-cache/{lease_name(KEY)}").data == b"taken over"
