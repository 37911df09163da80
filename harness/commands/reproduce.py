"""``airlock reproduce``."""

from __future__ import annotations

import argparse
import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.commands import selection
from installers.exits import Exit

if TYPE_CHECKING:
    from fixtures.scenarios import Scenario
    from harness.station import Station
    from harness.transports.base import Transport
    from reports import model

_SHELL_SECONDS = 3600.0
#: Lines of a symptom's output that are shown.
_SHOWN = 12


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "scenario",
        nargs="?",
        metavar="SCENARIO",
        help="a scenario's name, several put together (a+b), or the path of your own",
    )
    parser.add_argument("--image", default="debian-12", metavar="I", help="default: debian-12")
    parser.add_argument("--profile", default="driver", metavar="P", help="default: driver")
    parser.add_argument("--provider", default="qemu", metavar="P", help="default: qemu")
    selection.matrix_argument(parser)
    parser.add_argument(
        "--shell", action="store_true", help="give me a shell on the node when it was checked"
    )
    parser.add_argument(
        "--boot-anew", action="store_true", help="boot the machine instead of forking a frozen one"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="where runs are written")


def run(args: argparse.Namespace) -> int:
    """Bring it up, check it, show the symptom and the cause; 0 when the cause was named."""
    from harness.errors import UsageError
    from harness.matrix import Selection, select
    from harness.providers.base import Options
    from harness.run import Request
    from harness.run import run as run_cells
    from reports.text import plain

    _, catalog = selection.catalog(args.matrix)
    if args.scenario is None:
        shipped = ", ".join(sorted(catalog.scenarios))
        raise UsageError("which scenario? See docs/scenarios.md", hint=f"there are {shipped}")
    scenario = catalog.scenario(args.scenario)
    axes = Selection((args.image,), (args.scenario,), (args.profile,), args.provider)
    cells = select([], axes, catalog)
    seen = _Visit(args.shell)
    print(f"{scenario.name}: {scenario.title}", file=sys.stderr)
    outcome = run_cells(
        Request(
            cells=cells,
            matrix=f"reproduce {args.scenario}",
            out=args.out,
            options=Options(boot_anew=args.boot_anew, reproducing=True),
            visit=seen,
        )
    )
    (cell,) = outcome.report.cells
    print(plain("\n".join(_told(scenario, cell, seen.output))))
    print(f"\nreport: {outcome.directory / 'index.html'}")
    return _exit(cell) if outcome.report.run.finished else Exit.UNKNOWN


@dataclass
class _Visit:
    """Looks at a node that was checked: asks for its symptom, and opens the shell."""

    shell: bool
    output: str = ""

    def __call__(self, station: Station) -> None:
        from harness.errors import InfraError
        from harness.lab.scripted import SYMPTOM

        kept = station.capsule / SYMPTOM
        if station.running is None:
            with contextlib.suppress(FileNotFoundError):  # only a build that failed has one
                self.output = kept.read_text(errors="replace")
            if self.shell:
                print("no shell: no machine was booted")
            return
        try:
            self.output = station.running.symptom()
            kept.write_text(self.output)
        except InfraError as error:
            self.output = f"the symptom could not be shown: {error.message}\n"
        if self.shell:
            _shell(station.running.transport)


def _shell(transport: Transport) -> None:
    """Read commands and run them on the node, each in a shell of its own, until the end."""
    from harness.errors import InfraError

    print("You are root on the node. Each line is a shell of its own; Ctrl-D or exit leaves.")
    while True:
        try:
            line = input("airlock node# ").strip()
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            continue
        if line in ("exit", "logout", "quit"):
            return
        if not line:
            continue
        try:
            done = transport.run(f"exec 2>&1\n{line}", timeout=_SHELL_SECONDS)
        except InfraError as error:
            print(f"airlock: {error.message}")
            continue
        except KeyboardInterrupt:
            print("\nnot waited for: it goes on on the node")
            continue
        print(done.out.decode(errors="replace"), end="")
        if done.code:
            print(f"[exit code {done.code}]")


def _told(scenario: Scenario, cell: model.Cell, output: str) -> list[str]:
    """What happened, for people."""
    from reports.summary import is_named

    lines = ["", f"what a customer sees:  {scenario.symptom or 'nothing'}"]
    shown = [line for line in output.splitlines() if line.strip()]
    if shown:
        lines.append("seen here:" if scenario.shows(output) else "NOT seen here, but:")
        lines += [f"    {line}" for line in shown[-_SHOWN:]]
    named = is_named(cell)
    failed = [check for check in cell.checks if check.outcome == "fail"]
    by = next((check for check in failed if check.id == scenario.named_by), None)
    if by:
        lines += [f"named by the check {by.id}: {by.message}", f"    {by.remedy}"]
    elif named:
        lines += [f"named by the installers ({cell.cause}): {cell.reason}", f"    {cell.remedy}"]
    elif scenario.expected == "pass" and cell.verdict == "pass":
        lines.append(f"This node is made for it: {scenario.named_by or 'every check'} passes.")
    else:
        cause = f" (cause: {cell.cause})" if cell.cause else ""
        lines.append(f"NOT named by {scenario.named_by}: the cell ended as {cell.verdict}{cause}")
        lines += [f"    {cell.reason}"] if cell.reason else []
    others = [check for check in failed if check is not by]
    if others:
        lines.append(f"failed as well: {', '.join(check.id for check in others)}")
    return lines


def _exit(cell: model.Cell) -> Exit:
    from reports.summary import is_named, standing

    # Blockers that a short look leaves open (a search of the whole disk) do not count here.
    if is_named(cell) if cell.expected == "named" else cell.verdict == "pass":
        return Exit.PASS
    return Exit.UNKNOWN if standing(cell) in ("error", "not-run") else Exit.FAIL
