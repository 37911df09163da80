"""``airlock-node.pyz gpu-config``: what the unit runs before YARN's daemons start.

Tries again until its time is over, because a card, a mount or the metadata server may be late, and
leaves a result that says how it ended. Whatever ``invocation-type`` says, this is no image build.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from installers import metadata
from installers.config import METADATA_SERVER, from_attributes
from installers.deferred import stamp, unit
from installers.deferred.installer import Deferred
from installers.engine import Engine, Outcome, Problem
from installers.errors import ConfigError, NodeError
from installers.exits import Exit
from installers.host import Host
from installers.lock import lock

_PAUSE = 2.0
_LONGEST_PAUSE = 15.0


def main(argv: list[str]) -> int:
    """Run the verb; an exit code. Raises ConfigError for the command line."""
    parser = argparse.ArgumentParser(
        prog=f"airlock-node.pyz {unit.VERB}",
        description="Configures YARN and Spark for this node's GPUs, before they start.",
    )
    parser.add_argument("--root", default="/", metavar="DIR", help="root of a mounted node")
    parser.add_argument("--metadata", default=METADATA_SERVER, metavar="FILE.json|URL")
    parser.add_argument(
        "--patience", type=float, default=unit.PATIENCE, metavar="SECONDS", help="to keep trying"
    )
    options = parser.parse_args(argv)
    if not Path(options.root).is_dir():
        raise ConfigError("is not a directory", where=f"--root {options.root}")
    host = Host(options.root)
    started = time.monotonic()
    deadline = started + options.patience
    pause, attempts = _PAUSE, 0
    while True:
        attempts += 1
        outcome, exit_code, steps = _attempt(host, options.metadata)
        final = exit_code in (Exit.PASS, Exit.USAGE)
        if final or time.monotonic() + pause > deadline:
            break
        _say(outcome)
        time.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)
    stamp.write_result(
        host,
        {"ok": "configured", "unchanged": "unchanged"}.get(outcome.outcome, "failed"),
        seconds=round(time.monotonic() - started, 3),
        attempts=attempts,
        steps=steps,
        changes=[change.key for change in outcome.changes],
        problems=[asdict(problem) for problem in outcome.problems],
        provenance=outcome.provenance,
        bytes_fetched=0,
    )
    _say(outcome)
    return int(exit_code)


def _attempt(host: Host, source: str) -> tuple[Outcome, Exit, list[dict[str, Any]]]:
    """One try: how it ended, the exit code, and the steps."""
    try:
        attributes = metadata.load(source, patience=metadata.PATIENCE)
        config = replace(from_attributes(attributes, source), image_build=False)
        deferred = Deferred(config, at_boot=True)
        with lock(host):
            summary = Engine(host, [deferred]).apply()
    except NodeError as error:
        text = str(NodeError(error.what, where=error.where))
        failed = Outcome(Deferred.name, "failed", problems=[Problem(text, error.remedy)])
        return failed, Exit(error.exit), []
    return summary.installers[0], summary.exit, deferred.steps


def _say(outcome: Outcome) -> None:
    """For the journal of the unit."""
    print(f"{Deferred.name}: {outcome.outcome}", flush=True)
    for problem in outcome.problems:
        print(f"{problem.what}; {problem.remedy}", file=sys.stderr, flush=True)
