"""NVIDIA's own files: pinned, fetched, unpacked by themselves and made by the real make."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.pki import Authority
from fixtures.signer import SignerServer
from installers import build, upstream
from installers.choice import Choice
from installers.config import Config
from installers.driver import Driver
from installers.errors import NodeError, UnreachableError
from installers.gpudecide import Decision
from installers.host import Host
from tests.unit.installers_driver import material
from tests.unit.installers_driver.test_driver import KERNEL, SOURCES

MODULE = material.module({"name": "nvidia", "vermagic": f"{KERNEL} SMP "})
# What NVIDIA's runfile does with these options: a shell script that unpacks itself.
RUNFILE = """\
#!/bin/sh
test "$1" = --extract-only && test "$2" = --target || exit 9
mkdir -p "$3/kernel-open" "$3/kernel"
for one in kernel-open kernel; do
  printf 'modules:\\n\\tcp body nvidia.ko\\n' > "$3/$one/Makefile"
  : > "$3/$one/Kbuild"
done
sed '1,/^ARCHIVE$/d' "$0" > "$3/kernel-open/body"
exit 0
ARCHIVE
"""


@pytest.fixture
def origin(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """(URL, directory that is served)"""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


def _serve(folder: Path, path: str, data: bytes) -> str:
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _config(mirror: str, **attributes: str) -> Config:
    return Config(raw={upstream.MIRROR: mirror, **attributes})


def test_a_runfile_is_unpacked_and_made(tmp_path: Path, origin: tuple[str, Path]) -> None:
    url, folder = origin
    path = "us.download.nvidia.com/XFree86/Linux-x86_64/550.142/NVIDIA-Linux-x86_64-550.142.run"
    pin = _serve(folder, path, RUNFILE.encode() + MODULE)
    config = _config(url, **{upstream.PIN: pin})
    decision = Decision(driver="550.142", source="runfile", flavour="open")
    wanted = upstream.of(decision, config)
    assert upstream.refuse(wanted) == []
    assert wanted.package().identity()["sha256"] == pin
    host = Host("/")
    work = str(tmp_path / "work")
    tree = upstream.fetch(host, wanted, config, work)
    assert tree == f"{work}/tree/kernel-open"
    assert build.compile_modules(host, tree, KERNEL)["nvidia.ko"][:4] == b"\x7fELF"
    assert not list(Path(work).glob("*.run"))


def test_the_open_modules_own_repository(tmp_path: Path, origin: tuple[str, Path]) -> None:
    url, folder = origin
    buffer = io.BytesIO()
    top = "open-gpu-kernel-modules-550.142"
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, data in (
            ("Makefile", b"modules:\n\tcp kernel-open/body kernel-open/nvidia.ko\n"),
            ("kernel-open/Kbuild", b""),
            ("kernel-open/body", MODULE),
        ):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    path = "github.com/NVIDIA/open-gpu-kernel-modules/archive/refs/tags/550.142.tar.gz"
    config = _config(url, **{upstream.PIN: _serve(folder, path, buffer.getvalue())})
    wanted = upstream.of(Decision(driver="550.142", source="open-source"), config)
    tree = upstream.fetch(Host("/"), wanted, config, str(tmp_path / "work"))
    assert tree.endswith(top)
    assert list(build.compile_modules(Host("/"), tree, KERNEL)) == ["nvidia.ko"]


def test_another_file_than_pinned(tmp_path: Path, origin: tuple[str, Path]) -> None:
    url, folder = origin
    path = "us.download.nvidia.com/XFree86/Linux-x86_64/550.142/NVIDIA-Linux-x86_64-550.142.run"
    _serve(folder, path, b"exit 1")
    config = _config(url, **{upstream.PIN: "ab" * 32})
    decision = Decision(driver="550.142", source="runfile")
    with pytest.raises(NodeError, match="not the pinned abab"):
        upstream.fetch(Host("/"), upstream.of(decision, config), config, str(tmp_path / "w"))
    assert list((tmp_path / "w").iterdir()) == []
    (folder / path).unlink()
    with pytest.raises((NodeError, UnreachableError), match=r"404|not there"):
        upstream.fetch(Host("/"), upstream.of(decision, config), config, str(tmp_path / "w"))


@pytest.mark.parametrize(
    ("decision", "attributes", "code"),
    [
        (Decision(source="runfile"), {}, "driver.version"),
        (Decision(driver="550.142", source="runfile"), {}, "driver.pin"),
        (
            Decision(driver="550.142", source="runfile"),
            {upstream.MIRROR: "ftp://host"},
            "driver.url",
        ),
        (
            Decision(driver="550.142", source="open-source", flavour="proprietary"),
            {upstream.PIN: "ab" * 32},
            "driver.flavour",
        ),
    ],
)
def test_refused_before_anything_is_fetched(
    decision: Decision, attributes: dict[str, str], code: str
) -> None:
    (refusal,) = upstream.refuse(upstream.of(decision, Config(raw=attributes)))
    assert (refusal.code, bool(refusal.remedy)) == (code, True)


def test_the_installer_refuses_what_cannot_be(tmp_path: Path) -> None:
    host = Host(tmp_path / "root")
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    host.write("/etc/apt/sources.list", SOURCES)
    host.write(f"/lib/modules/{KERNEL}/modules.builtin", "")
    host.write("/sys/bus/pci/devices/0000:00:04.0/vendor", "0x10de\n")
    host.write("/sys/bus/pci/devices/0000:00:04.0/device", "0x1db1\n")
    host.write("/sys/bus/pci/devices/0000:00:04.0/class", "0x030200\n")
    with SignerServer(Authority(tmp_path / "pki"), tmp_path / "sock") as server:

        def codes(**attributes: str) -> list[str]:
            raw = {key.replace("_", "-"): value for key, value in attributes.items()}
            config = Config(signer=str(server.path), raw=raw)
            return [refusal.code for refusal in Driver(config).refuse(host)]

        assert codes() == []
        assert codes(cuda_version="13.0") == ["gpu.card-cuda"]
        assert codes(gpu_driver_version="590.48.01") == ["gpu.card-driver"]
        asked = {"gpu_driver_version": "550.142", "gpu_driver_provider": "NVIDIA"}
        assert codes(**asked) == ["driver.pin", "gpu.licence"]
        pinned = {**asked, "airlock_driver_sha256": "ab" * 32}
        assert codes(**pinned, airlock_accept_licences="nvidia-driver") == []
        assert codes(gpu_driver_provider="NONE", cuda_version="13.0") == []
        contract = Driver(Config(signer=str(server.path))).contract(host)
        assert any("10de:1db1 is volta" in note for note in contract.notes)


def test_another_pin_or_flavour_is_a_change(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')

    def choice(**attributes: str) -> Choice:
        raw = {"gpu-driver-version": "550.142", upstream.PIN: "ab" * 32}
        raw |= {key.replace("_", "-"): value for key, value in attributes.items()}
        return Choice(Config(raw=raw))

    runfile = choice(airlock_driver_source="runfile")
    record = {"driver": "550.142", "wishes": runfile.wishes(host)}
    assert runfile.fits(host, record)
    for other in (
        choice(airlock_driver_source="open-source"),
        choice(airlock_driver_source="runfile", airlock_driver_flavour="proprietary"),
        choice(airlock_driver_source="runfile", airlock_driver_sha256="cd" * 32),
        choice(airlock_driver_source="distribution", gpu_driver_version="535.261.03"),
    ):
        assert not other.fits(host, record)
    assert choice(airlock_driver_source="distribution").fits(host, {"driver": "550.142"})
