"""One run from the runs of its shards: their cells in one report, their capsules beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.outdir import link_tree, point_latest
from harness.state import new_run_id
from reports.errors import ReportError
from reports.merge import Merge, find_reports, merge


def merge_runs(runs: Sequence[str], out: Path) -> tuple[Path, Merge]:
    """Merge runs into a new one below ``out``; its directory, and what was merged.

    It is there whole or not at all, and nothing of the shards is changed. Raises UsageError when
    they do not make a whole, OSError when it cannot be written.
    """
    run_id = new_run_id()
    home = out / run_id
    made = out / f".merging-{run_id}"
    try:
        files = find_reports(runs)
        (made / "cells").mkdir(parents=True)
        merged = merge(files, run_id, made, home)
        _capsules(merged.sources, made / "cells")
        made.rename(home)
    except ReportError as error:
        raise UsageError(error.message, hint=error.hint) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    point_latest(out, home)
    return home, merged


def _capsules(sources: Mapping[str, Path], target: Path) -> None:
    for cell, source in sources.items():
        capsule = source / "cells" / cell
        # Reports come from other machines: a name must not lead out of its place.
        if "/" in cell or cell in (".", "..") or "\0" in cell:
            raise UsageError(f"{source}: {cell!r} is no name of a cell")
        if capsule.is_dir() and not capsule.is_symlink():
            link_tree(str(capsule), str(target / cell))
