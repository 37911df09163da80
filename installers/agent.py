"""The agent: answers the host's questions over one channel, from boot to shutdown.

One JSON object a line, both ways. The host asks {"id", "op", ...}; the answer is {"id", "ok": true,
"result"} or {"id", "ok": false, "error"}. Long ones run side by side, each in its thread, so that a
program that hangs does not silence the node; an answer is found by its id. Two events come
unasked: "hello" when the agent starts and "ready" when systemd has finished booting. The agent
is resident so that a question costs the answer and not the start of Python.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import gc
import hashlib
import json
import os
import platform
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from installers import controls, probe, thaw
from installers.collect import search, system, systemd
from installers.collect.reader import Reader
from installers.execute import Programs, node_argv
from installers.exits import Exit
from installers.facts import AREAS, SCHEMA, Collector
from installers.port import MAX_LINE, HostGone, Port
from installers.request import BadRequest, Request, decoded, field

MAX_REQUESTS = 16
MAX_PART = 4 << 20
PART_SUFFIX = ".airlock-part"
# Answered before anything else runs: a fork wakes up with daemons that all see a new clock at once.
# Programs are not started from these, so nothing inherits the priority.
URGENT = ("ping", "hello", "identity", "facts", "thaw")
# Answered by the thread that reads: to start one would cost a fork more than the answer.
AT_ONCE = ("ping", "hello", "identity", "thaw")
URGENT_NICE, USUAL_NICE, PATIENT_NICE = -20, 0, 10
# systemctl(1), is-system-running
BOOTING = ("initializing", "starting")
# sd_booted(3)
BOOTED = Path("/run/systemd/system")
PATIENCE = 5.0
# What is being done when the host goes gets this long, in seconds, to clean up after itself.
ENDING = 10.0

Operation = Callable[[Request], Any]


def _nice(value: int) -> None:
    """The priority of this thread, and of what it starts."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), value)


