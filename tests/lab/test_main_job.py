"""The main job, as a user starts it: real images, proxies, drivers, signatures, firmware, kernels.

The first run builds what the state directory lacks (cold: the longest part of the suite); the
others use it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from harness import state
from harness.lab.surroundings import proxy_password
from installers.collect.search import forms

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("main-job")]

AIRLOCK = [sys.executable, "-m", "harness.cli"]
ONE = ["--image", "debian-12", "--scenario", "proxy-intercept"]


def airlock(*words: str, timeout: float = 1500) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*AIRLOCK, *words], capture_output=True, text=True, timeout=timeout, check=False
    )


def started(*words: str) -> subprocess.Popen[str]:
    """A run whose progress (stderr) and result (stdout) are read together.

    Whoever is started in the background of a shell inherits an ignored SIGINT: not these.
    """
    return subprocess.Popen(
        ["env", "--default-signal=INT", *AIRLOCK, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def report(out: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((out / "latest/report.json").read_text())
    return value


def failed(cell: dict[str, Any]) -> set[str]:
    return {c["id"] for c in cell["checks"] if c["outcome"] in ("fail", "error")}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default matrix, run once; where its report is."""
    directory = tmp_path_factory.mktemp("main-job")
    done = airlock("run", "--out", str(directory))
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return directory


@pytest.fixture(scope="module")
def cells(out: Path) -> dict[str, dict[str, Any]]:
    return {cell["id"]: cell for cell in report(out)["cells"]}


def test_every_cell_ends_as_the_matrix_expects(cells: dict[str, dict[str, Any]]) -> None:
    verdicts = {name: cell["verdict"] for name, cell in cells.items()}
    assert verdicts == {
        "debian-12+proxy-intercept+full": "pass",
        "debian-13+proxy-intercept+full": "pass",
        "debian-12+proxy-auth+rebooted+full": "pass",
        "debian-11+proxy-intercept+full": "refused",
    }


def test_no_check_failed_and_the_three_controls_ran(cells: dict[str, dict[str, Any]]) -> None:
    controls = {"modules.control-unsigned", "modules.control-stranger", "modules.control-ours"}
    for name, cell in cells.items():
        if cell["verdict"] != "pass":
            continue
        assert failed(cell) == set(), name
        passed = {c["id"] for c in cell["checks"] if c["outcome"] == "pass"}
        assert controls <= passed, name
        assert not cell.get("simulated"), name


def test_keys_cache_and_every_tool_are_part_of_the_job(cells: dict[str, dict[str, Any]]) -> None:
    """On both distributions: the pinned repository, the signed entry, and every dialect."""
    wanted = {
        *("keyrings.pinned", "keyrings.apt-verifies", "keyrings.apt-refuses"),
        *("cache.signed", "cache.contents", "cache.hit-fetches-nothing", "proxy.every-tool"),
    }
    passed = [cell for cell in cells.values() if cell["verdict"] == "pass"]
    for cell in passed:
        assert wanted <= {c["id"] for c in cell["checks"] if c["outcome"] == "pass"}, cell["id"]
    # Two images have one kernel: the second one's modules are found, and nothing is fetched.
    uses = {cell["id"]: cell["provenance"]["cache"] for cell in passed}
    hits = [
        cell
        for cell in passed
        if any(use["name"] == "kernel modules" and use["hit"] for use in uses[cell["id"]])
    ]
    assert hits
    assert {cell["ledger"]["build"]["packages"] for cell in hits} == {0}


def test_the_refusal_comes_with_reason_and_way_out_before_anything_is_made(
    cells: dict[str, dict[str, Any]], out: Path
) -> None:
    cell = cells["debian-11+proxy-intercept+full"]
    assert "UEFI db" in cell["reason"]
    assert cell["phases"] == []
    assert not list((out / "latest/cells").glob("debian-11*/build.log"))


def test_the_ledger_saw_everything_and_nothing_it_should_not(
    cells: dict[str, dict[str, Any]],
) -> None:
    for name, cell in cells.items():
        if cell["verdict"] != "pass":
            continue
        ledger = cell["ledger"]
        assert ledger["violations"] == [], name
        assert ledger["metadata_via_proxy"] == 0, name
        assert ledger["probes"] >= 3, name
        build = ledger["build"]
        assert build["violations"] == [], name
        assert build["first_request"] > build["proxy_step_end"], name
        if "intercept" in name:
            assert build["bumped_apt_gets"] > 0, name


