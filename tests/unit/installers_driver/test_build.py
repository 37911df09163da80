"""Build failures get the first error and the right cause; archives stay where they belong."""

from __future__ import annotations

import io
import shutil
import signal
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from installers import build
from installers.build import DriverBuildError
from installers.errors import NodeError
from installers.host import Host

# Words of real builds: (cause, what the error line must hold, output).
_FAILURES = [
    (
        "api-changed",
        "too few arguments to function 'pci_resize_resource'",
        """\
  CC [M]  /w/nvidia/nv-pci.o
/w/nvidia/nv-pci.c: In function 'nv_resize_pcie_bars':
/w/nvidia/nv-pci.c:237:9: error: too few arguments to function 'pci_resize_resource'
  237 |     r = pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size);
make[3]: *** [/usr/src/linux-headers-6.12.107-common/scripts/Makefile.build:229: x.o] Error 1
make: *** [Makefile:140: modules] Error 2""",
    ),
    (
        "api-changed",
        "drm/drm_fbdev_generic.h",
        "/w/nvidia-drm/a.c:5:10: fatal error: drm/drm_fbdev_generic.h: No such file or directory",
    ),
    (
        "api-changed",
        "undefined!",
        'ERROR: modpost: "__rcu_read_lock" [/w/nvidia.ko] undefined!\nmake[2]: *** [a] Error 1',
    ),
    (
        "headers-missing",
        "/lib/modules/6.1.0-9/source: No such file",
        "make[1]: *** /lib/modules/6.1.0-9/source: No such file or directory.  Stop.\n"
        "make: *** [Makefile:82: modules] Error 2",
    ),
    (
        "headers-missing",
        "generated/autoconf.h",
        "cc1: fatal error: /usr/src/l/include/generated/autoconf.h: No such file or directory",
    ),
    (
        "compiler-mismatch",
        "gcc-12: not found",
        "/bin/sh: 1: gcc-12: not found\nmake[3]: *** [x.o] Error 127",
    ),
    (
        "compiler-mismatch",
        "unrecognized command-line option",
        "gcc: error: unrecognized command-line option '-mharden-sls=all'",
    ),
    (
        "no-space",
        "No space left on device",
        "/w/a.c:1:1: error: something\n"
        "/tmp/cc1.s: fatal error: error writing to /tmp/cc1.s: No space left on device",
    ),
    (
        "out-of-memory",
        "Killed signal terminated program cc1",
        "gcc: fatal error: Killed signal terminated program cc1\ncompilation terminated.",
    ),
    ("unknown", "make: *** [all] Error 1", "something odd\nmake: *** [all] Error 1"),
    ("unknown", "only this", "\n\n  only this  \n\n"),
    ("unknown", "no output", ""),
]


@pytest.mark.parametrize(("cause", "words", "output"), _FAILURES)
def test_causes(cause: str, words: str, output: str) -> None:
    found, line = build.classify(output)
    assert (found, words in line) == (cause, True), line


def test_warnings_and_notes_are_not_errors() -> None:
    output = "a.c:1:1: warning: implicit declaration of function\nCONFTEST: set_error\n"
    assert build.classify(output)[0] == "unknown"


@pytest.mark.parametrize("cause", build.CAUSES)
def test_every_cause_has_a_way_out(cause: str) -> None:
    error = DriverBuildError(cause, "a.c:1: error: x")
    assert error.remedy
    assert cause in str(error)
    assert "a.c:1: error: x" in str(error)


def _archive(path: Path, members: list[tarfile.TarInfo]) -> None:
    with tarfile.open(path, "w:xz") as tar:
        for member in members:
            member.size = 4 if member.isfile() else 0
            tar.addfile(member, io.BytesIO(b"text") if member.isfile() else None)


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


def test_unpacks_into_the_nodes_root(tmp_path: Path) -> None:
    files = ["modules/nv/Kbuild", "modules/nv/nvidia/nv.c"]
    _archive(tmp_path / "s.tar.xz", [_member(name) for name in files])
    host = Host(tmp_path)
    build.unpack(host, "/s.tar.xz", "/work/source")
    assert build.source_tree(host, "/work/source") == "/work/source/modules/nv"
    assert host.read("/work/source/modules/nv/nvidia/nv.c") == "text"


@pytest.mark.parametrize(
    "member",
    [
        _member("../outside"),
        _member("/etc/outside"),
        _member("a/../../outside"),
        _member("link", tarfile.SYMTYPE, "/etc/passwd"),
        _member("device", tarfile.CHRTYPE),
    ],
)
def test_archives_that_would_write_elsewhere(tmp_path: Path, member: tarfile.TarInfo) -> None:
    _archive(tmp_path / "s.tar.xz", [member])
    with pytest.raises(NodeError, match="holds"):
        build.unpack(Host(tmp_path), "/s.tar.xz", "/work/source")
    assert not (tmp_path / "work/outside").exists()


def test_a_damaged_archive(tmp_path: Path) -> None:
    (tmp_path / "s.tar.xz").write_bytes(b"\xfd7zXZ\x00 and nothing more")
    with pytest.raises(NodeError, match="cannot be unpacked"):
        build.unpack(Host(tmp_path), "/s.tar.xz", "/work")


def test_an_archive_without_modules(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with pytest.raises(NodeError, match="no kernel modules"):
        build.source_tree(Host(tmp_path), "/work")


def test_the_compiler_of_a_kernel() -> None:
    for text, package in (
        ('CONFIG_CC_VERSION_TEXT="gcc-12 (Debian 12.2.0-14) 12.2.0"', "gcc-12"),
        ('CONFIG_CC_VERSION_TEXT="x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0"', "gcc-14"),
        ('CONFIG_CC_VERSION_TEXT="clang version 16"', None),
    ):
        assert build.compiler_of(f"CONFIG_A=y\n{text}\n") == package
    assert build.compiler_of(None) is None


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_what_a_killed_run_left_working_is_ended(tmp_path: Path) -> None:
    # Host("/"): the orphan must have the same root as the node that is cleared.
    work = tmp_path / "work"
    work.mkdir()
    (work / "Makefile").write_text("all:\n\tsleep 8\n")
    with (
        subprocess.Popen(["make", f"M={work}/probe"], cwd=work) as orphan,
        subprocess.Popen(["sleep", "60"], cwd=work) as other,
    ):
        time.sleep(0.2)
        build.clear(Host(tmp_path), str(work))
        assert orphan.poll() is None
        build.clear(Host("/"), str(work))
        assert orphan.wait(5) == -signal.SIGKILL
        assert other.poll() is None
        other.kill()
    assert not work.exists()


def test_make_is_given_the_kernel_that_will_boot() -> None:
    assert all("6.1.0-56" in flag for flag in build.make_flags("6.1.0-56")[1:])
    assert build.jobs() >= 1
