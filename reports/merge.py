"""Reports of shards become one: cell by cell, in the order of the matrix, in bounded memory.

Shards belong together when their division is the same (:mod:`reports.division`). Each must be there
once and whole. Of a shard that was cut off and repeated the repetition counts.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from reports.division import Division
from reports.errors import ReportError
from reports.model import SCHEMA_VERSION, Cell, HostMachine, Merged, Run, Shard, Summary
from reports.read import REPORT_NAME, SIZE_LIMIT, Total, find_report, open_report
from reports.write import write_parts


@dataclass(frozen=True)
class Part:
    """The head of one shard's report. ``file`` is its ``report.json``."""

    file: Path
    sha256: str
    run: Run
    shard: Shard
    summary: Summary

    @property
    def called(self) -> str:
        """How errors call the shard."""
        return f"shard {self.shard.index}/{self.shard.count}"


@dataclass(frozen=True)
class Merge:
    """What was merged. ``sources``: cell id -> the directory of the run that has its capsule."""

    run: Run
    summary: Summary
    sources: dict[str, Path] = field(default_factory=dict)


def find_reports(paths: Sequence[Path | str]) -> list[Path]:
    """The reports that these name: runs, reports, or directories of runs, two levels deep.

    What a link names is left out of a directory: ``latest`` is a run that is there already.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        inside = []
        if path.is_dir() and not (path / REPORT_NAME).exists():
            below = [*path.glob(f"*/{REPORT_NAME}"), *path.glob(f"*/*/{REPORT_NAME}")]
            linked = (path, *path.parents)
            inside = [
                file
                for file in sorted(below)
                if not any(up.is_symlink() for up in file.parents if up not in linked)
            ]
        found += inside or [find_report(path)]
    return found


def merge(files: Sequence[Path], run_id: str, directory: Path, home: Path) -> Merge:
    """Write the report that these shards make together into ``directory``.

    ``home`` is where that directory will be in the end: links to earlier runs are relative to it.
    Raises :class:`ReportError` when they do not make a whole, or one of them cannot be read.
    """
    parts = _chosen([_part(file) for file in files])
    first = parts[0][0]
    owners = _owners([part for part, _ in parts], first.shard.total)
    total = Total()
    for part, _ in parts:
        total.add_part(part.summary)
    merged = Merge(_run(run_id, parts), total.summary())
    write_parts(
        directory / REPORT_NAME, _encoded(merged, [part for part, _ in parts], owners, home)
    )
    return merged


def _part(file: Path) -> Part:
    with open_report(file) as reading:
        run = reading.run
        if run.merged:
            raise ReportError(
                f"{file} is merged already",
                hint="name the runs of the shards that it was made of, all of them",
            )
        if run.shard is None:
            raise ReportError(
                f"{file} is no shard: the run was all that its matrix selects",
                hint="runs of `airlock run --shard i/n` can be merged",
            )
        positions = run.shard.positions
        if sorted(set(positions)) != positions or not set(positions) <= set(range(run.shard.total)):
            raise ReportError(f"{file} was edited: its positions are no part of its matrix")
        with file.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        return Part(file, digest, run, run.shard, reading.summary)


def _chosen(parts: Sequence[Part]) -> list[tuple[Part, list[Part]]]:
    """The whole run of every shard, with those it took the place of; in the shards' order."""
    known: dict[str, Part] = {}
    shards: dict[int, list[Part]] = {}
    first = parts[0]
    for part in sorted(parts, key=lambda part: part.run.started):
        same = known.setdefault(part.run.id, part)
        if same is not part:
            if same.sha256 != part.sha256:
                raise ReportError(f"{part.file} and {same.file} are of one run and differ")
            continue
        _belongs(part, first)
        shards.setdefault(part.shard.index, []).append(part)
    count = first.shard.count
    missing = [str(index) for index in range(1, count + 1) if index not in shards]
    if missing:
        raise ReportError(
            f"of {count} shards there is no {', '.join(missing)}",
            hint=f"name its run, or make it with `airlock run --shard {missing[0]}/{count}`",
        )
    return [(_stands(shards[index]), shards[index][:-1]) for index in range(1, count + 1)]


def _belongs(part: Part, first: Part) -> None:
    same = (first.shard.count, first.shard.total, first.shard.division)
    if (part.shard.count, part.shard.total, part.shard.division) != same:
        raise ReportError(
            f"{part.file} ({part.called}) and {first.file} ({first.called}) are not of one "
            "division: other cells, another number of shards, or other durations",
            hint="give every shard the same matrix, options and --durations",
        )
    if part.run.airlock_version != first.run.airlock_version:
        raise ReportError(
            f"{part.file} was made by Airlock {part.run.airlock_version}, {first.file} by "
            f"{first.run.airlock_version}",
            hint="run all shards with one version",
        )
    if part.shard.index > part.shard.count:
        raise ReportError(f"{part.file} was edited: it says that it is {part.called}")


