"""What goes wrong on Google Cloud: nothing is left, and it is never a failed check."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from fixtures.gce import Compute, Guest, person
from harness.providers.gce_api import Pace
from harness.providers.gce_reap import Ledger, reap
from harness.state import RunRecord
from harness.sweep import sweep
from harness.verdict import EXITS
from installers.exits import Exit
from tests.unit.gce import site
from tests.unit.gce.bodies import PROJECT
from tests.unit.gce.site import PACE, Attempt, provider

INSERTS = ("POST", r"/instances$")
DELETES = ("DELETE", r"/instances/")


def _not_the_nodes_fault(attempt: Attempt, word: str) -> None:
    """The cell is an error that says so, exit 3, and nothing failed."""
    cell = attempt.end()
    assert cell.verdict == "error"
    assert word in cell.reason
    assert EXITS[cell.verdict] is Exit.UNKNOWN
    assert not [check for check in cell.checks if check.outcome == "fail"]


def _soon(what: Callable[[], object], then: Callable[[], object]) -> threading.Thread:
    """In a thread: do it as soon as it can be done."""

    def watch() -> None:
        deadline = time.monotonic() + 60
        while not what():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def _running(cloud: Compute) -> list[str]:
    """Names of instances that run."""
    names = [path.rpartition("/")[2] for path in cloud.made("instances")]
    return [name for name in names if cloud.named(name)["status"] == "RUNNING"]


def test_a_good_day(cloud: Compute, run: RunRecord) -> None:
    attempt = Attempt(run, provider())
    assert attempt.up() == ""
    (name,) = _running(cloud)
    made = cloud.named(name)
    assert made["labels"]["managed-by"] == "airlock"
    assert "accessConfigs" not in made["networkInterfaces"][0]
    cell = attempt.end()
    assert [phase.name for phase in cell.phases][:3] == ["instance", "boot", "login"]
    assert attempt.station.simulated
    assert (attempt.station.capsule / "serial.log").read_text().endswith("login: \n")
    assert cloud.made("instances") == cloud.made("disks") == []
    assert run.owned.instances() == []


def test_the_api_is_down_for_two_minutes(cloud: Compute, run: RunRecord) -> None:
    """With every other number at its real proportion to the two minutes."""
    faster = Pace().faster(30)
    cloud.scale = 30
    attempt = Attempt(run, provider(replace(faster, answer=30.0)))
    cloud.down(120)
    assert attempt.up() == ""
    assert [row["status"] for row in cloud.said(*INSERTS)].count(503) > 2
    assert len(cloud.made("instances")) == 1
    cloud.down(120)
    attempt.end()
    assert cloud.made("instances") == []


def test_the_api_stays_down(cloud: Compute, run: RunRecord) -> None:
    """Nobody can know whether something was made: it is remembered until somebody can."""
    attempt = Attempt(run, provider(replace(PACE, patience=0.5)))
    cloud.lose(*INSERTS, times=1000)
    cloud.fail(*DELETES, 503, times=1000)
    assert attempt.up().startswith("error: making airlock-")
    _not_the_nodes_fault(attempt, "not done within")
    assert len(cloud.made("instances")) == 1
    (left,) = Ledger().all()
    assert left.place.name == cloud.made("instances")[0].rpartition("/")[2]
    assert "REFUSED TO DIE" in attempt.station.record.provenance["left"]
    cloud.faults.clear()
    done = reap([], pace=PACE)
    assert (len(done.ended), done.refused, Ledger().all()) == (1, [], [])
    assert cloud.made("instances") == []


def test_the_answer_to_an_insertion_is_lost(cloud: Compute, run: RunRecord) -> None:
    cloud.lose(*INSERTS, times=2)
    attempt = Attempt(run, provider())
    assert attempt.up() == ""
    ids = {row["query"]["requestId"] for row in cloud.said(*INSERTS)}
    assert (len(cloud.said(*INSERTS)), len(ids), len(cloud.made("instances"))) == (3, 1, 1)
    attempt.end()
    assert cloud.made("instances") == []


@pytest.mark.parametrize("how", ["operation", "request"])
def test_quota_gone_between_check_and_create(cloud: Compute, run: RunRecord, how: str) -> None:
    if how == "operation":
        cloud.set_quota("PREEMPTIBLE_CPUS", 1)
    else:
        cloud.fail(*INSERTS, 403, "quotaExceeded", "Quota 'PREEMPTIBLE_CPUS' exceeded.", times=9)
    attempt = Attempt(run, provider())
    assert "other zones do not help" in attempt.up()
    _not_the_nodes_fault(attempt, "PREEMPTIBLE_CPUS")
    assert len(cloud.said(*INSERTS)) == 1
    assert cloud.made("instances") == []
    assert run.owned.instances() == []


def test_a_zone_without_stock_gives_way_to_the_next(cloud: Compute, run: RunRecord) -> None:
    cloud.stockout(site.ZONES[0])
    made_by = provider()
    attempt = Attempt(run, made_by)
    assert attempt.up() == ""
    assert cloud.made("instances")[0].split("/")[3] == site.ZONES[1]
    assert made_by.zones()[0] == site.ZONES[1]
    attempt.end()


def test_no_zone_has_stock(cloud: Compute, run: RunRecord) -> None:
    cloud.stockout(what="e2-medium", code="ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS")
    attempt = Attempt(run, provider())
    attempt.up()
    _not_the_nodes_fault(attempt, "europe-west4-b: ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS")
    assert cloud.made("instances") == []


def test_an_operation_that_never_ends(cloud: Compute, run: RunRecord) -> None:
    cloud.hang("insert")
    attempt = Attempt(run, provider(replace(PACE, operation=0.5)))
    assert "is RUNNING" in attempt.up()
    _not_the_nodes_fault(attempt, "not done within 0.5 s")
    assert cloud.made("instances") == []


def test_a_deletion_that_never_ends(cloud: Compute, run: RunRecord) -> None:
    cloud.hang("delete")
    attempt = Attempt(run, provider(replace(PACE, end=0.5)))
    assert attempt.up() == ""
    attempt.end()
    assert [left.place.zone for left in Ledger().all()] == [site.ZONES[0]]
    assert reap([], pace=replace(PACE, end=0.5)).refused
    assert Ledger().all()[0].tries == 2
    cloud.hang("delete", times=0)
    assert reap([], pace=PACE).ended
    assert Ledger().all() == []


def test_deleted_by_somebody_while_it_boots(cloud: Compute, run: RunRecord) -> None:
    cloud.guest = Guest(boots=1e9, attributes=site.KEYS)
    thread = _soon(lambda: _running(cloud), lambda: cloud.vanish(_running(cloud)[0]))
    attempt = Attempt(run, provider())
    attempt.up()
    thread.join()
    _not_the_nodes_fault(attempt, "somebody deleted it")
    assert cloud.made("instances") == []
    assert run.owned.instances() == []


def test_preempted_while_it_boots(cloud: Compute, run: RunRecord) -> None:
    cloud.guest = Guest(boots=1e9, attributes=site.KEYS)

    def stop() -> None:
        cloud.named(_running(cloud)[0])["status"] = "STOPPING"

    thread = _soon(lambda: _running(cloud), stop)
    attempt = Attempt(run, provider())
    attempt.up()
    thread.join()
    _not_the_nodes_fault(attempt, "preempted")
    assert cloud.made("instances") == []


def test_it_never_comes_up(cloud: Compute, run: RunRecord) -> None:
    cloud.guest = Guest(serial="grub>\n", boots=1e9)
    attempt = Attempt(run, provider(replace(PACE, boot=0.5)))
    assert "its console ends: grub>" in attempt.up()
    _not_the_nodes_fault(attempt, "host keys")
    assert "grub>" in (attempt.station.capsule / "serial.log").read_text()
    assert cloud.made("instances") == []


def test_credentials_expire_in_the_middle(cloud: Compute, run: RunRecord) -> None:
    cloud.guest = Guest(boots=1e9, attributes=site.KEYS)
    thread = _soon(lambda: _running(cloud), cloud.expire)
    attempt = Attempt(run, provider(credentials=person(cloud)))
    assert "gcloud auth application-default login" in attempt.up()
    thread.join()
    _not_the_nodes_fault(attempt, "invalid_grant")
    assert len(cloud.made("instances")) == len(Ledger().all()) == 1
    # Even if nobody ever logs in again, Google ends it.
    assert (
        cloud.named(Ledger().all()[0].name)["scheduling"]["instanceTerminationAction"] == "DELETE"
    )
    cloud.renew()
    reap([], pace=PACE)
    assert cloud.made("instances") == []
    assert Ledger().all() == []


def test_ctrl_c_while_it_is_made(cloud: Compute, run: RunRecord) -> None:
    cloud.seconds["insert"] = 1e9
    attempt = Attempt(run, provider())
    thread = _soon(lambda: cloud.made("instances"), attempt.pool.stop)
    assert attempt.up().startswith("stopped")
    thread.join()
    attempt.end()
    assert cloud.made("instances") == []


def test_kill_9_of_the_run(cloud: Compute, run: RunRecord) -> None:
    """The next run of anything finds the dead one's ledger."""
    attempt = Attempt(run, provider())
    assert attempt.up() == ""
    name = _running(cloud)[0]
    run._lock_file.close()  # as the kernel does it for a process that is gone
    swept = sweep()
    assert any(name in line for line in swept.ended), swept
    assert cloud.made("instances") == []


