"""A saved node that somebody else made."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.lab import saved


def made(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as tar:
        manifest = json.dumps({"format": saved._FORMAT}).encode()
        info = tarfile.TarInfo(saved._MANIFEST)
        info.size = len(manifest)
        tar.addfile(info, io.BytesIO(manifest))
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return path


def file(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = 4
    return info


def link(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return info


def test_its_files_are_unpacked(tmp_path: Path) -> None:
    loaded = saved.load(made(tmp_path / "node.tar", file("root.qcow2")), tmp_path)
    assert (loaded.directory / "root.qcow2").read_bytes() == b"xxxx"


@pytest.mark.parametrize(
    "member", [file("../evil"), file("/tmp/evil"), file("sub/evil"), link("root.qcow2")]
)
def test_what_leads_out_is_refused(member: tarfile.TarInfo, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which no saved node has"):
        saved.load(made(tmp_path / "node.tar", member), tmp_path)
    assert not (tmp_path / "evil").exists()
