"""``airlock-node.pyz preflight``: what would go wrong with this node in a cluster, before it does.

Reads only. The facts of AREAS come in one exchange; ``judge`` makes findings of them wherever they
are, on the node or on the machine that asked for them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

from installers import glibc, metadata
from installers.errors import ConfigError
from installers.exits import Exit
from installers.facts import Collector
from installers.kubernetes import judging
from installers.kubernetes.judging import AREAS, Finding
from installers.kubernetes.wanted import Cluster, cluster

#: Where a stopped image has its C library.
_LIBC = (
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/aarch64-linux-gnu/libc.so.6",
    "/lib64/libc.so.6",
    "/usr/lib64/libc.so.6",
    "/usr/lib/libc.so.6",
)


@dataclass
class Answer:
    """What ``--json`` prints: ``findings``, worst first, ``needs`` of the given sources, ``system``
    (the image's tag and whether there is one), ``places`` (where each path is), ``access``.
    """

    findings: list[Finding] = field(default_factory=list)
    needs: list[dict[str, Any]] = field(default_factory=list)
    system: dict[str, Any] = field(default_factory=dict)
    places: list[dict[str, Any]] = field(default_factory=list)
    access: dict[str, Any] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    exit: int = 0


def main(argv: list[str]) -> int:
    """The verb; returns an exit code: 0 nothing is in the way, 1 something is, 2 usage."""
    options = _parser().parse_args(argv)
    if not Path(options.root).is_dir():
        raise ConfigError("is not a directory", where=f"--root {options.root}")
    wanted = Cluster()
    if options.metadata:
        attributes = metadata.load(options.metadata, patience=metadata.PATIENCE)
        wanted = cluster(attributes) or wanted
    needs = [glibc.need(source) for source in options.host_binaries]
    facts = Collector(options.root).collect(only=AREAS)
    if facts["os"] and facts["os"]["glibc"] is None:
        facts["os"]["glibc"] = _libc(options.root)
    answer = Answer(
        findings=judging.judge(facts, wanted, needs, _budget(options.disk)),
        needs=[need.as_json() for need in needs],
        system=judging.system(facts["os"] or {}),
        places=(facts["kubernetes"] or {}).get("places") or [],
        access=(facts["kubernetes"] or {}).get("access") or {},
        unreadable=facts["unreadable"],
    )
    answer.exit = int(Exit.FAIL if judging.in_the_way(answer.findings) else Exit.PASS)
    if facts["kubernetes"] is None and not answer.exit:
        answer.exit = int(Exit.UNKNOWN)
    print(json.dumps(asdict(answer)) if options.json else _text(answer))
    return answer.exit


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="airlock-node.pyz preflight",
        description="Looks for what would go wrong with this node in a cluster; changes nothing.",
        epilog="Exit codes: 0 nothing is in the way, 1 something is, 2 usage, 3 could not tell.",
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="root of a mounted image")
    parser.add_argument("--metadata", metavar="FILE.json|URL", help="what is asked of the node")
    parser.add_argument(
        "--host-binaries",
        action="append",
        default=[],
        metavar="SOURCE[:/FOLDER]",
        help="what will run on the host: a folder, program, wheel, .deb or image; may be repeated",
    )
    parser.add_argument(
        "--disk",
        action="append",
        default=[],
        metavar="USE=GIB",
        help=f"what one of {', '.join(judging.budget())} needs in place of the estimate",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _budget(given: list[str]) -> Mapping[str, int]:
    found = dict(judging.budget())
    for pair in given:
        use, _, size = pair.partition("=")
        if use not in found:
            raise ConfigError(
                f"there is no use {use!r}", where="--disk", remedy=f"choose of {', '.join(found)}"
            )
        if not size.isdigit():
            raise ConfigError(f"{size!r} is no number of GiB", where=f"--disk {use}")
        found[use] = int(size) << 30
    return found


def _libc(root: str) -> Optional[str]:
    """The C library of an image that does not run, by what its file offers."""
    from installers.collect.reader import Reader

    reader = Reader(root)
    for path in _LIBC:
        file = Path(reader.path(path))
        if file.is_file():
            return glibc.offered(file)
    return None


def _text(answer: Answer) -> str:
    lines = []
    for finding in answer.findings:
        lines.append(f"{finding.severity}: {finding.what} ({finding.code})")
        lines += [f"  {line}" for line in finding.evidence]
        lines.append(f"  remedy: {finding.remedy}")
    for need in answer.needs:
        asked = need["version"] or "none"
        why = f", because of {need['because'][0]}" if need["because"] else ""
        lines.append(f"C library: {need['source']} needs {asked}{why}")
    for place in answer.places:
        free = f"{place['free'] / (1 << 30):.1f} GiB free"
        lines.append(f"{place['use']}: {place['path']} is on {place['mount']}, {free}")
    ways = judging.ways_in(answer.access)
    lines.append(f"ways in: {', '.join(ways) or 'none'}")
    if not judging.in_the_way(answer.findings):
        lines.append("nothing is in the way")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
