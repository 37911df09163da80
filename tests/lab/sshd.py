"""A real sshd on loopback, unpacked for the test and never installed."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from fixtures.daemons import unpack_debs
from harness.state import cache_dir

# As root sshd wants a user of its own to leave its rights to, and this machine may have none.
AS_ROOT = """
mount --bind "$1/passwd" /etc/passwd && mount --bind "$1/run" /run && mkdir -p /run/sshd || exit 1
for hidden in $3; do mount --bind /dev/null "$hidden"; done
exec "$2" -D -e -f "$1/config"
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextlib.contextmanager
def running_sshd(*, python: bool = True) -> Iterator[tuple[int, Path]]:
    """(port, folder) of an sshd that lets in whoever runs this test, by the key ``folder/user``.

    Without ``python`` its sessions find no python3: only root can arrange that.
    """
    root = unpack_debs(["openssh-server"], cache_dir("daemons"))
    with tempfile.TemporaryDirectory(prefix="ssh-test-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for key in ("host", "user"):
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
        sshd = root / "usr/sbin/sshd"
        argv = [str(sshd), "-D", "-e", "-f", str(folder / "config")]
        if os.geteuid() == 0:
            passwd = Path("/etc/passwd").read_text()
            if "\nsshd:" not in passwd:
                passwd += "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n"
            (folder / "passwd").write_text(passwd)
            (folder / "run").mkdir()
            found = {str(Path(d, "python3").resolve()) for d in PATH.split(":")}
            hidden = "" if python else " ".join(p for p in found if Path(p).exists())
            argv = ["unshare", "--mount", "sh", "-c", AS_ROOT, "sh", str(folder), str(sshd), hidden]
        log = stack.enter_context((folder / "log").open("w"))
        process = subprocess.Popen(argv, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        _wait_for(port, process, folder / "log")
        yield port, folder


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
