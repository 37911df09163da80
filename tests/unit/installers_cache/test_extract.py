"""Archives that attack, and one that does not."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from installers.cache.extract import unpack
from installers.cache.store import TamperedError
from installers.errors import NodeError

Member = tuple[str, bytes, bytes | str]  # name, type, content or link name


def archive(path: Path, *members: Member, mode: str = "w:gz", mods: int = 0o644) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, kind, what in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, mods
            if isinstance(what, bytes):
                info.size = len(what)
                tar.addfile(info, io.BytesIO(what))
            else:
                info.linkname = what
                tar.addfile(info)
    return path


FILE, DIR, SYM, HARD = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_a_good_archive(tmp_path: Path, mode: str) -> None:
    made = archive(
        tmp_path / "a.tar",
        (".", DIR, ""),
        ("./bin", DIR, ""),
        ("./bin/tool", FILE, b"#!/bin/sh\n"),
        ("lib/deep/x.so.1", FILE, b"elf"),
        ("lib/x.so", SYM, "deep/x.so.1"),
        ("lib/deep/up", SYM, "../../bin/tool"),
        ("lib/hard", HARD, "lib/deep/x.so.1"),
        mode=mode,
        mods=0o6777,
    )
    assert unpack(made, tmp_path / "out" / "env") == 6
    root = tmp_path / "out" / "env"
    assert (root / "lib/deep/up").read_bytes() == b"#!/bin/sh\n"
    assert (root / "lib/x.so").read_bytes() == b"elf"
    assert (root / "lib/hard").stat().st_nlink == 2
    # Nobody gets set-id bits, or write access for others.
    assert {p.stat().st_mode & 0o7777 for p in root.rglob("*")} == {0o755}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["env"]


ATTACKS: dict[str, list[Member]] = {
    "dot dot": [("../evil", FILE, b"x")],
    "dot dot inside": [("a/../../evil", FILE, b"x")],
    "dot dot that stays": [("a/../b", FILE, b"x")],
    "absolute": [("/evil", FILE, b"x")],
    "absolute directory": [("/etc", DIR, "")],
    "link that is absolute": [("l", SYM, "/etc")],
    "link that leads out": [("l", SYM, "../evil")],
    "link that leads out from below": [("a/l", SYM, "../../evil")],
    "link that climbs in the middle": [("d", DIR, ""), ("l", SYM, "d/../../evil")],
    "file below a link": [("l", SYM, "."), ("l/evil", FILE, b"x")],
    "file below a file": [("f", FILE, b"x"), ("f/evil", FILE, b"x")],
    "link through a link": [("a", SYM, "."), ("a/b", SYM, "..")],
    "link, then file of its name": [("l", SYM, "inside"), ("l", FILE, b"x")],
    "file, then link of its name": [("f", FILE, b"x"), ("f", SYM, "inside")],
    "directory that becomes a link": [("d/x", FILE, b"x"), ("d", SYM, ".")],
    "hard link to the outside": [("h", HARD, "/etc/passwd")],
    "hard link out": [("h", HARD, "../evil")],
    "hard link to a link": [("l", SYM, "x"), ("h", HARD, "l")],
    "hard link to nothing": [("h", HARD, "nothing")],
    "character device": [("d", tarfile.CHRTYPE, "")],
    "block device": [("d", tarfile.BLKTYPE, "")],
    "fifo": [("d", tarfile.FIFOTYPE, "")],
    "no name": [("./", FILE, b"x")],
}


@pytest.mark.parametrize("how", ATTACKS)
def test_an_attack_writes_nothing(tmp_path: Path, how: str) -> None:
    place = tmp_path / "place"
    made = archive(tmp_path / "a.tar", ("good", FILE, b"good"), *ATTACKS[how])
    with pytest.raises(TamperedError):
        unpack(made, place / "env")
    assert list(place.iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_tarfile_itself_would_have_written(tmp_path: Path) -> None:
    """The fixture is an attack: the plain reader falls for it."""
    made = archive(tmp_path / "a.tar", *ATTACKS["dot dot"])
    (tmp_path / "victim").mkdir()
    with tarfile.open(made) as tar:
        # Before Python 3.11.4 there are no filters, and it trusts everything.
        trusting = {"filter": "fully_trusted"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(tmp_path / "victim", **trusting)  # type: ignore[arg-type]
    assert (tmp_path / "evil").exists()


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-2000],
    "empty": lambda _: b"",
    "no archive": lambda _: b"x" * 2000,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_archive(tmp_path: Path, how: str) -> None:
    made = archive(tmp_path / "a.tar", ("f", FILE, os.urandom(50_000)))
    made.write_bytes(DAMAGE[how](made.read_bytes()))
    with pytest.raises(TamperedError):
        unpack(made, tmp_path / "env")
    assert not (tmp_path / "env").exists()


def test_limits(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.tar", ("f", FILE, bytes(1000)), ("g", FILE, bytes(1000)))
    for limits in ({"max_bytes": 1999}, {"max_members": 1}):
        with pytest.raises(TamperedError, match="more than"):
            unpack(made, tmp_path / "env", **limits)
    assert unpack(made, tmp_path / "env", max_bytes=2000, max_members=2) == 2


def test_a_place_that_is_taken(tmp_path: Path) -> None:
    made = archive(tmp_path / "a.tar", ("f", FILE, b"new"))
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "f").write_bytes(b"old")
    with pytest.raises(NodeError, match="is there already"):
        unpack(made, tmp_path / "env")
    assert (tmp_path / "env" / "f").read_bytes() == b"old"
