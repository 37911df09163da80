"""Downloads: in parts, resumed after cuts and kills, on disks that are full."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.storage import Storage
from installers.cache.download import Download, notes
from installers.cache.store import Fetched, StoreError, TamperedError
from installers.cache.web import CutError, Web
from tests.unit.installers_cache.conftest import BUCKET

DATA = os.urandom(1_000_000)
PART = 100_000


@pytest.fixture
def open_storage() -> Any:
    with Storage(BUCKET) as storage:
        storage.put(BUCKET, "x", DATA)
        yield storage


def download(storage: Storage, target: Path, size: int = len(DATA), **how: Any) -> Fetched:
    url = f"{storage.url}/storage/v1/b/{BUCKET}/o/x?alt=media"
    how = {"part": PART, "streams": 4, "lead": PART, **how}
    found = Download(Web(patience=1.0), url, target, size, **how).run()
    assert found.sha256 == hashlib.sha256(target.read_bytes()).hexdigest()
    return found


def ranges(storage: Storage) -> list[str]:
    return [row["range"] for row in storage.requests if row["range"]]


def test_in_parts_each_once(open_storage: Storage, tmp_path: Path) -> None:
    assert download(open_storage, tmp_path / "x").generation.isdigit()
    assert (tmp_path / "x").read_bytes() == DATA
    assert len(set(ranges(open_storage))) == len(ranges(open_storage)) == 10
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1])
def test_sizes_around_a_part(open_storage: Storage, tmp_path: Path, size: int) -> None:
    open_storage.put(BUCKET, "x", DATA[:size])
    download(open_storage, tmp_path / "x", size)
    assert (tmp_path / "x").read_bytes() == DATA[:size]


def test_the_first_parts_are_small_and_all_is_there(open_storage: Storage, tmp_path: Path) -> None:
    download(open_storage, tmp_path / "x", lead=1000)
    assert (tmp_path / "x").read_bytes() == DATA
    starts = sorted(int(text[6:].partition("-")[0]) for text in ranges(open_storage))
    assert starts[:6] == [0, 1000, 2000, 3000, 4000, 104_000]
    assert len(starts) == 4 + 10


def test_nothing_at_all(open_storage: Storage, tmp_path: Path) -> None:
    open_storage.put(BUCKET, "x", b"")
    download(open_storage, tmp_path / "x", 0)
    assert (tmp_path / "x").read_bytes() == b""


def test_a_cut_connection_goes_on_where_it_was(open_storage: Storage, tmp_path: Path) -> None:
    open_storage.fail("GET", cut=40_000, times=3)
    download(open_storage, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    starts = sorted(int(text[6:].partition("-")[0]) for text in ranges(open_storage))
    assert len(starts) == 13
    assert sum(start % PART == 40_000 for start in starts) >= 2


def test_cuts_without_progress_end(open_storage: Storage, tmp_path: Path) -> None:
    open_storage.fail("GET", cut=0, times=1000)
    with pytest.raises(CutError, match="cut off"):
        download(open_storage, tmp_path / "x")


def test_what_is_whole_is_not_fetched_again(open_storage: Storage, tmp_path: Path) -> None:
    open_storage.fail("GET", cut=0, times=1000)
    open_storage.faults[0].path = "x"
    with pytest.raises(StoreError):
        download(open_storage, tmp_path / "x", streams=1)
    open_storage.faults.clear()
    kept = notes(tmp_path / "x").read_text()
    notes(tmp_path / "x").write_text(f"{kept}0\n{3 * PART}\n")  # as a run that was killed leaves it
    with (tmp_path / "x").open("r+b") as out:
        for part in (0, 3):
            out.seek(part * PART)
            out.write(DATA[part * PART : (part + 1) * PART])
    open_storage.requests.clear()
    download(open_storage, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == DATA
    assert len(ranges(open_storage)) == 8


def test_notes_of_another_object_are_not_believed(open_storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(len(DATA)))
    for text in ("", "\xff", "0 100000 999\n0\n100000\n", "garbage"):
        notes(tmp_path / "x").write_text(text, "latin-1")
        download(open_storage, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == DATA


@pytest.mark.parametrize("size", [len(DATA) - 1, len(DATA) + 1, len(DATA) + PART])
def test_another_size_is_tampering(open_storage: Storage, tmp_path: Path, size: int) -> None:
    with pytest.raises(TamperedError):
        download(open_storage, tmp_path / "x", size)


def test_a_server_without_ranges(tmp_path: Path) -> None:
    with Storage(BUCKET, ranges=False) as storage:
        storage.put(BUCKET, "x", DATA)
        download(storage, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == DATA
        with pytest.raises(TamperedError):
            download(storage, tmp_path / "y", len(DATA) + 1)


def test_no_object(open_storage: Storage, tmp_path: Path) -> None:
    open_storage.delete(BUCKET, "x", {})
    with pytest.raises(FileNotFoundError):
        download(open_storage, tmp_path / "x")


GET = """
import sys
from pathlib import Path
from installers.cache import download
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.gcs import GcsStore
from installers.cache.web import Web

