"""Every check there is, with what it needs and the sabotages that turn it red."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.checks import Check, check_of
from harness.errors import UsageError
from harness.names import nearest
from harness.sabotage import Sabotage, load_sabotages


@dataclass(frozen=True)
class Listed:
    """One check. ``path`` is its file's, ``sabotages`` must turn it red."""

    check: Check
    path: Path
    sabotages: tuple[Sabotage, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """What a program gets; names and order are those of the check itself."""
        return {
            "id": self.check.id,
            "area": self.check.area,
            "severity": self.check.severity,
            "title": self.check.title,
            "remedy": self.check.remedy,
            "source": self.check.source,
            "needs": [each.needs for each in self.check.requires],
            "depends": list(self.check.depends),
            "file": f"{self.path.parent.name}/{self.path.name}",
            "sabotages": [{"name": each.name, "title": each.title} for each in self.sabotages],
        }


@dataclass
class _Collected:
    """A plugin that keeps what pytest found, and what it could not read."""

    items: list[pytest.Item] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = list(session.items)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            why = str(report.longrepr).strip().splitlines()[-1:]
            self.broken.append(f"{report.nodeid}: {' '.join(why)}")


def listed(conformance: Path, area: str | None = None) -> list[Listed]:
    """Every check below a folder, or those of one area, by area and then as the file has them.

    A parametrised check is one. UsageError: a file that cannot be read, an id that is there twice,
    or an unknown area, with the nearest name.
    """
    if not conformance.is_dir():
        raise UsageError(f"{conformance} is not a directory")
    found: dict[str, Listed] = {}
    kills = load_sabotages(conformance).values()
    for item in _collect(conformance):
        this = check_of(item)
        if this is None:
            continue
        if this.id in found:
            if found[this.id].check is not this:
                raise UsageError(f"{item.nodeid}: there is a check {this.id} already")
            continue
        by = tuple(sabotage for sabotage in kills if this.id in sabotage.kills)
        found[this.id] = Listed(this, item.path, by)
    areas = {one.check.area for one in found.values()}
    if area is not None and area not in areas:
        raise UsageError(f"--area: unknown area {area!r}", hint=nearest(area, areas))
    return sorted(
        (one for one in found.values() if area in (None, one.check.area)),
        key=lambda one: one.check.area,
    )


def bare(checks: Iterable[Listed]) -> list[str]:
    """Ids of the checks that no sabotage turns red: nobody has seen them fail."""
    return [one.check.id for one in checks if not one.sabotages]


def _collect(conformance: Path) -> list[pytest.Item]:
    collected = _Collected()
    home = conformance.resolve().parent
    # As in a run: no configuration of anybody's, and no folder above that of the checks.
    options = ["-c", os.devnull, f"--rootdir={home}", f"--confcutdir={home}", "--collect-only"]
    options += ["-p", "harness.plugin", "-p", "no:terminal", "-p", "no:cacheprovider"]
    pytest.main([str(conformance), *options], plugins=[collected])
    if collected.broken:
        raise UsageError(f"checks cannot be read: {collected.broken[0]}")
    return collected.items