class Agent:
    """Serves one port until it ends (pipes) or for ever (virtio-serial)."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._facts = Collector()
        self._found = search.Found()
        self._programs = Programs()
        self._slots = threading.BoundedSemaphore(MAX_REQUESTS)
        self._asked: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._idle = 0  # threads that wait for the next request
        self._lock = threading.Lock()
        self._event: dict[str, Any] = {}
        # Tells a host whether the agent it asked is the one it hears now.
        self._name = secrets.token_hex(8)
        self._operations: dict[str, Operation] = {
            "ping": lambda _request: {"clock": time.time()},
            "hello": self._hello,
            "identity": self._identity,
            "facts": self._collect,
            "capture": self._capture,
            "exec": self._exec,
            "put": self._put,
            "get": self._get,
            "probe": self._probe,
            "controls": self._controls,
            "hygiene": self._hygiene,
            "cards": self._cards,
            "apply": self._apply,
            "thaw": self._thaw,
        }

    def serve(self) -> None:
        """Announces itself, then answers until the channel ends; ends what it started."""
        _nice(URGENT_NICE)
        self.announce("hello")
        threading.Thread(target=self._wait_until_ready, daemon=True).start()
        try:
            for line in self._port.lines():
                self._receive(line)
        finally:
            self._port.close()
            self._programs.stop()
            # Threads whose programs were ended remove their folders.
            end = time.monotonic() + ENDING
            for _ in range(MAX_REQUESTS):
                self._slots.acquire(timeout=max(0.0, end - time.monotonic()))

    def announce(self, event: str, **more: Any) -> None:
        """Sends an event, which asking "hello" repeats; a host that is away misses nothing."""
        identity = system.identity(Reader())
        self._event = {
            "event": event,
            "boot_id": identity["boot_id"],
            "python": platform.python_version(),
            "version": SCHEMA,
            "agent": self._name,
            **more,
        }
        self._send(self._event)

    def _send(self, message: dict[str, Any]) -> None:
        # An answer to a host that left has no reader; the next host asks again.
        with contextlib.suppress(HostGone):
            self._port.send(message)

    def _wait_until_ready(self) -> None:
        """Tells when systemd has finished booting, then hashes modules while nobody waits."""
        _nice(USUAL_NICE)
        manager = self._settled()
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        state = manager["state"] or "unknown"
        self.announce("ready", state=state, failed=manager["failed"], uptime=round(uptime, 2))
        _nice(PATIENT_NICE)
        self._facts.collect()
        # What is there now stays: collecting garbage must not look at it (and, in a fork, copy it).
        gc.collect()
        gc.freeze()

    def _settled(self) -> dict[str, Any]:
        """systemd's state once it is no longer booting.

        ``--wait`` ends at once, or never, when the manager is re-executed meanwhile, as it is when
        its environment changes (seen with systemd 252). So the manager's own answer counts, and it
        is asked again after a while whether or not the command has ended. While it is re-executed
        it gives none.
        """
        while True:
            # No systemctl: nothing to wait for.
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(
                    ["systemctl", "is-system-running", "--wait"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=PATIENCE,
                    check=False,
                )
            manager: dict[str, Any] = systemd.collect(Reader())
            silent = manager["state"] is None and BOOTED.is_dir()
            if not silent and manager["state"] not in BOOTING:
                return manager
            time.sleep(0.2)

    def _receive(self, line: Optional[bytes]) -> None:
        """Starts what a line asks for; a line that is no request is answered with an error."""
        if line is None:
            self._refuse(None, f"a line of more than {MAX_LINE} bytes")
            return
        try:
            request = json.loads(line)
        except (ValueError, RecursionError) as error:
            self._refuse(None, f"not a JSON line: {error}")
            return
        if not isinstance(request, dict):
            self._refuse(None, "a request is a JSON object")
            return
        if not self._slots.acquire(blocking=False):
            self._refuse(request.get("id"), f"busy: {MAX_REQUESTS} requests are running")
            return
        if request.get("op") in AT_ONCE:
            self._answer(request)
            return
        with self._lock:
            self._idle -= 1
            more = self._idle < 0
            self._idle = max(self._idle, 0)
        if more:
            threading.Thread(target=self._work, daemon=True).start()
        self._asked.put(request)

    def _work(self) -> None:
        """A thread: answers, and waits for more. They stay: starting one is dear to a fork."""
        while True:
            self._answer(self._asked.get())
            with self._lock:
                self._idle += 1

    def _refuse(self, number: Any, error: str) -> None:
        self._send({"id": number, "ok": False, "error": error})

    def _answer(self, request: Request) -> None:
        """Runs one operation; whatever breaks in it becomes the answer."""
        number, name = request.get("id"), request.get("op")
        _nice(URGENT_NICE if name in URGENT else USUAL_NICE)
        try:
            operation = self._operations.get(name) if isinstance(name, str) else None
            if operation is None:
                known = ", ".join(sorted(self._operations))
                raise BadRequest(f"no operation {name!r:.80}; there are {known}")
            result = operation(request)
            self._send({"id": number, "ok": True, "result": result})
        except (BadRequest, controls.ControlError) as error:
            self._refuse(number, str(error))
        except Exception as error:  # the agent must outlive every request
            self._refuse(number, f"{name}: {type(error).__name__}: {error}")
        finally:
            self._slots.release()

    def _hello(self, _request: Request) -> dict[str, Any]:
        """Repeats the last event, for a host that came late."""
        self._send(self._event)
        return self._event

    def _identity(self, request: Request) -> dict[str, Any]:
        nonce = request.get("nonce")
        return {**system.identity(Reader()), "nonce": nonce, "clock": time.time()}

    def _collect(self, request: Request) -> dict[str, Any]:
        only = field(request, "only", list, None)
        if only is not None and not all(area in AREAS for area in only):
            raise BadRequest(f"facts: the areas are {', '.join(AREAS)}")
        return self._facts.collect(field(request, "nonce", str, None), only)

    def _capture(self, request: Request) -> dict[str, Any]:
        # As with the cards: most nodes are never asked.
        from installers import capture

        return capture.collect(self._facts, field(request, "nonce", str, None))

    def _exec(self, request: Request) -> dict[str, Any]:
        """Runs ``argv``, or ``sh`` under /bin/sh."""
        if "sh" in request:
            argv = ["/bin/sh", "-c", field(request, "sh", str)]
        else:
            argv = field(request, "argv", list)
        if not argv or not all(isinstance(word, str) for word in argv):
            raise BadRequest("exec: 'argv' must be a list of at least one string")
        env = field(request, "env", dict, {})
        stdin = decoded(field(request, "stdin_b64", str, ""), "stdin_b64")
        timeout = field(request, "timeout", (int, float), 60)
        try:
            done = self._programs.run(argv, stdin, timeout, env)
        except OSError as error:
            # What a shell says of a program it cannot start, so that callers see one world.
            code = 127 if isinstance(error, FileNotFoundError) else 126
            text = f"{argv[0]}: {error.strerror}".encode()
            done = {"code": code, "out": b"", "err": text, "timed_out": False, "truncated": False}
        for stream in ("out", "err"):
            done[f"{stream}_b64"] = base64.b64encode(done.pop(stream)).decode()
        return done

    def _put(self, request: Request) -> dict[str, Any]:
        """Writes one part of a file; the last part makes it appear, whole, under its name."""
        path = field(request, "path", str)
        data = decoded(field(request, "data_b64", str), "data_b64")
        part = path + PART_SUFFIX
        first = not field(request, "append", bool, False)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if first else os.O_APPEND)
        with os.fdopen(os.open(part, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not field(request, "last", bool, True):
            return {"size": Path(part).stat().st_size}
        whole = Path(part)
        whole.chmod(field(request, "mode", int, 0o644))
        digest = hashlib.sha256(whole.read_bytes()).hexdigest()
        whole.replace(path)
        return {"size": Path(path).stat().st_size, "sha256": digest}

    def _get(self, request: Request) -> dict[str, Any]:
        """Reads up to MAX_PART bytes of a file from ``offset``; ``eof`` says that it was all."""
        path = field(request, "path", str)
        offset = field(request, "offset", int, 0)
        with Path(path).open("rb") as file:
            file.seek(offset)
            data = file.read(MAX_PART)
            eof = not file.read(1)
        return {"data_b64": base64.b64encode(data).decode(), "eof": eof}

    def _probe(self, _request: Request) -> list[dict[str, Any]]:
        self._facts.probes = probe.run()
        return self._facts.probes

    def _controls(self, request: Request) -> list[dict[str, Any]]:
        stranger = field(request, "stranger_b64", str, None)
        module = field(request, "module", str, "nvidia")
        data = None if stranger is None else decoded(stranger, "stranger_b64")
        self._facts.controls, self._facts.no_controls = [], ""
        try:
            self._facts.controls = controls.run_controls(module, data)
        except controls.ControlError as error:
            self._facts.no_controls = str(error)
            raise
        return self._facts.controls

    def _hygiene(self, request: Request) -> dict[str, Any]:
        secrets = [decoded(text, "secrets_b64") for text in field(request, "secrets_b64", list, [])]
        paths = field(request, "paths", list, None)
        self._facts.searched = search.search(secrets, paths, found=self._found)
        return self._facts.searched

    def _cards(self, _request: Request) -> dict[str, Any]:
        # Most nodes are never asked; what is resident there is what is needed there.
        from installers.collect import cards

        self._facts.cards = cards.Trial(self._programs).collect()
        return self._facts.cards

    def _thaw(self, request: Request) -> dict[str, Any]:
        """Makes this fork a machine of its own; what was collected before is another's."""
        done = thaw.thaw(
            float(field(request, "clock", (int, float))),
            decoded(field(request, "entropy_b64", str), "entropy_b64"),
            field(request, "name", str),
            field(request, "mac", str),
        )
        self._facts.probes, self._facts.controls, self._facts.searched = [], [], {}
        self._facts.no_controls, self._facts.cards = "", None
        return done

    def _apply(self, request: Request) -> dict[str, Any]:
        """Runs the installers in a process of their own; ``metadata`` is an object or a URL."""
        metadata = field(request, "metadata", (str, dict), None)
        argv = [*node_argv(), "apply", "--json"]
        only = field(request, "only", list, [])
        if only:
            argv += ["--only", ",".join(map(str, only))]
        timeout = field(request, "timeout", (int, float), 3600)
        # Metadata may hold a password: memory only, and gone when the installers are.
        with tempfile.TemporaryDirectory(dir="/run", prefix="airlock-apply-") as folder:
            if isinstance(metadata, str):
                argv += ["--metadata", metadata]
            elif metadata is not None:
                path = Path(folder, "metadata.json")
                path.write_text(json.dumps(metadata), encoding="utf-8")
                argv += ["--metadata", str(path)]
            done = self._programs.run(argv, b"", timeout)
        try:
            summary = json.loads(done["out"])
        except ValueError:
            last = done["err"].decode("utf-8", "replace").strip()[-2000:]
            raise BadRequest(f"apply printed no JSON and exited {done['code']}: {last}") from None
        return {"code": done["code"], "summary": summary}


def main(argv: list[str]) -> int:
    """The verb ``agent --port DEVICE | --stdio``; returns an exit code of installers.exits."""
    parser = argparse.ArgumentParser(prog="airlock-node.pyz agent", description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", metavar="DEVICE", help="a virtio-serial port or a terminal")
    where.add_argument("--stdio", action="store_true", help="standard input and output")
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="end when the host was not heard for so long (it sends empty lines); for --stdio",
    )
    options = parser.parse_args(argv)
    try:
        port = Port.stdio(options.patience) if options.stdio else Port.open(options.port)
        Agent(port).serve()
    except OSError as error:
        print(f"agent: {error}", file=sys.stderr)
        return Exit.UNKNOWN
    return Exit.PASS
