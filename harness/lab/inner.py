"""The inside of a :class:`~harness.lab.namespace.Chamber`: process 1 of the namespaces.

Runs as a program (``python3 -I inner.py FD``) with the standard library only, because it is
started before anything else exists in there. FD is a stream socket to the control side; messages
are a 4-byte big-endian length and JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

PROXY = ("10.0.2.100", 3128)
METADATA = ("169.254.169.254", 80)
MAC = "52:54:00:12:34:56"
_MS_BIND, _MS_REC, _MS_PRIVATE, _MS_REMOUNT, _MS_RDONLY = 0x1000, 0x4000, 1 << 18, 0x20, 1
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_libc = ctypes.CDLL(None, use_errno=True)


def main() -> int:
    control = socket.socket(fileno=int(sys.argv[1]))
    try:
        spec = _receive(control)
        if spec["hostname"]:
            socket.sethostname(spec["hostname"])
        listeners = _network([(address, port) for address, port in spec["outside"]])
        recorder = _Recorder(spec["recorder"], "eth0", spec["capture"])
        _mounts(spec)
    except (OSError, subprocess.CalledProcessError) as e:
        detail = getattr(e, "stderr", None) or str(e)
        socket.send_fds(control, [json.dumps({"error": str(detail).strip()}).encode()], [])
        return 1
    socket.send_fds(control, [b"{}"], [s.fileno() for s in listeners])
    for s in listeners:
        s.close()
    try:
        while (request := _receive(control)) is not None:
            _send(control, _execute(request, spec, control))
    finally:
        recorder.stop()
    return 0


def _network(outside: list[tuple[str, int]]) -> list[socket.socket]:
    """A card whose other end is ours and silent; the addresses that answer are local.

    Returns what listens on them: the proxy, the metadata server, and each of ``outside``.
    """
    peer = "52:55:0a:00:02:02"
    commands = [
        "link set lo up",
        f"addr add {PROXY[0]}/32 dev lo",
        f"addr add {METADATA[0]}/32 dev lo",
        *(f"addr add {address}/32 dev lo" for address in sorted({each[0] for each in outside})),
        f"link add eth0 address {MAC} type veth peer name trap0",
        "link set trap0 up",
        "link set eth0 up",
        "addr add 10.0.2.15/24 dev eth0",
        # Nobody answers ARP on the other end: without fixed neighbours an attempt to get out
        # would end as an ARP question and never show what it was after.
        f"neigh replace 10.0.2.2 lladdr {peer} nud permanent dev eth0",
        f"neigh replace 10.0.2.3 lladdr {peer} nud permanent dev eth0",
        "route add default via 10.0.2.2",
    ]
    ipv6 = [
        "-6 addr add fec0::15/64 dev eth0 nodad",
        f"-6 neigh replace fec0::2 lladdr {peer} nud permanent dev eth0",
        "-6 route add default via fec0::2",
    ]
    if not Path("/proc/sys/net/ipv6").exists():
        ipv6 = []  # a host without IPv6: nothing can leave that way
    for command in commands + ipv6:
        subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)
    return [socket.create_server(each, backlog=256) for each in (PROXY, METADATA, *outside)]


class _Recorder:
    """``netcapture.py`` on our card, from before the first packet to after the last."""

    def __init__(self, program: str, card: str, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", program, card, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self._process.stdout is None or self._process.stdout.readline() != b"ready\n":
            raise OSError(f"the packets of {card} cannot be recorded")

    def stop(self) -> None:
        self._process.communicate(timeout=10)


def _mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()):
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def _mounts(spec: dict[str, Any]) -> None:
    tree = spec["tree"]
    _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
    _mount(tree, tree, "", _MS_BIND)
    _mount("proc", f"{tree}/proc", "proc")
    for target, data in (("dev", "mode=755"), ("tmp", "mode=1777"), ("run", "mode=755")):
        _mount("tmpfs", f"{tree}/{target}", "tmpfs", 0, data)
    for name in _DEVICES:
        Path(f"{tree}/dev/{name}").touch()
        _mount(f"/dev/{name}", f"{tree}/dev/{name}", "", _MS_BIND)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")):
        Path(f"{tree}/dev/{name}").symlink_to(target)
    Path(f"{tree}/dev/shm").mkdir()  # noqa: S108 - a path inside the tree
    Path(f"{tree}/run/lock").mkdir(mode=0o1777)
    for bind in spec["binds"]:
        source, place = Path(bind["source"]), Path(tree + bind["target"])
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            place.mkdir(exist_ok=True)
        else:
            place.touch()
        _mount(str(source), str(place), "", _MS_BIND)
        if bind["ro"]:
            _mount("none", str(place), "", _MS_BIND | _MS_REMOUNT | _MS_RDONLY)


def _execute(
    request: dict[str, Any], spec: dict[str, Any], control: socket.socket
) -> dict[str, Any]:
    """Run one program in the tree. The control side going away ends it at once."""

    def enter() -> None:
        os.chroot(spec["tree"])
        os.chdir("/")

    process = subprocess.Popen(
        request["argv"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=spec["env"],
        preexec_fn=enter,
        start_new_session=True,
    )
    threading.Thread(target=_follow, args=(control, process.pid), daemon=True).start()
    try:
        out, _ = process.communicate(timeout=request["timeout"])
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return {"overran": True}
    return {"code": process.returncode, "out": out.decode(errors="replace")}


def _follow(control: socket.socket, pid: int) -> None:
    poll = select.poll()
    poll.register(control, select.POLLRDHUP | select.POLLHUP)
    while Path(f"/proc/{pid}").exists():
        if poll.poll(500):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            return


def _send(sock: socket.socket, value: dict[str, Any]) -> None:
    data = json.dumps(value).encode()
    sock.sendall(len(data).to_bytes(4, "big") + data)


def _receive(sock: socket.socket) -> Any:
    head = sock.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return None
    return json.loads(sock.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))


if __name__ == "__main__":
    sys.exit(main())
