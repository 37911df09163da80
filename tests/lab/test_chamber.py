"""The build namespace, for real: what gets out, what is recorded, who owns what, what is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.capture import Allowed, Peer, classify, missing_probes, read
from harness.lab import addresses as at

pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]
STORY = Path(__file__).with_name("chamber_story.py")
SYSTEM_PYTHON = "/usr/bin/python3"
# An id that no account of the machine has; its subordinate ids exist in a private mount namespace.
USER = 64321


def _code(where: Path) -> Path:
    """The modules the story needs, where an ordinary user can read them."""
    (where / "harness").mkdir(parents=True)
    for name in (
        "harness/__init__.py",
        "harness/errors.py",
        "installers/__init__.py",
        "installers/exits.py",
        "fixtures/__init__.py",
        "fixtures/netcapture.py",
    ):
        (where / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, where / name)
    shutil.copytree(REPOSITORY / "harness/lab", where / "harness/lab")
    shutil.copy(STORY, where / STORY.name)
    return where


def _tell(work: Path, code: Path, prefix: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [*prefix, SYSTEM_PYTHON, str(code / STORY.name), str(work)],
        env={**os.environ, "PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    story: dict[str, Any] = json.loads(done.stdout)
    return story


def _as_ordinary_user(base: Path) -> list[str]:
    """Words that run a command as a user whose account exists for this command only."""
    accounts = {
        "passwd": Path("/etc/passwd").read_text() + f"airlocktest:x:{USER}:{USER}::/tmp:/bin/sh\n",
        "subuid": f"airlocktest:{1 << 20}:65536\n",
        "subgid": f"airlocktest:{1 << 20}:65536\n",
    }
    lines = ["set -e"]
    for name, text in accounts.items():
        (base / name).write_text(text)
        lines.append(f"mount --bind {base / name} /etc/{name}")
    lines.append(f'exec setpriv --reuid {USER} --regid {USER} --clear-groups -- "$@"')
    return ["unshare", "--mount", "--", "sh", "-c", "\n".join(lines), "sh"]


@pytest.fixture(params=["root", "user"])
def story(request: pytest.FixtureRequest) -> dict[str, Any]:
    if os.geteuid() != 0 and request.param == "root":
        pytest.skip("needs root")
    if request.param == "user" and shutil.which("newuidmap") is None:
        pytest.skip("needs uidmap")
    base = Path(f"/var/tmp/airlock-test-{os.getpid()}-{request.param}")
    base.mkdir(mode=0o755)
    try:
        work = base / "work"
        work.mkdir(mode=0o755)
        prefix = []
        if request.param == "user" and os.geteuid() == 0:
            os.chown(work, USER, USER)
            prefix = _as_ordinary_user(base)
        story = _tell(work, _code(base / "code"), prefix)
        allowed = Allowed(node=[at.MAC], peers=[Peer(at.PROXY, at.PROXY_PORT)])
        seen = classify(read(work / "out.pcap"), allowed)
        return story | {"seen": seen, "param": request.param}
    finally:
        shutil.rmtree(base)


def test_the_only_way_out_is_the_proxy_and_the_rest_is_recorded(story: dict[str, Any]) -> None:
    assert story["proxy"] == [0, "from host\n"], story["log"]
    assert story["more"] == [0, "from host\n"], story["log"]
    assert story["direct"][1].split() == ["TimeoutError", "TimeoutError"], story
    assert story["name"] != 0
    assert story["seen"]["violations"] == []
    assert missing_probes(story["seen"]["probes"]) == []


def test_files_keep_their_owners_and_nothing_is_left(story: dict[str, Any]) -> None:
    assert story["owner"][0] == 0
    assert story["seen_owner"] == "12:34"
    assert story["left"] is False
    assert (story["user"] == "0") == (story["param"] == "root")


def test_binds_are_seen_and_readonly_ones_stay_as_they_are(story: dict[str, Any]) -> None:
    assert story["told"] == [0, "from outside"]
    assert story["write"] != 0
    assert story["status"] == 7


def test_killing_the_harness_ends_the_chamber(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    program = (
        "import sys, time; from pathlib import Path; from harness.lab.namespace import Chamber\n"
        "import chamber_story\n"
        "work = Path(sys.argv[1]); chamber_story.tree(work / 'tree')\n"
        "c = Chamber(work / 'tree', work / 'c.pcap', work / 'log'); c.__enter__()\n"
        "print(c.pid, flush=True); time.sleep(60)\n"
    )
    code = _code(tmp_path / "code")
    process = subprocess.Popen(
        [SYSTEM_PYTHON, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(code)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    chamber = int(process.stdout.readline())
    process.send_signal(signal.SIGKILL)
    process.wait()
    until = time.monotonic() + 10
    while Path(f"/proc/{chamber}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{chamber}").exists()
