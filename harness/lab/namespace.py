"""Namespaces of our own: root over a tree of files, with or without being root on the host.

As root the host's ids are used as they are. As an ordinary user every command runs in a user
namespace that maps the user's subordinate ids (``/etc/subuid``), so that files in a tree keep
their owners (user_namespaces(7), newuidmap(1)).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from fixtures import netcapture
from harness.errors import InfraError

_INNER = Path(__file__).with_name("inner.py")

# Tools of the host that live in sbin, which an ordinary user's PATH often lacks.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def root_prefix() -> list[str]:
    """Words to put before a command that must be root over a tree of files."""
    if os.geteuid() == 0:
        return []
    return ["unshare", "--user", "--map-root-user", "--map-auto", "--"]


def host_env() -> dict[str, str]:
    """The environment for tools of the host: its own, with sbin on the PATH."""
    return {**os.environ, "PATH": PATH, "LC_ALL": "C.UTF-8"}


def last_words(log: Path) -> str:
    """The last four lines of a log, as one."""
    lines = log.read_text(errors="replace").strip().splitlines()[-4:]
    return " | ".join(lines) or "it said nothing"


def run_as_root(
    argv: Sequence[str], *, timeout: float, stdin: IO[bytes] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run ``argv`` as root over files.

    Raises :class:`InfraError` with the program's last lines if it fails or outlives ``timeout``.
    """
    try:
        done = subprocess.run(
            [*root_prefix(), *argv],
            stdin=stdin if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            env=host_env(),
            check=False,
        )
    except FileNotFoundError as e:
        raise InfraError(f"{argv[0]} is not installed", hint="airlock doctor --fix") from e
    except subprocess.TimeoutExpired as e:
        raise InfraError(f"{argv[0]} did not end within {timeout:.0f} s") from e
    if done.returncode:
        tail = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()[-6:]
        raise InfraError(f"{argv[0]} ended with {done.returncode}: {' | '.join(tail)}")
    return done


def remove_tree(path: Path) -> None:
    """Remove a tree whose files may belong to subordinate ids."""
    if not path.exists():
        return
    if os.geteuid() == 0:
        shutil.rmtree(path)
    else:
        run_as_root(["rm", "-rf", "--", str(path)], timeout=300)


class Overran(InfraError):
    """A program in a chamber did not end in its time, and was ended."""


@dataclass(frozen=True)
class Bind:
    """A file, directory or socket of the host that is seen at ``target`` inside the tree."""

    source: Path
    target: str
    readonly: bool = False


@dataclass
class Chamber:
    """A tree of files with a network of its own, whose only ways out are sockets given to us.

    ``proxy`` and ``metadata`` are listening sockets inside the chamber's network: whoever accepts
    on them serves the chamber from the host's network. So are those of ``outside``, one for each
    of ``places`` (address, port), from the entry on. Every packet that leaves the chamber's card
    goes to ``capture`` (pcap), and nowhere else. ``hostname`` is the chamber's own, if it has one.
    """

    tree: Path
    capture: Path
    log: Path
    binds: Sequence[Bind] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    places: Sequence[tuple[str, int]] = ()
    hostname: str = ""
    _process: subprocess.Popen[bytes] | None = None
    _control: socket.socket | None = None
    _served: Sequence[socket.socket] = ()
    outside: dict[tuple[str, int], socket.socket] = field(default_factory=dict)

    def __enter__(self) -> Chamber:
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        spec = {
            "tree": str(self.tree),
            "capture": str(self.capture),
            "recorder": netcapture.__file__,
            "binds": [
                {"source": str(b.source), "target": b.target, "ro": b.readonly} for b in self.binds
            ],
            "env": dict(self.env),
            "outside": list(self.places),
            "hostname": self.hostname,
        }
        user = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
        argv = [
            *["unshare", *user, "--mount", "--net", "--pid", "--ipc", "--uts", "--fork"],
            *["--kill-child=KILL", "--", sys.executable, "-I", str(_INNER), str(theirs.fileno())],
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                argv,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=host_env(),
                start_new_session=True,
            )
        theirs.close()
        self._control = ours
        try:
            _send(ours, spec)
            ours.settimeout(30)
            message, fds, _, _ = socket.recv_fds(ours, 65536, 2 + len(self.places))
            answer = json.loads(message) if message else {"error": last_words(self.log)}
            if "error" in answer or len(fds) != 2 + len(self.places):
                raise InfraError(
                    f"the build namespace could not be made: {answer.get('error', 'no sockets')}",
                    hint="airlock doctor names what is missing",
                )
        except BaseException:
            self.close()
            raise
        sockets = [socket.socket(fileno=f) for f in fds]
        self._served = sockets[:2]
        self.outside = dict(zip(self.places, sockets[2:], strict=True))
        return self

    @property
    def proxy(self) -> socket.socket:
        """Listens on the proxy's address, in the chamber."""
        return self._served[0]

    @property
    def metadata(self) -> socket.socket:
        """Listens on the metadata server's address, in the chamber."""
        return self._served[1]

    @property
    def pid(self) -> int:
        """Process id of the chamber, for the ledger of processes."""
        return self._process.pid if self._process else 0

    def run(self, argv: Sequence[str], *, timeout: float) -> tuple[int, str]:
        """Run a program in the chamber; return its exit status and its standard output.

        Standard error goes to ``log``. Raises :class:`InfraError` if the chamber dies, and
        :class:`Overran` if the program outlives ``timeout`` (seconds).
        """
        if self._control is None:
            raise InfraError("the build namespace is not open")
        _send(self._control, {"argv": list(argv), "timeout": timeout})
        self._control.settimeout(timeout + 20)
        try:
            answer = _receive(self._control)
        except (TimeoutError, OSError, ValueError) as e:
            raise InfraError(f"the build namespace died: {last_words(self.log)}") from e
        if "overran" in answer:
            raise Overran(f"{argv[0]} did not end within {timeout:.0f} s")
        if "error" in answer:
            raise InfraError(f"{argv[0]}: {answer['error']}")
        return int(answer["code"]), str(answer["out"])

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the chamber; its capture is complete afterwards. May be called twice."""
        # The listening sockets belong to whoever serves them.
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            # Closing the control socket ends the chamber.
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None


def _send(sock: socket.socket, value: Mapping[str, Any]) -> None:
    data = json.dumps(value).encode()
    sock.sendall(len(data).to_bytes(4, "big") + data)


def _receive(sock: socket.socket) -> dict[str, Any]:
    def exactly(n: int) -> bytes:
        data = b""
        while len(data) < n:
            part = sock.recv(n - len(data))
            if not part:
                raise OSError("closed")
            data += part
        return data

    value: dict[str, Any] = json.loads(exactly(int.from_bytes(exactly(4), "big")))
    return value
