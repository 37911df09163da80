"""A machine that is not ours, by OpenSSH: one connection, one copy of the node file, one agent.

Where the node has no Python the commands still run, by its ``sh``, and the facts say what could
not be read.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.deadline import Deadline, DeadlinePassed
from harness.transports import shell
from harness.transports.base import AgentOperations, TransportError
from harness.transports.process import Restarting

#: ssh's own exit status for "no connection" (ssh(1), EXIT STATUS).
NO_CONNECTION = 255
CONNECT_SECONDS = 15
PREPARE_SECONDS = 60.0
OLDEST_PYTHON = (3, 9)
#: What commands see, whatever the login shell's files set.
CLEAN = (
    "env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "
    'LANG=C.UTF-8 HOME="${HOME:-/}"'
)

# Prints the version of python3 or "none", and the path of our copy; exit 3: no safe folder for it.
# The folder's name is known to everyone on the node, so it must be ours and nobody else's.
LOOK = """\
python3 -c 'import json, sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo none
d=${TMPDIR:-/tmp}/airlock-$(id -u)
mkdir -m 700 "$d" 2>/dev/null
[ -d "$d" ] && [ ! -L "$d" ] && [ -O "$d" ] || exit 3
chmod 700 "$d" || exit 3
echo "$d"
sha256sum "$d/$1.pyz" 2>/dev/null || echo absent
"""
COPY = 'umask 077; cat >"$1/$2.part" && mv "$1/$2.part" "$1/$2.pyz"'


class SshTransport(AgentOperations):
    """A node behind SSH. Uses the user's ssh configuration and agent; never asks for anything.

    May be used by several threads.
    """

    def __init__(
        self,
        host: str,
        node_file: Path,
        *,
        user: str | None = None,
        port: int | None = None,
        become: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> None:
        """``become`` is a command that gives rights (``sudo -n``); ``options`` are ssh's own."""
        if host.startswith("-"):
            raise TransportError(f"{host!r} is no host name")
        self.name = host
        self._become = list(become)
        self._node_file = node_file
        self._agent = Restarting(host)
        self._lock = threading.Lock()
        self._start: list[str] | None = None
        self._python: str | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="airlock-ssh-")
        self._ssh = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
        self._ssh += ["-o", "ControlMaster=auto", "-o", "ControlPersist=120"]
        self._ssh += ["-o", f"ControlPath={self._folder.name}/c", "-o", "ServerAliveInterval=15"]
        self._ssh += [
            *options,
            *(["-l", user] if user else []),
            *(["-p", str(port)] if port else []),
        ]
        self._host = host

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport. Without Python on the node only commands and facts can be had."""
        start = self._prepared(timeout)
        if start is not None:
            return self._agent.get(start).call(op, timeout, args)
        if op == "exec":
            return self._exec(timeout, args)
        if op == "facts":
            return shell.facts(self.run, args.get("nonce"), timeout, self._why())
        if op == "capture":
            return shell.capture(self.run, args.get("nonce"), timeout, self._why())
        raise TransportError(f"{self.name}: {op}: {self._why()}", hint="install python3 there")

    def close(self) -> None:
        """See Transport."""
        self._agent.close()
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            argv = [*self._ssh, "-O", "exit", "--", self._host]
            subprocess.run(argv, capture_output=True, timeout=5, check=False)
        # ssh removes its socket while we remove the folder it is in.
        shutil.rmtree(self._folder.name, ignore_errors=True)
        self._folder.cleanup()

    def _why(self) -> str:
        if self._python in (None, "none"):
            return "the node has no python3, only sh"
        return f"the node's python3 is {self._python}, and 3.9 is the oldest that will do"

    def _remote(self, script: str, *words: str, become: bool = False) -> list[str]:
        """The ssh command that runs a script by the node's sh, whatever the login shell is."""
        inner = [*(self._become if become else []), "/bin/sh", "-c", script, "sh", *words]
        return [*self._ssh, "--", self._host, f"exec {CLEAN} {shlex.join(inner)}"]

    def _ran(
        self, argv: list[str], what: str, stdin: bytes, deadline: Deadline
    ) -> subprocess.CompletedProcess[bytes]:
        """A finished ssh; raises TransportError where it got no connection."""
        try:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, timeout=deadline.remaining(), check=False
            )
        except OSError as error:
            raise TransportError(f"{self.name}: ssh: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise DeadlinePassed(f"{self.name}: {what}", deadline.seconds) from error
        if done.returncode == NO_CONNECTION:
            said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise TransportError(f"{self.name}: {what}: ssh: {' '.join(said) or 'no connection'}")
        return done

    def _prepared(self, timeout: float) -> list[str] | None:
        """The command that starts the agent there; None where only sh is to be had."""
        with self._lock:
            if self._python is None:
                self._start = self._prepare(Deadline(max(timeout, PREPARE_SECONDS), "preparing"))
            return self._start

    def _prepare(self, deadline: Deadline) -> list[str] | None:
        data = self._node_file.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        done = self._ran(self._remote(LOOK, digest), "looking at the node", b"", deadline)
        lines = done.stdout.decode(errors="replace").splitlines()
        if not lines:
            said = done.stderr.decode(errors="replace").strip()
            raise TransportError(f"{self.name}: its sh exited {done.returncode}: {said[-300:]}")
        version = lines[0]
        if version == "none" or tuple(map(int, version.split("."))) < OLDEST_PYTHON:
            self._python = version
            return None
        if done.returncode != 0 or len(lines) < 3:
            raise TransportError(f"{self.name}: no folder of ours can be made in its /tmp")
        folder, path = lines[1], f"{lines[1]}/{digest}.pyz"
        if not lines[2].startswith(digest):
            copy = self._ran(self._remote(COPY, folder, digest), "copying", data, deadline)
            if copy.returncode != 0:
                said = copy.stderr.decode(errors="replace").strip()
                raise TransportError(f"{self.name}: the node file was not copied: {said[-300:]}")
        self._python = version
        run = f"exec python3 {shlex.quote(path)} agent --stdio"
        return self._remote(run, become=True)

    def _exec(self, timeout: float, args: dict[str, Any]) -> dict[str, Any]:
        """The agent's operation "exec", by sh alone."""
        script = args["sh"] if "sh" in args else "exec " + shlex.join(args["argv"])
        stdin = base64.b64decode(args.get("stdin_b64", ""))
        done = self._ran(
            self._remote(script, become=True), script[:80], stdin, Deadline(timeout, script[:80])
        )
        return {
            "code": done.returncode,
            "out_b64": base64.b64encode(done.stdout).decode(),
            "err_b64": base64.b64encode(done.stderr).decode(),
            "timed_out": False,
            "truncated": False,
        }
