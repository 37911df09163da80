"""The machine below a root directory: links stay inside, writes are whole, programs are bounded."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from installers.errors import CommandError, NodeError
from installers.host import Host

CANARY = "p@:/%#nary"


def test_absolute_links_stay_in_the_root(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/link").symlink_to("/var/target")
    (tmp_path / "etc/up").symlink_to("../../../../var/target")
    assert host.path("/etc/link") == tmp_path / "var/target"
    assert host.path("/etc/up") == tmp_path / "var/target"
    host.write("/etc/link", "x")
    assert (tmp_path / "var/target").read_text() == "x"
    assert host.remove("/etc/link")
    assert (tmp_path / "var/target").exists()
    assert host.path("/../../etc") == tmp_path / "etc"


def test_link_loops_are_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(NodeError, match="too many symbolic links"):
        Host(tmp_path).path("/a")


def test_write_says_whether_it_changed(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert host.write("/etc/x/y", "one", mode=0o600)
    assert not host.write("/etc/x/y", "one", mode=0o600)
    assert host.write("/etc/x/y", "one", mode=0o644)
    assert host.write("/etc/x/y", "two")
    assert [path.name for path in (tmp_path / "etc/x").iterdir()] == ["y"]
    assert (tmp_path / "etc/x/y").stat().st_mode & 0o777 == 0o644


def test_bytes_that_are_not_text_survive(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "f").write_bytes(b"\xff\xfe ok\n")
    text = host.read("/f")
    assert text is not None
    host.write("/f", text + "more")
    assert host.read_bytes("/f") == b"\xff\xfe ok\nmore"


def test_what_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match="/file/x"):
        host.write("/file/x", "")
    (tmp_path / "dir").mkdir()
    with pytest.raises(NodeError, match="is a directory"):
        host.write("/dir", "")
    with pytest.raises(NodeError, match="refusing to remove the root"):
        host.remove("/")


def test_run_gives_status_and_output() -> None:
    result = Host().run(["sh", "-c", "cat; echo err >&2; exit 3"], check=False, input="in")
    assert (result.code, result.out, result.err) == (3, "in", "err\n")


def test_children_do_not_see_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://leftover:1")
    host = Host()
    host.env["https_proxy"] = "http://wanted:1"
    said = host.run(["env"], env={"EXTRA": "yes"}).out
    assert "leftover" not in said
    assert "https_proxy=http://wanted:1" in said
    assert "EXTRA=yes" in said


def test_errors_hold_no_secret() -> None:
    host = Host()
    host.hide([CANARY])
    with pytest.raises(CommandError) as caught:
        host.run(["sh", "-c", f"echo 'said {CANARY}' >&2; exit 1"])
    assert CANARY not in f"{caught.value} {caught.value.argv} {caught.value.err}"
    assert "said ***" in caught.value.err


def test_time_limit_kills_grandchildren(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    with pytest.raises(CommandError, match="time limit"):
        Host().run(["sh", "-c", f"(sleep 1; touch {mark}) & wait"], timeout=0.2)
    time.sleep(1.2)
    assert not mark.exists()


def test_missing_program() -> None:
    with pytest.raises(CommandError, match="No such file"):
        Host().run(["no-such-program-of-ours"])


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot needs root")
def test_run_is_inside_the_root(tmp_path: Path) -> None:
    with pytest.raises(CommandError) as caught:
        Host(tmp_path).run(["true"])
    assert "chroot" in caught.value.err
