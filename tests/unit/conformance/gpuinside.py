"""Breaks many trees and collects their facts: one process, which a fork of leaves for each tree.

``python -m tests.unit.conformance.gpuinside SPEC OUT`` in a mount namespace of its own. SPEC is
{name: {"tree", "apply", "frameworks"}}; OUT gets {name: facts}. What ``facts --cards`` starts
processes for is called in the fork instead: starting Python some hundred times costs minutes. The
frameworks are tried where it is asked for.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from installers.collect import cards, containers, gpu, kmsg, records
from installers.collect.reader import Reader

BIND = 0x1000
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root"}
LIBC = ctypes.CDLL(None, use_errno=True)


class Here(cards.Trial):
    """The parts without processes of their own."""

    def part(self, name: str, given: Any = None, limit: float | None = None) -> dict[str, Any]:
        """As the process would answer."""
        del limit
        found: dict[str, Any] = json.loads(json.dumps(cards.PARTS[name](given)))
        return found


class WithoutFrameworks(Here):
    """For breaks that no framework has to do with."""

    def frameworks(self) -> list[dict[str, Any]]:
        """None was tried."""
        return []


def bind(source: str, target: Path) -> None:
    """mount(2)."""
    if LIBC.mount(source.encode(), str(target).encode(), None, BIND, None):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def facts(apply: str, trial: cards.Trial) -> dict[str, Any]:
    """Those that the checks of the cards read, of the root that this process is in."""
    if apply:
        done = subprocess.run(
            ["/bin/sh", "-c", apply], capture_output=True, text=True, check=False, env=ENVIRONMENT
        )
        if done.returncode != 0:
            return {"broken": f"the shell exited {done.returncode}: {done.stdout}{done.stderr}"}
    reader = Reader()
    found = {
        "cards": trial.collect(),
        "gpu": gpu.collect(reader),
        "containers": containers.collect(reader),
        "kernel_log_flags": kmsg.collect(reader),
        "installers": records.outcomes(records.state(reader)),
    }
    return {**found, "unreadable": reader.unreadable}


def one(work: dict[str, Any], out: Path) -> None:
    """In a fork: into the tree, break it, look at it. ``out`` is open before the root changes."""
    tree = Path(work["tree"])
    bind("/usr", tree / "usr")
    bind(str(tree / "local"), tree / "usr/local")
    for name in ("null", "zero", "urandom"):
        bind(f"/dev/{name}", tree / "dev" / name)
    # It reads a file of ours, which is not there any more when the root has changed.
    trial = Here() if work["frameworks"] else WithoutFrameworks()
    with out.open("w") as file:
        os.chroot(tree)
        os.chdir("/")
        json.dump(facts(work["apply"], trial), file)


def main(spec: str, out: str) -> None:
    """All of them, one after the other."""
    found = {}
    for number, (name, work) in enumerate(json.loads(Path(spec).read_text()).items()):
        answer = Path(f"{out}.{number}")
        child = os.fork()
        if child == 0:
            try:
                one(work, answer)
            except BaseException as error:
                print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
                os._exit(1)
            os._exit(0)
        os.waitpid(child, 0)
        found[name] = json.loads(answer.read_text() or "{}")
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
