"""What of the cache is let go, and what is not."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from harness import cached
from harness.cached import evict, used
from harness.errors import UsageError
from harness.state import RunRecord, cache_dir, exclusive

HOUR = 3600.0


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory of our own, room for two entries, and a disk with room."""
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv(cached.VARIABLE, str(2.5 / 1024))
    monkeypatch.setattr(cached, "FREE_BYTES", 0)


def entry(kind: str, name: str, hours: float) -> Path:
    """One of 1 MiB that was last used so long ago."""
    path = cache_dir(kind) / name
    path.mkdir()
    (path / "root.img").write_bytes(b"x" * (1 << 20))
    (path / "manifest.json").write_text("{}")
    then = time.time() - hours * HOUR
    os.utime(path, (then, then))
    return path


def test_the_least_recently_used_goes_whatever_its_kind() -> None:
    old, middle, new = entry("images", "a", 9), entry("frozen", "b", 5), entry("base", "c", 1)
    (line,) = evict()
    assert line.startswith("images/a: ")
    assert (old.exists(), middle.exists(), new.exists()) == (False, True, True)
    assert evict() == []


def test_use_keeps_it() -> None:
    old, middle = entry("images", "a", 9), entry("images", "b", 5)
    entry("images", "c", 1)
    used(old)
    evict()
    assert old.exists()
    assert not middle.exists()


def test_what_a_live_run_may_use_stays() -> None:
    first = entry("images", "a", 9)
    with RunRecord():
        mine = [entry("frozen", name, 0) for name in "bcd"]
        for path in mine:
            used(path)
        evict()
        assert all(path.exists() for path in mine)
    assert not first.exists()
    time.sleep(0.01)
    assert len(evict()) == 1, "and goes when the run has ended"


def test_two_at_once_let_go_no_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(12):
        entry("images", f"{number:02}", 20 - number)
    remove = cached._remove

    def slowly(path: Path, since: float) -> bool:
        time.sleep(0.02)
        return remove(path, since)

    monkeypatch.setattr(cached, "_remove", slowly)
    with ThreadPoolExecutor() as pool:
        gone = [line for lines in pool.map(lambda _: evict(), range(3)) for line in lines]
    assert len(gone) == 10
    assert len(list(cache_dir("images").glob("??"))) == 2


def test_what_is_being_made_stays() -> None:
    old = entry("images", "a", 9)
    for name, hours in (("b", 5), ("c", 1)):
        entry("images", name, hours)
    with exclusive(old):
        assert [line.split(":")[0] for line in evict()] == ["images/b"]
    assert old.exists()


def test_a_disk_that_fills_up_asks_for_more_than_the_budget(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry("images", "a", 9)
    monkeypatch.setattr(cached, "FREE_BYTES", 1 << 62)
    assert len(evict()) == 1


@pytest.mark.parametrize("given", ["many", "-1", "nan"])
def test_a_budget_that_is_none(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cached.VARIABLE, given)
    with pytest.raises(UsageError, match=f"{cached.VARIABLE}={given}: must be a number of GiB"):
        evict()
