"""The network as data: what cannot be asked for, and how what is there is compared with it."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from harness.cloud import proxyvm
from harness.cloud.compare import Action, differences, plan
from harness.cloud.network import Resource, Site, resources
from harness.errors import UsageError

SITE = Site("some-project", "us-central1-a")


def wanted(marker: str = "mine", site: Site = SITE) -> list[Resource]:
    return resources(site, marker, proxyvm.machine(site, marker, "run", "ssh-ed25519 AAAA airlock"))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("project", "Bad_Project", "no project's id"),
        ("zone", "us-central1", "no zone"),
        ("name", "Upper", "cannot be a network's name"),
        ("name", "x" * 44, "cannot be a network's name"),
        ("nodes", "10.0.0.1/24", "no range of addresses"),
        ("nodes", "8.8.8.0/24", "private addresses"),
        ("nodes", "10.0.0.0/30", "/29 or larger"),
        ("nodes", "10.126.1.0/24", "overlap"),
        ("hours", 0, "1 to 168"),
    ],
)
def test_what_cannot_be_asked_for(field: str, value: Any, said: str) -> None:
    values: dict[str, Any] = {"project": "some-project", "zone": "us-central1-a", field: value}
    with pytest.raises(UsageError, match=said):
        Site(**values)


def test_the_proxy_has_the_only_external_address_and_an_end() -> None:
    bodies = {one.title: one.body for one in wanted()}
    proxy = bodies["instances/airlock-proxy"]
    (card,) = proxy["networkInterfaces"]
    assert card["networkIP"] == "10.126.1.2" == SITE.proxy_address
    assert card["accessConfigs"]
    assert proxy["scheduling"]["maxRunDuration"] == {"seconds": "43200"}
    assert proxy["scheduling"]["instanceTerminationAction"] == "DELETE"
    assert proxy["shieldedInstanceConfig"]["enableSecureBoot"] is True
    assert proxy["serviceAccounts"] == []
    assert SITE.proxy_url == "http://10.126.1.2:3128"
    assert all(one.body["description"] == "mine" for one in wanted() if not one.within)


def test_nobody_but_the_nodes_may_ask_the_proxy_and_metadata_stays_out_of_its_reach() -> None:
    lines = proxyvm.configuration(SITE).splitlines()
    assert "acl nodes src 10.126.0.0/24" in lines
    rules = [line for line in lines if line.startswith("http_access")]
    assert rules[0] == "http_access deny !nodes"
    assert "http_access deny link_local" in rules
    assert "ssl_bump bump all" in lines
    tunnel = Site("some-project", "us-central1-a", intercept=False, allow=(".example.org",))
    assert "ssl_bump bump all" not in proxyvm.configuration(tunnel)
    assert "acl listed dstdomain -n .example.org" in proxyvm.configuration(tunnel)
    assert proxyvm.digest(tunnel) != proxyvm.digest(SITE)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_startup_script_is_a_script_and_holds_no_key(intercept: bool) -> None:
    site = Site("some-project", "us-central1-a", intercept=intercept)
    script = proxyvm.startup_script(site)
    subprocess.run(["bash", "-n"], input=script.encode(), check=True)
    assert "@" not in script.replace('"@$2"', "")
    assert proxyvm.configuration(site) in script
    assert "PRIVATE KEY" not in script


def test_a_plan_makes_what_is_missing_and_keeps_what_is_right() -> None:
    there: dict[str, dict[str, Any]] = {}

    def planned() -> list[Action]:
        return [step.action for step in plan(wanted(), look, lambda _r, t: t["mine"])]

    def look(resource: Resource) -> dict[str, Any] | None:
        return there.get(resource.title)

    assert planned() == [Action.MAKE] * len(wanted())
    for one in wanted():
        there[one.title] = {**one.body, "mine": True, "status": "RUNNING", "id": "4"}
    assert planned() == [Action.KEEP] * len(wanted())
    there["firewalls/airlock-egress-deny"]["disabled"] = True
    there["networks/airlock"]["autoCreateSubnetworks"] = True
    steps = {one.resource.title: one for one in plan(wanted(), look, lambda _r, t: t["mine"])}
    assert steps["firewalls/airlock-egress-deny"].action is Action.REPLACE
    assert steps["firewalls/airlock-egress-deny"].why == ("disabled: True, not False",)
    assert steps["networks/airlock"].action is Action.STUCK
    there["networks/airlock"]["mine"] = False
    assert planned()[0] is Action.FOREIGN


@pytest.mark.parametrize(
    ("expected", "found", "lines"),
    [
        ({"a": False}, {}, []),
        ({"a": []}, {}, []),
        ({"a": ""}, {"a": None}, []),
        ({"a": 1000}, {"a": "1000"}, []),
        ({"a": "projects/p/x"}, {"a": "https://www.googleapis.com/compute/v1/projects/p/x"}, []),
        ({"a": "https://h/compute/v1/projects/p/x"}, {"a": "projects/p/x"}, []),
        ({"a": "projects/p/x"}, {"a": "projects/p/xy"}, ["a: 'projects/p/xy', not 'projects/p/x'"]),
        ({"a": ["1", "2"]}, {"a": ["2", "1"]}, []),
        ({"a": ["1"]}, {"a": ["1", "2"]}, ["a: ['1', '2'], not ['1']"]),
        ({"a": {"b": 1}}, {}, ["a.b: missing, not 1"]),
        ({"a": 1}, {"a": 1, "more": 2}, []),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, []),
        ({"a": [{"b": 1}]}, {"a": [{"b": 3}]}, ["a[0].b: 3, not 1"]),
        (
            {"items": [{"key": "x", "value": "1"}]},
            {"items": [{"key": "y", "value": "2"}, {"key": "x", "value": "1"}]},
            [],
        ),
        ({"items": [{"key": "x", "value": "1"}]}, {}, ["items.x: missing, not '1'"]),
        ({"a": "s" * 200}, {"a": "t"}, ["a: another than wanted"]),
    ],
)
def test_differences(expected: Any, found: Any, lines: list[str]) -> None:
    assert differences(expected, found) == lines
