"""Reading a report cell by cell, and saying clearly what is wrong with one that cannot be read."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import msgspec

from reports.errors import ReportError
from reports.model import SCHEMA_VERSION, Cell, Report, Run, Summary
from reports.stream import TooMuch, Window, members
from reports.summary import Standing, cell_verdict, run_verdict, summarise

REPORT_NAME = "report.json"
SIZE_LIMIT = 1 << 30
"""Bytes. A larger file is refused before it is read."""

_HEAD = {"schema_version": int, "run": Run, "summary": Summary}
#: How cells count, by the verdict of a run that has no others.
_ALONE: dict[str, Standing] = {
    "pass": "fine",
    "fail": "fail",
    "error": "error",
    "nothing": "not-run",
}
_cell_decoder = msgspec.json.Decoder(Cell)


def read_report(path: Path | str) -> Report:
    """Read the report of a run: its directory, ``out/latest``, or a ``report.json``.

    Raises :class:`ReportError` for anything that is not a whole, unedited report of a schema
    that this version knows.
    """
    with open_report(path) as reading:
        return reading.whole()


@contextlib.contextmanager
def open_report(path: Path | str, *, digest: bool = False) -> Iterator[Reading]:
    """The same, to be read cell by cell; what is wrong with a cell is raised when it is reached.

    ``digest``: tell the file's SHA-256 at the end, which takes as long again as the reading.
    """
    file = find_report(Path(path))
    try:
        size = file.stat().st_size
        if size > SIZE_LIMIT:
            raise _too_much(str(file), size)
        with file.open("rb") as opened:
            if not opened.seekable():
                raise ReportError(f"{file} is no file", hint="write the report to a file first")
            yield Reading(opened, str(file), digest=digest)
    except OSError as error:
        raise ReportError(f"cannot read {file}: {error.strerror or error}") from error


def decode_report(data: bytes, *, name: str = "the report") -> Report:
    """Decode and check the bytes of a report; ``name`` is how errors call it."""
    return Reading(io.BytesIO(data), name).whole()


def find_report(path: Path) -> Path:
    """Return the ``report.json`` that ``path`` means."""
    if path.is_dir():
        file = path / REPORT_NAME
        if not file.is_file():
            raise ReportError(
                f"{path} holds no {REPORT_NAME}",
                hint="name the directory of a run that has finished, such as out/latest",
            )
        return file
    if path.is_symlink() and not path.exists():
        raise ReportError(
            f"{path} points to {path.readlink()}, which does not exist",
            hint="the run was deleted; make a new one with `airlock run`",
        )
    if not path.exists():
        raise ReportError(
            f"there is no {path}", hint="make a report with `airlock run`, or name an older run"
        )
    return path


class Reading:
    """A report that is read cell by cell: one cell is in memory at a time.

    ``run``, ``summary`` and ``schema_version`` are known at once, wherever they are in the file.
    ``sha256`` is the file's, lower-case hex, once all ``cells`` were read with ``digest``.
    """

    def __init__(self, file: BinaryIO, name: str, *, digest: bool = False) -> None:
        self.name = name
        self.sha256 = ""
        self._file = file
        self._digest = digest
        head, strangers = self._head()
        try:
            version = msgspec.json.decode(head.get("schema_version", b"null"), type=int)
        except msgspec.DecodeError as error:
            what = str(error) if "schema_version" in head else "it has no schema_version"
            raise ReportError(f"{name} is not an Airlock report: {what}") from error
        # Before anything else of it is judged: a future report must not be called broken.
        if version > SCHEMA_VERSION:
            raise ReportError(
                f"{name} has schema version {version}; this Airlock reads up to {SCHEMA_VERSION}",
                hint="read it with the newer Airlock that wrote it",
            )
        if version < 1:
            self._not_the_schema(f"Expected `int` >= 1 - at `$.schema_version`, got {version}")
        for stranger in strangers:
            self._not_the_schema(f"Object contains unknown field `{stranger}`")
        self.schema_version = version
        self.run: Run = self._member(head, "run")
        self.summary: Summary = self._member(head, "summary")

    def whole(self) -> Report:
        """All of it at once."""
        return Report(
            schema_version=self.schema_version,
            run=self.run,
            summary=self.summary,
            cells=list(self.cells),
        )

    @property
    def cells(self) -> Iterator[Cell]:
        """Every cell, checked; at the end, whether they add up to the summary.

        Raises :class:`ReportError` when a cell cannot be read, or the report contradicts itself.
        That finds careless edits and broken writers. It is no proof against a careful forger.
        """
        digest = hashlib.sha256()
        ids: set[str] = set()
        total = Total()
        found = False
        for name, value in self._members(digest.update if self._digest else _unseen):
            if name == "cells":
                found = True
            elif name not in _HEAD:
                self._not_the_schema(f"Object contains unknown field `{name}`")
            if name != "cells" or value is None:
                continue
            cell = self._decode(value, len(ids))
            if cell.id in ids:
                raise ReportError(f"{self.name} has the cell {cell.id!r} twice")
            ids.add(cell.id)
            _check_cell(cell, self.name)
            total.add(cell)
            yield cell
        if not found:
            self._not_the_schema("Object missing required field `cells`")
        if total.summary() != self.summary:
            raise ReportError(
                f"{self.name} was edited: its summary says {_words(self.summary)}, "
                f"but its cells add up to {_words(total.summary())}"
            )
        self.sha256 = digest.hexdigest() if self._digest else ""

    def _head(self) -> tuple[dict[str, bytes], list[str]]:
        """The members that are not the cells, as JSON; and the names that no report has."""
        head: dict[str, bytes] = {}
        strangers = []
        for name, value in self._members(_unseen):
            if name in _HEAD and value is not None:
                head[name] = bytes(value)
            elif name != "cells":
                strangers.append(name)
            elif len(head) == len(_HEAD):
                break
        return head, strangers

    def _members(self, seen: Any) -> Iterator[tuple[str, memoryview | None]]:
        self._file.seek(0)
        window = Window(self._file, SIZE_LIMIT, seen)
        try:
            if not window.peek():
                hint = "the run was cut off before it wrote a report"
                raise ReportError(f"{self.name} is empty", hint=hint)
            yield from members(window, "cells")
        except msgspec.ValidationError as error:
            raise ReportError(f"{self.name} is not an Airlock report: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._broken(error, window) from error
        except TooMuch:
            raise _too_much(self.name, SIZE_LIMIT + 1) from None

    def _member(self, head: dict[str, bytes], name: str) -> Any:
        if name not in head:
            self._not_the_schema(f"Object missing required field `{name}`")
        try:
            return msgspec.json.decode(head[name], type=_HEAD[name])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._not_the_schema(_moved(error, f".{name}"), error)

    def _decode(self, value: memoryview, number: int) -> Cell:
        try:
            return _cell_decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._not_the_schema(_moved(error, f".cells[{number}]"), error)

    def _not_the_schema(self, what: str, cause: Exception | None = None) -> NoReturn:
        raise ReportError(f"{self.name} is not what its schema says: {what}") from cause

    def _broken(self, error: Exception, window: Window) -> ReportError:
        """Tell a report that ends too early from one that is not JSON."""
        if "truncated" in str(error):
            return ReportError(
                f"{self.name} is truncated: it ends in the middle, after {window.end} bytes",
                hint="copy it again, or run again",
            )
        return ReportError(f"{self.name} is not JSON: {error}")


class Total:
    """The summary of cells, or of parts that have one, that come one after the other."""

    def __init__(self) -> None:
        self._verdicts: set[str] = set()
        self._sum: dict[str, Any] = {}

    def add(self, cell: Cell) -> None:
        """Count one more."""
        self.add_part(summarise([cell]))

    def add_part(self, summary: Summary) -> None:
        """Count all cells of a part."""
        self._verdicts.add(summary.verdict)
        _add(self._sum, msgspec.to_builtins(summary))

    def summary(self) -> Summary:
        """What they add up to."""
        counted = self._sum or msgspec.to_builtins(summarise([]))
        verdict = run_verdict(_ALONE[verdict] for verdict in self._verdicts)
        return msgspec.convert({**counted, "verdict": verdict}, Summary)


def _unseen(_: bytes) -> None:
    """Nobody wants the bytes as they are read."""


def _add(total: dict[str, Any], more: dict[str, Any]) -> None:
    for name, value in more.items():
        if isinstance(value, dict):
            _add(total.setdefault(name, {}), value)
        elif isinstance(value, int):
            total[name] = total.get(name, 0) + value


def _check_cell(cell: Cell, name: str) -> None:
    # Few checks have instances; ids alone are quicker to compare.
    if len({check.id for check in cell.checks}) < len(cell.checks):
        seen = set()
        for check in cell.checks:
            if (check.id, check.instance) in seen:
                called = f"{check.id}[{check.instance}]" if check.instance else check.id
                raise ReportError(f"{name} has the check {called!r} twice in the cell {cell.id!r}")
            seen.add((check.id, check.instance))
    if cell.verdict == "pass" and cell_verdict(cell.checks) in ("fail", "error"):
        raise ReportError(
            f"{name} was edited: the cell {cell.id!r} says pass, "
            f"but its checks say {cell_verdict(cell.checks)}"
        )


def _moved(error: Exception, place: str) -> str:
    """The text of an error about a part, told for the whole."""
    text = str(error)
    return text.replace("`$", f"`${place}") if "`$" in text else f"{text} - at `${place}`"


def _too_much(name: str, size: int) -> ReportError:
    return ReportError(f"{name} has {size} bytes; the limit is {SIZE_LIMIT}")


def _words(summary: msgspec.Struct) -> str:
    """Spell a summary out, without its zeros."""
    parts = []
    for group, value in msgspec.to_builtins(summary).items():
        if isinstance(value, dict):
            inner = ", ".join(f"{key} {count}" for key, count in value.items() if count)
            parts.append(f"{group} ({inner or 'none'})")
        else:
            parts.append(f"{group} {value}")
    return ", ".join(parts)
