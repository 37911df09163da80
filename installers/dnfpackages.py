"""``aptpackages`` for dnf: exact versions, locked by its plugin versionlock, and released again."""

from __future__ import annotations

import configparser
import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Optional
from urllib.parse import urlsplit

from installers.aptpackages import Wish, forget, note
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Log, recall

_LOCKED = re.compile(r"(?m)^(\S+)-\d+:[^\s-]+-[^\s-]+$")


@contextlib.contextmanager
def fresh(host: Host, log: Log) -> Iterator[None]:
    """dnf looks for new lists by itself; what it fetched is left to the sealing of an image."""
    with log.step("dnf-makecache"):
        host.run(["dnf", "-q", "-y", "makecache", "--refresh"], timeout=1800)
    yield


def hosts(host: Host) -> list[str]:
    """Names that the enabled repositories contact."""
    found: set[str] = set()
    for path in host.glob("/etc/yum.repos.d", "*.repo"):
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        with contextlib.suppress(configparser.Error):
            parser.read_string(host.read(path) or "")
        for section in parser.sections():
            if parser.get(section, "enabled", fallback="1").strip() in ("0", "false", "no"):
                continue
            for key in ("baseurl", "mirrorlist", "metalink"):
                words = parser.get(section, key, fallback="").split()
                found.update(urlsplit(word).hostname or "" for word in words)
    return sorted(found - {""})


def _installed(host: Host, names: Sequence[str]) -> dict[str, str]:
    """Name → version-release of those that are installed."""
    if not names:
        return {}
    query = ["rpm", "-q", "--qf", "%{NAME}\t%{VERSION}-%{RELEASE}\n", *names]
    rows = (line.split("\t") for line in host.run(query, check=False).out.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def versions(host: Host, wishes: Sequence[Wish]) -> dict[str, str]:
    """Name → the vendor's version of what is installed, as far as it fits the wish."""
    there = _installed(host, [wish.name for wish in wishes])
    return {
        wish.name: wish.version if wish.fits(there[wish.name]) else there[wish.name]
        for wish in wishes
        if wish.name in there
    }


def ours(host: Host, memory: str) -> list[str]:
    """Packages that we added and that are still there."""
    return sorted(_installed(host, recall(host, memory).get("added", [])))


def held(host: Host) -> set[str]:
    """The packages that dnf keeps as they are."""
    said = host.run(["dnf", "-q", "versionlock", "list"], check=False).out
    return set(_LOCKED.findall(re.sub(r"(?m)\.\*$", "", said)))


def _pins(host: Host, wishes: Sequence[Wish]) -> list[str]:
    """``name-version-release``. NodeError names what is offered instead."""
    found = []
    for wish in wishes:
        query = ["dnf", "-q", "repoquery", "--showduplicates", "--disableexcludes=all"]
        said = host.run([*query, "--qf", "%{version}-%{release}", wish.name], check=False).out
        found.append(f"{wish.name}-{wish.among(said.split(), 'dnf')[-1]}")
    return found


def install(host: Host, wishes: Sequence[Wish], memory: str, log: Log) -> None:
    """Install and lock; what is installed already is brought to the version that is asked for."""
    _need_lock(host)
    wanted = _pins(host, wishes)
    before, already = _installed(host, [wish.name for wish in wishes]), held(host)
    mine = set(recall(host, memory).get("held", []))
    there = versions(host, wishes)
    wrong = {wish.name for wish in wishes if there.get(wish.name) != wish.version}
    foreign = sorted((already - mine) & wrong)
    if foreign:
        raise NodeError(
            f"{', '.join(foreign)}: locked by somebody else, and would have to change",
            where="dnf versionlock",
            remedy=f"release it: dnf versionlock delete {' '.join(foreign)}",
        )
    hold = note(host, memory, wishes, before, already)
    unlock(host, sorted(mine & already))
    with log.step("packages", pins=wanted):
        host.run(["dnf", "-y", "-q", "install", *wanted], timeout=3 * 3600)
    now = _installed(host, hold)
    if now:
        locks = [f"{name}-{version}" for name, version in now.items()]
        host.run(["dnf", "-y", "-q", "versionlock", "add", *locks], timeout=900)


def plain(host: Host, name: str) -> None:
    """A package in whatever version the repositories have."""
    host.run(["dnf", "-y", "-q", "install", name], timeout=3600)


def unlock(host: Host, names: Sequence[str]) -> None:
    """Take locks away."""
    if names:
        host.run(["dnf", "-y", "-q", "versionlock", "delete", *names], timeout=900)


def _need_lock(host: Host) -> None:
    """The plugin; it is a package of its own."""
    if host.run(["dnf", "-q", "versionlock", "list"], check=False).code != 0:
        plain(host, "python3-dnf-plugin-versionlock")


def release(host: Host, memory: str, keep: Optional[set[str]] = None) -> list[str]:
    """Release our locks and erase what we added, but for ``keep``. Returns what was erased."""
    known, keep = recall(host, memory), keep or set()
    gone = sorted(_installed(host, sorted(set(known.get("added", [])) - keep)))
    mine = set(known.get("held", [])) - keep
    if mine:
        unlock(host, sorted(mine & held(host)))
    if gone:
        host.run(["rpm", "-e", *gone], timeout=900)
    forget(host, memory, keep)
    return gone
