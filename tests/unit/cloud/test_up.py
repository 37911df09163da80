"""The closed network on the double: made once, looked at, mended, resumed, removed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.gce import Compute
from fixtures.pki import Authority
from harness.cli import main
from harness.cloud import proxyvm
from harness.cloud.api import Google
from harness.cloud.network import Resource, Site
from tests.unit.cloud.calls import changing
from tests.unit.cloud.conftest import PROJECT, SITE, ZONE, tells

GOLDEN = Path(__file__).with_name("golden.json")
WHERE = ["--project", PROJECT]
UP = ["gce", "up", *WHERE, "--zone", ZONE, "--yes"]
VERIFY = ["gce", "up", *WHERE, "--zone", ZONE, "--verify"]
DOWN = ["gce", "down", *WHERE, "--yes"]
RULES = f"projects/{PROJECT}/global/firewalls/"


def everything(cloud: Compute) -> list[str]:
    """All that is there and was not there at first, by its path or name."""
    records = [f"{kind} {name}" for _, name, kind in cloud.dns.records]
    return [*cloud.made(), *cloud.dns.zones, *sorted(records)]


def sent(cloud: Compute) -> list[dict[str, Any]]:
    """Requests that change something, without what is another each time."""
    script = proxyvm.startup_script(SITE)
    found = []
    for row in changing(cloud):
        text = json.dumps(row["body"]).replace(json.dumps(script)[1:-1], "SCRIPT")
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "RUN", text)
        text = re.sub(r"ssh-ed25519 [A-Za-z0-9+/=]+", "ssh-ed25519 KEY", text)
        found.append({"method": row["method"], "path": row["path"], "body": json.loads(text)})
    return found


def test_up_makes_it_once_and_down_removes_it(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(cloud)
    assert main(UP) == 0
    said = capsys.readouterr()
    assert 'url = "http://10.126.1.2:3128"' in said.out
    assert "ca_sha256" in said.out
    assert "nobody said its price" in said.err
    # To write it anew: GOLDEN.write_text(json.dumps(sent(cloud), indent=1) + "\n")
    assert sent(cloud) == json.loads(GOLDEN.read_text())
    count, made = len(changing(cloud)), everything(cloud)
    assert main(UP) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (len(changing(cloud)), everything(cloud)) == (count, made)
    assert main(VERIFY) == 0
    assert main(DOWN) == 0
    assert "is down: 13 removed" in capsys.readouterr().out
    assert everything(cloud) == before
    assert main(DOWN) == 2
    assert "--made-by" in capsys.readouterr().err


def test_nothing_is_made_without_a_yes(
    cloud: Compute, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main([word for word in UP if word != "--yes"]) == 2
    said = capsys.readouterr().err
    assert "make networks/airlock" in said
    assert "costs" in said
    assert changing(cloud) == []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _: "n")
    assert main([word for word in UP if word != "--yes"]) == 2
    assert changing(cloud) == []


def test_verify_only_looks_and_names_what_is_otherwise(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(VERIFY) == 1
    assert "there is no network airlock" in capsys.readouterr().out
    assert main(UP) == 0
    count = len(changing(cloud))
    cloud.store.things[f"{RULES}airlock-egress-deny"]["disabled"] = True
    assert main(VERIFY) == 1
    said = capsys.readouterr().out
    assert "disabled: True, not False" in said
    assert "no rule denies what no rule allows" in said
    assert len(changing(cloud)) == count


def test_what_was_changed_is_made_anew_and_nothing_else(cloud: Compute) -> None:
    assert main(UP) == 0
    count = len(changing(cloud))
    cloud.store.things[f"{RULES}airlock-egress-deny"]["destinationRanges"] = ["10.0.0.0/8"]
    assert main(UP) == 0
    new = [(row["method"], row["path"].rpartition("/")[2]) for row in changing(cloud)[count:]]
    assert new == [("DELETE", "airlock-egress-deny"), ("POST", "firewalls")]
    assert main(VERIFY) == 0


def test_options_that_are_not_given_again_stay_as_they_were(
    cloud: Compute, authority: Authority
) -> None:
    tunnel = replace(SITE, intercept=False)
    tells(cloud, proxyvm.READY, proxyvm.digest(tunnel), authority)
    assert main([*UP, "--tunnel"]) == 0
    count = len(changing(cloud))
    assert main(["gce", "up", *WHERE]) == main(["gce", "up", *WHERE, "--verify"]) == 0
    assert len(changing(cloud)) == count
    tells(cloud, proxyvm.READY, proxyvm.digest(SITE), authority)
    assert main([*UP, "--no-tunnel"]) == 0
    new = [(row["method"], row["path"].rpartition("/")[2]) for row in changing(cloud)[count:]]
    assert new == [("DELETE", "airlock-proxy"), ("POST", "instances")]


def test_a_root_that_was_changed_is_not_made_anew(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(UP) == 0
    count = len(changing(cloud))
    cloud.store.things[f"projects/{PROJECT}/regions/europe-west4/subnetworks/airlock-nodes"][
        "privateIpGoogleAccess"
    ] = False
    assert main(UP) == 2
    assert "subnetworks/airlock-nodes: is not as it was made" in capsys.readouterr().err
    assert len(changing(cloud)) == count


def test_somebody_elses_network_is_left_alone(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    google = Google(PROJECT)
    body = {
        "name": "airlock",
        "autoCreateSubnetworks": False,
        "routingConfig": {"routingMode": "REGIONAL"},
    }
    google.put(SITE, Resource("networks", "airlock", body), "11111111-2222-4333-8444-555555555555")
    before = everything(cloud)
    assert main(UP) == 2
    assert "not made here" in capsys.readouterr().err
    assert everything(cloud) == before
    assert main([*DOWN, "--made-by", "somebody", "--zone", ZONE]) == 0
    assert everything(cloud) == before


def test_another_machine_removes_it_by_its_id(
    cloud: Compute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everything(cloud)
    assert main(UP) == 0
    run = cloud.store.things[f"projects/{PROJECT}/global/networks/airlock"]["description"].split()[
        -1
    ]
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "other"))
    assert main(VERIFY) == 0
    assert main(UP) == 0  # all is there: nothing to do, whoever made it
    assert main([*DOWN, "--made-by", "another", "--zone", ZONE]) == 0
    assert len(everything(cloud)) > len(before)
    assert main([*DOWN, "--made-by", run, "--zone", ZONE]) == 0
    assert everything(cloud) == before


class Killed(BaseException):
    """kill -9: nobody catches it."""


@pytest.mark.parametrize("when", ["before", "after"])
def test_half_a_network_is_completed_and_nothing_is_made_twice(
    when: str, cloud: Compute, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at requests of each kind: before Google heard it, or before we wrote that it did."""
    whole = Google.put

    def dying(nth: int) -> Callable[..., None]:
        left = iter(range(nth, -1, -1))

        def put(self: Google, site: Site, resource: Resource, request: str) -> None:
            last = next(left) == 0
            if not (last and when == "before"):
                whole(self, site, resource, request)
            if last:
                raise Killed

        return put

    before = everything(cloud)
    for nth in (0, 4, 9, 12):  # network, rule, zone, machine
        monkeypatch.setattr(Google, "put", dying(nth))
        with pytest.raises(Killed):
            main(UP)
        monkeypatch.setattr(Google, "put", whole)
        count = len([row for row in changing(cloud) if row["method"] == "POST"])
        assert main(UP) == 0
        made = len([row for row in changing(cloud) if row["method"] == "POST"]) - count
        assert made == 13 - nth - (when == "after")
        assert main(DOWN) == 0
        assert everything(cloud) == before


