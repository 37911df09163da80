"""Vendors' disks: taken in, looked at, refused; real qemu-img, mtools, mkfs.ext4 and debugfs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import vendordisk as names
from harness.cells import Image
from harness.errors import InfraError
from harness.lab import cloud, disk
from harness.lab.diskimage import BadImage, UnfitImage, inspect
from harness.lab.namespace import host_env
from installers.exits import Exit
from tests.lab import vendor

OS_RELEASE = 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="A system (12)"\n'


def image(path: Path, digest: str = "") -> Image:
    return Image("own", "", kind="cloud", source=str(path), sha256=digest)


def run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True, capture_output=True, env=host_env())


def make_disk(
    folder: Path, *, programs: tuple[str, ...] = ("EFI/BOOT/BOOTX64.EFI",), files: str = "cloud"
) -> Path:
    """A small raw disk: ESP of 34 MiB, root of 8 MiB; ``files``: what the root holds, or xfs."""
    esp, root, tree = folder / "esp", folder / "root", folder / "tree"
    plain = folder / "plain"
    for name in programs:
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).write_text("MZ")
    plain.mkdir(exist_ok=True)
    (plain / "readme.txt").write_text("no program")
    disk.make_volume(esp, plain, size=34 << 20)
    if files == "xfs":
        root.write_bytes(b"XFSB".ljust(8 << 20, b"\0"))
    else:
        (tree / "usr/lib/modules/6.1.0-1").mkdir(parents=True)
        (tree / "usr/bin").mkdir()
        (tree / "usr/lib/os-release").write_text(OS_RELEASE)
        if files == "cloud":
            (tree / "usr/bin/cloud-init").touch()
        run("mkfs.ext4", "-q", "-d", tree, root, "8M")
    parts = [(1, vendor.LINUX, "root", 40, 8), (15, vendor.ESP, "ESP", 2, 35)]
    whole = folder / "disk.raw"
    whole.write_bytes(vendor.table(parts, 50))
    with whole.open("r+b") as file:
        for part, at in ((esp, 2), (root, 40)):
            file.seek(at << 20)
            file.write(part.read_bytes())
    return whole


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))


def test_a_disk_is_made_raw_once_and_says_what_is_on_it(tmp_path: Path) -> None:
    raw = make_disk(tmp_path)
    qcow2 = tmp_path / "vendor.qcow2"
    run("qemu-img", "convert", "-c", "-O", "qcow2", raw, qcow2)
    said: list[str] = []
    found = cloud.take(image(qcow2), said.append)
    assert not found.cached
    assert found.digest == hashlib.sha256(qcow2.read_bytes()).hexdigest()
    assert found.raw.read_bytes() == raw.read_bytes()
    seen = found.inspection
    seen.require_bootable("own")
    assert (seen.table, seen.family, seen.version) == ("GPT", "debian", "12")
    assert seen.title == "A system (12)"
    assert seen.kernels == ("6.1.0-1",)
    assert seen.cloud_init is True
    assert seen.loaders == ("efi/boot/bootx64.efi",)
    assert [(p.number, p.esp, p.holds) for p in seen.partitions] == [
        (1, False, "ext4"),
        (15, True, "vfat"),
    ]
    again = cloud.take(image(qcow2), said.append)
    assert again.cached
    assert again == replace(found, cached=True)
    known = cloud.known(image(qcow2), again)
    assert (known.family, known.version) == ("debian", "12")


def test_what_only_a_booted_machine_could_read_is_said(tmp_path: Path) -> None:
    seen = inspect(make_disk(tmp_path, files="xfs"), "own")
    seen.require_bootable("own")
    assert seen.cloud_init is None
    (sentence,) = seen.untold
    assert "xfs" in sentence
    assert "booted machine" in sentence
    assert any(line.startswith("not told") for line in seen.lines())


def test_a_disk_that_cannot_be_a_machine_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    raw = make_disk(tmp_path / "a", programs=(), files="bare")
    with pytest.raises(UnfitImage, match=r"no EFI/BOOT/BOOTX64\.EFI") as caught:
        inspect(raw, "own").require_bootable("own")
    assert (caught.value.code, caught.value.exit) == ("image.no-boot-loader", Exit.FAIL)
    (tmp_path / "b").mkdir()
    raw = make_disk(tmp_path / "b", files="bare")
    with pytest.raises(UnfitImage, match=r"A system \(12\).*has no cloud-init") as caught:
        inspect(raw, "own").require_bootable("own")
    assert caught.value.code == "image.no-cloud-init"
    bare = tmp_path / "no-esp.raw"
    bare.write_bytes(vendor.table([(1, vendor.LINUX, "root", 1, 8)], 10))
    with pytest.raises(UnfitImage, match="no EFI system partition") as caught:
        inspect(bare, "own").require_bootable("own")
    assert caught.value.code == "image.no-efi-partition"


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"hello\n" * 200, "image.not-a-disk", "neither qcow2 nor a raw disk"),
        (b"", "image.not-a-disk", "neither qcow2 nor a raw disk"),
        (b"\xfd7zXZ\x00" + bytes(600), "image.compressed", "xz"),
        (b"QFI\xfb" + b"\xff" * 600, "image.not-a-disk", "cannot be read as qcow2"),
    ],
)
def test_a_file_that_is_no_disk(data: bytes, code: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "own.qcow2"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=said) as caught:
        cloud.take(image(path), print)
    assert (caught.value.code, caught.value.exit) == (code, Exit.USAGE)


def test_an_image_that_refers_to_another_file_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(bytes(1 << 20))
    part = tmp_path / "part.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", "secret.raw", part)
    with pytest.raises(BadImage, match=r"only a part of a disk: the rest is secret\.raw"):
        cloud.take(image(part), print)


def test_a_wrong_digest_is_told_with_both(tmp_path: Path) -> None:
    path = tmp_path / "own.raw"
    path.write_bytes(vendor.table([], 2))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(BadImage, match=f"{digest}, and {'0' * 64}") as caught:
        cloud.take(image(path, "0" * 64), print)
    assert (caught.value.code, caught.value.exit) == ("image.sha256", Exit.USAGE)


def test_a_disk_without_room_is_the_labs_fault(tmp_path: Path) -> None:
    """On a real file system of 2 MiB, in a namespace of its own."""
    path, small = tmp_path / "own.raw", tmp_path / "small"
    path.write_bytes(vendor.table([], 2) + b"x" * (6 << 20))
    small.mkdir()
    code = (
        "from pathlib import Path\nfrom harness.errors import InfraError\n"
        "from harness.lab import cloud\ncloud.require = lambda *_: None\n"
        f"try:\n    cloud._convert(Path({str(path)!r}), Path({str(small)!r}, 'd'), 'own')\n"
        "except InfraError as error:\n    print(error)\n"
    )
    shell = 'mount -t tmpfs -o size=2m none "$0" && exec "$@"'
    argv = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, str(small)]
    done = subprocess.run(
        [*argv, sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("no space left for the raw disk of own"), done.stderr


class _Short(BaseHTTPRequestHandler):
    """Promises more than it sends, or refuses."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/short" else 404)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"x")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Short) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def test_an_address_that_cannot_be_fetched(server: str, tmp_path: Path) -> None:
    for url, said in (
        ("http://127.0.0.1:9/x.qcow2", "refused"),
        (f"{server}/gone", "Not Found"),
        (f"{server}/short", "1 of 1000 bytes"),
    ):
        with pytest.raises(InfraError, match=said):
            cloud.take(replace(image(Path()), source=url, sha256="0" * 64), print)
    left = [path.name for path in (tmp_path / "state/cache/cloud").iterdir() if path.is_dir()]
    assert left == []


def test_an_image_is_named_by_path_or_address(tmp_path: Path) -> None:
    path = tmp_path / "Rocky-9 (GenericCloud).qcow2"
    path.write_bytes(b"QFI\xfb")
    found = names.named(str(path))
    assert (found.name, found.cloud, found.remote) == ("Rocky-9-GenericCloud", True, False)
    assert found.source == str(path)
    far = names.named(f"https://example.org/i/al2023.qcow2#sha256={'a' * 64}")
    assert (far.name, far.source, far.sha256, far.remote) == (
        "al2023",
        "https://example.org/i/al2023.qcow2",
        "a" * 64,
        True,
    )
