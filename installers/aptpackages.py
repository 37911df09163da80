"""Packages in exactly the versions that were asked for, held there, and released again.

What is installed and held here is remembered, so that removing touches nothing of anybody else's:
a hold that an administrator set stays, and a package that was there before stays. What came along
with a package of ours goes with it where apt says that nothing else needs it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Optional

from installers import debian
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Log, recall, remember

_EXACTLY = re.compile(r"([a-z0-9][a-z0-9+.-]+)(?::\w+)? \(= ([^)]+)\)")
_REMOVED = re.compile(r"(?m)^Remv (\S+)")


@dataclass(frozen=True)
class Wish:
    """A package by name. ``version`` is the vendor's own; ``variant`` must be in Debian's, too.

    ``key``: the metadata key that asked for it, for messages.
    """

    name: str
    version: str
    variant: str = ""
    key: str = ""

    def fits(self, version: str) -> bool:
        """Whether a package's version is the one that is meant: ``2.23.4-1+cuda12.6``."""
        own, dash, revision = re.sub(r"^\d+:", "", version).rpartition("-")
        return (own if dash else revision) == self.version and self.variant in revision

    def among(self, have: Sequence[str], manager: str) -> list[str]:
        """What fits of the versions that ``manager`` offers, in their order; NodeError if none."""
        fitting = [version for version in have if self.fits(version)]
        if not fitting:
            offers = f"only {', '.join(have[:5])}" if have else "no such package"
            extra = f" for {self.variant}" if self.variant else ""
            raise NodeError(
                f"{self.name} {self.version}{extra}: {manager} has {offers}",
                where=self.key,
                remedy="ask for a version that is there, or add the repository that has it "
                "(airlock-repositories)",
            )
        return fitting


def note(
    host: Host,
    memory: str,
    wishes: Sequence[Wish],
    there: Container[str],
    already: Container[str],
    along: Collection[str] = (),
) -> list[str]:
    """Remember, before anything is changed, what will be ours: a kill leaves it known.

    ``there`` are the packages that are installed, ``already`` those that are held, ``along`` those
    that come because ours need them. Returns all that is to be held by us.
    """
    known = recall(host, memory)
    names = [wish.name for wish in wishes]
    added = sorted({*known.get("added", []), *(name for name in names if name not in there)})
    hold = sorted({*known.get("held", []), *(name for name in names if name not in already)})
    came = sorted({*known.get("along", []), *along})
    remember(host, memory, {"added": added, "held": hold, "along": came})
    return hold


def forget(host: Host, memory: str, keep: set[str]) -> None:
    """Forget what was ours, but for ``keep``."""
    known = recall(host, memory)
    left = {key: sorted(set(known.get(key, [])) & keep) for key in ("added", "held")}
    # Where something of ours stays, so may what it needs.
    if any(left.values()):
        remember(host, memory, {**left, "along": known.get("along", [])})
    else:
        remember(host, memory, {})


@contextlib.contextmanager
def fresh(host: Host, log: Log) -> Iterator[None]:
    """apt's lists as they are now, and gone again where an image had none."""
    with debian.apt_lists(host):
        with log.step("apt-update"):
            host.apt("update", timeout=1800)
        yield


def hosts(host: Host) -> list[str]:
    """Names that apt contacts."""
    return debian.apt_hosts(host)


def plain(host: Host, name: str) -> None:
    """A package in whatever version the repositories have."""
    host.apt("install", "--no-install-recommends", "--no-remove", name)


def versions(host: Host, wishes: Sequence[Wish]) -> dict[str, str]:
    """Name → the vendor's version of what is installed, as far as it fits the wish."""
    there = debian.installed(host) if host.exists("/var/lib/dpkg/status") else {}
    found = {}
    for wish in wishes:
        version = there.get(wish.name)
        if version is not None:
            found[wish.name] = wish.version if wish.fits(version) else version
    return found


