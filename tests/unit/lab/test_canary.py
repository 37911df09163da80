"""The search for secrets in a disk image."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.lab.canary import blacken, blackened, search
from harness.lab.disk import make_root

SECRET = b"p@:/%#0123456789abcdef"


def image(path: Path, at: int, data: bytes) -> Path:
    with path.open("wb") as file:
        file.seek(at)
        file.write(data)
        file.truncate(at + len(data) + (32 << 20))
    return path


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        b"http://u:p%40%3A%2F%25%230123456789abcdef@h:1",
        base64.b64encode(b"user:" + SECRET),
        SECRET.decode().encode("utf-16-le"),
    ],
    ids=["plain", "percent", "base64", "utf-16"],
)
def test_a_secret_is_found_however_it_is_written(tmp_path: Path, written: bytes) -> None:
    found = search(image(tmp_path / "disk", 9 << 20, b"before " + written), {"password": SECRET})
    assert {hit["name"] for hit in found} == {"password"}


@given(offset=st.integers(min_value=(8 << 20) - 64, max_value=(8 << 20) + 64))
@settings(max_examples=25)
def test_a_secret_across_the_edge_of_a_chunk_is_found(
    tmp_path_factory: pytest.TempPathFactory, offset: int
) -> None:
    path = tmp_path_factory.mktemp("edge") / "disk"
    path.write_bytes(b"x" * offset + SECRET + b"y" * 4096)
    [hit] = search(path, {"password": SECRET})
    assert (hit["name"], hit["offset"]) == ("password", offset)


def test_an_image_without_it_is_clean(tmp_path: Path) -> None:
    assert search(image(tmp_path / "disk", 1 << 20, b"nothing here"), {"key": SECRET}) == []


def test_evidence_loses_its_secrets_and_keeps_its_length(tmp_path: Path) -> None:
    """A capture holds the header of every request that a proxy with a password saw."""
    header = b"Proxy-Authorization: Basic " + base64.b64encode(b"airlock:" + SECRET)
    capture, other = tmp_path / "card.pcap", tmp_path / "console.log"
    capture.write_bytes(b"\xd4\xc3" + header + b"\r\n")
    other.write_bytes(b"nothing")
    assert blacken(tmp_path, {"password": SECRET}) == ["card.pcap"]
    assert len(capture.read_bytes()) == len(header) + 4
    assert search(capture, {"password": SECRET}) == []
    assert other.read_bytes() == b"nothing"


def test_what_a_program_said_is_shown_without_its_secrets() -> None:
    said = b"* Proxy auth using Basic with user 'airlock'\n> http://u:" + SECRET + b"@h:1\n"
    shown = blackened(said, {"password": SECRET})
    assert SECRET not in shown
    assert len(shown) == len(said)
    assert shown.startswith(b"* Proxy auth")


def test_a_secret_is_found_with_its_file(tmp_path: Path) -> None:
    """In an ext4 image as builds make it; in no file of it, it has no path."""
    log = tmp_path / "tree/var/log/set up.log"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"x" * 9000 + SECRET)
    disk = tmp_path / "root.img"
    make_root(tmp_path / "tree", disk, size_mib=16)
    [hit] = search(disk, {"password": SECRET})
    assert (hit["name"], hit["path"]) == ("password", "/var/log/set up.log")
    bare = image(tmp_path / "disk", 4096, SECRET)
    assert search(bare, {"password": SECRET}) == [{"name": "password", "offset": 4096, "path": ""}]