def test_reap_spares_what_is_needed(cloud: Compute, run: RunRecord) -> None:
    attempt = Attempt(run, provider())
    assert attempt.up() == ""
    name = _running(cloud)[0]
    labels = cloud.named(name)["labels"]
    assert "its run is alive" in reap([PROJECT], pace=PACE).spared[0]
    # As if another machine had made it; its time is not up.
    labels["airlock-home"] = "0123456789abcdef"
    assert "another machine" in reap([PROJECT], pace=PACE).spared[0]
    labels["airlock-until"] = "1"
    assert reap([PROJECT], dry=True, pace=PACE).ended
    assert cloud.made("instances")
    assert reap([PROJECT], pace=PACE).ended
    assert cloud.made("instances") == []
    attempt.end()


def test_reap_touches_nobody_elses(cloud: Compute) -> None:
    from tests.unit.gce.bodies import Api, instance

    card = [{"subnetwork": "regions/europe-west4/subnetworks/airlock-nodes"}]
    Api(cloud.url).insert(instance("theirs", networkInterfaces=card, labels={"managed-by": "us"}))
    assert reap([PROJECT], everything=True, pace=PACE) == reap([], pace=PACE)
    assert len(cloud.made("instances")) == 1


def test_what_was_never_allowed_leaves_nothing_behind(cloud: Compute, run: RunRecord) -> None:
    """Refused at once: there is nothing to delete, and nothing to remember."""
    cloud.denied |= {"compute.instances.create", "compute.instances.delete"}
    attempt = Attempt(run, provider())
    assert "docs/gce.md has the roles" in attempt.up()
    _not_the_nodes_fault(attempt, "compute.instances.create")
    assert cloud.said(*DELETES) == []
    assert Ledger().all() == []
    assert run.owned.instances() == []
