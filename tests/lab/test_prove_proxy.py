"""The real programs in a chamber with squid and an origin: what they do, and what we say."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from harness.cli import main
from harness.proving import cases
from harness.proving.find import DEBS
from harness.proving.tools import PYTHON, TOOLS

pytestmark = pytest.mark.lab


def proved(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    code = main(["prove-proxy", "--json", *words])
    said = capsys.readouterr()
    found: dict[str, Any] = json.loads(said.out)
    wrong = [row for row in found["answers"] if not row["agrees"]]
    assert (code, wrong) == (0, []), said.err
    return found


def honours_what_we_write(found: dict[str, Any]) -> None:
    """Direct where a customer's list says so, and through the proxy elsewhere."""
    written = [row for row in found["answers"] if row["case"]["written"]]
    assert {row["case"]["url"] for row in written} == {*cases.DIRECT, *cases.PROXIED}
    for row in written:
        url = row["case"]["url"]
        if row["tool"] in ("urllib", "npm") and "[" in url:
            continue  # these take IPv6 addresses to the proxy
        assert row["measured"] == ("direct" if url in cases.DIRECT else "via-proxy"), row


def test_programs_of_every_node(capsys: pytest.CaptureFixture[str]) -> None:
    tools = ["curl", "wget", "git", "apt", "requests", "pip", "java"]
    fetch = (
        [] if all(shutil.which(tool) for tool in ("curl", "wget", "git", "java")) else ["--fetch"]
    )
    found = proved(capsys, "--tools", ",".join(tools), *fetch)
    assert set(found["versions"]) == {"curl", "wget", "git", "apt", "requests", "pip", "Java"}
    assert len(found["answers"]) == len(tools) * len(cases.CASES)
    honours_what_we_write(found)


@pytest.mark.slow
def test_whole_table(capsys: pytest.CaptureFixture[str]) -> None:
    found = proved(capsys, "--fetch")
    assert {*DEBS, *PYTHON, "apt", "uv"} <= set(found["versions"]), found["not_here"]
    assert set(found["versions"]) | set(found["not_here"]) == set(TOOLS)
    honours_what_we_write(found)
