"""From a capsule to the report: what of its evidence a failed cell shows."""

from __future__ import annotations

import json
from pathlib import Path

from harness.compose import LEDGER_ROWS, TAIL_LINES, _evidence


def test_consoles_are_consoles_and_their_ends_are_shown(tmp_path: Path) -> None:
    (tmp_path / "boot-console.log").write_text("".join(f"line {at}\n" for at in range(100)))
    (tmp_path / "base.log").write_text("I: done\n")
    (tmp_path / "empty.log").write_text("")
    found = {item.title: item for item in _evidence(tmp_path)}
    assert set(found) == {"boot-console.log", "base.log"}
    assert found["boot-console.log"].kind == "serial"
    assert found["base.log"].kind == "text"
    lines = found["boot-console.log"].text.splitlines()
    assert (len(lines), lines[-1]) == (TAIL_LINES, "line 99")


def test_the_last_requests_are_shown_without_what_may_be_secret(tmp_path: Path) -> None:
    row = {
        "ts": 1763717400.5,
        "status": 407,
        "squid": "TCP_DENIED",
        "method": "GET",
        "url": "https://user:word@host.test:1/path?X-Signature=word",
        "ua": "curl/7.88.1",
    }
    rows = [{**row, "status": 200}] * 60 + [row]
    text = "".join(json.dumps(each) + "\n" for each in rows)
    (tmp_path / "requests.jsonl").write_text(text + "not a row\n")
    (tmp_path / "build-requests.jsonl").write_text(json.dumps({**row, "ts": "x"}) + "\n")
    build, node = _evidence(tmp_path)
    assert (build.kind, build.title) == ("ledger", "last requests of the build at the proxy")
    assert build.text == "a row that cannot be read"
    assert (node.kind, node.path) == ("ledger", "requests.jsonl")
    lines = node.text.splitlines()
    assert len(lines) == LEDGER_ROWS
    assert lines[-2] == "09:30:00 407 TCP_DENIED GET https://host.test:1/path?… curl/7.88.1"
    assert lines[-1] == "a row that cannot be read"
    assert "word" not in node.text + build.text
