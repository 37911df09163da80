"""Machines that are there already: what may be said of them, and what a check leaves alone."""

from __future__ import annotations

import os
import time

import pytest

from harness.cli import main
from harness.errors import UsageError
from harness.providers.host import host_cell
from harness.targets import parse_target
from harness.transports.sshsays import explained
from tests.unit.core.workbench import Bench, outcomes


@pytest.mark.parametrize(
    ("text", "name", "become"),
    [
        ("local", "local", ()),
        ("ssh://gpu-box", "gpu-box", ()),
        ("ssh://root@gpu-box:22", "gpu-box", ()),
        ("ssh://root@gpu-box:2222", "gpu-box-2222", ()),
        ("ssh+sudo://me@10.0.0.7", "10.0.0.7", ("sudo", "-n")),
        ("ssh://[2001:db8::1]", "2001-db8-1", ()),
    ],
)
def test_targets(text: str, name: str, become: tuple[str, ...]) -> None:
    target = parse_target(text)
    assert (target.name, target.become) == (name, become)
    assert host_cell(text).id == f"{name}+as-is+as-is"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("locl", "did you mean 'local'"),
        ("sudo://box", "is no target"),
        ("ssh://", "names no host"),
        ("ssh://-oProxyCommand=x", "names no host"),
        ("ssh://me:secret@box", "must not hold a password"),
        ("ssh+sudo://box/etc", "nothing follows"),
        ("ssh://box:99999", "is no target"),
        ("ssh://[::1", "is no target"),
    ],
)
def test_what_is_no_target(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--provider", "host"), "which machine?"),
        (("run", "--provider", "qemu", "--target", "local"), "is for --provider host"),
        (("run", "--target", "local", "--image", "debian-12"), "excludes a matrix"),
        (("plan", "default", "--target", "local"), "excludes a matrix"),
        (("run", "--target", "local", "--target", "local"), "named twice"),
        (("run", "--target", "ssh:/box"), "names no host"),
        (("sabotage", "--target", "local"), "is not broken on purpose"),
    ],
)
def test_options_that_do_not_go_together(
    words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(list(words)) == 2
    assert said in capsys.readouterr().err


def test_a_run_takes_targets_and_lets_go_nothing_of_the_cache(bench: Bench) -> None:
    state = bench.state / "cache" / "images" / "old"
    state.mkdir(parents=True)
    (state / "manifest.json").write_text("{}")
    (state / "root.img").write_bytes(b"x" * 4096)
    os.utime(state, (time.time() - 1e6,) * 2)
    process = bench.start(
        *("run", "--provider", "host", "--target", "local", "--checks", str(bench.checks)),
        *("-k", "kernel or ping"),
        AIRLOCK_CACHE_GB="0",
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert (state / "root.img").exists(), "a check needs no room"
    (cell,) = bench.report().cells
    assert (cell.verdict, cell.provider) == ("pass", "host")
    assert set(outcomes(cell).values()) == {"pass"}
    assert bench.report().run.matrix == "local"


def test_the_plan_of_targets(
    capsys: pytest.CaptureFixture[str], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(bench.state))
    assert main(["plan", "--target", "ssh://box", "--target", "local"]) == 0
    said = capsys.readouterr().out
    assert "box+as-is+as-is" in said
    assert "local+as-is+as-is" in said


#: What OpenSSH 9.2 and sudo 1.9 said, on standard error.
CHANGED = """@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
The fingerprint for the ED25519 key sent by the remote host is
SHA256:Qd1hQ9rWyYJ9M2K6cNqUe5uTz3S5dJYqM0XxX0Qe1aY.
Please contact your system administrator.
Add correct host key in /home/me/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/me/.ssh/known_hosts:3
Host key for box has changed and you have requested strict checking.
Host key verification failed.
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (CHANGED, "another than the one that is known (/home/me/.ssh/known_hosts:3)"),
        ("Host key verification failed.\n", "host key is not known"),
        ("me@box: Permission denied (publickey,password).\n", "our key (me@box, publickey"),
        ("sudo: a password is required\n", "sudo asks for a password"),
        ("me is not in the sudoers file.\n", "may not use sudo"),
        ("env: \u2018sudo\u2019: No such file or directory\n", "it has no sudo"),
        ("ssh: connect to host box port 22: Connection timed out\n", "(Connection timed out)"),
        ("ssh: Could not resolve hostname box: Name or service not known\n", "address (box)"),
        ("client_loop: send disconnect: Broken pipe\n", "the connection ended"),
        ("kex_exchange_identification: Connection closed by remote host\n", "connection ended"),
        ("OSError: [Errno 28] No space left on device\n", "no room left"),
    ],
)
def test_what_ssh_says_in_other_words(said: str, words: str) -> None:
    found = explained(said)
    assert found is not None
    assert words in found[0]
    assert found[1], "and a way out"


def test_what_nobody_knows_is_shown_as_it_is() -> None:
    assert explained("a thing that was never seen") is None


def test_a_machine_where_nobody_listens_is_no_failed_check(bench: Bench) -> None:
    process = bench.start("check", "ssh://127.0.0.1:1", "--checks", str(bench.checks))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 3, output
    (cell,) = bench.report().cells
    assert cell.verdict == "error"
    assert "cannot be reached (Connection refused)" in cell.reason
    assert "fail" not in outcomes(cell).values()
    assert "Traceback" not in output
