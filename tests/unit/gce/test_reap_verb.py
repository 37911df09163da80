"""``airlock reap`` from its words to its exit code, on the double."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from fixtures.gce import Compute
from harness.cli import main
from harness.providers.gce_bodies import HOME, OURS, RUN, UNTIL, home, label
from harness.providers.gce_config import VARIABLE
from harness.providers.gce_reap import Ledger
from harness.state import RunRecord
from installers.exits import Exit
from tests.unit.gce.bodies import DEBIAN, PROJECT, Api, instance

REAP = ["reap", "--project", PROJECT]


@pytest.fixture(autouse=True)
def no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No gce.toml, unless a test writes it."""
    path = tmp_path / "gce.toml"
    monkeypatch.setenv(VARIABLE, str(path))
    return path


def left(cloud: Compute) -> list[str]:
    """Names of the instances and images that are there."""
    paths = [*cloud.made("instances"), *cloud.made("images")]
    return sorted(path.rpartition("/")[2] for path in paths)


def made(cloud: Compute, name: str, run: str, machine: str = "", until: float = 0.0) -> None:
    """An instance as a run left it; without ``run`` somebody else's."""
    labels = {**OURS, RUN: label(run), HOME: machine or home(), UNTIL: str(int(until))}
    card = [{"subnetwork": "regions/europe-west4/subnetworks/airlock-nodes"}]
    given = labels if run else {"managed-by": "them"}
    status, answer = Api(cloud.url).insert(instance(name, networkInterfaces=card, labels=given))
    assert status == 200, answer


def image(cloud: Compute, name: str, labels: dict[str, str]) -> None:
    """An image of the project."""
    body = {"name": name, "sourceImage": DEBIAN, "labels": labels}
    status, answer = Api(cloud.url).ask("POST", "global/images", body)
    assert status == 200, answer


def test_what_it_ends_and_what_it_leaves(
    cloud: Compute, run: RunRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    soon = time.time() + 3600
    made(cloud, "of-the-dead", "20260101t000000-dead")
    made(cloud, "of-the-living", run.id)
    made(cloud, "elsewhere-over", "r", machine="0123456789abcdef", until=1)
    made(cloud, "elsewhere-young", "r", machine="0123456789abcdef", until=soon)
    made(cloud, "theirs", "")
    image(cloud, "image-of-the-dead", {**OURS, RUN: "dead", HOME: home(), UNTIL: "1"})
    image(cloud, "image-that-stays", {**OURS, "airlock-built-by": "dead"})
    everything = left(cloud)

    assert main([*REAP, "--dry-run"]) == Exit.PASS
    said = capsys.readouterr().out
    assert said.count("(not done)") == 3
    assert left(cloud) == everything

    assert main(REAP) == Exit.PASS
    said = capsys.readouterr().out
    for name in ("of-the-dead", "elsewhere-over", "image-of-the-dead"):
        assert f"/{name}\n" in said
    assert "stays: gce://airlock-test/europe-west4-a/of-the-living: its run is alive" in said
    assert "elsewhere-young: of another machine, and its time is not up (--all" in said
    assert "theirs" not in said
    assert left(cloud) == ["elsewhere-young", "image-that-stays", "of-the-living", "theirs"]
    disks = [path.rpartition("/")[2] for path in cloud.made("disks")]
    assert disks == ["elsewhere-young", "of-the-living", "theirs"]

    assert main([*REAP, "--all"]) == Exit.PASS
    assert left(cloud) == ["image-that-stays", "of-the-living", "theirs"]


def test_what_refuses_to_die_is_exit_3_until_it_is_gone(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    made(cloud, "stubborn", "dead")
    cloud.fail("DELETE", r"/instances/stubborn", 403, "forbidden", "it is protected", times=2)
    assert main(REAP) == Exit.UNKNOWN
    said = capsys.readouterr().out
    assert "REFUSED TO DIE: gce://airlock-test/europe-west4-a/stubborn" in said
    assert "tried 1 times" in said
    # It is remembered: no project has to be named, and a dry run says so as well.
    assert main(["reap", "--dry-run"]) == Exit.UNKNOWN
    assert "stubborn (not done)" in capsys.readouterr().out
    assert main(["reap"]) == Exit.UNKNOWN
    assert "tried 2 times" in capsys.readouterr().out
    assert main(["reap"]) == Exit.PASS
    assert (left(cloud), Ledger().all()) == ([], [])


def test_a_dead_run_of_this_machine_is_swept_too(
    run: RunRecord, cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    made(cloud, "written-down", run.id)
    run.owned.instance(PROJECT, "europe-west4-a", "written-down")
    run._lock_file.close()  # as the kernel does it for a process that is gone
    assert main(["reap", "--dry-run"]) == Exit.PASS
    assert left(cloud) == ["written-down"]
    assert main(["reap"]) == Exit.PASS
    said = capsys.readouterr().out
    assert "ended: gce://airlock-test/europe-west4-a/written-down" in said
    assert "no project was looked in" in said
    assert left(cloud) == []


def test_a_project_that_cannot_be_looked_in_is_exit_3(
    cloud: Compute, no_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    no_file.write_text(
        f'project = "{PROJECT}"\nzones = ["europe-west4-a"]\nmachine_type = "e2-medium"\n'
        f'[images.debian-12]\nsource = "{DEBIAN}"\n'
    )
    made(cloud, "unseen", "dead")
    cloud.denied.add("compute.instances.list")
    assert main(["reap"]) == Exit.UNKNOWN
    assert "compute.instances.list" in capsys.readouterr().out
    cloud.denied.clear()
    assert main(["reap"]) == Exit.PASS
    assert left(cloud) == []
    no_file.write_text("project = 5\n")
    assert main(["reap"]) == Exit.USAGE
