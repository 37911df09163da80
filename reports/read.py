"""Reading a report, and saying clearly what is wrong with one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import msgspec

from reports.errors import ReportError
from reports.model import SCHEMA_VERSION, Cell, Report
from reports.summary import cell_verdict, summarise

REPORT_NAME = "report.json"
SIZE_LIMIT = 1 << 30
"""Bytes. A larger file is refused before it is read."""

_decoder = msgspec.json.Decoder(Report)


class _Version(msgspec.Struct):
    """Just enough of a report to tell who wrote it."""

    schema_version: int


_version_decoder = msgspec.json.Decoder(_Version)


def read_report(path: Path | str) -> Report:
    """Read the report of a run: its directory, ``out/latest``, or a ``report.json``.

    Raises :class:`ReportError` for anything that is not a whole, unedited report of a schema
    that this version knows.
    """
    file = find_report(Path(path))
    try:
        size = file.stat().st_size
        if size > SIZE_LIMIT:
            raise ReportError(f"{file} has {size} bytes; the limit is {SIZE_LIMIT}")
        data = file.read_bytes()
    except OSError as error:
        raise ReportError(f"cannot read {file}: {error.strerror or error}") from error
    return decode_report(data, name=str(file))


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


def decode_report(data: bytes, *, name: str = "the report") -> Report:
    """Decode and check the bytes of a report; ``name`` is how errors call it."""
    if not data.strip():
        raise ReportError(f"{name} is empty", hint="the run was cut off before it wrote a report")
    # Once over the version alone: a future report must not be called broken.
    try:
        version = _version_decoder.decode(data).schema_version
    except msgspec.ValidationError as error:
        raise ReportError(f"{name} is not an Airlock report: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _broken(data, name, error) from error
    if version > SCHEMA_VERSION:
        raise ReportError(
            f"{name} has schema version {version}; this Airlock reads up to {SCHEMA_VERSION}",
            hint="read it with the newer Airlock that wrote it",
        )
    try:
        report = _decoder.decode(data)
    except msgspec.ValidationError as error:
        raise ReportError(f"{name} is not what its schema says: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _broken(data, name, error) from error
    check_report(report, name=name)
    return report


def check_report(report: Report, *, name: str = "the report") -> None:
    """Raise :class:`ReportError` when a report contradicts itself.

    This finds careless edits and broken writers. It is no proof against a careful forger.
    """
    seen: set[str] = set()
    for cell in report.cells:
        if cell.id in seen:
            raise ReportError(f"{name} has the cell {cell.id!r} twice")
        seen.add(cell.id)
        _check_cell(cell, name)
    summary = summarise(report.cells)
    if summary != report.summary:
        raise ReportError(
            f"{name} was edited: its summary says {_words(report.summary)}, "
            f"but its cells add up to {_words(summary)}"
        )


def _check_cell(cell: Cell, name: str) -> None:
    checks: set[tuple[str, str]] = set()
    for check in cell.checks:
        key = (check.id, check.instance)
        if key in checks:
            called = f"{check.id}[{check.instance}]" if check.instance else check.id
            raise ReportError(f"{name} has the check {called!r} twice in the cell {cell.id!r}")
        checks.add(key)
    if cell.verdict == "pass" and cell_verdict(cell.checks) in ("fail", "error"):
        raise ReportError(
            f"{name} was edited: the cell {cell.id!r} says pass, "
            f"but its checks say {cell_verdict(cell.checks)}"
        )


def _broken(data: bytes, name: str, error: Exception) -> ReportError:
    """Tell a report that ends too early from one that is not JSON."""
    if "truncated" in str(error):
        return ReportError(
            f"{name} is truncated: it ends in the middle, after {len(data)} bytes",
            hint="copy it again, or run again",
        )
    return ReportError(f"{name} is not JSON: {error}")


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