download.Download.__init__.__kwdefaults__.update(part=100_000, lead=100_000)
local = FileStore(Path(sys.argv[1]))
store = GcsStore("gs://lab-bucket", Web(patience=1.0), sys.argv[2])
def build():
    raise SystemExit(9)
found = Cache([local, store], local, unsigned=True, say=print).obtain("big", {}, build)
print(found.hit)
"""


def _publish(storage: Storage) -> None:
    from installers.cache.cache import Cache
    from installers.cache.gcs import GcsStore

    store = GcsStore("gs://lab-bucket", Web(), storage.url)
    Cache([store], None, unsigned=True).put("big", {}, {"x": DATA}, {})
    storage.requests.clear()


def test_killed_in_the_middle_of_a_download(tmp_path: Path) -> None:
    """kill -9, then again: only what is missing is fetched, and nothing half is ever used."""
    argv = [sys.executable, "-c", GET, str(tmp_path / "node")]
    with Storage(BUCKET, rate=150_000) as storage:
        _publish(storage)
        first = subprocess.Popen([*argv, storage.url])
        name = hashlib.sha256(DATA).hexdigest()
        parts = tmp_path / "node" / "objects" / f".partial-{name}.parts"
        end = time.monotonic() + 20
        while not (parts.exists() and len(parts.read_text().splitlines()) > 3):
            assert time.monotonic() < end
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
        noted = {int(line) for line in parts.read_text().splitlines()[1:]}
        assert not (tmp_path / "node" / "objects" / name).exists()
        storage.rate = None
        storage.requests.clear()
        done = subprocess.run([*argv, storage.url], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        # A request of the killed one may be served late: it was for a part that it never noted.
        fetched = {int(asked[6:].partition("-")[0]) for asked in ranges(storage)}
        assert len(noted) >= 3
        assert fetched == set(range(0, len(DATA), PART)) - noted
        assert (tmp_path / "node" / "objects" / name).read_bytes() == DATA
        assert not list((tmp_path / "node" / "objects").glob(".*"))


def test_a_resumed_download_of_rubbish_starts_again(tmp_path: Path) -> None:
    """After a power cut, parts that were noted may never have reached the disk."""
    with Storage(BUCKET) as storage:
        _publish(storage)
        name = hashlib.sha256(DATA).hexdigest()
        partial = tmp_path / "node" / "objects" / f".partial-{name}"
        partial.parent.mkdir(parents=True)
        partial.write_bytes(bytes(len(DATA)))
        starts = " ".join(map(str, range(0, len(DATA) + 1, PART)))
        notes(partial).write_text(f"{starts}\n0\n100000\n200000\n")
        argv = [sys.executable, "-c", GET, str(tmp_path / "node"), storage.url]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        assert not [name for name in storage.names(BUCKET) if "quarantine" in name]


def test_several_processes_fetch_an_object_once(tmp_path: Path) -> None:
    with Storage(BUCKET, rate=2_000_000) as storage:
        _publish(storage)
        argv = [sys.executable, "-c", GET, str(tmp_path / "node"), storage.url]
        running = [subprocess.Popen(argv) for _ in range(3)]
        assert [process.wait(timeout=30) for process in running] == [0, 0, 0]
        assert len(ranges(storage)) == 10


PUT = """
import os, sys
from pathlib import Path
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore

