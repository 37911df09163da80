"""A root to install into: another person's files in it, and the few programs that are needed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from installers.journal import JOURNAL, STATE

PROGRAMS = (
    *("sh", "update-ca-certificates", "openssl", "sed", "find", "sort", "cat", "mktemp", "mv"),
    *("rm", "ln", "readlink", "chmod", "mkdir", "run-parts", "wc", "awk", "basename", "ls", "cp"),
    *("env", "test", "xargs", "grep"),
)
#: A kernel's name; its modules are the tests' own.
KERNEL = "6.1.0-56-cloud-amd64"
#: What others wrote, with modes that are not the usual ones: path -> (content, mode).
FOREIGN = {
    "etc/os-release": ('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', 0o644),
    "etc/environment": ("LANG=C\n# no newline at the end", 0o664),
    "etc/apt/sources.list": (
        "deb http://mirror.test/debian bookworm main contrib non-free\n"
        "deb http://mirror.test/debian bullseye-backports main",
        0o600,
    ),
    "etc/apt/sources.list.d/rival.list": (
        "deb http://mirror.test/debian bookworm-updates main\n"
        "deb [arch=amd64] https://packages.acme.test/deb bookworm main\n",
        0o640,
    ),
    "etc/apt/apt.conf.d/50site": ('Acquire::Retries "3";\n', 0o644),
    "etc/gitconfig": ("[user]\n\tname = Somebody\n", 0o640),
    "etc/dnf/dnf.conf": ("[main]\ngpgcheck=1\n", 0o644),
    "etc/boto.cfg": ("[Boto]\nhttps_validate_certificates = True\n[GSUtil]\n", 0o640),
    "etc/wgetrc": ("timeout = 5\n", 0o444),
    "etc/sudoers.d/README": ("read me\n", 0o440),
    "usr/lib/systemd/system/docker.service": ("[Service]\nExecStart=/usr/bin/dockerd\n", 0o644),
    "usr/lib/systemd/system/containerd.service": ("[Service]\nExecStart=/usr/bin/c\n", 0o644),
    "opt/conda/condabin/conda": ("#!/bin/sh\n", 0o755),
    "opt/conda/conda-meta/history": ("", 0o644),
    "opt/site/pip.conf": ("[global]\ntimeout = 60\n", 0o604),
}
#: Directories that a distribution's own packages bring.
STANDARD = (
    *("etc/ssl/certs", "usr/local/share/ca-certificates", "usr/share/keyrings", "etc/profile.d"),
    *("etc/systemd/system/multi-user.target.wants", "etc/modprobe.d"),
)
#: Links that others made: path -> target.
LINKS = {"etc/pip.conf": "../opt/site/pip.conf"}

#: In memory: a disk would be waited for at every fsync.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None

needs_chroot = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("update-ca-certificates") is None,
    reason="needs root for chroot, and update-ca-certificates",
)


def prepare(root: Path, authorities: list[bytes]) -> None:
    """Make the root; the system's store in it holds these authorities (PEM) and no others."""
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in PROGRAMS:
        add_program(root, name)
    for path, (content, mode) in FOREIGN.items():
        _put(root / path, content.encode(), mode)
    for path, target in LINKS.items():
        (root / path).symlink_to(target)
    os.chown(root / "opt/site/pip.conf", 1000, 100)
    bundle = root / "opt/conda/ssl/cacert.pem"
    _put(bundle, b"".join(authorities), 0o644)
    twin = root / "opt/conda/lib/python3.11/site-packages/certifi/cacert.pem"
    twin.parent.mkdir(parents=True)
    twin.hardlink_to(bundle)
    _put(root / f"lib/modules/{KERNEL}/modules.builtin", b"", 0o644)
    _put(root / f"lib/modules/{KERNEL}/modules.order", b"", 0o644)
    names = [f"test/{number}.crt" for number in range(len(authorities))]
    for name, pem in zip(names, authorities, strict=True):
        _put(root / "usr/share/ca-certificates" / name, pem, 0o644)
    _put(root / "etc/ca-certificates.conf", "".join(f"{n}\n" for n in names).encode(), 0o644)
    for directory in (*STANDARD, "tmp", "var/tmp", "run", "root", "dev"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    # Once, so that the store is what it will be again after a removal.
    run_in(root, "update-ca-certificates", "--fresh")


def run_in(root: Path, *argv: str) -> None:
    """Run a program of the root in it."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    command = ["chroot", str(root), *argv]
    subprocess.run(command, check=True, capture_output=True, env=environment)


def copy(source: Path, target: Path) -> None:
    """A copy with owners, modes, links and hard links."""
    if target.exists():
        shutil.rmtree(target)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def tree(root: Path) -> dict[str, str]:
    """Every path with kind, mode, owner and content. Of the state only what is remembered."""
    found: dict[str, str] = {}
    for directory, names, files in os.walk(root):
        for name in [*names, *files]:
            path = Path(directory) / name
            node = f"/{path.relative_to(root)}"
            if node != JOURNAL:
                found[node] = _shown(path, node)
    return found


def differences(found: dict[str, str], should: dict[str, str]) -> list[str]:
    """``path: what is, not what should be``, for people."""
    return [
        f"{path}: {found.get(path, 'absent')}, not {should.get(path, 'absent')}"
        for path in sorted({*found, *should})
        if found.get(path) != should.get(path)
    ]


def _shown(path: Path, node: str) -> str:
    status = path.lstat()
    owner = f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid}:{status.st_gid}"
    if path.is_symlink():
        return f"link to {path.readlink()}"
    if path.is_dir():
        return f"directory {owner}"
    if not path.is_file():
        return f"device {owner}"
    data = path.read_bytes()
    if node == STATE:
        data = json.dumps(json.loads(data)["memory"], sort_keys=True).encode()
    # Thirteen megabytes three times a round: SHA-256 would take most of its time.
    digest = hashlib.sha1(data, usedforsecurity=False).hexdigest()[:12]
    return f"file {owner} {len(data)} bytes {digest}"


def _put(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(mode)


def add_program(root: Path, name: str, program: str | None = None, libraries: str = "") -> None:
    """Copy a program, of this machine or the one given, with the libraries that ldd names.

    ``libraries``: where else the loader shall look, as LD_LIBRARY_PATH.
    """
    program = program or shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    assert program is not None, name
    where = "usr/sbin" if "/sbin/" in program else "usr/bin"
    _copy_once(Path(program).resolve(), root / where / name)
    environment = {"LD_LIBRARY_PATH": libraries, "PATH": os.environ["PATH"]}
    argv = ["ldd", program]
    said = subprocess.run(argv, capture_output=True, text=True, env=environment).stdout
    for library in re.findall(r"(/\S+)", said):
        place = library
        for extra in filter(None, libraries.split(":")):
            if library.startswith(extra):
                place = f"/usr/lib/x86_64-linux-gnu{library.removeprefix(extra)}"
        _copy_once(Path(library).resolve(), root / place.lstrip("/"))


def _copy_once(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
