"""A machine behind a real sshd: this one's files as an overlay, its own processes, /tmp and /run.

What anybody changes on it can be listed. The sshd is unpacked and never installed. Only root can
make such a machine; for others it is an sshd beside us, and what needs more is skipped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from fixtures.daemons import unpack_debs
from fixtures.overlay import OVERLAY
from harness.state import cache_dir

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Where a machine keeps what is gone with its power.
VOLATILE = ("tmp", "run", "dev/shm", "root")
USER = "field"
START = (
    OVERLAY
    + """
mount -t proc proc "$ROOT/proc"
mount --rbind /sys "$ROOT/sys"
for own in $VOLATILE; do mount -t tmpfs tmpfs "$ROOT/$own"; done
mkdir -p "$ROOT/run/sshd" "$ROOT$SSHD" "$ROOT$FOLDER" "$ROOT/home/$USER"
mount --bind "$SSHD" "$ROOT$SSHD"
mount --bind "$FOLDER" "$ROOT$FOLDER"
grep -q ^sshd: "$ROOT/etc/passwd" ||
    echo 'sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin' >>"$ROOT/etc/passwd"
echo "$USER:x:4711:4711::/home/$USER:/bin/sh" >>"$ROOT/etc/passwd"
echo "$USER:x:4711:" >>"$ROOT/etc/group"
echo "$USER:*:19000::::::" >>"$ROOT/etc/shadow"
chown 4711 "$ROOT/home/$USER"
for hidden in $HIDDEN; do mount --bind /dev/null "$ROOT$hidden"; done
eval "$EXTRA"
chroot "$ROOT" "$SSHD/usr/sbin/sshd" -D -e -f "$FOLDER/config" &
wait
"""
)

#: path -> (kind and mode, size, modified at (ns), SHA-256 of a file or target of a link)
Tree = Mapping[str, tuple[int, int, int, str]]


@dataclass(frozen=True)
class Machine:
    """``folder`` has the keys ``user`` and ``host`` and sshd's ``log``; ``pid`` is its init.

    ``skip``: what of its files is sshd's own.
    """

    port: int
    folder: Path
    pid: int
    work: Path
    skip: tuple[str, ...]

    def target(self, scheme: str = "ssh", user: str = "root") -> str:
        """What to call it on a command line, beside a configuration of ssh (see ``ssh_home``)."""
        return f"{scheme}://{user}@127.0.0.1:{self.port}"

    def files(self) -> Tree:
        """All that was changed on it since it was started, and all that lies in its memory."""
        whole()
        inside = Path(f"/proc/{self.pid}/root{self.work}")
        found: dict[str, tuple[int, int, int, str]] = {}
        for top in (inside / "upper", *(inside / "root" / own for own in VOLATILE)):
            for path in sorted(top.rglob("*")):
                if any(name in str(path) for name in self.skip):
                    continue
                found[str(path.relative_to(inside))] = _seen(path)
        return found

    def processes(self) -> dict[int, str]:
        """What runs on it: process id, seen from here, and command line."""
        whole()
        own = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = {}
        for proc in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if proc.name.isdigit() and (proc / "ns/pid").readlink() == own:
                    words = (proc / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(proc.name)] = words.decode(errors="replace").strip()
        return found

    def agents(self) -> list[int]:
        """Those processes that are our agents: they run Python."""
        return [pid for pid, words in self.processes().items() if words.startswith("python3")]

    def sessions(self) -> list[int]:
        """sshd's processes for connections."""
        return [pid for pid, words in self.processes().items() if words.startswith("sshd: ")]

    def run(self, script: str) -> None:
        """Do something as root on the machine, not by ssh."""
        words = ["nsenter", "-t", str(self.pid), "-m", "-p", "chroot", f"{self.work}/root"]
        subprocess.run([*words, "sh", "-ec", script], check=True, env={"PATH": PATH})

    def options(self, key: str = "user") -> list[str]:
        """ssh's options to get in."""
        return [
            *("-F", "none", "-i", f"{self.folder}/{key}", "-o", "IdentitiesOnly=yes"),
            *("-o", f"UserKnownHostsFile={self.folder}/known"),
        ]


def _seen(path: Path) -> tuple[int, int, int, str]:
    status = path.lstat()
    what = ""
    if stat.S_ISREG(status.st_mode):
        what = hashlib.sha256(path.read_bytes()).hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        what = str(path.readlink())
    return status.st_mode, status.st_size, status.st_mtime_ns, what


@contextlib.contextmanager
def running(*, hidden: str = "", extra: str = "") -> Iterator[Machine]:
    """A machine that lets in root and ``USER`` by the key ``folder/user``.

    ``hidden``: programs it does not have. ``extra``: shell, run before its sshd, with $ROOT.
    """
    if hidden or extra:
        whole()
    root = unpack_debs(["openssh-server"], cache_dir("daemons"))
    with tempfile.TemporaryDirectory(prefix="ssh-test-") as name, contextlib.ExitStack() as stack:
        folder, work = Path(name, "sshd"), Path(name, "work")
        folder.mkdir()
        work.mkdir()
        for key in ("host", "user", "stranger"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
            subprocess.run(argv, check=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = int(free.getsockname()[1])
        (folder / "config").write_text(
            f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\n"
            f"AuthorizedKeysFile {folder}/user.pub\nStrictModes no\nUsePAM no\n"
            "PermitRootLogin yes\n"
        )
        Path(name).chmod(0o755)
        know(folder, port, (folder / "host.pub").read_text())
        log = stack.enter_context((folder / "log").open("w"))
        start = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", START]
        if os.geteuid() != 0:
            start = [f"{root}/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/config"]
        told = {"WORK": work, "FOLDER": folder, "SSHD": root, "VOLATILE": " ".join(VOLATILE)}
        told |= {"PATH": PATH, "USER": USER, "HIDDEN": hidden, "EXTRA": extra}
        process = subprocess.Popen(
            start, stderr=log, env={name: str(value) for name, value in told.items()}
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        _wait_for(port, process, folder / "log")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        first = int((children.split() or [str(process.pid)])[0])
        yield Machine(port, folder, first, work, (str(folder), root.name))


def whole() -> None:
    """For tests of what only a machine of its own can show."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a machine of an overlay")


def know(folder: Path, port: int, key: str) -> None:
    """Make this the host key that ssh expects."""
    (folder / "known").write_text(f"[127.0.0.1]:{port} {key}")


def without_python() -> str:
    """Every path by which a session finds a python3."""
    found = {str(Path(place, "python3").resolve()) for place in PATH.split(":")}
    return " ".join(path for path in found if Path(path).exists())


def ssh_in_path(machine: Machine, folder: Path, key: str = "user") -> str:
    """A PATH whose ssh takes this machine's keys, as a user's configuration would make it."""
    folder.mkdir(exist_ok=True)
    program = folder / "ssh"
    real = shutil.which("ssh")
    options = " ".join(machine.options(key))
    program.write_text(f'#!/bin/sh\nexec {real} {options} "$@"\n')
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
