"""Writing a report: whole or not at all, and never one that cannot be read back."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from reports.errors import ReportError
from reports.model import Report
from reports.read import REPORT_NAME, decode_report


def write_report(report: Report, directory: Path | str) -> Path:
    """Write ``report.json`` into ``directory`` (made if need be) and return its path.

    What was there stays untouched unless the new one is complete and readable.
    Raises :class:`ReportError` when the report contradicts itself.
    """
    path = Path(directory) / REPORT_NAME
    write_atomically(path, encode_report(report))
    return path


def encode_report(report: Report) -> bytes:
    """Encode a report as JSON and check that it reads back."""
    try:
        data = msgspec.json.encode(report)
    except UnicodeEncodeError:
        # Text from a node may hold lone surrogates (bytes that were no UTF-8): no JSON has them.
        data = msgspec.json.encode(_without_surrogates(msgspec.to_builtins(report)))
    data += b"\n"
    decode_report(data, name="the report to be written")
    return data


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data``: temporary file, fsync, rename, fsync of the directory."""
    write_parts(path, [data])


def write_parts(path: Path, parts: Iterable[bytes]) -> None:
    """The same for data that is made while it is written; if that raises, nothing has changed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        handle = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise ReportError(f"cannot write {path}: {error.strerror or error}") from error


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(k): _without_surrogates(v) for k, v in value.items()}
    return value
