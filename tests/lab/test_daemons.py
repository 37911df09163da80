"""Private unpacking with the real apt: found again, offline, and every way it cannot work."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from fixtures import daemons
from fixtures.errors import FixtureError

pytestmark = pytest.mark.lab
SMALL = "libtdb1"


def _installed() -> str:
    return subprocess.run(["dpkg-query", "-W"], capture_output=True, text=True).stdout


def test_a_package_is_unpacked_once_and_nothing_is_installed(tmp_path: Path) -> None:
    before = _installed()
    root = daemons.unpack_debs([SMALL], tmp_path)
    assert list(root.glob("usr/lib/*/libtdb.so.1*"))
    assert re.fullmatch(rf"{SMALL}-[0-9a-f]{{16}}", root.name)
    assert str(next(root.glob("usr/lib/*/libtdb.so.1")).parent) in daemons.library_path(root)
    assert _installed() == before
    started = time.monotonic()
    assert daemons.unpack_debs([SMALL], tmp_path) == root
    assert time.monotonic() - started < 0.5
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {root.name, ".lock", "index.json"}


def test_offline_the_unpacked_root_is_used_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = daemons.unpack_debs([SMALL], tmp_path)

    def no_apt(args: list[str], cwd: Path) -> str:
        raise FixtureError(f"{args} in {cwd}: no network")

    monkeypatch.setattr(daemons, "_apt", no_apt)
    release = Path("/etc/os-release").read_text()
    monkeypatch.setattr(daemons, "_stamp", lambda: {"release": release, "changed": True})
    assert daemons.unpack_debs([SMALL], tmp_path) == root
    monkeypatch.setattr(daemons, "_stamp", lambda: {"release": "another system"})
    with pytest.raises(FixtureError, match="no network"):
        daemons.unpack_debs([SMALL], tmp_path)


def test_no_space_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = daemons.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(daemons.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(FixtureError, match=rf"no space for {SMALL} in .* 0 MB free"):
        daemons.unpack_debs([SMALL], tmp_path)
    assert not list(tmp_path.glob(f"{SMALL}*"))


def test_no_apt_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemons.shutil, "which", lambda _: None)
    with pytest.raises(FixtureError, match="apt-get not found.*Debian or Ubuntu"):
        daemons.unpack_debs([SMALL], tmp_path)


def _with_config(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    path.write_text(text)
    monkeypatch.setenv("APT_CONFIG", str(path))


def test_an_unknown_package_and_no_mirror_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt knows no package and has a source that nobody serves: 127.0.0.1 port 9 is closed."""
    (tmp_path / "sources").write_text("deb [trusted=yes] http://127.0.0.1:9/debian stable main\n")
    _with_config(
        monkeypatch,
        tmp_path / "apt.conf",
        f'Dir::Etc::SourceList "{tmp_path}/sources"; Dir::Etc::SourceParts "/dev/null";'
        f'Dir::State::Lists "{tmp_path}/empty"; Acquire::Retries "0";',
    )
    (tmp_path / "empty").mkdir()
    with pytest.raises(FixtureError, match=r"apt-get update failed: .*reachable") as caught:
        daemons.unpack_debs(["airlock-no-such-package"], tmp_path / "state")
    assert "127.0.0.1" in caught.value.message
    (tmp_path / "sources").write_text("")
    with pytest.raises(FixtureError, match=r"Unable to locate package airlock-no-such.*universe"):
        daemons.unpack_debs(["airlock-no-such-package"], tmp_path / "state")


def test_lists_that_are_missing_are_fetched_privately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a fresh container: the host's apt has never been updated, and still has not after."""
    empty = tmp_path / "empty"
    empty.mkdir()
    _with_config(monkeypatch, tmp_path / "apt.conf", f'Dir::State::Lists "{empty}";')
    root = daemons.unpack_debs([SMALL], tmp_path / "state")
    assert list(root.glob("usr/lib/*/libtdb.so.1*"))
    assert not [path for path in empty.rglob("*") if path.is_file() and path.name != "lock"]


def test_no_file_keeps_a_setuid_bit(tmp_path: Path) -> None:
    root = daemons.unpack_debs(["mount"], tmp_path)
    assert os.access(root, os.R_OK)
    assert list(root.rglob("mount"))
    assert not [p for p in root.rglob("*") if p.is_file() and p.stat().st_mode & 0o6000]
