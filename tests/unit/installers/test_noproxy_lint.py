"""The model of the programs, against everything that was measured with them."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace

import pytest

from installers import cli, noproxy, noproxy_lint
from installers.dialects import java
from installers.errors import ConfigError

COLUMNS = [
    *("curl", "wget", "git", "apt", "urllib", "requests"),
    *("httpx", "aiohttp", "pip", "uv", "npm", "Go"),
]
# One row for each measurement; D is direct, P is through the proxy, in the order of COLUMNS.
MATRIX = [
    ("corp.example", "pkg.corp.example", "D D D D D D D D D D D D"),
    (".corp.example", "pkg.corp.example", "D D D D D D D D D D D D"),
    (".corp.example", "corp.example", "D P D P D D P D D D D P"),
    ("*.corp.example", "pkg.corp.example", "P P P P P P P P P P P D"),
    ("pkg.corp.example:80", "pkg.corp.example", "P P P P P P P P P P P D"),
    ("orp.example", "pkg.corp.example", "P P P D P P P P D P P P"),
    ("other.test, corp.example", "pkg.corp.example", "D D D P D D D D D D D D"),
    ("other.test corp.example", "pkg.corp.example", "D P D P P P P P P P P P"),
    ("CORP.EXAMPLE", "pkg.corp.example", "D D D D D D D D D D P D"),
    ("corp.example.", "pkg.corp.example", "D P D P P P P P P P D P"),
    ("*", "pkg.corp.example", "D P D P D D D D D D P D"),
    ("10.0.0.0/8", "10.9.8.7", "D P D P P D P P D D P D"),
    # What a name resolves to is never asked.
    ("10.0.0.0/8", "pkg.corp.example", "P P P P P P P P P P P P"),
    ("10.", "10.9.8.7", "P P P P P P P P P P P P"),
    ("10.9.8.*", "10.9.8.7", "P P P P P P P P P P P P"),
]
UPPER_HTTP = "no no no no yes yes yes yes yes yes yes yes"
UPPER_NO = "yes no yes no yes yes yes yes yes yes yes yes"
WINS = "lower lower lower lower lower lower lower lower lower upper upper upper"
SCHEMELESS = "ok ok ok err ok ok ok err ok ok err ok"
TOOLS = noproxy_lint.tools()


@pytest.mark.parametrize(("value", "host", "answers"), MATRIX)
def test_every_measured_cell(value: str, host: str, answers: str) -> None:
    said = ["D" if TOOLS[name].bypasses(value, host) else "P" for name in COLUMNS]
    assert dict(zip(COLUMNS, said, strict=True)) == dict(zip(COLUMNS, answers.split(), strict=True))


def test_which_variables_each_program_reads() -> None:
    for name, http, no, wins, schemeless in zip(
        COLUMNS,
        UPPER_HTTP.split(),
        UPPER_NO.split(),
        WINS.split(),
        SCHEMELESS.split(),
        strict=True,
    ):
        tool = TOOLS[name]
        assert (tool.chosen([("HTTP_PROXY", "x")], "http_proxy") == "x") == (http == "yes"), name
        assert (tool.chosen([("NO_PROXY", "x")], "no_proxy") == "x") == (no == "yes"), name
        both = [("http_proxy", "lower"), ("HTTP_PROXY", "upper")]
        assert tool.chosen(both, "http_proxy") == wins, name
        assert tool.schemeless == (schemeless == "ok"), name
    assert TOOLS["npm"].chosen(both[::-1], "http_proxy") == "lower"
    assert TOOLS["curl"].chosen([], "http_proxy") is None


@pytest.mark.parametrize(
    ("tool", "value", "host", "direct"),
    [
        # http.nonProxyHosts, measured with Java 17.
        ("Java", "corp.example", "corp.example", True),
        ("Java", "corp.example", "pkg.corp.example", False),
        ("Java", ".corp.example", "pkg.corp.example", False),
        ("Java", "*.corp.example|10.*", "pkg.corp.example", True),
        ("Java", "*.corp.example|10.*", "10.9.8.7", True),
        ("Java", "10.0.0.0/8", "10.9.8.7", False),
        ("Java", "a.test,corp.example", "corp.example", False),
        ("gsutil", "corp.example", "pkg.corp.example", False),
        ("gsutil", ".corp.example", "corp.example", True),
        ("Go", "", "127.0.0.2", True),
        ("Go", "", "localhost", True),
        ("Go", "pkg.corp.example:81", "pkg.corp.example", False),
        ("requests", "fd00::/8", "fd00::1", False),
        # The rest is in docs/proxy-table.json: measured with squid's log and the origin's.
        ("curl", "fd00::/8", "[fd00::1]", False),
        ("git", "fd00::/8", "[fd00::1]", False),
        ("Go", "fd00::/8", "[fd00::1]", True),
        ("curl", "fd00::1", "[fd00::1]", True),
        ("curl", "[fd00::1]", "[fd00::1]", False),
        ("urllib", "fd00::1", "[fd00::1]", False),
        ("urllib", "[fd00::1]", "[fd00::1]", True),
        ("Java", "nobody.example", "127.0.0.1", True),
        ("uv", "*", "10.9.8.7", False),
        ("uv", "*", "pkg.corp.example", True),
        ("httpx", "10.9.8.7/8", "10.9.8.7", True),
        ("httpx", "10.0.0.0/8", "10.9.8.7", False),
        ("curl", "10.0.0.0/99", "10.0.0.0", False),
    ],
)
def test_programs_beside_the_matrix(tool: str, value: str, host: str, direct: bool) -> None:
    assert TOOLS[tool].bypasses(value, host) is direct


@pytest.mark.parametrize("value", ["a.test", ".a.test", "a.test:80", "b.test, .a.test", "*", "t"])
@pytest.mark.parametrize("host", ["a.test", "x.a.test", "ba.test", "b.test"])
@pytest.mark.parametrize("port", [None, 80, 81])
def test_urllib_itself_agrees(
    value: str, host: str, port: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", value)
    asked = f"{host}:{port}" if port else host
    assert TOOLS["urllib"].bypasses(value, host, port or 80, named=port is not None) == bool(
        urllib.request.proxy_bypass(asked)
    )


@pytest.mark.parametrize(
    "value",
    ["corp.example", ".corp.example", "*.corp.example", "10.9.8.7", "fd00::1", "CORP.example."],
)
def test_what_we_write_means_the_same_everywhere(value: str) -> None:
    entries = noproxy.parse(value)[0]
    targets = noproxy_lint.lint(value)
    assert targets
    for finding in targets:
        for name, tool in TOOLS.items():
            if ":" in finding.target and name in ("urllib", "gcloud", "npm"):
                continue  # no spelling serves these and httpx
            written = noproxy.join(entries)
            if tool.lists == "bar":
                written = java.non_proxy_hosts(entries)
            assert tool.bypasses(written, finding.target), (name, finding)
            assert tool.way(written, finding.target) == "direct"


def test_lists_that_break_a_program_are_told() -> None:
    [finding] = noproxy_lint.lint("fd00::/8")
    assert finding.failing == ("httpx",)
    assert "an error for httpx" in finding.text
    assert not finding.portable


def test_npm_reaches_an_ipv6_address_by_a_proxy_alone() -> None:
    assert TOOLS["npm"].way("fd00::1", "[fd00::1]") == "via-proxy"
    assert TOOLS["npm"].way("[fd00::1]", "[fd00::1]") == "failed"


def test_a_release_may_read_otherwise() -> None:
    tool = replace(TOOLS["pip"], since=(("26.0", {"bare": "subdomains"}),))
    assert tool.at("23.2.1").bypasses("orp.example", "corp.example")
    assert not tool.at("26.3").bypasses("orp.example", "corp.example")


def test_findings_say_who_does_what() -> None:
    [finding] = noproxy_lint.lint("10.0.0.0/8")
    assert finding.target == "10.0.0.1"
    assert {"curl", "Go", "uv"} <= set(finding.direct)
    assert {"wget", "apt", "npm", "Java"} <= set(finding.proxied)
    assert finding.written == ()
    assert "left out" in finding.text
    assert [f.portable for f in noproxy_lint.lint("corp.example,10.9.8.7")] == [True, True]
    assert [f.target for f in noproxy_lint.lint(".corp.example")] == [
        "host.corp.example",
        "corp.example",
    ]
    assert noproxy_lint.lint(None) == []


@pytest.mark.parametrize(
    ("value", "loses"),
    [("a.test, b.test", {"apt"}), ("a.test b.test", {"wget", "apt", "urllib", "Go"})],
)
def test_blanks_are_explained(value: str, loses: set[str]) -> None:
    blanks = [f for f in noproxy_lint.lint(value) if f.entry == "with blanks"]
    assert [loses <= set(f.proxied) for f in blanks] == [True]
    assert {"curl", "git"} <= set(blanks[0].direct)


@pytest.mark.parametrize(
    "value", ["*", "10.", "10.9.8.*", "h.test:80", "*.a.test", "fd00::/8", "a*b"]
)
def test_every_odd_entry_has_a_line(value: str) -> None:
    findings = noproxy_lint.lint(value)
    assert findings
    assert all(f.note and value in f.text for f in findings)


def test_an_entry_that_is_no_host_is_an_error() -> None:
    with pytest.raises(ConfigError):
        noproxy_lint.lint("10.0.0.0/x")


def test_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["lint", "corp.example"]) == 0
    assert cli.main(["lint", "corp.example, 10.0.0.0/8"]) == 1
    out = capsys.readouterr().out
    assert "no-proxy entry 10.0.0.0/8: 10.0.0.1 would be direct for curl" in out
    assert cli.main(["lint", "--json", "*.corp.example"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["written"].endswith(".corp.example,corp.example")
    assert answer["findings"][0]["direct"] == ["Go", "Java"]
