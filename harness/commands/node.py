"""``airlock node up|ssh|down|list|save|resume``: one node by hand, in a scenario."""

from __future__ import annotations

import argparse
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.commands import selection
from installers.exits import Exit

if TYPE_CHECKING:
    from harness.held import Order
    from harness.nodes import Standing
    from harness.transports.base import Transport

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Actions and their options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = actions.add_parser("up", help="make a node, say how to get in, and let it stay")
    up.add_argument("--image", default="debian-12", metavar="I")
    up.add_argument("--scenario", default="proxy-intercept", metavar="S")
    up.add_argument("--profile", default="driver", metavar="P")
    up.add_argument("--provider", default="qemu", metavar="P")
    selection.matrix_argument(up)
    up.add_argument("--name", default="", help="what to call it (default: IMAGE-SCENARIO)")
    up.add_argument("--boot-anew", action="store_true", help="boot it instead of forking it")
    ssh = actions.add_parser("ssh", help="a shell on a node, or one command")
    ssh.add_argument("name", metavar="NAME")
    ssh.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="-- CMD", help="goes over the channel, not ssh"
    )
    down = actions.add_parser("down", help="end a node and everything made for it")
    down.add_argument("names", metavar="NAME", nargs="+")
    actions.add_parser("list", help="the nodes that are up")
    save = actions.add_parser("save", help="write a node to files, as it is, memory and all")
    save.add_argument("name", metavar="NAME")
    save.add_argument("target", type=Path, metavar="FILE.tar|DIR")
    resume = actions.add_parser("resume", help="bring a saved node back, here or elsewhere")
    resume.add_argument("source", type=Path, metavar="FILE.tar|DIR")
    selection.matrix_argument(resume)
    resume.add_argument("--name", default="", help="what to call it (default: as the file)")


def run(args: argparse.Namespace) -> int:
    """Do one action."""
    from harness import nodes

    match args.action:
        case "up":
            return _up(args)
        case "ssh":
            node = nodes.find(args.name)
            words = args.words[1:] if args.words[:1] == ["--"] else args.words
            if not words:
                return _shell(node.door())
            with node.transport() as transport:
                return _command(transport, words)
        case "down":
            for node in [nodes.find(name) for name in dict.fromkeys(args.names)]:
                node.end()
                print(f"{node.name} is down")
        case "list":
            return _list(nodes.listed())
        case "save":
            return _save(nodes.find(args.name), args.target)
        case "resume":
            return _resume(args)
    return Exit.PASS


def _up(args: argparse.Namespace) -> int:
    from harness.held import Order

    return _start(
        Order(
            name=_checked(args.name or f"{args.image}-{args.scenario}"),
            image=args.image,
            scenario=args.scenario,
            profile=args.profile,
            provider=args.provider,
            matrix=str(selection.catalog(args.matrix)[0].absolute()),
            boot_anew=args.boot_anew,
        )
    )


def _resume(args: argparse.Namespace) -> int:
    from harness.errors import UsageError
    from harness.held import Order
    from harness.lab.saved import peek

    if not args.source.exists():
        raise UsageError(f"there is no {args.source}")
    cell = peek(args.source)["cell"]
    name = _checked(args.name or args.source.stem.lower())
    image, scenario, profile, provider = cell
    source = str(args.source.absolute())
    matrix = str(selection.catalog(args.matrix)[0].absolute())
    return _start(Order(name, image, scenario, profile, provider, matrix, resume=source))


def _start(order: Order) -> int:
    from harness import held

    began = time.monotonic()
    node = held.start(order, lambda phase, line: print(f"  {phase}: {line}", file=sys.stderr))
    print(f"{node.name} is up ({node.cell}, {time.monotonic() - began:.1f} s). To get in and out:")
    print(f"  airlock node ssh {node.name}            a shell")
    print(f"  airlock node ssh {node.name} -- CMD     one command, over the channel")
    print(f"  airlock node down {node.name}")
    return Exit.PASS


def _checked(name: str) -> str:
    from harness.errors import UsageError

    if not _NAME.fullmatch(name):
        hint = "lower-case letters, digits, dots and dashes; 41 at most"
        raise UsageError(f"{name!r} cannot be a node's name", hint=hint)
    return name


def _command(transport: Transport, words: list[str]) -> int:
    """Run a command there. Its status is in words: our exit codes have meanings of their own."""
    ran = transport.run(words if len(words) > 1 else words[0], timeout=3600)
    sys.stdout.buffer.write(ran.out)
    sys.stdout.flush()
    sys.stderr.buffer.write(ran.err)
    sys.stderr.flush()
    if ran.code:
        print(f"airlock: the command ended with {ran.code}", file=sys.stderr)
    return Exit.FAIL if ran.code else Exit.PASS


def _shell(door: dict[str, Any]) -> int:
    import os

    from harness.lab.door import ssh_command

    argv = ssh_command(door)
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 - a terminal belongs to one program


def _list(nodes: list[Standing]) -> int:
    for node in nodes:
        print(f"{node.name:32} {node.cell:40} {node.provider:6} {node.state}")
    if not nodes:
        print("no node is up (airlock node up)", file=sys.stderr)
    return Exit.PASS


def _save(node: Standing, target: Path) -> int:
    from harness.errors import UsageError
    from harness.held import Held

    if not isinstance(node, Held):
        hint = "airlock node up makes one that can be"
        raise UsageError(f"{node.name} is {node.state}: such nodes cannot be saved", hint=hint)
    began = time.monotonic()
    path = Path(node.ask("save", path=str(target.absolute())))
    files = [path] if path.is_file() else list(path.iterdir())
    size = sum(file.stat().st_blocks * 512 for file in files) >> 20
    print(f"{node.name} is saved: {path}, {size} MiB, {time.monotonic() - began:.1f} s")
    print("  it holds all that the node held, secrets too, and is readable by you only")
    print(f"  airlock node resume {target}")
    return Exit.PASS
