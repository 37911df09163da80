"""Reads a node's files, and remembers what could not be read and why."""

# Thousands of files are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH100, PTH114, PTH115, PTH118, PTH123, PTH208

from __future__ import annotations

import os
import subprocess
from typing import Optional

# More links than this in one path is a loop, as the kernel also thinks (ELOOP).
MAX_LINKS = 40


class Reader:
    """Every collector's only way to the machine.

    ``root`` is "/" on a running node, or the directory an image is mounted at; then ``live`` is
    False, and what only a running kernel knows is named in ``unreadable`` with that reason.
    ``unreadable`` maps the name of a fact ("secure_boot.db") to why there is no value.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = os.path.abspath(root)
        self.live = self.root == "/"
        self.unreadable: dict[str, str] = {}

    def path(self, path: str) -> str:
        """Where the node's absolute ``path`` lies on this machine, links followed inside root."""
        if self.live:
            return path
        done: list[str] = []
        left = [part for part in reversed(path.split("/")) if part]
        links = 0
        while left:
            part = left.pop()
            if part == ".":
                continue
            if part == "..":
                del done[-1:]
                continue
            here = os.path.join(self.root, *done, part)
            # An absolute link in an image means the image's own root, not this machine's.
            if os.path.islink(here) and links < MAX_LINKS:
                links += 1
                target = os.readlink(here)
                if target.startswith("/"):
                    done = []
                left += [step for step in reversed(target.split("/")) if step]
            else:
                done.append(part)
        return os.path.join(self.root, *done)

    def miss(self, fact: str, why: object) -> None:
        """Names a fact that has no value; the first reason is the one that counts."""
        text = str(why)
        if isinstance(why, OSError):
            text = f"{why.strerror or why} ({why.filename})" if why.filename else str(why)
        elif isinstance(why, Exception):
            text = f"{type(why).__name__}: {why}"
        self.unreadable.setdefault(fact, text)

    def need_live(self, fact: str) -> bool:
        """True on a running node; else the fact is noted as unreadable."""
        if not self.live:
            self.miss(fact, f"only a running node has it; {self.root} is not one")
        return self.live

    def data(self, path: str, fact: Optional[str] = None) -> Optional[bytes]:
        """The bytes of a file; None where it cannot be read, noted where ``fact`` is given.

        A path that does not exist is noted too: give ``fact`` only where the file must be there.
        """
        try:
            with open(self.path(path), "rb", buffering=0) as file:
                return file.read()
        except OSError as error:
            if fact:
                self.miss(fact, error)
            return None

    def text(self, path: str, fact: Optional[str] = None) -> Optional[str]:
        """As ``data``, decoded; bytes that are not UTF-8 are kept as surrogates' replacements."""
        data = self.data(path, fact)
        return None if data is None else data.decode("utf-8", "replace")

    def line(self, path: str, fact: Optional[str] = None) -> Optional[str]:
        """The stripped text of a one-line file."""
        text = self.text(path, fact)
        return None if text is None else text.strip()

    def number(self, path: str, fact: Optional[str] = None) -> Optional[int]:
        """The integer a file holds."""
        text = self.line(path, fact)
        try:
            return None if text is None else int(text)
        except ValueError as error:
            if fact:
                self.miss(fact, error)
            return None

    def mode(self, path: str) -> Optional[str]:
        """Permissions in octal, "0644"; None where there is no such file."""
        try:
            return f"{os.stat(self.path(path)).st_mode & 0o7777:04o}"  # noqa: PTH116
        except OSError:
            return None

    def names(self, path: str, fact: Optional[str] = None) -> list[str]:
        """Sorted names in a directory; empty where it cannot be listed."""
        try:
            return sorted(os.listdir(self.path(path)))
        except OSError as error:
            if fact:
                self.miss(fact, error)
            return []

    def command(self, argv: list[str], fact: str, timeout: float = 10.0) -> Optional[str]:
        """Standard output of a program of the running node; None and a note where it fails."""
        if not self.need_live(fact):
            return None
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except (OSError, subprocess.SubprocessError) as error:
            self.miss(fact, error)
            return None
        if done.returncode != 0:
            last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
            self.miss(fact, f"{argv[0]} exited {done.returncode}: {' '.join(last)}")
        return done.stdout.decode("utf-8", "replace")


def assignments(text: str) -> dict[str, str]:
    """``KEY=value`` lines as os-release and /etc/environment write them, quotes taken off."""
    found: dict[str, str] = {}
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("export "):
            line = line[len("export ") :].lstrip()
        key, equals, value = line.partition("=")
        if not equals or line.startswith("#"):
            continue
        value = value.strip()
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "\"'":
            value = value[1:-1]
        found[key.strip()] = value
    return found
