"""The published table of which keys a kernel takes: what it says, and when it is wrong."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from harness import trusttable
from tests.unit.core.workbench import REPOSITORY

DOCS = REPOSITORY / "docs"
REFUSED = {"errno": "EKEYREJECTED", "kernel_log": ["Loading of unsigned module is rejected"]}
TAKEN = {"errno": "", "kernel_log": []}


def row(**signed: bool) -> dict[str, Any]:
    """A row of a kernel that takes the key in these places."""
    boot = {"enabled": True, "lockdown": "integrity", "keyrings": {}}
    return {
        "image": "debian-12",
        "title": "Debian 12",
        "os": "debian",
        "version_id": "12",
        "kernel": "6.1.0-56-cloud-amd64",
        "measured": "2026-01-01",
        "cases": {
            case: {
                "unsigned": copy.deepcopy(REFUSED),
                "signed": TAKEN if signed.get(case) else REFUSED,
                "boot": dict(boot),
            }
            for case in ("db", "mok", "neither", "revoked")
        },
    }


def test_a_row_that_agrees_with_the_installers_has_no_differences() -> None:
    assert trusttable.differences(row(db=True, mok=True)) == []


def test_a_row_that_disagrees_says_what_was_seen_and_what_is_written() -> None:
    (said,) = trusttable.differences(row(mok=True))
    assert "by a key in db is refused; the installers' table says taken" in said
    unknown = {**row(db=True, mok=True), "kernel": "9.9.0"}
    (said,) = trusttable.differences(unknown)
    assert "the installers' table says not known" in said


def test_a_kernel_that_takes_anything_proves_nothing() -> None:
    (said,) = trusttable.differences(row(db=True, mok=True, neither=True))
    assert "that a stranger signed" in said
    loose = row(db=True, mok=True)
    loose["cases"]["mok"]["unsigned"]["errno"] = ""
    (said,) = trusttable.differences(loose)
    assert "without a signature, with the key in mok" in said
    off = row(db=True, mok=True)
    off["cases"]["db"]["boot"]["enabled"] = False
    (said,) = trusttable.differences(off)
    assert "Secure Boot was not on" in said


def test_a_kernel_that_does_not_heed_dbx_is_published_as_such(tmp_path: Path) -> None:
    """It is what that kernel does, and no fault of the measurement."""
    heedless = row(db=True, mok=True, revoked=True)
    assert trusttable.differences(heedless) == []
    assert trusttable.line(heedless).endswith("neither: EKEYREJECTED, revoked: taken")
    trusttable.keep(heedless, tmp_path)
    assert "| EKEYREJECTED | taken | EKEYREJECTED |" in (tmp_path / trusttable.TEXT).read_text()


def test_a_row_of_before_the_question_was_asked_says_so(tmp_path: Path) -> None:
    older = row(db=True, mok=True)
    del older["cases"]["revoked"]
    assert trusttable.differences(older) == []
    trusttable.keep(older, tmp_path)
    assert "| EKEYREJECTED | not asked |" in (tmp_path / trusttable.TEXT).read_text()


def test_a_row_takes_the_place_of_the_images_last_one(tmp_path: Path) -> None:
    trusttable.keep(row(mok=True), tmp_path)
    trusttable.keep({**row(), "image": "another"}, tmp_path)
    trusttable.keep(row(db=True, mok=True), tmp_path)
    rows = trusttable.read(tmp_path)
    assert [found["image"] for found in rows] == ["another", "debian-12"]
    assert trusttable.takes(rows[1], "db")
    text = (tmp_path / trusttable.TEXT).read_text()
    assert "| taken | taken | EKEYREJECTED | EKEYREJECTED | EKEYREJECTED | integrity |" in text


def test_what_is_published_is_printed_from_the_data_and_agrees_with_the_installers() -> None:
    rows = trusttable.read(DOCS)
    if not rows:
        pytest.fail("docs/kernel-trust.json is missing: airlock image probe --write docs")
    assert (DOCS / trusttable.TEXT).read_text() == trusttable.render(rows)
    assert [wrong for found in rows for wrong in trusttable.differences(found)] == []
