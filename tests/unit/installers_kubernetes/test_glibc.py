"""What sources need: folders, wheels, packages, layers, each packed as its makers pack it."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from installers import glibc
from installers.elfversions import versions
from installers.errors import ConfigError
from tests.unit.installers_kubernetes.elves import elf

OLD = elf({"libc.so.6": ["GLIBC_2.2.5", "GLIBC_2.17"]})
NEW = elf({"libc.so.6": ["GLIBC_2.9", "GLIBC_2.34"], "libstdc++.so.6": ["GLIBCXX_3.4.30"]})
STATIC = elf()


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    done = subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True)
    return done.stdout


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["GLIBC_2.2.5", "GLIBC_2.10", "GLIBC_2.9"], "2.10"),
        (["GLIBC_2.17", "GLIBC_ABI_DT_RELR"], "2.36"),
        (["GLIBC_PRIVATE", "GLIBCXX_3.4.30"], None),
    ],
)
def test_needed(names: list[str], wanted: str | None) -> None:
    data = elf({"libc.so.6": names})
    found = versions(lambda size, offset: data[offset : offset + size])
    assert glibc.needed(found) == wanted
    data = elf({"libc.so.6": names}, weak=True)
    assert glibc.needed(versions(lambda size, offset: data[offset : offset + size])) is None


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/new.so").write_bytes(NEW)
    (tmp_path / "old").write_bytes(OLD)
    (tmp_path / "static").write_bytes(STATIC)
    (tmp_path / "arm").write_bytes(elf({"libc.so.6": ["GLIBC_2.39"]}, machine=183))
    (tmp_path / "broken").write_bytes(NEW[:100])
    (tmp_path / "text").write_text("GLIBC_2.99")
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "private").write_bytes(elf({"libc.so.6": ["GLIBC_PRIVATE"]}))
    found = glibc.need(str(tmp_path), "x86_64")
    assert (found.files, found.foreign, found.version) == (4, 1, "2.34")
    assert found.because == ["below/new.so"]
    assert found.private == ["private"]
    assert [path for path, _ in found.damaged] == ["broken"]
    assert glibc.need(f"{tmp_path}:/below", "x86_64").files == 1
    assert glibc.need(str(tmp_path), "aarch64").version == "2.39"
    assert glibc.need(str(tmp_path / "old")).version == "2.17"


def test_a_wheel_whose_tag_lies(tmp_path: Path) -> None:
    wheel = tmp_path / "some-1-py3-none-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("some/lib.so", NEW)
        archive.writestr("some/__init__.py", "")
    found = glibc.need(str(wheel))
    assert (found.files, found.version, found.because) == (1, "2.34", ["some/lib.so"])


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_debian_package(tmp_path: Path, suffix: str) -> None:
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar": tar({"./control": b"Package: some\n"}),
        f"data.tar{suffix}": PACKERS[suffix](tar({"./usr/lib/some.so": NEW, "./odd": b"x"})),
    }
    data = b"!<arch>\n"
    for name, content in parts.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    (tmp_path / "some.deb").write_bytes(data)
    found = glibc.need(str(tmp_path / "some.deb"))
    assert (found.files, found.version, found.because) == (1, "2.34", ["usr/lib/some.so"])
    (tmp_path / "some.deb").write_bytes(data[:-40])
    if suffix:
        with pytest.raises(ConfigError, match=r"some\.deb: cannot be read"):
            glibc.need(str(tmp_path / "some.deb"))


def test_a_real_package(tmp_path: Path) -> None:
    """Made by dpkg-deb, of this machine's own programs."""
    (tmp_path / "p/DEBIAN").mkdir(parents=True)
    (tmp_path / "p/DEBIAN/control").write_text(
        "Package: some\nVersion: 1\nArchitecture: amd64\nMaintainer: a <a@b.c>\nDescription: x\n"
    )
    (tmp_path / "p/usr").mkdir()
    (tmp_path / "p/usr/ls").write_bytes(Path("/usr/bin/ls").read_bytes())
    for kind in ("xz", "zstd", "gzip"):
        argv = ["dpkg-deb", "-b", f"-Z{kind}", "--root-owner-group", "p", f"{kind}.deb"]
        subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)
        found = glibc.need(str(tmp_path / f"{kind}.deb"))
        assert found.because == ["usr/ls"]
        assert found.version == glibc.need("/usr/bin/ls").version


