"""The kernel's log: the whole of it through klogctl(3), and lines that mean trouble."""

from __future__ import annotations

import ctypes
import os
import re

from installers.collect.reader import Reader

READ_ALL = 3
BUFFER_SIZE = 10

# Name -> what the kernel prints. A hit is a fact; which of them fails a check is the check's word.
FLAGS = (
    ("panic", re.compile(r"Kernel panic - not syncing")),
    ("oops", re.compile(r"Oops: |BUG: |general protection fault")),
    ("warning", re.compile(r"WARNING: CPU: ")),
    ("oom", re.compile(r"Out of memory: |oom-kill:")),
    ("segfault", re.compile(r"segfault at ")),
    ("hung-task", re.compile(r"blocked for more than \d+ seconds|soft lockup|rcu.*stall")),
    ("io-error", re.compile(r"I/O error|EXT4-fs error|XFS .*[Cc]orruption")),
    ("taint", re.compile(r"tainting kernel|taints kernel")),
    (
        "module-rejected",
        re.compile(r"Loading of .* is rejected|module loading is restricted|version magic"),
    ),
    ("nvrm", re.compile(r"NVRM: ")),
    ("ordering-cycle", re.compile(r"Found ordering cycle")),
)
ANY = re.compile("|".join(pattern.pattern for _name, pattern in FLAGS))
PREFIX = re.compile(r"^<\d+>")


def read() -> str:
    """The kernel's ring buffer as text; raises OSError where the node does not let us."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = libc.klogctl(BUFFER_SIZE, None, 0)
    if size >= 0:
        buffer = ctypes.create_string_buffer(size + 1)
        size = libc.klogctl(READ_ALL, buffer, size)
    if size < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "the kernel's log")
    return buffer.raw[:size].decode("utf-8", "replace")


def flags(text: str) -> list[dict[str, str]]:
    """[{"name", "line"}] for each line of the log that matches a pattern, in order."""
    found = []
    for line in text.splitlines():
        # One search decides for the thousand lines that mean nothing.
        if ANY.search(line):
            name = next(name for name, pattern in FLAGS if pattern.search(line))
            found.append({"name": name, "line": PREFIX.sub("", line)})
    return found


def collect(reader: Reader) -> list[dict[str, str]]:
    """Flagged lines of the running kernel's log."""
    if not reader.need_live("kernel_log_flags"):
        return []
    try:
        return flags(read())
    except OSError as error:
        reader.miss("kernel_log_flags", error)
        return []