local = FileStore(Path(sys.argv[1]))
for number in range(100_000):
    files = {"a": os.urandom(300_000), "b": b"%d" % number}
    Cache([local], local, say=print).put("many", {"n": number}, files, {})
"""


def test_killed_in_the_middle_of_a_put(tmp_path: Path) -> None:
    """At any moment: an entry is there whole, or it is not there."""
    from installers.cache.cache import Cache
    from installers.cache.filestore import FileStore

    for pause in (0.0, 0.01, 0.023, 0.05, 0.1):
        place = tmp_path / str(pause)
        writer = subprocess.Popen([sys.executable, "-c", PUT, str(place)])
        end = time.monotonic() + 20
        while not list((place / "entries").glob("[!.]*")):
            assert time.monotonic() < end
            time.sleep(0.002)
        time.sleep(pause)
        writer.kill()
        writer.wait()
        local = FileStore(place)
        said: list[str] = []
        cache = Cache([local], local, say=said.append)
        entries = [info.name for info in local.list("entries/")]
        number = 0
        while (entry := cache.get("many", {"n": number})) is not None:
            assert entry.read("b") == b"%d" % number
            number += 1
        assert number == len(entries) > 0
        assert said == []
        # The next writer goes on, and what the killed one left is swept away in time.
        assert cache.put("many", {"n": number}, {"b": b"x"}, {})
        assert cache.get("many", {"n": number}) is not None
        local.sweep(older=-1)
        assert not list(place.glob("*/.partial-*"))


FULL = textwrap.dedent(
    """
    mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" -c "$3" "$1" "$4"
    """
)
FULL_PUT = """
import sys
from pathlib import Path
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore

local = FileStore(Path(sys.argv[1]) / "cache")
said = []
cache = Cache([local], local, say=said.append)
big = bytes(3 << 20)
entry = cache.put("x", {}, {"big": big}, {})
assert entry.read("big") == big
assert any("No space left" in text for text in said), said
assert cache.get("x", {}) is None
assert not list(local.directory.glob("objects/*")), list(local.directory.glob("objects/*"))
assert cache.put("x", {}, {"small": b"s"}, {})
assert cache.get("x", {}) is not None
"""
FULL_GET = """
import sys
from pathlib import Path
from installers.cache.download import Download
from installers.cache.web import Web
from installers.errors import NodeError

url = sys.argv[2] + "/storage/v1/b/lab-bucket/o/x?alt=media"
try:
    Download(Web(), url, Path(sys.argv[1]) / "x", 3 << 20).run()
except NodeError as error:
    print(error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="a full disk is a small tmpfs, which root mounts")
@pytest.mark.parametrize("script", [FULL_PUT, FULL_GET], ids=["put", "get"])
def test_a_full_disk(tmp_path: Path, script: str) -> None:
    with Storage(BUCKET) as storage:
        storage.put(BUCKET, "x", bytes(3 << 20))
        argv = ["unshare", "-m", "sh", "-c", FULL, "sh", str(tmp_path), sys.executable, script]
        done = subprocess.run([*argv, storage.url], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done
        if script == FULL_GET:
            assert "No space left on device" in done.stdout
            assert "airlock-cache" in done.stdout
            assert storage.requests == []  # found before anything was fetched
