"""What is otherwise in one run than in another: verdicts, checks, facts, durations.

The same difference in many cells is one difference. Facts come from the capsules beside the
reports (``cells/<cell>/facts.json``); without them the provenance in the reports is compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from reports.errors import ReportError
from reports.facts import fact_changes, say
from reports.model import Cell, CheckResult, Report
from reports.read import find_report, read_report
from reports.render.view import check_name
from reports.summary import Standing, elapsed, standing
from reports.text import duration

Area = Literal["cell", "check", "fact", "duration"]
Way = Literal["worse", "unknown", "better", "new", "gone", "changed"]
Verdict = Literal["same", "changed", "worse", "unknown", "nothing"]

NOTABLE_RATIO = 1.2
"""A cell that takes less than this many times as long (or as short) is no difference ..."""

NOTABLE_SECONDS = 5.0
"""... and neither is one that differs by less than this."""

FACTS_NAME = "facts.json"
_STANDING_WORDS: dict[Standing, str] = {
    "fine": "as expected",
    "fail": "failed",
    "error": "not to be judged",
    "not-run": "not run",
}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference and the cells that have it.

    ``way``: worse (it fails now), unknown (it cannot be told any more), better, or neither.
    ``name`` is a check's, a fact's or a cell's; ``text`` says it; ``reason`` says why, if known.
    """

    area: Area
    way: Way
    name: str
    text: str
    before: Any = None
    after: Any = None
    reason: str = ""
    cells: tuple[str, ...] = ()


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs compared. ``compared`` counts the cells that both have."""

    before: str
    after: str
    verdict: Verdict
    compared: int
    facts_compared: int
    differences: list[Difference]


def diff_runs(before: Path | str, after: Path | str) -> Diff:
    """Compare two runs, given as directories or reports.

    Raises :class:`ReportError` when one of them cannot be read.
    """
    reports = read_report(before), read_report(after)
    folders = find_report(Path(before)).parent, find_report(Path(after)).parent
    return diff_reports(*reports, folders=folders)


def diff_reports(
    before: Report, after: Report, *, folders: tuple[Path, Path] | None = None
) -> Diff:
    """Compare two reports; ``folders`` are their runs' directories, where the capsules are."""
    old = {cell.id: cell for cell in before.cells}
    new = {cell.id: cell for cell in after.cells}
    groups: dict[bytes, tuple[Difference, list[str]]] = {}
    facts_compared = 0

    def add(difference: Difference, cell: str) -> None:
        key = msgspec.json.encode(difference)
        groups.setdefault(key, (difference, []))[1].append(cell)

    for name in old.keys() - new.keys():
        text = f"is gone; it was {_STANDING_WORDS[standing(old[name])]}"
        add(Difference(area="cell", way="gone", name=name, text=text), name)
    for name in new.keys() - old.keys():
        text = f"is new: {_STANDING_WORDS[standing(new[name])]}"
        add(Difference(area="cell", way="new", name=name, text=text), name)
    common = [name for name in old if name in new]
    for name in common:
        one, other = old[name], new[name]
        for difference in (*_verdicts(one, other), *_checks(one, other), *_times(one, other)):
            add(difference, name)
        facts = _facts(one, other, folders)
        facts_compared += facts is not None
        for difference in (*_provenance(one, other, watched=facts is not None), *(facts or ())):
            add(difference, name)
    differences = [
        msgspec.structs.replace(first, cells=tuple(cells)) for first, cells in groups.values()
    ]
    differences.sort(key=_order)
    return Diff(
        before=before.run.id,
        after=after.run.id,
        verdict=_verdict(differences, len(common)),
        compared=len(common),
        facts_compared=facts_compared,
        differences=differences,
    )


def _order(difference: Difference) -> tuple[int, int, int, str]:
    areas: tuple[Area, ...] = ("cell", "check", "fact", "duration")
    ways: tuple[Way, ...] = ("worse", "unknown", "gone", "new", "changed", "better")
    return (
        areas.index(difference.area),
        ways.index(difference.way),
        -len(difference.cells),
        difference.name,
    )


def _verdict(differences: list[Difference], compared: int) -> Verdict:
    if not compared:
        return "nothing"
    ways = {difference.way for difference in differences if difference.area in ("cell", "check")}
    if "worse" in ways:
        return "worse"
    lost = any(item.area == "cell" and item.way == "gone" for item in differences)
    if "unknown" in ways or lost:
        return "unknown"
    return "changed" if differences else "same"


def _verdicts(one: Cell, other: Cell) -> Iterator[Difference]:
    before, after = standing(one), standing(other)
    if before == after:
        return
    way: Way = "better" if after == "fine" else "worse" if after == "fail" else "unknown"
    if before == "fail" and way == "unknown":
        way = "changed"
    yield Difference(
        area="cell",
        way=way,
        name=one.id,
        text=f"{_STANDING_WORDS[before]} → {_STANDING_WORDS[after]}",
        before=one.verdict,
        after=other.verdict,
        reason=other.reason,
    )


