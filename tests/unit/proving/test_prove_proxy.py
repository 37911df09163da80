"""The prover without its chamber: verdicts, selections, and the table that is published."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from harness import doctor
from harness.cli import main
from harness.doctor import Finding
from harness.errors import UsageError
from harness.proving import cases, chamber, table
from harness.proving import find as finding
from harness.proving.cases import CASES, Case
from harness.proving.chamber import Answer
from harness.proving.find import Missing
from harness.proving.inside import OUTGOING, judge
from harness.proving.tools import TOOLS, Found

DOCS = Path(__file__).parents[3] / "docs"
SQUID = OUTGOING[0]
CLIENT = "10.9.8.7"
MISS, DENIED = {"squid": "TCP_MISS"}, {"squid": "TCP_DENIED"}


@pytest.mark.parametrize(
    ("rows", "peers", "said"),
    [
        ([], [CLIENT], "direct"),
        ([], [CLIENT, CLIENT], "direct"),
        ([MISS], [SQUID], "via-proxy"),
        ([MISS, MISS], [OUTGOING[1]], "via-proxy"),
        # The metadata server is not for squid: it says so, and the origin never hears of it.
        ([DENIED], [], "via-proxy"),
        # One log against the other, both ways, and nobody anywhere.
        ([MISS], [], "failed"),
        ([], [SQUID], "failed"),
        ([MISS], [SQUID, CLIENT], "failed"),
        ([MISS], [CLIENT], "failed"),
        ([], [], "failed"),
    ],
)
def test_both_logs_decide(rows: list[Any], peers: list[str], said: str) -> None:
    verdict = judge(rows, peers)
    assert verdict["measured"] == said
    assert bool(verdict["why"]) == (said == "failed")


def test_the_committed_table_is_what_the_model_says() -> None:
    assert table.differences(table.read(DOCS)) == []


def test_the_page_shows_the_committed_table() -> None:
    page = (DOCS / table.TEXT).read_text()
    shown = page.partition(table.BEGIN)[2].partition(table.END)[0]
    assert shown == "\n" + table.render(table.read(DOCS))


def test_what_we_write_is_honoured_by_every_program_that_was_asked() -> None:
    kept = table.read(DOCS)
    assert {"curl", "wget", "git", "apt", "pip", "uv", "npm", "Go"} <= set(kept["versions"])
    assert {"requests", "httpx", "rattler", "Java", "Java-http"} <= set(kept["versions"])
    wrong = []
    for row in kept["cases"]:
        if row["written"]:
            should = "direct" if row["url"] in cases.DIRECT else "via-proxy"
            wrong += [(tool, row["url"]) for tool, said in row["answers"].items() if said != should]
    # No spelling of an IPv6 address serves urllib and httpx both; npm has no way to them but one.
    assert set(wrong) == {
        (tool, url) for tool in ("urllib", "npm") for url in ("http://[fd00:9::7]", "http://[::1]")
    }


def test_a_cell_that_was_changed_is_found() -> None:
    kept = copy.deepcopy(dict(table.read(DOCS)))
    row = next(row for row in kept["cases"] if row["entry"] == "10.0.0.0/8")
    row["answers"]["wget"] = "direct"
    [said] = table.differences(kept)
    assert said == "wget x '10.0.0.0/8', http://10.9.8.7: direct, the model says via-proxy"
    kept["cases"] = [other for other in kept["cases"] if other is not row]
    assert len(table.differences(kept)) == len(kept["versions"])


def test_unknown_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove-proxy", "--tools", "curl,wgte"]) == 2
    said = capsys.readouterr().err
    assert "unknown program 'wgte'" in said
    assert "'wget'" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tools", ","], "names no program"),
        (["--tools", "curl", "--entry", "*.corp.exampel"], "did you mean '*.corp.example'"),
        (["--tools", "conda,mamba"], "none of these programs is here"),
    ],
)
def test_empty_selections(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prove-proxy", *words]) == 4
    assert said in capsys.readouterr().err


def test_writing_takes_the_whole_table_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prove-proxy", "--write", str(DOCS), "--tools", "curl"]) == 2
    assert main(["prove-proxy", "--write", str(tmp_path)]) == 2
    assert "there is no" in capsys.readouterr().err


def test_no_namespaces(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    refused = Finding("namespaces", "missing", "Operation not permitted", "why", "run as root")
    monkeypatch.setattr(doctor, "namespaces", lambda: refused)
    assert main(["prove-proxy", "--tools", "curl"]) == 3
    said = capsys.readouterr().err
    assert "Operation not permitted" in said
    assert "run as root" in said


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """What the chamber says, without one."""
    answers: list[Answer] = []
    monkeypatch.setattr(chamber, "prove", lambda *_: answers)
    found = ([Found("curl", "7.88.1", "/usr/bin/curl")], [Missing("wget", "not here")])
    monkeypatch.setattr(finding, "find", lambda *_, **__: found)
    return answers


def test_exit_codes(told: list[Answer], capsys: pytest.CaptureFixture[str]) -> None:
    told.append(Answer("curl", CASES[0], "direct", "direct"))
    assert main(["prove-proxy"]) == 0
    said = capsys.readouterr()
    assert "not verified: wget: not here" in said.out
    assert f"not verified: {len(CASES) - 1} cells" in said.err
    # Named and not here: not verified is no pass.
    assert main(["prove-proxy", "--tools", "curl,wget"]) == 3
    told.append(Answer("curl", Case("x.example", "http://y.example"), "direct", "via-proxy"))
    assert main(["prove-proxy", "--json"]) == 1
    said = capsys.readouterr()
    assert "curl x 'x.example', http://y.example: direct, the model says via-proxy" in said.err
    assert '"agrees": false' in said.out


def test_the_page_keeps_what_is_around_the_table(tmp_path: Path) -> None:
    page = tmp_path / table.TEXT
    kept = table.read(DOCS)
    page.write_text("no marks")
    with pytest.raises(UsageError):
        table.keep(kept, tmp_path)
    page.write_text(f"head\n{table.BEGIN}\nold\n{table.END}\ntail\n")
    table.keep(kept, tmp_path)
    assert page.read_text().startswith(f"head\n{table.BEGIN}\n\nMeasured ")
    assert page.read_text().endswith(f"{table.END}\ntail\n")
    assert table.read(tmp_path) == kept
    (tmp_path / table.DATA).write_text("{}")
    with pytest.raises(UsageError):
        table.read(tmp_path)


def test_every_program_of_the_table_has_a_model() -> None:
    for tool in TOOLS:
        assert chamber.predict(tool, "1.0", CASES[0]) == "direct"
