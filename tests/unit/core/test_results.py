"""Results kept by content: what may stand for a cell, and what never may."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.catalog import load_catalog
from harness.cells import Cell
from harness.providers.base import Job, Options
from harness.providers.fake import Fake, FakeRunning
from harness.run import Outcome, Request, run
from reports import model
from reports.gate import judge
from reports.render.html import render_html
from reports.render.words import headline, verdict_words
from tests.unit.core.workbench import Bench


class Real(Fake):
    """A fake provider whose nodes pass for real ones, and that says what they are made of."""

    name = "real"

    def __init__(self, script: dict[str, Any] | None = None, *, image: str = "1") -> None:
        self._script = script or {}
        self.image = image
        self.ups = 0

    def inputs(self, cell: Cell) -> Mapping[str, Any] | None:  # type: ignore[override]
        del cell
        return {"image": self.image}

    def up(self, job: Job) -> FakeRunning:
        self.ups += 1
        running = super().up(job)
        running.simulated = False
        return running


@pytest.fixture(autouse=True)
def place(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Runs of this process happen in the bench's directory."""
    monkeypatch.chdir(bench.path)
    monkeypatch.setenv("AIRLOCK_STATE", str(bench.state))
    return bench


def go(bench: Bench, provider: Fake, *, inherit: bool = True, **more: Any) -> Outcome:
    """A run of one cell."""
    catalog = load_catalog()
    cell = Cell(
        catalog.images["debian-12"],
        catalog.scenarios["proxy"],
        catalog.profiles["driver"],
        provider.name,
        inherit=inherit,
    )
    providers = {provider.name: provider}
    asked = Request([cell], "m", workers=1, conformance=bench.checks, providers=providers)
    return run(replace(asked, **more))


def cell_of(outcome: Outcome) -> model.Cell:
    """The only cell."""
    (cell,) = outcome.report.cells
    return cell


def test_an_unchanged_green_cell_is_inherited_with_date_and_link(bench: Bench) -> None:
    provider = Real()
    first = go(bench, provider)
    assert cell_of(first).inherited is None
    second = go(bench, provider)
    cell = cell_of(second)
    assert provider.ups == 1
    assert second.exit == 0
    assert cell.inherited
    assert cell.inherited.run == first.report.run.id
    assert cell.inherited.finished == first.report.run.finished
    assert (second.directory / cell.inherited.report).resolve() == first.directory.resolve()
    assert cell.checks == cell_of(first).checks
    assert second.report.summary.cells.inherited == 1
    assert verdict_words(cell).startswith("pass, inherited from 2")
    assert "1 cell is inherited" in headline(second.report)
    assert any("did not run again" in str(note) for note in judge(second.report).findings)
    page = render_html(second.report)
    assert f'href="../{first.directory.name}/index.html"' in page
    third = go(bench, provider)
    again = cell_of(third).inherited
    assert again == cell.inherited, "an inherited result is not a new one"

    assert cell_of(go(bench, provider, inherit=False)).inherited is None, "--force"
    assert provider.ups == 2


@pytest.mark.parametrize("change", ["image", "checks", "report", "fresh", "boot-anew", "keyword"])
def test_a_change_or_a_wish_makes_it_run(bench: Bench, change: str) -> None:
    provider = Real()
    first = go(bench, provider)
    more: dict[str, Any] = {}
    match change:
        case "image":
            provider.image = "2"
        case "checks":
            test = bench.checks / "small" / "test_small.py"
            test.write_text(test.read_text() + "\n# another word\n")
        case "report":
            shutil.rmtree(first.directory)
        case "fresh":
            more["options"] = Options(fresh=True)
        case "boot-anew":
            more["options"] = Options(boot_anew=True)
        case "keyword":
            more["keyword"] = "kernel"
    assert cell_of(go(bench, provider, **more)).inherited is None
    assert provider.ups == 2


@pytest.mark.parametrize(
    "script",
    [
        {"facts": {"os.id": "slackware"}},
        {"behaviour": "error"},
        {"behaviour": "refuses"},
        {"serial": ["Kernel panic - not syncing: no"]},
    ],
    ids=["fail", "error", "refused", "console"],
)
def test_what_is_not_green_is_never_inherited(bench: Bench, script: dict[str, Any]) -> None:
    provider = Real({"*": script})
    for _ in range(2):
        assert cell_of(go(bench, provider)).inherited is None
    assert provider.ups == 2
    assert not list(bench.state.glob("results/*"))


def test_what_a_double_said_is_never_inherited(bench: Bench) -> None:
    class Double(Real):
        def up(self, job: Job) -> FakeRunning:
            running = super().up(job)
            running.simulated = True
            return running

    provider = Double()
    for _ in range(2):
        assert cell_of(go(bench, provider)).inherited is None
    assert provider.ups == 2
    assert cell_of(go(bench, Fake())).inherited is None


def test_a_link_out_of_a_report_is_none(tmp_path: Path, bench: Bench) -> None:
    del tmp_path
    provider = Real()
    go(bench, provider)
    outcome = go(bench, provider)
    cell = cell_of(outcome)
    assert cell.inherited
    import msgspec

    own = render_html(outcome.report).count("<script")
    for hostile in ("javascript:alert(1)", "/etc", "https://evil.example", '"><script>'):
        where = msgspec.structs.replace(cell.inherited, report=hostile)
        report = msgspec.structs.replace(
            outcome.report, cells=[msgspec.structs.replace(cell, inherited=where)]
        )
        page = render_html(report)
        assert "javascript:" not in page
        assert page.count("<script") == own
        assert 'href="/' not in page
        assert "evil.example" not in page


def test_what_checks_saw_of_a_node_s_own_doubles_is_simulated(bench: Bench) -> None:
    area = cell_of(go(bench, Real(), inherit=False)).checks[0].id.partition(".")[0]

    class Furnished(Real):
        def up(self, job: Job) -> FakeRunning:
            running = super().up(job)
            running.expect = {**running.expect, "doubles": [area]}
            return running

    checks = cell_of(go(bench, Furnished(), inherit=False)).checks
    assert {c.simulated for c in checks if c.id.startswith(f"{area}.")} == {True}
    assert {c.simulated for c in checks if not c.id.startswith(f"{area}.")} <= {False}


def test_a_node_that_says_that_its_cards_are_doubles_is_simulated(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the lab knew of it."""
    area = cell_of(go(bench, Real(), inherit=False)).checks[0].id.partition(".")[0]
    monkeypatch.setattr("harness.station.CARDS", (area,))

    class Told(Real):
        def up(self, job: Job) -> FakeRunning:
            running = super().up(job)
            running.transport._facts["gpu"] = {"double": True}
            return running

    checks = cell_of(go(bench, Told(), inherit=False)).checks
    assert {c.simulated for c in checks if c.id.startswith(f"{area}.")} == {True}
    assert {c.simulated for c in checks if not c.id.startswith(f"{area}.")} <= {False}