def _checks(one: Cell, other: Cell) -> Iterator[Difference]:
    if not one.checks or not other.checks:
        return  # the cell's verdict says it
    old = {(check.id, check.instance): check for check in one.checks}
    for check in other.checks:
        was = old.pop((check.id, check.instance), None)
        if was is None:
            yield _lonely(check, "new")
        elif was.outcome != check.outcome:
            yield Difference(
                area="check",
                way=_way(was, check),
                name=check_name(check),
                text=f"{was.outcome} → {check.outcome}",
                before=was.outcome,
                after=check.outcome,
                reason=check.message if check.outcome != "pass" else "",
            )
    for was in old.values():
        yield _lonely(was, "gone")


def _lonely(check: CheckResult, way: Literal["new", "gone"]) -> Difference:
    """A check that only one of the runs has. A new one that fails made nothing worse."""
    return Difference(
        area="check",
        way=way,
        name=check_name(check),
        text=f"is {way}: {check.outcome}",
        before=check.outcome if way == "gone" else None,
        after=check.outcome if way == "new" else None,
    )


def _way(was: CheckResult, check: CheckResult) -> Way:
    if check.outcome == "fail":
        return "worse"
    if check.outcome in ("error", "not-verified") and was.outcome in ("pass", "skip"):
        return "unknown"
    return "better" if check.outcome == "pass" else "changed"


def _times(one: Cell, other: Cell) -> Iterator[Difference]:
    before, after = elapsed(one), elapsed(other)
    if not before or not after or abs(after - before) < NOTABLE_SECONDS:
        return
    if max(before, after) / min(before, after) < NOTABLE_RATIO:
        return
    old, new = ({phase.name: phase.seconds for phase in cell.phases} for cell in (one, other))
    name, grown = max(
        ((name, new.get(name, 0.0) - old.get(name, 0.0)) for name in {**old, **new}),
        key=lambda pair: pair[1] if after > before else -pair[1],
    )
    sign = "+" if grown >= 0 else "−"
    yield Difference(
        area="duration",
        way="changed",
        name=one.id,
        text=f"{duration(before)} → {duration(after)}, most of it in {name} "
        f"({sign}{duration(abs(grown))})",
        before=round(before, 3),
        after=round(after, 3),
    )


def _facts(
    one: Cell, other: Cell, folders: tuple[Path, Path] | None
) -> list[Difference] | None:  # fmt: skip
    """Compare the facts in both capsules; null when one of them has none."""
    if folders is None:
        return None
    texts = [_facts_text(folder, cell) for folder, cell in zip(folders, (one, other), strict=True)]
    if None in texts:
        return None
    if texts[0] == texts[1]:
        return []
    try:
        before, after = (msgspec.json.decode(text or b"", type=dict[str, Any]) for text in texts)
        changes = fact_changes(before, after)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReportError(
            f"{FACTS_NAME} of {one.id!r} is no facts of a node, in {folders[0]} or {folders[1]}: "
            f"{error}",
            hint="the capsule was edited or cut off; without its facts the rest can be compared",
        ) from error
    return [
        Difference(
            area="fact",
            way="changed",
            name=change.name,
            text=change.text,
            before=change.before,
            after=change.after,
        )
        for change in changes
    ]


def _facts_text(folder: Path, cell: Cell) -> bytes | None:
    if cell.inherited and cell.inherited.report:
        folder /= cell.inherited.report
    path = folder / "cells" / cell.id / FACTS_NAME
    try:
        return path.read_bytes() if path.resolve().is_relative_to(folder.resolve()) else None
    except OSError:
        return None


def _provenance(one: Cell, other: Cell, *, watched: bool) -> Iterator[Difference]:
    """What the reports themselves say of a node; ``watched``: its facts are compared as well."""
    was, now = one.provenance, other.provenance
    for name, words, old, new in (
        ("image", "image", one.image.digest, other.image.digest),
        ("trust.ca", "proxy CA", was.ca_sha256, now.ca_sha256),
        ("pyz", "airlock-node.pyz", was.pyz_sha256, now.pyz_sha256),
        ("kernel.release", "kernel", was.kernel, now.kernel),
        ("modules.version", "driver", was.driver_version, now.driver_version),
        ("modules.signer", "module signer", was.certificate_sha256, now.certificate_sha256),
    ):
        if old != new and not (watched and "." in name and name != "trust.ca"):
            yield Difference(
                area="fact",
                way="changed",
                name=name,
                text=f"{words} {say(old)} → {say(new)}",
                before=old,
                after=new,
            )
