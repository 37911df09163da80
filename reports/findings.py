"""What a gate says: findings, and the judgement that they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from reports.blame import Blame
from reports.model import RunVerdict

Level = Literal["fail", "error", "note"]
Excuse = Literal["", "waived", "known", "new", "minor"]
Mark = Literal["fine", "excused", "fail", "error"]
"""What became of a cell; ``excused``: it would have failed, but for a finding's excuse."""
LEVELS: tuple[Level, ...] = ("fail", "error", "note")
MOST = 1000
"""Findings of one level that are kept; more are counted only."""


@dataclass(frozen=True)
class Finding:
    """One reason, in words. ``note`` findings are said and do not change the verdict.

    ``cell`` and ``check`` are ids, empty when the finding is about more than one. ``blame`` is
    empty when nobody's work failed. ``excuse`` says why a failure is only a note: it is waived,
    was known to the baseline, is that of a new check, or of a severity that holds nothing up.
    ``key`` names what failed across runs.
    """

    level: Level
    message: str
    remedy: str = ""
    cell: str = ""
    check: str = ""
    blame: Blame | Literal[""] = ""
    excuse: Excuse = ""
    key: str = ""

    def __str__(self) -> str:
        where = f"{self.cell}: " if self.cell else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{self.level}: {where}{self.message}{remedy}"


@dataclass(frozen=True)
class Judgement:
    """The gate's answer; ``findings`` come worst first.

    ``blames`` counts what holds the release up by whose fault it is, ``excused`` what does not by
    its excuse. ``left_out`` counts the findings beyond :data:`MOST` of a level. ``cells`` says
    what became of each cell, by its id.
    """

    verdict: RunVerdict
    findings: tuple[Finding, ...]
    blames: Mapping[str, int] = field(default_factory=dict)
    excused: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0
    cells: Mapping[str, Mark] = field(default_factory=dict)

    @property
    def waived(self) -> int:
        """Failures that would have held the release up without their waivers."""
        return self.excused.get("waived", 0)


class Found:
    """Findings as they are made: the first of each level, and counts of all."""

    def __init__(self) -> None:
        self.blames: Counter[str] = Counter()
        self.excused: Counter[str] = Counter()
        self.levels: Counter[Level] = Counter()
        self._kept: dict[Level, list[Finding]] = {level: [] for level in LEVELS}

    def add(self, findings: Iterable[Finding]) -> Mark:
        """Count and keep; returns what they come to together."""
        marks: set[Mark] = set()
        for finding in findings:
            if finding.level != "note":
                marks.add(finding.level)
            elif finding.excuse:
                marks.add("excused")
            self.levels[finding.level] += 1
            if finding.blame and finding.level != "note":
                self.blames[finding.blame] += 1
            if finding.excuse:
                self.excused[finding.excuse] += 1
            if len(self._kept[finding.level]) < MOST:
                self._kept[finding.level].append(finding)
        order: tuple[Mark, ...] = ("fail", "error", "excused")
        return next((mark for mark in order if mark in marks), "fine")

    def worst_first(self) -> tuple[Finding, ...]:
        """What was kept."""
        return tuple(finding for level in LEVELS for finding in self._kept[level])

    @property
    def left_out(self) -> int:
        """How many were not kept."""
        return self.levels.total() - sum(len(kept) for kept in self._kept.values())
