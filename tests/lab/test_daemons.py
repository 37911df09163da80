"""Private unpacking with the real apt: found again, offline, and every way it cannot work."""

from __future__ import annotations

import re
import shutil
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


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small package is unpacked already, and nothing was installed for it."""
    before = _installed()
    state = tmp_path_factory.mktemp("state")
    daemons.unpack_debs([SMALL], state)
    assert _installed() == before
    return state


def test_a_package_is_unpacked_once(state: Path) -> None:
    started = time.monotonic()
    root = daemons.unpack_debs([SMALL], state)
    assert time.monotonic() - started < 0.5
    library = next(root.glob("usr/lib/*/libtdb.so.1"))
    assert str(library.parent) in daemons.library_path(root)
    assert re.fullmatch(rf"{SMALL}-[0-9a-f]{{16}}", root.name)
    assert {path.name for path in state.iterdir()} == {root.name, ".lock", "index.json"}


def test_offline_the_unpacked_root_is_used_again(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = daemons.unpack_debs([SMALL], state)

    def no_apt(args: list[str], cwd: Path) -> str:
        raise FixtureError(f"{args} in {cwd}: no network")

    monkeypatch.setattr(daemons, "_apt", no_apt)
    release = Path("/etc/os-release").read_text()
    monkeypatch.setattr(daemons, "_stamp", lambda: {"release": release, "changed": True})
    assert daemons.unpack_debs([SMALL], state) == root
    monkeypatch.setattr(daemons, "_stamp", lambda: {"release": "another system"})
    with pytest.raises(FixtureError, match="no network"):
        daemons.unpack_debs([SMALL], state)


def test_no_space_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(FixtureError, match=rf"no space for {SMALL} in .* 0 MB free"):
        daemons.unpack_debs([SMALL], tmp_path)
    assert not list(tmp_path.glob(f"{SMALL}*"))


def test_no_apt_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(FixtureError, match=r"apt-get not found.*Debian or Ubuntu"):
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


@pytest.mark.slow
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
    for name, mode in (("setuid", 0o4755), ("setgid", 0o2711), ("plain", 0o640)):
        (tmp_path / name).touch()
        (tmp_path / name).chmod(mode)
    (tmp_path / "link").symlink_to("/usr/bin/passwd")
    before = Path("/usr/bin/passwd").stat().st_mode
    daemons.drop_setuid(tmp_path)
    modes = {path.name: path.lstat().st_mode & 0o7777 for path in tmp_path.iterdir()}
    assert modes == {"setuid": 0o755, "setgid": 0o711, "plain": 0o640, "link": 0o777}
    assert Path("/usr/bin/passwd").stat().st_mode == before
