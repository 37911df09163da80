"""The directory that runs are written to: the link to the latest, and what lies beside a report."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def point_latest(out: Path, directory: Path) -> None:
    """Make ``out/latest`` point to a run, at once; two runs that end together do not collide."""
    link = out / f".latest.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(directory.name)
    link.replace(out / "latest")


def link_tree(source: str, target: str) -> None:
    """Make ``target`` a tree of the same files, without another copy where the disk is the same.

    Links stay links. What is neither file, directory nor link is left out. Raises OSError.
    """
    os.mkdir(target)  # noqa: PTH102 - for thousands of capsules, Path is twice as slow
    with os.scandir(source) as entries:
        for entry in entries:
            there = f"{target}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), there)  # noqa: PTH115, PTH211
            elif entry.is_dir():
                link_tree(entry.path, there)
            elif entry.is_file():
                try:
                    os.link(entry.path, there)
                except OSError:
                    # Another disk, or somebody else's file, which the kernel lets nobody link.
                    shutil.copy2(entry.path, there)
