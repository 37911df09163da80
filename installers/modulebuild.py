"""One build of the modules: its environment (gone afterwards), source, fix-ups, make."""

from __future__ import annotations

import time
from collections.abc import Callable

from installers import build, debian, fixups, kmods
from installers.host import Host
from installers.journal import Log

#: (host, source, directory) -> the directory in which make is run.
Fetch = Callable[[Host, debian.Package, str], str]


def build_modules(
    host: Host,
    resolved: debian.Resolved,
    chosen: list[fixups.Fixup],
    fetch: Fetch,
    work: str,
    log: Log,
) -> kmods.Built:
    """Compile below ``work``, which is removed afterwards; (modules, what to note of the build)."""
    started = time.time()
    try:
        with debian.build_environment(host, resolved, log) as environment:
            with log.step("fetch-source", package=resolved.source.pin):
                tree = fetch(host, resolved.source, work)
            verdicts = _fix_up(host, resolved.kernel, tree, chosen, work, log)
            with log.step("compile", kernel=resolved.kernel, jobs=build.jobs()):
                modules = build.compile_modules(host, tree, resolved.kernel)
    finally:
        build.clear(host, work)
    details = {
        "fixups": verdicts,
        "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "environment": environment,
    }
    return modules, details


def _fix_up(
    host: Host, kernel: str, tree: str, chosen: list[fixups.Fixup], work: str, log: Log
) -> list[dict[str, str]]:
    """Probe the kernel's headers, edit the source; what was done, for reports."""
    if not chosen:
        return []
    with log.step("probe-headers", fixups=[fixup.id for fixup in chosen]):
        compiled = fixups.probe(host, f"/lib/modules/{kernel}/build", chosen, f"{work}/probe")
    verdicts = fixups.apply(host, tree, chosen, compiled)
    rows = [{"id": v.id, "state": v.state, "why": v.why} for v in verdicts]
    log("fix-ups", fixups=rows)
    return rows