LAYERS = [
    {"usr/lib/a.so": NEW, "usr/lib/b.so": NEW, "usr/lib/c.so": OLD, "opt/d/e.so": NEW},
    {"usr/lib/a.so": OLD, "usr/lib/.wh.b.so": b"", "opt/d/.wh..wh..opq": b"", "opt/d/f": b"#!"},
    {"usr/local/nvidia/tool": elf({"libc.so.6": ["GLIBC_2.27"]})},
]


def layout(place: Path, suffix: str) -> None:
    """An OCI layout of LAYERS, with an index of two platforms."""

    def blob(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        (place / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (place / "blobs/sha256" / digest).write_bytes(data)
        return f"sha256:{digest}"

    layers = [{"digest": blob(PACKERS[suffix](tar(files)))} for files in LAYERS]
    arm = [{"digest": blob(PACKERS[suffix](tar({"arm": NEW})))}]
    manifests = [
        {
            "digest": blob(json.dumps({"layers": of}).encode()),
            "platform": {"architecture": name},
        }
        for name, of in (("mips", arm), ("amd64", layers), ("arm64", layers))
    ]
    inner = {"digest": blob(json.dumps({"manifests": manifests}).encode())}
    (place / "index.json").write_text(json.dumps({"manifests": [inner]}))
    (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("how", ["folder", "tar", "packed tar"])
def test_an_oci_layout(tmp_path: Path, suffix: str, how: str) -> None:
    """Files replaced, hidden one by one and a folder at a time."""
    place = tmp_path / "image"
    place.mkdir()
    layout(place, suffix)
    source = place
    if how != "folder":
        source = tmp_path / "image.tar"
        with tarfile.open(source, "w") as archive:
            archive.add(place, ".", filter=_plain_names)
        if how == "packed tar":
            source.write_bytes(gzip.compress(source.read_bytes()))
    found = glibc.need(str(source), "x86_64")
    assert (found.files, found.version) == (3, "2.27")
    assert found.because == ["usr/local/nvidia/tool"]
    assert glibc.need(f"{source}:/usr/lib", "x86_64").version == "2.17"


def _plain_names(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.name = info.name.removeprefix("./")
    return info


def test_what_docker_save_writes(tmp_path: Path) -> None:
    files = {f"{number}/layer.tar": tar(layer) for number, layer in enumerate(LAYERS)}
    files["manifest.json"] = json.dumps([{"Layers": list(files)}]).encode()
    (tmp_path / "saved.tar").write_bytes(tar(files))
    assert glibc.need(str(tmp_path / "saved.tar"), "x86_64").version == "2.27"


def test_a_file_system(tmp_path: Path) -> None:
    """A tar of a root, links among it."""
    with tarfile.open(tmp_path / "root.tar.gz", "w:gz") as archive:
        for name, kind, target in (
            ("./lib/x.so", tarfile.REGTYPE, ""),
            ("./lib/hard", tarfile.LNKTYPE, "./lib/x.so"),
            ("./lib/soft", tarfile.SYMTYPE, "x.so"),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = len(NEW) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(NEW))
    found = glibc.need(str(tmp_path / "root.tar.gz"))
    assert found.because == ["lib/hard", "lib/x.so"]


ESCAPE = b'{"manifests": [{"digest": "../x"}]}'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "No such file"),
        (b"", "neither a folder"),
        (b"hello", "neither a folder"),
        (b"PK\x03\x04" + bytes(50), "not a zip"),
        (b"!<arch>\n" + bytes(60), "no Debian package"),
        (gzip.compress(b"hello"), "neither a folder"),
        (gzip.compress(tar({"x": NEW * 9}))[:-20], "end"),
        (tar({"manifest.json": b"{}"}), "cannot be read"),
        (tar({"manifest.json": b"nonsense"}), "cannot be read"),
        (tar({"oci-layout": b"{}"}), "lacks index.json"),
        (
            tar({"oci-layout": b"{}", "index.json": ESCAPE}),
            "digest",
        ),
        (tar({"manifest.json": b'[{"Layers": ["gone.tar"]}]'}), "lacks gone.tar"),
    ],
    ids=range(12),
)
def test_what_cannot_be_read(tmp_path: Path, data: bytes | None, words: str) -> None:
    source = tmp_path / "source"
    if data is not None:
        source.write_bytes(data)
    with pytest.raises(ConfigError, match=words) as caught:
        glibc.need(str(source))
    assert caught.value.where == str(source)


def test_what_the_c_library_offers() -> None:
    """The file itself tells what confstr(3) does."""
    libc = Path("/lib/x86_64-linux-gnu/libc.so.6")
    assert f"glibc {glibc.offered(libc)}" == os.confstr("CS_GNU_LIBC_VERSION")
    assert glibc.offered(Path("/usr/bin/ls")) is None
