"""What runs on the node, by the names the kernel knows programs by: /proc/PID."""

from __future__ import annotations

from installers.collect.reader import Reader

Processes = list[tuple[int, str]]


def running(reader: Reader) -> Processes:
    """(PID, name) of every process. A name is cut at 15 bytes (proc(5), comm)."""
    pids = [int(name) for name in reader.names("/proc") if name.isdigit()]
    named = ((pid, reader.line(f"/proc/{pid}/comm")) for pid in pids)
    return [(pid, name) for pid, name in named if name]


def words(reader: Reader, pid: int) -> list[str]:
    """Its command line; empty where it is gone or a thread of the kernel's."""
    text = reader.text(f"/proc/{pid}/cmdline") or ""
    return text.rstrip("\0").split("\0") if text else []