def test_the_gate_lets_it_through(out: Path) -> None:
    done = airlock("gate", str(out / "latest"))
    assert done.returncode == 0, done.stdout


def test_no_secret_is_in_anything_that_was_written(out: Path) -> None:
    secrets = [proxy_password(state.keys_dir()).encode()]
    for key in state.keys_dir().glob("*.pem"):
        secrets.append(key.read_bytes().splitlines()[1])
    wanted = {form for secret in secrets for form in forms(secret).values()}
    searched = 0
    for path in out.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            searched += 1
            assert not [form for form in wanted if form in data], path
    assert searched > 20


def test_a_second_run_builds_nothing_and_says_whose_evidence_it_shows(
    out: Path, tmp_path: Path
) -> None:
    done = airlock("run", *ONE, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout[-4000:]
    (cell,) = report(tmp_path)["cells"]
    outcomes = {phase["name"]: phase["outcome"] for phase in cell["phases"]}
    assert outcomes["base"] == outcomes["build"] == "cached"
    assert "install" not in outcomes
    assert cell["ledger"]["build"]["inherited"]
    before = {c["id"] for c in report(out)["cells"][0]["checks"]}
    assert {c["id"] for c in cell["checks"]} == before


FAST = (
    *("environment-file-lost", "stamp-of-another-machine", "direct-connection"),
    *("unsigned-module", "stale-environment", "ca-removed"),
)


def test_sabotages_fail_their_checks_their_dependants_and_no_other(tmp_path: Path) -> None:
    """Some of different areas; all of them are in tests/lab/test_sabotages.py."""
    chosen = [word for name in FAST for word in ("--only", name)]
    done = airlock("sabotage", *ONE, *chosen, "--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout[-4000:]
    said = json.loads(done.stdout)
    assert [one["name"] for one in said["sabotages"]] == list(FAST)
    assert all(one["found"] for one in said["sabotages"])
    assert len(said["checks"]["killed"]) >= len(FAST)
    # The control, which nobody broke, has a report of its own.
    assert len(report(tmp_path)["cells"]) == len(FAST)
    assert len([p for p in tmp_path.iterdir() if p.is_dir() and not p.is_symlink()]) == 2


def test_a_strangers_break_must_fail_what_it_is_said_to(tmp_path: Path) -> None:
    shell = tmp_path / "my break.sh"
    shell.write_text("rm /etc/apt/apt.conf.d/*proxy*\n")
    # The good node was seen a moment ago, and nothing of it has changed.
    words = ("sabotage", *ONE, "--inherit", "--apply", str(shell), "--out", str(tmp_path))
    done = airlock(*words, "--expect", "trust.os-store")
    assert done.returncode == 1, done.stdout[-4000:]
    assert "trust.os-store must fail under my-break and was pass" in done.stdout
    assert "proxy.apt failed under my-break, which does not name it" in done.stdout


def test_killing_a_run_leaves_nothing_that_the_next_one_does_not_clean(tmp_path: Path) -> None:
    before = _processes("AIRLOCK_RUN=")
    run = started("run", *ONE, "--out", str(tmp_path))
    assert run.stdout is not None
    for line in run.stdout:
        if ": checks" in line or ": exercise" in line:
            break
    mine = _processes("AIRLOCK_RUN=") - before
    assert mine, "the run has no processes of its own"
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = airlock("run", *ONE, "--provider", "fake", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:]
    _wait_until_gone(mine)


def test_ctrl_c_writes_a_report_of_what_ran_and_leaves_nothing(tmp_path: Path) -> None:
    before = _processes("AIRLOCK_RUN=")
    run = started("run", *ONE, "--out", str(tmp_path))
    assert run.stdout is not None
    for line in run.stdout:
        if ": exercise" in line or ": fork" in line:
            break
    mine = _processes("AIRLOCK_RUN=") - before
    run.send_signal(signal.SIGINT)
    run.stdout.read()
    assert run.wait(60) in (3, 4)  # some checks did not run, or none did
    assert report(tmp_path)["cells"][0]["verdict"] in ("error", "not-run")
    _wait_until_gone(mine)


def _processes(marker: str) -> set[int]:
    """Processes whose environment holds ``marker``, this one's own children of tests excepted."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if marker.encode() in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found - {os.getpid()}


def _wait_until_gone(pids: set[int]) -> None:
    until = time.monotonic() + 15
    while (left := [p for p in pids if Path(f"/proc/{p}/exe").exists()]) and (
        time.monotonic() < until
    ):
        time.sleep(0.1)
    assert not left, left
