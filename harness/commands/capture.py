"""``airlock capture``."""

from __future__ import annotations

import argparse
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.targets import FORMS
from installers.exits import Exit

if TYPE_CHECKING:
    from harness.capsules.contents import Contents

_SECONDS = 120.0
#: Lines of a file that are shown at a time when somebody looks into it.
_SHOWN = 400


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "target",
        metavar="TARGET",
        help=f"{FORMS}; or the name of a node that is up",
    )
    parser.add_argument(
        "-o", dest="output", type=Path, metavar="FILE", help="default: capsule-NAME-TIME.tar.gz"
    )
    parser.add_argument(
        "--hide", type=Path, metavar="FILE", help="words to take out as well, one a line"
    )
    parser.add_argument("--yes", action="store_true", help="write it without asking")


def run(args: argparse.Namespace) -> int:
    """One exchange, a look at what came of it, and a file if that is wanted."""
    from harness.capsules import archive, contents
    from harness.errors import UsageError

    hide = _words(args.hide)
    target = args.output or _default(args.target)
    # Before anybody is asked for anything.
    if target.exists():
        raise UsageError(f"{target} is there already", hint="name another with -o")
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}")
    captured, provenance, lab = _take(args.target)
    found = contents.gather(captured, provenance, lab, hide)
    data = archive.pack(found.members, found.notes)
    print(f"{args.target} was captured in {provenance['seconds']:.1f} s:")
    print("\n".join(contents.shown(found, len(data))))
    if not args.yes and not _consent(found, target):
        return Exit.NOTHING
    archive.write(data, target)
    print(f"written: {target}")
    print(f"  airlock check {target}        judges it")
    print(f"  airlock reproduce {target}    rebuilds its environment")
    return Exit.PASS


def _take(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]:
    """What the node said, how it was asked, and what its lab knows. Raises UsageError, InfraError.

    A node of ours is asked through the process that holds it.
    """
    from harness import nodes
    from harness.targets import LOCAL, connect, parse_target

    nonce = secrets.token_hex(8)
    if name == LOCAL or "://" in name:
        target = parse_target(name)
        transport = connect(target)
        try:
            transport.run("true", timeout=_SECONDS)  # connected, and the node file copied
            began = time.monotonic()
            captured = transport.capture(nonce, timeout=_SECONDS)
            seconds = time.monotonic() - began
        finally:
            transport.close()
        way, lab = name.partition("://")[0], None
    else:
        node = nodes.find(name)
        with node.transport() as relayed:
            began = time.monotonic()
            captured = relayed.capture(nonce, timeout=_SECONDS)
            seconds = time.monotonic() - began
        lab = node.evidence()
        way = node.cell
    provenance = {"way": way, "seconds": round(seconds, 3), "schema": captured["schema"]}
    return captured, provenance, lab


def _default(target: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", target.rpartition("@")[2].rpartition("//")[2])
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return Path(f"capsule-{name.strip('-.') or 'node'}-{moment}.tar.gz")


def _words(path: Path | None) -> list[str]:
    from harness.errors import UsageError
    from installers.blacken import worth_hiding

    if path is None:
        return []
    try:
        words = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--hide {path}: cannot be read: {error}") from error
    for number, word in enumerate(words, 1):
        if word and not worth_hiding(word):
            raise UsageError(
                f"--hide {path}:{number}: too short to be told from other text",
                hint="four characters, or six digits, at least",
            )
    return [word for word in words if word]


def _consent(found: Contents, target: Path) -> bool:
    """Ask the person at the terminal, who may look first. UsageError where nobody is there."""
    from harness.errors import UsageError
    from reports.text import plain

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("nobody is at a terminal to agree: nothing was written", hint="--yes")
    while True:
        try:
            said = input(f"Write {target}? [y/N, or the name of a file to look at] ").strip()
        except EOFError:
            said = ""
        if said in found.members:
            lines = found.members[said].decode(errors="replace").splitlines()
            print(plain("\n".join(lines[:_SHOWN])))
            if len(lines) > _SHOWN:
                print(f"[... {len(lines) - _SHOWN} more lines]")
            continue
        if said.lower() in ("y", "yes"):
            return True
        if said.lower() in ("", "n", "no"):
            print("nothing was written")
            return False
        print(f"there is no {plain(said)!r} in it")
