"""Questions before money is spent: each has a good answer, and one that names the fault."""

from __future__ import annotations

from typing import Any

import pytest

from harness.cloud import questions
from harness.cloud.network import IAP, PRIVATE_GOOGLE, Site, resources
from harness.cloud.permissions import METHODS, NODES, needed
from harness.cloud.proxyvm import machine
from harness.doctor import Finding

SITE = Site("some-project", "us-central1-a")
HOST = "https://www.googleapis.com/compute/v1/"
NETWORK = HOST + SITE.network
GATEWAY = HOST + "projects/some-project/global/gateways/default-internet-gateway"
DEFAULT = {"name": "d", "network": NETWORK, "destRange": "0.0.0.0/0", "nextHopGateway": GATEWAY}
LOCAL = {"name": "l", "network": NETWORK, "destRange": SITE.nodes, "nextHopNetwork": NETWORK}


def bad(findings: list[Finding]) -> list[str]:
    """What is wrong, as one line each."""
    return [f"{one.name}: {one.what}" for one in findings if one.level == "missing"]


def rules() -> list[dict[str, Any]]:
    """The firewall rules of a good network, as the API answers them."""
    made = resources(SITE, "m", machine(SITE, "m", "r", "ssh-ed25519 k"))
    return [{"disabled": False, **one.body} for one in made if one.kind == "firewalls"]


def changed(name: str, **fields: Any) -> list[dict[str, Any]]:
    """The good rules, and one of them otherwise."""
    return [{**one, **fields} if one["name"] == name else one for one in rules()]


def test_a_service_that_is_off_is_named_with_the_command_that_switches_it_on() -> None:
    answer = {
        "services": [
            {"name": f"projects/1/services/{name}", "state": "ENABLED"}
            for name in questions.SERVICES
            if not name.startswith("iap")
        ]
    }
    found = questions.services(answer, "some-project")
    assert bad(found) == ["API iap.googleapis.com: switched off"]
    assert "gcloud services enable iap.googleapis.com --project some-project" in found[-1].fix
    answer["services"].append(
        {"name": "projects/1/services/iap.googleapis.com", "state": "ENABLED"}
    )
    assert bad(questions.services(answer, "some-project")) == []


def test_a_permission_that_is_lacking_says_for_what() -> None:
    asked = needed(METHODS, NODES)
    assert bad(questions.permissions(asked, asked)) == []
    granted = [one for one in asked if one != "compute.routers.list"]
    (found,) = questions.permissions(granted, asked)
    assert (found.name, found.why) == ("permission compute.routers.list", "for routers.list")


@pytest.mark.parametrize(("usage", "level"), [(0, "ok"), (6, "ok"), (7, "missing"), (8, "missing")])
def test_quota_counts_what_is_used(usage: float, level: str) -> None:
    quotas = [{"metric": "CPUS", "limit": 8.0, "usage": float(usage)}]
    (found,) = questions.quota(quotas, {"CPUS": 2}, "us-central1", "p")
    assert found.level == level


def test_a_quota_that_the_api_does_not_tell_is_no_pass() -> None:
    metric = questions.accelerator_metric("nvidia-b200", spot=True)
    assert metric == "PREEMPTIBLE_NVIDIA_B200_GPUS"
    (found,) = questions.quota([], {metric: 1}, "us-central1", "p")
    assert (found.level, found.what) == ("note", "the API does not tell")
    assert questions.accelerator_metric("nvidia-tesla-t4", spot=False) == "NVIDIA_T4_GPUS"


def test_nat_in_the_network_is_a_way_out() -> None:
    router = {"name": "r", "network": NETWORK, "nats": [{"name": "n"}]}
    assert bad(questions.nat([router], SITE)) == ["NAT: there is r/n"]
    assert bad(questions.nat([{**router, "nats": []}], SITE)) == []
    assert bad(questions.nat([{**router, "network": NETWORK + "-2"}], SITE)) == []


def test_routes_lead_to_google_and_nowhere_else() -> None:
    assert bad(questions.routes([DEFAULT, LOCAL], SITE)) == []
    own = {**DEFAULT, "destRange": PRIVATE_GOOGLE}
    assert bad(questions.routes([own, LOCAL], SITE)) == []
    assert bad(questions.routes([LOCAL], SITE)) == ["route to Google: there is none"]
    tagged = {**DEFAULT, "tags": ["x"]}
    assert bad(questions.routes([tagged], SITE)) == ["route to Google: there is none"]
    tunnel = {"name": "t", "network": NETWORK, "destRange": "0.0.0.0/1", "nextHopVpnTunnel": "x"}
    assert bad(questions.routes([DEFAULT, tunnel], SITE)) == ["routes elsewhere: t (0.0.0.0/1)"]
    elsewhere = {**tunnel, "network": NETWORK + "2"}
    assert bad(questions.routes([DEFAULT, elsewhere], SITE)) == []