def test_down_after_a_kill_removes_what_was_made_and_waits_for_who_uses_it(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything(cloud)
    assert main(UP) == 0
    whole = everything(cloud)
    card = {"network": f"{cloud.url}/compute/v1/projects/{PROJECT}/global/networks/airlock"}
    path = f"projects/{PROJECT}/zones/{ZONE}/instances/node-1"
    made = cloud.store.things[f"projects/{PROJECT}/zones/{ZONE}/instances/airlock-proxy"]
    cloud.store.add(path, {**made, "name": "node-1", "networkInterfaces": [card]}, "2026-01-01")
    assert main(DOWN) == 2
    assert "1 machines are in the network: node-1" in capsys.readouterr().err
    assert set(everything(cloud)) == {*whole, path}
    del cloud.store.things[path]
    cloud.fail("DELETE", r"/subnetworks/airlock-nodes$", 403, "forbidden", "no")
    assert main(DOWN) == 3
    assert main(DOWN) == 0
    assert everything(cloud) == before


def test_two_minutes_of_503_are_waited_out(cloud: Compute) -> None:
    cloud.scale = 100
    cloud.down(120)
    assert main(UP) == 0


@pytest.mark.parametrize("path", [r"/firewalls$", r"/managedZones$", r"/rrsets$", r"/instances$"])
def test_an_answer_that_got_lost_makes_nothing_twice(path: str, cloud: Compute) -> None:
    cloud.lose("POST", path)
    assert main(UP) == 0
    assert main(VERIFY) == 0


def test_quota_and_permissions_are_told_and_the_rest_is_made_afterwards(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.set_quota("CPUS", 0)
    assert main(UP) == 3
    assert "QUOTA_EXCEEDED" in capsys.readouterr().err
    cloud.set_quota("CPUS", 8)
    cloud.denied.add("compute.instances.create")
    assert main(UP) == 3
    assert "compute.instances.create" in capsys.readouterr().err
    cloud.denied.clear()
    assert main(UP) == 0
    assert main(VERIFY) == 0


def test_a_proxy_whose_set_up_failed_says_so(
    cloud: Compute, authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    tells(cloud, proxyvm.FAILED, "line 12 ended with 100", authority)
    assert main(UP) == 3
    said = capsys.readouterr().err
    assert "its set-up failed: line 12 ended with 100" in said
    assert "get-serial-port-output" in said


def test_the_price_is_the_users_own(
    cloud: Compute,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    del cloud
    monkeypatch.setenv("AIRLOCK_GCE", str(tmp_path / "gce.toml"))
    (tmp_path / "gce.toml").write_text(
        f'project = "{PROJECT}"\nzones = ["{ZONE}"]\nmachine_type = "g2-standard-4"\n'
        '[images.debian-12]\nsource = "projects/debian-cloud/global/images/family/debian-12"\n'
        '[[prices]]\nmachine_type = "e2-small"\nregion = "europe-west4"\n'
        'provisioning = "standard"\nper_hour = 0.02\ncurrency = "USD"\nsource = "an invoice"\n'
        "date = 2026-11-01\n"
    )
    assert main(["gce", "up", "--hours", "10"]) == 2
    said = capsys.readouterr().err
    assert "0.02 USD an hour, at most 0.20 in 10 hours (an invoice, 2026-11-01)" in said
