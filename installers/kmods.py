"""Which driver is to be built for a kernel, and the key of its modules in the cache.

Online, apt's fresh lists decide, and the decision is kept in the cache beside the modules. Offline,
the kept decision is all there is: nothing but the cache is asked.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from installers import build, debian, fixups
from installers.cache.cache import Cache, Entry
from installers.cache.manifest import canonical
from installers.cache.settings import OFFLINE
from installers.cache.store import Content
from installers.errors import NodeError
from installers.fixups import Fixup
from installers.host import Host
from installers.journal import Log

KIND = "kernel-modules"
DECISION = "driver-decision"
_FILE = "decision.json"
#: Modules by name, and what to note of their build.
Built = tuple[Mapping[str, Content], dict[str, Any]]


@dataclass(frozen=True)
class Wanted:
    """What to build. ``identities`` of its packages; ``resolved`` is None offline."""

    kernel: str
    driver: str
    identities: dict[str, Any]
    resolved: Optional[debian.Resolved] = None

    def inputs(self, chosen: list[Fixup]) -> dict[str, Any]:
        """Everything that decides what the modules are."""
        return {
            "schema": 1,
            "kernel": self.kernel,
            **self.identities,
            "fixups": fixups.digest(chosen),
            "make": build.make_flags(self.kernel),
            "strip": "--strip-debug",
        }


def obtain(
    host: Host,
    kernel: str,
    cache: Cache,
    build_it: Callable[[debian.Resolved, list[Fixup]], Built],
    log: Log,
    *,
    offline: bool,
    choose: Callable[[Host], debian.Package],
    asked: Mapping[str, str],
) -> tuple[Entry, Wanted]:
    """The unsigned modules for a kernel, from the cache or built now, and what was wanted.

    ``choose`` names the driver's source once apt's lists are fresh; ``asked`` is what decides that.
    """
    with contextlib.ExitStack() as stack:
        if offline:
            wanted = from_cache(host, kernel, cache, asked)
        else:
            stack.enter_context(debian.apt_lists(host))
            with log.step("apt-update"):
                host.apt("update", timeout=1800)
            wanted = from_apt(host, kernel, cache, choose(host), asked)
        chosen = fixups.candidates(wanted.driver)

        def on_miss() -> Built:
            log("module-cache", result="miss")
            if wanted.resolved is None:
                raise nothing_cached(f"no modules of {wanted.driver} for {kernel}")
            return build_it(wanted.resolved, chosen)

        log("resolve", driver=wanted.driver, kernel=kernel)
        entry = cache.obtain(KIND, wanted.inputs(chosen), on_miss)
        log("module-cache", key=entry.key, result=entry.hit or "built")
    return entry, wanted


def from_apt(
    host: Host, kernel: str, cache: Cache, source: debian.Package, asked: Mapping[str, str]
) -> Wanted:
    """What apt's lists say, which must be fresh. Kept for nodes that will be offline."""
    resolved = debian.resolve(host, kernel, source)
    wanted = Wanted(kernel, resolved.driver, debian.identities(resolved), resolved)
    decision = canonical({"driver": wanted.driver, "identities": wanted.identities})
    cache.put(DECISION, _question(host, kernel, asked), {_FILE: decision}, {}, renew=True)
    return wanted


def from_cache(
    host: Host, kernel: str, cache: Cache, asked: Optional[Mapping[str, str]] = None
) -> Wanted:
    """What was decided when a node like this one was online. NodeError when none was."""
    entry = cache.get(DECISION, _question(host, kernel, asked))
    if entry is None:
        raise nothing_cached(f"no decision which driver is for kernel {kernel}")
    decision = json.loads(entry.read(_FILE))
    return Wanted(kernel, str(decision["driver"]), dict(decision["identities"]))


def nothing_cached(what: str) -> NodeError:
    """The error of an offline node whose cache lacks something."""
    return NodeError(
        f"the cache holds {what}, and this node is told to be offline",
        where=OFFLINE,
        remedy="apply once where the network can be reached, or fill the cache: airlock cache warm",
    )


def _question(host: Host, kernel: str, asked: Optional[Mapping[str, str]] = None) -> dict[str, Any]:
    system = host.os_release()
    return {
        "system": [system.get("ID", ""), system.get("VERSION_ID", "")],
        "kernel": kernel,
        "package": debian.SOURCE_PACKAGES["distribution"]["open"],
        **(asked or {}),
    }