def test_private_google_access_and_peerings() -> None:
    subnet = {"name": "airlock-nodes", "selfLink": HOST + SITE.subnet}
    assert bad(questions.subnets([{**subnet, "privateIpGoogleAccess": True}], SITE)) == []
    assert bad(questions.subnets([subnet], SITE)) == ["Private Google Access: off in airlock-nodes"]
    assert "there is no airlock-nodes" in bad(questions.subnets([], SITE))[0]
    assert bad(questions.peerings({})) == []
    assert bad(questions.peerings({"peerings": [{"name": "office"}]})) == ["peerings: office"]


def test_our_rules_close_the_network() -> None:
    assert bad(questions.egress({"firewalls": rules()}, SITE)) == []
    assert bad(questions.ingress({"firewalls": rules()})) == []


@pytest.mark.parametrize(
    "firewalls",
    [
        [],
        changed("airlock-egress-deny", disabled=True),
        changed("airlock-egress-deny", targetTags=["x"]),
        changed("airlock-egress-deny", denied=[{"IPProtocol": "tcp"}]),
        changed("airlock-egress-deny", destinationRanges=["10.0.0.0/8"]),
    ],
    ids=["none", "disabled", "narrowed", "tcp only", "some ranges"],
)
def test_a_network_without_its_last_rule_is_open(firewalls: list[dict[str, Any]]) -> None:
    found = bad(questions.egress({"firewalls": firewalls}, SITE))
    assert "egress: no rule denies what no rule allows" in found


def test_a_rule_that_lets_nodes_out_is_named_and_one_for_others_is_not() -> None:
    rule = {"name": "hole", "direction": "EGRESS", "allowed": [{"IPProtocol": "tcp"}]}
    assert bad(questions.egress({"firewalls": [*rules(), rule]}, SITE)) == [
        "egress: hole lets nodes reach 0.0.0.0/0"
    ]
    for harmless in (
        {**rule, "priority": 65534},
        {**rule, "priority": 65000},  # what denies wins among equals
        {**rule, "targetTags": ["x"]},
        {**rule, "disabled": True},
        {**rule, "destinationRanges": [PRIVATE_GOOGLE]},
    ):
        assert bad(questions.egress({"firewalls": [*rules(), harmless]}, SITE)) == []


def test_a_policy_above_the_project_is_told() -> None:
    policy = {"shortName": "org", "rules": [{"direction": "EGRESS", "action": "allow"}]}
    found = questions.egress({"firewalls": rules(), "firewallPolicys": [policy]}, SITE)
    assert [(one.level, "org" in one.what) for one in found] == [("note", True)]


@pytest.mark.parametrize("ports", [["22"], ["20-30"], ["80", "22"], []])
def test_ssh_from_everywhere_is_no_door(ports: list[str]) -> None:
    rule = {
        "name": "default-allow-ssh",
        "direction": "INGRESS",
        "allowed": [{"IPProtocol": "tcp", "ports": ports}],
        "sourceRanges": ["0.0.0.0/0"],
    }
    found = bad(questions.ingress({"firewalls": [*rules(), rule]}))
    assert found == ["ingress: default-allow-ssh lets everybody reach port 22"]
    closed = {**rule, "allowed": [{"IPProtocol": "tcp", "ports": ["3389"]}]}
    assert bad(questions.ingress({"firewalls": [*rules(), closed]})) == []


def test_without_the_rule_for_iap_nobody_gets_in() -> None:
    firewalls = changed("airlock-ssh-iap", sourceRanges=["10.0.0.0/8"])
    assert bad(questions.ingress({"firewalls": firewalls})) == ["IAP: no rule lets it in"]
    assert IAP == "35.235.240.0/20"


def test_an_external_address_besides_the_proxys_is_told() -> None:
    card = {"network": NETWORK, "accessConfigs": [{"type": "ONE_TO_ONE_NAT"}]}
    proxy = {"name": "airlock-proxy", "networkInterfaces": [card]}
    assert bad(questions.machines([proxy], SITE)) == []
    other = {"name": "n1", "networkInterfaces": [card]}
    assert bad(questions.machines([proxy, other], SITE)) == ["external addresses: n1"]
    assert (
        bad(questions.machines([{**other, "networkInterfaces": [{"network": NETWORK}]}], SITE))
        == []
    )
