"""A machine that is not ours, by OpenSSH: one connection, one agent, and nothing on its disk.

The node file travels over the connection into a file without a name, in memory where the kernel
can (memfd_create(2)), and runs from there: it is gone with its last process, however that ends.
Where the node has no Python the commands still run, by its ``sh``, and the facts say what could
not be read.
"""

from __future__ import annotations

import base64
import contextlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.deadline import Deadline, DeadlinePassed
from harness.transports import shell
from harness.transports.base import AgentOperations, NoPython, TransportError
from harness.transports.lines import PATIENCE, PULSE, Watch
from harness.transports.process import AgentProcess, Restarting
from harness.transports.sshsays import explained

#: ssh's own exit status for "no connection" (ssh(1), EXIT STATUS).
NO_CONNECTION = 255
CONNECT_SECONDS = 15
#: How long a connection outlives its last use, for what comes next; no longer, for it is ours.
PERSIST_SECONDS = 10
PREPARE_SECONDS = 60.0
OLDEST_PYTHON = (3, 9)
#: What commands see, whatever the login shell's files set.
CLEAN = (
    "env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "
    'LANG=C.UTF-8 HOME="${HOME:-/}"'
)
#: Begins the line that tells the node's Python; what came before is a login shell's noise.
GREETING = "airlock-python: "
# A python3 that does not even start is none.
FIND = f"""\
python3 -c '' 2>/dev/null || {{ echo '{GREETING}none'; exit 0; }}
exec python3 -B -c "$@"
"""
# Runs on any Python 3. The node file is read from standard input, byte by byte counted: what
# follows it is for the agent. Others find a file without a name by /proc/PID/fd.
BOOT = f"""\
import os, sys
print("{GREETING}%d.%d" % sys.version_info[:2])
sys.stdout.flush()
if sys.version_info < {OLDEST_PYTHON}:
    sys.exit(0)
import runpy
try:
    descriptor = os.memfd_create("airlock-node")
except (AttributeError, OSError):
    import tempfile
    nameless = tempfile.TemporaryFile()
    descriptor = nameless.fileno()
left = int(sys.argv[1])
while left:
    data = os.read(0, min(left, 1 << 20))
    if not data:
        sys.exit("the node file was cut off")
    left -= len(data)
    while data:
        data = data[os.write(descriptor, data):]
path = "/proc/%d/fd/%d" % (os.getpid(), descriptor)
sys.argv = [path, "agent", "--stdio", "--patience", sys.argv[2]]
runpy.run_path(path, run_name="__main__")
"""


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
        patience: float = PATIENCE,
        watch: Watch = lambda: None,
    ) -> None:
        """``become`` is a command that gives rights (``sudo -n``); ``options`` are ssh's own.

        ``patience``: seconds without a word of us after which the agent there ends. ``watch`` is
        called while a connection is made, and may raise.
        """
        if host.startswith("-"):
            raise TransportError(f"{host!r} is no host name")
        self.name = host
        self._become = list(become)
        self._node_file = node_file
        self._patience = patience
        self._watch = watch
        self._agent = Restarting(self._started)
        self._no_python: str | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="airlock-ssh-")
        self._ssh = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"]
        self._ssh += ["-o", "ControlMaster=auto", "-o", f"ControlPersist={PERSIST_SECONDS}"]
        self._ssh += ["-o", f"ControlPath={self._folder.name}/c", "-o", "ServerAliveInterval=15"]
        # The node file is a megabyte that packs to a quarter.
        self._ssh += ["-o", "Compression=yes"]
        self._ssh += [
            *options,
            *(["-l", user] if user else []),
            *(["-p", str(port)] if port else []),
        ]
        self._host = host

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport. Without Python on the node only commands and facts can be had."""
        if self._no_python is None:
            try:
                return self._agent.get().call(op, timeout, args)
            except NoPython as error:
                self._no_python = error.message
        if op == "exec":
            return self._exec(timeout, args)
        if op == "facts":
            return shell.facts(self.run, args.get("nonce"), timeout, self._no_python)
        if op == "capture":
            return shell.capture(self.run, args.get("nonce"), timeout, self._no_python)
        raise NoPython(f"{self.name}: {op}: {self._no_python}", hint="install python3 there")

    def close(self) -> None:
        """See Transport."""
        self._agent.close()
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            argv = [*self._ssh, "-O", "exit", "--", self._host]
            subprocess.run(argv, capture_output=True, timeout=5, check=False)
        # ssh removes its socket while we remove the folder it is in.
        shutil.rmtree(self._folder.name, ignore_errors=True)
        self._folder.cleanup()

    def forward(self, there: str, here: Path) -> None:
        """Have a socket of ours appear on the node for as long as the connection lives.

        It is made by whom ssh logs in as. Raises TransportError.
        """
        self.run("true")  # the connection that it is a part of
        argv = [*self._ssh, "-O", "forward", "-R", f"{there}:{here}", "--", self._host]
        done = subprocess.run(argv, capture_output=True, timeout=CONNECT_SECONDS, check=False)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-300:]
            raise TransportError(f"{self.name}: {there}: {said or 'no forwarding'}")

    def _remote(self, script: str, *words: str) -> list[str]:
        """The ssh command that runs a script by the node's sh, whatever the login shell is."""
        inner = [*self._become, "/bin/sh", "-c", script, "sh", *words]
        return [*self._ssh, "--", self._host, f"exec {CLEAN} {shlex.join(inner)}"]

    def _started(self) -> AgentProcess:
        """A new agent there. Raises NoPython, TransportError, DeadlinePassed."""
        deadline = Deadline(PREPARE_SECONDS, f"{self.name}: starting the agent")
        data = self._node_file.read_bytes()
        argv = self._remote(FIND, BOOT, str(len(data)), f"{self._patience:g}")
        agent = AgentProcess(self.name, argv, pulse=min(PULSE, self._patience / 4))
        with contextlib.ExitStack() as undo:
            undo.callback(agent.close)
            version = agent.greeted(GREETING, deadline, self._watch)
            if version is None:
                raise self._refused(*agent.last_words(), "starting the agent")
            if version == "none":
                raise NoPython("the node has no python3, only sh")
            if tuple(map(int, version.split("."))) < OLDEST_PYTHON:
                oldest = ".".join(map(str, OLDEST_PYTHON))
                raise NoPython(
                    f"the node's python3 is {version}, and {oldest} is the oldest that will do"
                )
            agent.feed(data, deadline)
            agent.start()
            undo.pop_all()
        return agent

    def _refused(self, code: int | None, said: str, what: str) -> TransportError:
        """The error for an ssh, or a sudo, that got nowhere."""
        known = explained(said)
        if known:
            return TransportError(f"{self.name}: {known[0]}", hint=known[1])
        last = " ".join(said.splitlines()[-1:])[-300:]
        if code == NO_CONNECTION:
            return TransportError(f"{self.name}: {what}: ssh: {last or 'no connection'}")
        return TransportError(f"{self.name}: {what}: its sh exited {code}: {last}")

    def _exec(self, timeout: float, args: dict[str, Any]) -> dict[str, Any]:
        """The agent's operation "exec", by sh alone."""
        script = args["sh"] if "sh" in args else "exec " + shlex.join(args["argv"])
        what = script[:80]
        stdin = base64.b64decode(args.get("stdin_b64", ""))
        try:
            done = subprocess.run(
                self._remote(script), input=stdin, capture_output=True, timeout=timeout, check=False
            )
        except OSError as error:
            raise TransportError(f"{self.name}: ssh: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise DeadlinePassed(f"{self.name}: {what}", timeout) from error
        if done.returncode == NO_CONNECTION:
            raise self._refused(done.returncode, done.stderr.decode(errors="replace"), what)
        return {
            "code": done.returncode,
            "out_b64": base64.b64encode(done.stdout).decode(),
            "err_b64": base64.b64encode(done.stderr).decode(),
            "timed_out": False,
            "truncated": False,
        }
