"""Looks for the rows' things on a node, and does with each what its row says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Optional

from installers import jvm, trust, units
from installers.adopt import finds, kept
from installers.adopt.rows import ROWS, Row
from installers.dialects import environment
from installers.errors import CommandError, NodeError
from installers.host import Host
from installers.journal import Log, read_state
from installers.jvmstores import Stores

_STATUS = "/var/lib/dpkg/status"
_HALF = re.compile(r"^Status: \S+ \S+ (?:half-installed|unpacked|half-configured)$", re.M)
_HELD = re.compile(r"^Package: ((?:lib)?nvidia-\S+)\nStatus: hold ", re.M)
_UPDATES = "/var/lib/dpkg/updates"


@dataclass(frozen=True)
class Found:
    """One thing of a row: a node path, or a package's name."""

    row: Row
    path: str

    @property
    def key(self) -> str:
        """Its setting."""
        return f"{self.row.id}:{self.path}"


def find(host: Host, rows: Sequence[Row] = ROWS) -> list[Found]:
    """What of these rows is on the node, in the rows' order."""
    found = {row.id: list(_places(host, row)) for row in rows if row.sure or row.alone}
    doubtful = [row for row in rows if row.id not in found]
    if doubtful and _ran(host, found):
        found.update({row.id: list(_places(host, row)) for row in doubtful})
    return [Found(row, path) for row in rows for path in found.get(row.id, [])]


def _ran(host: Host, found: Mapping[str, Sequence[str]]) -> bool:
    """Whether something tells that today's scripts ran here; ``found``: what is known already."""
    if kept.memory(host)["files"]:
        return True
    return any(
        bool(found[row.id]) if row.id in found else any(True for _ in _places(host, row))
        for row in ROWS
        if row.sure
    )


def take(host: Host, row: Row, path: str) -> None:
    """Do with one thing what its row says. May be killed anywhere and called again."""
    if row.fate == "set-aside":
        after = f"depmod {path.split('/')[3]}" if row.after == "depmod" else row.after
        kept.move(host, path, row.id, after)
    elif row.fate == "cut":
        kept.cut(host, path, row.id, partial(_without, host, row, path), row.after)
    elif row.fate == "discarded":
        kept.discard(host, path, row.id)
    elif row.fate == "destroyed":
        kept.destroy(host, path, row.id)
    elif row.fate == "released":
        known = kept.memory(host)
        kept.store(host, {**known, "holds": sorted({*known["holds"], path})})
        host.run(["apt-mark", "unhold", path])
    elif row.fate == "mended":
        _mend(host)


def tell(host: Host, log: Optional[Log]) -> None:
    """Tell the programs that read what was taken, and forget that they have yet to be told."""
    for what in list(kept.memory(host)["after"]):
        if log is None:
            _tell(host, what)
        else:
            with log.step(f"tell {what}"):
                _tell(host, what)
        known = kept.memory(host)
        kept.store(host, {**known, "after": [one for one in known["after"] if one != what]})


def _tell(host: Host, what: str) -> None:
    store = trust.store_of(host)
    if what == "units":
        units.reload(host)
    elif what == "reexec" and host.is_running_system:
        environment.reexec(host)
    elif what == "store" and store is not None and host.find_program(store.command[0]) is not None:
        host.run(store.command, timeout=300)
        host.sync(store.bundle)
    elif what.startswith("depmod") and host.find_program("depmod") is not None:
        releases = what.split()[1:] or [
            p.rpartition("/")[2] for p in host.glob("/lib/modules", "*")
        ]
        for release in releases:
            host.run(["depmod", "-a", release], timeout=300)
        host.sync("/lib/modules")


def _places(host: Host, row: Row) -> Iterator[str]:
    if row.id == "ca-java":
        yield from (
            p for p in sorted({one.cacerts for one in jvm.find(host)}) if _finds(host, row, p)
        )
    elif row.id == "holds":
        yield from _held(host)
    elif row.id == "dpkg":
        if _HALF.search(host.read(_STATUS) or "") or _updates(host):
            yield _STATUS
    else:
        seen = set()
        for pattern in row.paths:
            for path in _expand(host, pattern):
                # Two names of one file, such as conf and conf.dist.
                real = host.real(path) if row.cut is not None else path
                if real not in seen and _finds(host, row, real):
                    seen.add(real)
                    yield real


def _finds(host: Host, row: Row, path: str) -> bool:
    if row.find is not None:
        return row.find(host, path)
    text, _ = kept.without_ours(host.read(path) or "")
    return row.cut is not None and _cut(host, row, text) != text


def _cut(host: Host, row: Row, text: str) -> str:
    assert row.cut is not None
    return row.cut(host, text)


def _without(host: Host, row: Row, path: str, data: bytes) -> bytes:
    if row.id == "ca-java":
        return Stores(host).without(path, data, finds.ALIAS)
    text = data.decode("utf-8", "surrogateescape")
    return _cut(host, row, text).encode("utf-8", "surrogateescape")


def _expand(host: Host, pattern: str) -> list[str]:
    """Node paths that fit; ``*`` in any part. A last part that is a link is not followed."""
    found = [""]
    for part in pattern.strip("/").split("/"):
        below: list[str] = []
        for directory in found:
            if "*" not in part:
                below.append(f"{directory}/{part}")
            elif host.path(directory or "/").is_dir():
                below += host.glob(directory or "/", part)
        found = below
    return [path for path in found if os.path.lexists(host.path(path, follow=False))]


def _held(host: Host) -> list[str]:
    ours = {name for part in read_state(host)["memory"].values() for name in part.get("held", [])}
    return sorted(set(_HELD.findall(host.read(_STATUS) or "")) - ours)


def _updates(host: Host) -> list[str]:
    """What dpkg had not written into its record yet."""
    return [p for p in host.glob(_UPDATES, "*") if p.rpartition("/")[2].isdigit()]


def _mend(host: Host) -> None:
    """Let dpkg end what it had begun."""
    why = ""
    try:
        options = ["--force-confdef", "--force-confold"]
        env = {"DEBIAN_FRONTEND": "noninteractive"}
        host.run(["dpkg", *options, "--configure", "-a"], env=env, timeout=900)
        host.sync(_STATUS)
        if _HALF.search(host.read(_STATUS) or ""):
            why = ", and dpkg has nothing left to configure"
    except CommandError as error:
        why = f" and dpkg cannot end it: {error.what}"
    if why:
        raise NodeError(
            f"packages are half installed{why}",
            where=_STATUS,
            remedy="dpkg --audit names them: apt-get install --reinstall, or dpkg --purge, each",
        )
