"""gce.toml: what it says, what is wrong with it, what nodes cost, and which cells can be made."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.gce import Compute
from fixtures.scenarios import load_scenario
from harness.errors import UsageError
from harness.plan import plan, render
from harness.providers.gce import Gce, scenario_reasons
from harness.providers.gce_config import Limit, Price, Proxy, read_config
from harness.providers.gce_money import Budget, OverLimit
from harness.state import RunRecord
from harness.targets import parse_target
from tests.unit.gce.site import Attempt, cell, config, provider

GOOD = """\
project = "my-project"
zones = ["europe-west4-a", "us-central1-b"]
machine_type = "n1-standard-4"
accelerator = "nvidia-tesla-t4"
accelerators = 1
minutes = 90

[images.debian-12]
source = "projects/debian-cloud/global/images/family/debian-12"
disk_gb = 30

[proxy]
url = "http://10.126.1.2:3128"
intercept = true

[attributes]
http-proxy-pem-uri = "gs://bucket/ca.pem"

[limit]
spend = 5
currency = "USD"

[[prices]]
machine_type = "n1-standard-4"
region = "europe-west4"
provisioning = "spot"
accelerator = "nvidia-tesla-t4"
accelerators = 1
per_hour = 0.25
currency = "USD"
source = "a page"
date = 2026-11-01
"""


def _written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gce.toml"
    path.write_text(text)
    return path


def test_a_good_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_GCE", str(_written(tmp_path, GOOD)))
    found = read_config()
    assert (found.project, found.zones[1], found.seconds) == ("my-project", "us-central1-b", 5400)
    assert found.gpu
    assert found.images["debian-12"].disk_gb == 30
    price = found.price("europe-west4-b")
    assert price is not None
    assert price.date == dt.date(2026, 11, 1)
    assert found.price("us-central1-b") is None


@pytest.mark.parametrize(
    ("old", "new", "line", "word"),
    [
        ('project = "my-project"', 'project = "No Project"', 1, "no project's id"),
        ('project = "my-project"', "project = 7", 1, "must be text"),
        ('project = "my-project"\n', "", None, "lacks 'project'"),
        ("zones =", "zone =", 2, "unknown key 'zone'"),
        ('"us-central1-b"', '"us-central1"', 2, "which is no zone"),
        ('zones = ["europe-west4-a", "us-central1-b"]', "zones = []", 2, "list of zones"),
        ("minutes = 90", "minutes = 0", 6, "must be from 1"),
        ("minutes = 90", "minutes = true", 6, "whole number"),
        ("accelerators = 1\nmin", "accelerators = 0\nmin", 4, "go together"),
        ("family/debian-12", "none/of/these", 9, "names no image"),
        ("disk_gb = 30", "disk_gb = 5", 10, "from 10"),
        ("disk_gb = 30", 'disk_gb = "30"', 10, "whole number"),
        ("disk_gb", "disk", 10, "unknown key 'disk'"),
        ("http-proxy-pem-uri =", "ssh-keys =", 17, "set by Airlock itself"),
        ("http://10.126.1.2:3128", "10.126.1.2:3128", 13, "no proxy's URL"),
        ("http://10.126", "http://me:word@10.126", 13, "no proxy's URL"),
        ("date = 2026-11-01", "date = 2026-11-01T00:00:00", 32, "a date"),
        ("spend = 5", "spend = 0", 20, "more than nothing"),
        ("per_hour = 0.25", "per_hour = -1", 29, "more than nothing"),
        ("per_hour = 0.25", 'per_hour = "dear"', 29, "a number"),
        ('source = "a page"\n', "", 23, "is not given"),
        ("date = 2026-11-01", "date = 2999-01-01", 32, "in the future"),
        ("date = 2026-11-01", 'date = "today"', 32, "a date"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(
    tmp_path: Path, old: str, new: str, line: int | None, word: str
) -> None:
    assert old in GOOD
    path = _written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as raised:
        read_config(path)
    where = f"{path}:{line}:" if line else f"{path}:"
    assert str(raised.value).startswith(where), raised.value
    assert word in str(raised.value)


def test_a_file_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AIRLOCK_GCE", raising=False)
    with pytest.raises(UsageError, match=r"gce\.toml: there is no such file"):
        Gce().reasons_not(cell())


PRICE = Price("e2-medium", "europe-west4", "spot", 6.0, "USD", "a page", dt.date(2026, 11, 1))


def test_a_limit_is_a_hard_stop(cloud: Compute, run: RunRecord) -> None:
    """Ten minutes of six an hour are one: there is room for one node, not for two."""
    made_by = provider(limit=Limit(1.5, "USD"), prices=(PRICE,))
    attempt = Attempt(run, made_by)
    assert attempt.up() == ""
    assert made_by.budget.committed == pytest.approx(1.0)
    with pytest.raises(OverLimit, match=r"1\.00 of the limit of 1\.50"):
        made_by.budget.reserve("second", "europe-west4-a")
    attempt.end()
    # A minute is billed at least; the rest is given back.
    assert made_by.budget.committed == pytest.approx(0.1, abs=0.2)
    assert "6 USD/h (a page, 2026-11-01)" in str(attempt.station.record.provenance["price"])
    assert len(cloud.said("POST", "/instances$")) == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({}, "nobody said what spot e2-medium costs"),
        ({"prices": (replace(PRICE, currency="EUR"),)}, "is in EUR, the limit in USD"),
        ({"prices": (replace(PRICE, per_hour=60.0),)}, "may cost 10.00 USD"),
        ({"prices": (replace(PRICE, provisioning="standard"),)}, "nobody said"),
    ],
)
def test_under_a_limit_nothing_is_made_that_cannot_be_paid(
    cloud: Compute, run: RunRecord, change: dict[str, Any], word: str
) -> None:
    made_by = provider(limit=Limit(5.0, "USD"), **change)
    assert word in "; ".join(made_by.reasons_not(cell()))
    attempt = Attempt(run, made_by)
    assert word in attempt.up()
    assert attempt.end().verdict == "error"
    assert cloud.said("POST", "/instances$") == []


def test_the_latest_price_counts_and_is_shown() -> None:
    newer = replace(PRICE, per_hour=7.0, date=dt.date(2026, 11, 20))
    budget = Budget(config(prices=(newer, PRICE)))
    assert "7 USD an hour in europe-west4-a" in budget.describe("europe-west4-a")
    assert "2026-11-20" in budget.describe("europe-west4-a")
    assert budget.describe("us-central1-a") == "price in us-central1-a unknown"


@pytest.mark.parametrize(
    ("scenario", "proxy", "word"),
    [
        ("proxy", Proxy("http://10.0.0.2:3128"), ""),
        ("proxy-intercept", Proxy("http://10.0.0.2:3128", intercept=True), ""),
        ("direct", None, ""),
        ("proxy", None, "has no [proxy]"),
        ("proxy-intercept", Proxy("http://10.0.0.2:3128"), "does not open TLS"),
        ("direct", Proxy("http://10.0.0.2:3128"), "the scenario has none"),
        ("proxy-auth", Proxy("http://10.0.0.2:3128"), "proxy is the lab's own"),
        ("clock-behind", Proxy("http://10.0.0.2:3128"), "[clock]"),
        ("egress-dropped", Proxy("http://10.0.0.2:3128"), "drop"),
        ("secure-boot-no-key", Proxy("http://10.0.0.2:3128"), "[firmware]"),
    ],
)
def test_scenarios_that_can_be_made(scenario: str, proxy: Proxy | None, word: str) -> None:
    reasons = "; ".join(scenario_reasons(load_scenario(scenario), config(proxy=proxy)))
    assert word in reasons if word else reasons == ""


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("gce://my-project/europe-west4-a/node-1", ("my-project", "europe-west4-a", "node-1", "")),
        ("gce://me@my-project/us-central1-f/n", ("my-project", "us-central1-f", "n", "me")),
        (
            "gce://example.com:proj-1/us-central1-f/n",
            ("example.com:proj-1", "us-central1-f", "n", ""),
        ),
    ],
)
def test_targets(text: str, parts: tuple[str, ...]) -> None:
    found = parse_target(text)
    assert (found.project, found.zone, found.name, found.user) == parts


@pytest.mark.parametrize(
    "text",
    ["gce://p", "gce://my-project/europe-west4-a", "gce://my-project/nowhere/n", "gce://a/b/c/d"],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(UsageError, match=re.escape("gce://[user@]PROJECT/ZONE/NAME")):
        parse_target(text)


def test_the_plan_shows_what_nodes_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("AIRLOCK_GCE", str(_written(tmp_path, GOOD)))
    scenario = load_scenario("proxy-intercept")
    made = replace(cell(), scenario=scenario)
    (planned,) = plan([made])
    assert (planned.will, planned.why) == ("run", "")
    assert "0.25 USD an hour in europe-west4-a, at most 0.38 (a page, 2026-11-01)" in planned.price
    assert planned.price in render([planned])
    (planned,) = plan([replace(made, image=replace(made.image, name="debian-13"))])
    assert planned.will == "not-run"
    assert "has no [images.debian-13]" in planned.why
