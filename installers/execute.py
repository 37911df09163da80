"""Runs programs for the host: clean environment, bounded output, nothing left at a timeout."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Optional

import installers

# What a command sees is the same over every transport; a login shell asks for more itself.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": str(Path.home()),
}
# Bytes of each stream that go back; more would not fit one message with room to spare.
MAX_OUTPUT = 8 << 20


def node_path() -> Path:
    """Where a Python finds us: the .pyz we run from, or the source tree."""
    archive = getattr(getattr(installers.__spec__, "loader", None), "archive", None)
    # Not resolved: a file without a name (see harness.transports.ssh) is /proc/PID/fd/N to others.
    return Path(archive or Path(__file__).parent.parent).absolute()


def node_argv() -> list[str]:
    """How to start this node file again."""
    path = node_path()
    if path.is_file():
        return [sys.executable, str(path)]
    return ["/usr/bin/env", f"PYTHONPATH={path}", sys.executable, "-m", "installers"]


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the program and everything it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


class Programs:
    """Starts programs, and knows those that run, so that none outlives the agent."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False
        self._lock = threading.Lock()

    def run(
        self,
        argv: list[str],
        stdin: bytes = b"",
        timeout: Optional[float] = None,
        env: Optional[dict[str, str]] = None,
    ) -> dict[str, Any]:
        """{"code", "out", "err" (bytes), "timed_out", "truncated"}; ``timeout`` in seconds.

        ``code`` is negative for a signal and None where the program was ended at its timeout; then
        ``out`` and ``err`` hold what it had written. Raises OSError where it cannot be started.
        """
        with self._lock:
            if self._stopped:
                raise OSError(errno.ECANCELED, "the agent is ending")
            process = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**ENVIRONMENT, **(env or {})},
                cwd="/",
                start_new_session=True,
            )
            self._running.add(process)
        timed_out = False
        try:
            out, err = process.communicate(stdin, timeout)
        except subprocess.TimeoutExpired as expired:
            # A daemon may keep the pipes of a program that has ended well.
            timed_out = process.poll() is None
            out, err = self._rest(process, expired)
        finally:
            with self._lock:
                self._running.discard(process)
        return {
            "code": None if timed_out else process.returncode,
            "out": out[:MAX_OUTPUT],
            "err": err[:MAX_OUTPUT],
            "timed_out": timed_out,
            "truncated": max(len(out), len(err)) > MAX_OUTPUT,
        }

    def _rest(
        self, process: subprocess.Popen[bytes], expired: subprocess.TimeoutExpired
    ) -> tuple[bytes, bytes]:
        """Ends a program and returns what it had written."""
        _kill(process)
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired as again:
            # Something left the session and still holds the pipes; it is not ours to wait for.
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            return again.stdout or expired.stdout or b"", again.stderr or expired.stderr or b""

    def stop(self) -> None:
        """Ends every program that still runs; none is started from now on."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                _kill(process)
