"""Reports on disk: good ones come back whole, bad ones give one clear error."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reports import read
from reports.errors import ReportError
from reports.model import SCHEMA_VERSION, Report
from reports.read import decode_report, read_report
from reports.summary import build_report
from reports.write import write_atomically, write_report
from tests.unit.reports.sample import good_report, make_cell, make_check, make_run, mixed_report


def _edited(edit: Callable[[dict[str, Any]], object]) -> bytes:
    document = json.loads(msgspec.json.encode(good_report()))
    edit(document)
    return json.dumps(document).encode()


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    report = mixed_report()
    path = write_report(report, tmp_path / "run")
    assert path == tmp_path / "run" / "report.json"
    assert read_report(path) == report
    assert read_report(tmp_path / "run") == report
    (tmp_path / "latest").symlink_to("run")
    assert read_report(tmp_path / "latest") == report
    assert read_report(str(tmp_path / "latest")) == report


@pytest.mark.parametrize("end", [1, 100, -2])
def test_truncated(end: int) -> None:
    data = msgspec.json.encode(good_report())
    with pytest.raises(ReportError, match="truncated"):
        decode_report(data[:end])


@pytest.mark.parametrize("data", [b"", b"  \n"])
def test_empty(data: bytes) -> None:
    with pytest.raises(ReportError, match="is empty"):
        decode_report(data)


@pytest.mark.parametrize("data", [b"\xff\xfe", b"<html>", b'{"schema_version": 1} trailing'])
def test_not_json(data: bytes) -> None:
    with pytest.raises(ReportError, match="not JSON"):
        decode_report(data)


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"schema_version": "x"}', b'{"a": 1}'])
def test_not_a_report(data: bytes) -> None:
    with pytest.raises(ReportError, match="not an Airlock report"):
        decode_report(data)


def test_future_schema_is_called_newer_not_broken() -> None:
    data = _edited(lambda d: d.update(schema_version=SCHEMA_VERSION + 1, new_field=[1]))
    with pytest.raises(
        ReportError, match=rf"schema version {SCHEMA_VERSION + 1}; .* newer Airlock"
    ):
        decode_report(data)


def test_edited_verdict() -> None:
    data = _edited(lambda d: d["cells"][0]["checks"][0].update(outcome="fail"))
    with pytest.raises(ReportError, match=r"edited: the cell .* says pass"):
        decode_report(data)


def test_edited_summary() -> None:
    data = _edited(lambda d: d["summary"]["cells"].update(total=99))
    with pytest.raises(ReportError, match=r"edited: its summary says .*total 99"):
        decode_report(data)


def test_edited_value_names_the_place() -> None:
    data = _edited(lambda d: d["cells"][1].update(verdict="great"))
    with pytest.raises(ReportError, match=r"cells.*verdict"):
        decode_report(data)


def test_wrong_utf8_inside_a_text() -> None:
    data = msgspec.json.encode(good_report()).replace(b"db-keys", b"db-\xff\xff\xff\xff")
    with pytest.raises(ReportError):
        decode_report(data)


def test_duplicate_cell() -> None:
    data = _edited(lambda d: d["cells"].append(d["cells"][0]))
    with pytest.raises(ReportError, match=r"has the cell 'debian-12.*' twice"):
        decode_report(data)


def test_duplicate_check() -> None:
    data = _edited(lambda d: d["cells"][0]["checks"].append(d["cells"][0]["checks"][0]))
    with pytest.raises(ReportError, match=r"has the check 'egress\.no-violation' twice"):
        decode_report(data)


def test_instances_of_one_check_are_no_duplicates() -> None:
    checks = [make_check(instance=name) for name in ("nvidia", "nvidia-drm")]
    report = build_report(make_run(), [make_cell(checks=checks)])
    assert decode_report(msgspec.json.encode(report)) == report


def test_missing_places(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="there is no"):
        read_report(tmp_path / "nowhere")
    with pytest.raises(ReportError, match=r"holds no report\.json"):
        read_report(tmp_path)
    (tmp_path / "latest").symlink_to("gone")
    with pytest.raises(ReportError, match="points to gone, which does not exist"):
        read_report(tmp_path / "latest")


def test_oversized_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_report(good_report(), tmp_path)
    os.truncate(path, read.SIZE_LIMIT + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"{self} was read"))
    with pytest.raises(ReportError, match="the limit is 1073741824"):
        read_report(path)


def test_a_report_that_contradicts_itself_is_not_written(tmp_path: Path) -> None:
    path = write_report(good_report(), tmp_path)
    before = path.read_bytes()
    cells = [make_cell(), make_cell()]
    with pytest.raises(ReportError, match="the report to be written has the cell"):
        write_report(build_report(make_run(), cells), tmp_path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.json"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(ReportError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_bytes_that_were_no_text_are_spelled_out(tmp_path: Path) -> None:
    """A node's output, decoded with surrogateescape, must not cost the whole report."""
    check = make_check(outcome="fail", message=b"caf\xe9".decode("utf-8", "surrogateescape"))
    report = build_report(make_run(), [make_cell(verdict="fail", checks=[check])])
    back: Report = read_report(write_report(report, tmp_path))
    assert back.cells[0].checks[0].message == "caf\\udce9"


def test_a_report_of_the_first_schema_is_still_read() -> None:
    def older(document: dict[str, Any]) -> None:
        document["schema_version"] = 1
        del document["summary"]["cells"]["inherited"]
        for cell in document["cells"]:
            del cell["inherited"]

        for part in (c for cell in document["cells"] for c in cell["checks"]):
            del part["since"]
        for cell in document["cells"]:
            del cell["provenance"]["subject"]

    report = decode_report(_edited(older))
    assert report.schema_version == 1
    assert all(cell.inherited is None for cell in report.cells)
    assert all(cell.provenance.subject is None for cell in report.cells)