def _stands(runs: Sequence[Part]) -> Part:
    """Of the runs of one shard, in the order in which they began, the one that counts."""
    whole = [part for part in runs if part.run.finished]
    last = runs[-1]
    if not whole:
        raise ReportError(
            f"{last.called} was cut off: {last.file}",
            hint=f"repeat it: airlock run --shard {last.shard.index}/{last.shard.count}",
        )
    if whole != [last]:
        names = " and ".join(str(part.file) for part in runs)
        raise ReportError(
            f"{last.called} was run again although it was whole: {names}",
            hint="name the one that counts",
        )
    return last


def _owners(parts: Sequence[Part], total: int) -> list[int]:
    """Position in the whole -> which part has it."""
    owners = [-1] * total
    for number, part in enumerate(parts):
        for position in part.shard.positions:
            if owners[position] >= 0:
                other = parts[owners[position]]
                raise ReportError(f"{part.called} and {other.called} have the same cell")
            owners[position] = number
    if -1 in owners:
        raise ReportError(f"no shard has the cell number {owners.index(-1) + 1} of {total}")
    return owners


def _encoded(
    merged: Merge, parts: Sequence[Part], owners: Sequence[int], home: Path
) -> Iterator[bytes]:
    """The report as JSON, piece by piece; fills its ``sources``."""
    encode = msgspec.json.encode
    sources = merged.sources
    head = {"schema_version": SCHEMA_VERSION, "run": merged.run, "summary": merged.summary}
    written = encode(head)[:-1] + b',"cells":['
    size = len(written)
    yield written
    division = Division(len(parts))
    with ExitStack() as stack:
        cells = [stack.enter_context(open_report(part.file)).cells for part in parts]
        for position, number in enumerate(owners):
            part = parts[number]
            cell = next(cells[number], None)
            if cell is None:
                raise _miscounted(part)
            if cell.id in sources:
                raise ReportError(f"{part.file} has the cell {cell.id!r} of another shard")
            sources[cell.id] = part.file.parent
            division.add(part.shard.index, cell.provider, cell.expected, cell.id)
            written = (b"," if position else b"") + encode(_moved(cell, part.file.parent, home))
            size += len(written)
            if size > SIZE_LIMIT:
                raise ReportError(f"together they have more than {SIZE_LIMIT} bytes, the limit")
            yield written
        for part, rest in zip(parts, cells, strict=True):
            # Only at its end a report says whether its cells are what its summary says.
            if next(rest, None) is not None:
                raise _miscounted(part)
    if division.hexdigest() != parts[0].shard.division:
        raise ReportError("the cells of the shards are not those that were divided")
    yield b"]}\n"


def _miscounted(part: Part) -> ReportError:
    return ReportError(f"{part.file} was edited: it has not the cells that its shard says")


def _moved(cell: Cell, source: Path, home: Path) -> Cell:
    """A cell whose link to an earlier run leads there from its new place too."""
    if not cell.inherited or not cell.inherited.report:
        return cell
    link = os.path.relpath(source.absolute() / cell.inherited.report, home.absolute())
    inherited = msgspec.structs.replace(cell.inherited, report=link)
    return msgspec.structs.replace(cell, inherited=inherited)


def _run(run_id: str, parts: Sequence[tuple[Part, Sequence[Part]]]) -> Run:
    runs = [part.run for part, _ in parts]
    merged = [
        Merged(
            run=part.run.id,
            shard=part.shard.index,
            started=part.run.started,
            finished=part.run.finished,
            report_sha256=part.sha256,
            host=part.run.host,
            instead_of=[each.run.id for each in before],
        )
        for part, before in parts
        if part.run.finished
    ]
    return Run(
        id=run_id,
        started=min(run.started for run in runs),
        finished=max(each.finished for each in merged),
        airlock_version=runs[0].airlock_version,
        matrix=runs[0].matrix,
        host=_common([run.host for run in runs]),
        pyz_sha256=runs[0].pyz_sha256 if len({run.pyz_sha256 for run in runs}) == 1 else "",
        merged=merged,
    )


def _common(hosts: Sequence[HostMachine]) -> HostMachine:
    """What is true of every machine."""
    told = [msgspec.to_builtins(host) for host in hosts]
    same: dict[str, Any] = {
        name: value for name, value in told[0].items() if all(host[name] == value for host in told)
    }
    return msgspec.convert(same, HostMachine)
