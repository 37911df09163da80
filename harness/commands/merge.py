"""``airlock merge``."""

from __future__ import annotations

import argparse
from pathlib import Path

from installers.exits import Exit


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="the run of a shard, its report.json, or a directory of such runs",
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="where runs are written")


def run(args: argparse.Namespace) -> int:
    """Merge the shards of a matrix. Exit 0 whatever the report says: the gate judges it."""
    from harness.merging import merge_runs
    from reports.text import count

    directory, merged = merge_runs(args.runs, args.out)
    for part in merged.run.merged:
        instead = f", instead of {', '.join(part.instead_of)}" if part.instead_of else ""
        print(f"shard {part.shard}/{len(merged.run.merged)}: run {part.run}{instead}")
    print(f"{count(merged.summary.cells.total, 'cell')}: {merged.summary.verdict}")
    print(f"\nreport: {directory}\n  airlock report {directory}; airlock gate {directory}")
    return Exit.PASS
