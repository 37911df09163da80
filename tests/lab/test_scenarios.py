"""Scenarios as a user reproduces them: real images, proxies, firmware, kernels.

The quick ones are forks of the machine that the main job's tests froze, and run when that is there
or make it; the others build an image or boot a machine of their own: the required suite has no time
for them.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.scenarios import load_scenario, load_scenarios

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("scenarios")]

QUICK = ("ca-rotated", "clock-behind")
FAULTY = sorted(name for name, s in load_scenarios().items() if s.expected == "named")
SLOW = [name for name in FAULTY if name not in QUICK]
STAND = ("proxy", "proxy-auth", "proxy-intercept", "proxy-google-direct")


def reproduce(
    out: Path, *words: str, stdin: str = ""
) -> tuple[subprocess.CompletedProcess[str], str]:
    """The process, and what the symptom's script printed."""
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", "reproduce", *words, "--out", str(out)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=1500,
        check=False,
    )
    texts = [path.read_text() for path in out.glob("latest/cells/*/symptom.txt")]
    return done, "".join(texts)


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_the_symptom_is_seen_and_the_cause_is_named(tmp_path: Path, name: str) -> None:
    scenario = load_scenario(name)
    done, symptom = reproduce(tmp_path, name)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert scenario.shows(symptom), symptom
    assert f"named by the check {scenario.named_by}:" in done.stdout or (
        f"named by the installers ({scenario.named_by}):" in done.stdout
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", STAND)
def test_a_node_stands_what_it_is_made_for(tmp_path: Path, name: str) -> None:
    """Somebody who is not made for it sees the symptom, on the same node."""
    done, symptom = reproduce(tmp_path, name)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert load_scenario(name).shows(symptom), symptom


@pytest.mark.slow
def test_a_new_kernel_has_its_modules_before_it_boots(tmp_path: Path) -> None:
    """The kernel's package ran the hook; the driver loads under that kernel and Secure Boot."""
    scenario = str(Path(__file__).parent / "scenarios/kernel-provided.toml")
    words = ["run", "--image", "debian-12", "--scenario", scenario, "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *words], capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    facts = json.loads(next(tmp_path.glob("latest/cells/*/facts.json")).read_text())
    assert facts["kernel"]["release"].startswith("6.12.")


def test_two_at_once_with_ones_own_and_a_shell(tmp_path: Path) -> None:
    """The later one tells its story; every cause is found, and the shell is on that node."""
    own = tmp_path / "hurried.toml"
    own.write_text("[scenario]\ntitle = 'Ours'\n[needs]\nports = [22]\n")
    commands = "date -u +year=%Y\nhostname\n\nfalse\nexit\necho never\n"
    name = f"clock-behind+disk-20g+{own}"
    done, symptom = reproduce(tmp_path, name, "--shell", stdin=commands)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    assert load_scenario("disk-20g").shows(symptom), symptom
    assert "named by the check system.disk:" in done.stdout
    also = next(line for line in done.stdout.splitlines() if line.startswith("failed as well"))
    assert {"system.clock", "system.ports-free"} <= set(also.replace(",", "").split())
    behind = dt.timedelta(hours=load_scenario("clock-behind").clock.offset_hours)
    assert f"year={(dt.datetime.now(dt.UTC) + behind).year}" in done.stdout
    assert "airlock node# airlock-" in done.stdout  # a fork has a name of its own
    assert "[exit code 1]" in done.stdout
    assert "never" not in done.stdout
