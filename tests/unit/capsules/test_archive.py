"""The file of a capsule: the same bytes for the same contents, whole or absent, never believed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness import cli
from harness.capsules import archive
from harness.errors import UsageError

MEMBERS = {"facts.json": b'{"os": {"id": "debian"}}\n', "journal.txt": b"a line\n"}


def packed(members: dict[str, bytes] | None = None, **notes: Any) -> bytes:
    return archive.pack(MEMBERS if members is None else members, {"made": "then", **notes})


def tarred(change: Callable[[tarfile.TarFile], None], *, manifest: Any = None) -> bytes:
    """A packed tar whose manifest is right, with whatever ``change`` adds."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        said = archive.manifest(MEMBERS, {}) if manifest is None else manifest
        for name, data in {archive.MANIFEST: json.dumps(said).encode(), **MEMBERS}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        change(tar)
    return gzip.compress(out.getvalue())


def special(name: str, kind: bytes, target: str = "") -> Callable[[tarfile.TarFile], None]:
    def change(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, target
        tar.addfile(member)

    return change


def added(name: str, data: bytes = b"x") -> Callable[[tarfile.TarFile], None]:
    def change(tar: tarfile.TarFile) -> None:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))

    return change


def edited() -> bytes:
    plain = gzip.decompress(packed())
    return gzip.compress(plain.replace(b"debian", b"ubuntu"))


def future() -> bytes:
    return tarred(lambda _: None, manifest={**archive.manifest(MEMBERS, {}), "format": 2})


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "is no capsule"),
    "text": (lambda: b"hello\n", "is no capsule"),
    "no tar": (lambda: gzip.compress(b"hello" * 400), "cannot be unpacked"),
    "a tar of others": (
        lambda: tarred(lambda _: None, manifest={"kind": "other"}),
        "no manifest of one",
    ),
    "a manifest that is no JSON": (
        lambda: gzip.compress(gzip.decompress(packed()).replace(b'"kind"', b'"kind')),
        "no manifest of one",
    ),
    "no format": (
        lambda: tarred(lambda _: None, manifest={**archive.manifest(MEMBERS, {}), "format": "1"}),
        "names no format",
    ),
    "future": (future, "has format 2; this airlock knows 1"),
    "truncated": (lambda: packed()[:-30], "is cut off or damaged"),
    "edited": (edited, "'facts.json' is not as it was captured"),
    "one more": (lambda: tarred(added("more.txt")), "'more.txt' is not in its manifest"),
    "one less": (
        lambda: tarred(lambda _: None, manifest=archive.manifest({**MEMBERS, "a.txt": b""}, {})),
        "'a.txt' is missing",
    ),
    "escape": (lambda: tarred(added("../../evil")), "leads out of the directory"),
    "absolute": (lambda: tarred(added("/tmp/evil")), "has an absolute name"),
    "twice": (lambda: tarred(added("facts.json")), "is there twice"),
    "link out": (lambda: tarred(special("l", tarfile.SYMTYPE, "/etc/passwd")), "leads out"),
    "link in": (lambda: tarred(special("l", tarfile.SYMTYPE, "facts.json")), "is no plain file"),
    "hard link": (lambda: tarred(special("l", tarfile.LNKTYPE, "facts.json")), "is no plain file"),
    "device": (lambda: tarred(special("d", tarfile.CHRTYPE)), "neither file, directory nor link"),
    "pipe": (lambda: tarred(special("p", tarfile.FIFOTYPE)), "neither file, directory nor link"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("verb", ["check", "reproduce"])
def test_bad_files_are_one_clear_error(
    name: str,
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make, words = BAD[name]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    path = Path("bad.tar.gz")
    path.write_bytes(make())
    assert cli.main([verb, "./bad.tar.gz"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.startswith("airlock: bad.tar.gz")
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.tar.gz"], "nothing else is there"


def test_a_bomb_is_given_up_early(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(archive.LARGEST // (1 << 20) + 1):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < archive.LARGEST_PACKED
    with pytest.raises(UsageError, match="unpacks to more than 256 MiB"):
        archive.read(path)


def test_a_file_that_is_too_large_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.tar.gz"
    with path.open("wb") as file:
        file.truncate(archive.LARGEST_PACKED + 1)
    with pytest.raises(UsageError, match="larger than a capsule may be"):
        archive.read(path)


@pytest.mark.parametrize(
    ("name", "words"), [("none.tar.gz", "No such file"), (".", "Is a directory")]
)
def test_what_is_no_file(
    name: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check", f"{tmp_path}/{name}"]) == 2
    assert words in capsys.readouterr().err


def test_the_same_contents_give_the_same_bytes(tmp_path: Path) -> None:
    data = packed()
    assert data == packed(dict(reversed(MEMBERS.items())))
    path = tmp_path / "a.tar.gz"
    archive.write(data, path)
    assert path.stat().st_mode & 0o777 == 0o600
    capsule = archive.read(path)
    assert capsule.members == MEMBERS
    assert capsule.manifest["made"] == "then"
    assert capsule.table("facts.json") == {"os": {"id": "debian"}}
    with tarfile.open(path) as tar:
        assert tar.getnames() == [archive.MANIFEST, *sorted(MEMBERS)]
        assert {member.mtime for member in tar} == {0}


def test_nothing_is_overwritten_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        archive.write(packed(), path)
    with pytest.raises(UsageError, match="was not written: No such file"):
        archive.write(packed(), tmp_path / "none" / "a.tar.gz")
    assert path.read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.tar.gz"]


def test_members_that_are_not_what_they_should_be(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(packed({"facts.json": b"[1]", "expect.json": b"{"}))
    capsule = archive.read(path)
    assert hashlib.sha256(b"[1]").hexdigest() in json.dumps(capsule.manifest)
    with pytest.raises(UsageError, match=r"facts\.json is no JSON object"):
        capsule.table("facts.json")
    with pytest.raises(UsageError, match=r"expect\.json is not JSON"):
        capsule.json("expect.json")
    assert capsule.table("ledger.json") == {}
