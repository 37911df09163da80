"""The state of an older release is read as this one's; that of a newer one is refused untouched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from installers import cli
from installers.collect import records
from installers.collect.reader import Reader
from installers.exits import Exit
from installers.host import Host
from installers.journal import JOURNAL, SCHEMA, STATE, read_journal, read_state, recall
from tests.unit.installers_adopt.test_rows import tree

BEFORE = "PATH=/usr/bin\n# no newline at the end"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/environment").write_text(BEFORE)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "var/lib/airlock").mkdir(parents=True)
    return root


def run(verb: str, root: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    metadata = root.parent / "metadata.json"
    given = {"http-proxy": "http://10.0.2.100:3128"}
    metadata.write_text(json.dumps({"instance": {"attributes": given}}))
    argv = [verb, f"--root={root}", f"--metadata={metadata}", "--only=adopt,proxy", "--json"]
    cli.main(argv)
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def restate(root: Path, **changes: Any) -> None:
    path = root / STATE.lstrip("/")
    state = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in state.items() if value is not None}))


@pytest.mark.parametrize("schema", [1, None])
def test_an_older_release_half_done_goes_on_and_goes_back(
    root: Path, schema: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(root)
    assert run("apply", root, capsys)["exit"] == Exit.PASS
    whole = tree(root)
    # It died behind the first files of the proxy: no outcome yet, and the memory of a file.
    (root / "etc/profile.d/airlock-proxy.sh").unlink()
    restate(root, schema=schema, installers={})
    assert recall(Host(root), "originals"), "what it kept is known to us"
    assert run("apply", root, capsys)["exit"] == Exit.PASS
    assert tree(root) == whole
    assert json.loads((root / STATE.lstrip("/")).read_text())["schema"] == SCHEMA
    assert run("remove", root, capsys)["exit"] == Exit.PASS
    after = {p: c for p, c in tree(root).items() if p in before}
    assert after == before
    assert (root / "etc/environment").read_text() == BEFORE


def test_what_an_older_release_verified_is_verified_again(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("apply", root, capsys)
    known = read_state(Host(root))["installers"]["proxy"]
    assert known["verified"]
    restate(root, schema=1)
    older = read_state(Host(root))["installers"]["proxy"]
    assert older == {key: value for key, value in known.items() if key != "verified"}


@pytest.mark.parametrize("schema", [SCHEMA + 1, "3", 1.5])
@pytest.mark.parametrize("verb", ["plan", "apply", "verify", "remove"])
def test_a_newer_release_is_refused_and_loses_nothing(
    root: Path, verb: str, schema: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    run("apply", root, capsys)
    restate(root, schema=schema)
    before = tree(root)
    state = (root / STATE.lstrip("/")).read_text()
    answer = run(verb, root, capsys)
    assert answer["exit"] == Exit.FAIL
    assert answer["error"]["where"] == STATE
    assert answer["error"]["what"] == f"is of schema {schema}, which is not known"
    assert "nothing was changed" in answer["error"]["remedy"]
    assert tree(root) == before
    assert (root / STATE.lstrip("/")).read_text() == state


def test_lines_of_another_releases_journal_are_passed_over(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A newer one journals steps and names that nobody here knows, and was cut off in a line."""
    run("apply", root, capsys)
    ours = read_journal(Host(root))
    assert ours
    tomorrow = {"installer": "of-tomorrow", "step": "beam", "event": "begun", "crew": [1, None]}
    with (root / JOURNAL.lstrip("/")).open("a") as journal:
        journal.write(json.dumps(tomorrow) + "\n[]\n" + '{"installer": "pro')
    assert read_journal(Host(root)) == [*ours, tomorrow]
    reader = Reader(str(root))
    assert records.journal(reader) == [*ours, tomorrow]
    restate(root, installers={})  # as if it had died before it could say that it was done
    assert run("apply", root, capsys)["exit"] == Exit.PASS
    assert run("remove", root, capsys)["exit"] == Exit.PASS
    assert (root / "etc/environment").read_text() == BEFORE
