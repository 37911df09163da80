"""The schema that ships, and that reports keep to it."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest

import reports
from reports.model import Report
from reports.schema import schema, schema_text
from tests.unit.reports.sample import good_report, mixed_report


def test_committed_schema_is_the_generated_one() -> None:
    committed = Path(reports.__file__).with_name("schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "run: python -m reports.schema > reports/schema.json"


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("report", [good_report(), mixed_report()], ids=["good", "mixed"])
def test_reports_are_valid(report: Report) -> None:
    document = json.loads(msgspec.json.encode(report))
    jsonschema.Draft202012Validator(schema()).validate(document)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("cells", 0, "verdict"), "passed"),
        (("cells", 0, "id"), ""),
        (("cells", 0, "checks", 0, "outcome"), "PASS"),
        (("cells", 0, "checks", 0, "seconds"), -1),
        (("run", "colour"), "red"),
        (("schema_version",), 0),
    ],
)
def test_schema_and_reader_refuse_the_same(where: tuple[str | int, ...], value: object) -> None:
    document = json.loads(msgspec.json.encode(good_report()))
    place = document
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(document)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(document), type=Report)