def ours(host: Host, memory: str) -> list[str]:
    """Packages that we added and that are still there."""
    known = set(recall(host, memory).get("added", []))
    return sorted(known & set(debian.installed(host))) if known else []


def held(host: Host) -> set[str]:
    """The packages that apt keeps as they are."""
    return set(host.run(["apt-mark", "showhold"], check=False).out.split())


def pins(host: Host, wishes: Sequence[Wish]) -> dict[str, str]:
    """Name → Debian's version; lists must be fresh. NodeError names what is offered instead.

    With the packages that these depend on in one exact version: apt would try their newest ones
    and find that nothing fits, whenever the version that is asked for is not the newest.
    """
    found = {w.name: w.among(debian.offered(host, w.name), "apt")[0] for w in wishes}
    todo = list(found.items())
    while todo:
        known = debian.show(host, *todo.pop())
        for group in known.depends.split(",") if known else ():
            match = _EXACTLY.fullmatch(group.strip())
            if match and match[1] not in found and match[2] in debian.offered(host, match[1]):
                found[match[1]] = match[2]
                todo.append((match[1], match[2]))
    return found


def install(host: Host, wishes: Sequence[Wish], memory: str, log: Log) -> None:
    """Install and hold; with what is installed already brought to the version that is asked for."""
    wanted = pins(host, wishes)
    words = [f"{name}={version}" for name, version in wanted.items()]
    already, there = held(host), debian.installed(host)
    ours = set(recall(host, memory).get("held", []))
    options = ["install", "--no-install-recommends", "--no-remove"]
    options += ["--allow-downgrades", "--allow-change-held-packages"]
    changed = _changed(host, [*options, *words])
    foreign = sorted((already - ours) & changed)
    if foreign:
        raise NodeError(
            f"{', '.join(foreign)}: held by somebody else, and would have to change",
            where="apt-mark",
            remedy=f"release it: apt-mark unhold {' '.join(foreign)}",
        )
    names = {wish.name for wish in wishes}
    along = changed - set(there) - names
    manual = set(host.run(["apt-mark", "showmanual"], check=False).out.split())
    hold = note(host, memory, wishes, there, already, along)
    with log.step("packages", pins=words):
        host.apt(*options, *words, timeout=3 * 3600)
    # Named for their versions' sake only: apt must know that nobody asked for them.
    automatic = sorted(set(wanted) - names - manual)
    if automatic:
        host.run(["apt-mark", "auto", *automatic])
    if hold:
        host.run(["apt-mark", "hold", *hold])


def _changed(host: Host, arguments: Sequence[str]) -> set[str]:
    """Names that apt would install, upgrade or downgrade."""
    said = host.apt("--simulate", *arguments).out
    return {name.split(":")[0] for name in re.findall(r"(?m)^Inst (\S+) ", said)}


def release(host: Host, memory: str, keep: Optional[set[str]] = None) -> list[str]:
    """Release our holds and purge what we added, but for ``keep``. Returns what was purged."""
    known = recall(host, memory)
    keep = keep or set()
    there, already = debian.installed(host), held(host)
    freed = sorted((set(known.get("held", [])) - keep) & already)
    if freed:
        host.run(["apt-mark", "unhold", *freed])
    gone = sorted((set(known.get("added", [])) - keep) & set(there))
    if gone:
        host.run(["dpkg", "--purge", *gone], timeout=900)
    gone += _purge_along(host, set(known.get("along", [])))
    forget(host, memory, keep)
    return gone


def _purge_along(host: Host, along: set[str]) -> list[str]:
    """Purge what came along with our packages and what, as apt sees it, nothing needs any more."""
    if not along:
        return []
    said = host.apt("--simulate", "autoremove").out
    idle = sorted(along & {name.split(":")[0] for name in _REMOVED.findall(said)})
    if idle:
        host.run(["dpkg", "--purge", *idle], timeout=900)
    return idle
