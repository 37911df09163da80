"""What has to be true before money is spent: questions about answers of the API, as pure functions.

Each takes what the API said, as JSON, and gives findings; nothing is asked here.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.cloud.network import IAP, PRIVATE_GOOGLE, Site
from harness.cloud.permissions import METHODS, NODES
from harness.doctor import Finding

Json = Mapping[str, Any]

#: API -> what it is for.
SERVICES = {
    "compute.googleapis.com": "machines, networks and images",
    "dns.googleapis.com": "Google's APIs under the addresses that nodes may reach",
    "iap.googleapis.com": "ssh to machines without an external address",
}
_EVERYWHERE = "0.0.0.0/0"


def services(answer: Json, project: str) -> list[Finding]:
    """``serviceusage.services.get`` of each: are the APIs switched on?"""
    states = {
        str(one.get("config", {}).get("name") or one["name"].rpartition("/")[2]): one.get("state")
        for one in answer.get("services", [])
    }
    found = []
    for name, why in SERVICES.items():
        if states.get(name) == "ENABLED":
            found.append(Finding(f"API {name}", "ok", "switched on", why))
        else:
            fix = f"gcloud services enable {name} --project {project}"
            found.append(Finding(f"API {name}", "missing", "switched off", why, fix))
    return found


def permissions(granted: Iterable[str], asked: Sequence[str]) -> list[Finding]:
    """``projects.testIamPermissions``: what of ``asked`` is not among the granted?"""
    lacking = sorted(set(asked) - set(granted))
    if not lacking:
        return [
            Finding("permissions", "ok", f"all {len(asked)} are granted", "each call needs its own")
        ]
    found = []
    for permission in lacking:
        calls = [*METHODS.items(), *NODES.items()]
        methods = ", ".join(name for name, needs in calls if permission in needs)
        fix = "grant the role of docs/gce-network.md, or this permission"
        found.append(
            Finding(f"permission {permission}", "missing", "not granted", f"for {methods}", fix)
        )
    return found


def quota(
    quotas: Iterable[Json], needs: Mapping[str, float], where: str, project: str
) -> list[Finding]:
    """A region's or project's ``quotas``: is there room for what is to be made?"""
    known = {one["metric"]: one for one in quotas}
    found = []
    for metric, need in needs.items():
        name, why = f"quota {metric}", f"{need:g} needed in {where}"
        if metric not in known:
            what = "the API does not tell"
            fix = (
                f"gcloud beta quotas info list --service compute.googleapis.com --project {project}"
            )
            found.append(Finding(name, "note", what, why, fix))
            continue
        limit, usage = float(known[metric]["limit"]), float(known[metric].get("usage", 0))
        what = f"{usage:g} of {limit:g} used"
        if usage + need <= limit:
            found.append(Finding(name, "ok", what, why))
        else:
            fix = f"ask for {usage + need - limit:g} more, or use another region"
            found.append(Finding(name, "missing", what, why, fix))
    return found


def nat(routers: Iterable[Json], site: Site) -> list[Finding]:
    """``routers.list``: does Cloud NAT give nodes a way out past the proxy?"""
    why = "with NAT a node reaches the internet past the proxy, wherever a rule lets it"
    gates = [
        f"{router['name']}/{one.get('name', '?')}"
        for router in routers
        if _is(router.get("network"), site.network)
        for one in router.get("nats") or []
    ]
    if not gates:
        return [Finding("NAT", "ok", "none in the network", why)]
    fix = "; ".join(
        f"gcloud compute routers nats delete {gate.partition('/')[2]} "
        f"--router {gate.partition('/')[0]} --region {site.region} --project {site.project}"
        for gate in gates
    )
    return [Finding("NAT", "missing", f"there is {', '.join(gates)}", why, fix)]


def routes(answer: Iterable[Json], site: Site) -> list[Finding]:
    """``routes.list``: do packets to Google's APIs leave, by the default gateway alone?"""
    ours = [one for one in answer if _is(one.get("network"), site.network)]
    private = ipaddress.ip_network(PRIVATE_GOOGLE)
    to_google = [one for one in ours if _gateway(one) and _holds(one, private) and not _tagged(one)]
    why = "Private Google Access works by a route to the default internet gateway"
    found = []
    if to_google:
        found.append(Finding("route to Google", "ok", to_google[0]["destRange"], why))
    else:
        fix = (
            f"gcloud compute routes create {site.name}-google --network {site.name} "
            f"--destination-range {PRIVATE_GOOGLE} --next-hop-gateway default-internet-gateway "
            f"--project {site.project}"
        )
        found.append(Finding("route to Google", "missing", "there is none", why, fix))
    why = "a route to a tunnel, a peering or a machine is a way out that no proxy sees"
    others = [one for one in ours if not _gateway(one) and not _local(one)]
    if others:
        what = ", ".join(f"{one['name']} ({one.get('destRange', '?')})" for one in others)
        found.append(Finding("routes elsewhere", "missing", what, why, "remove them"))
    else:
        found.append(Finding("routes elsewhere", "ok", "none", why))
    return found


def peerings(network: Json) -> list[Finding]:
    """``networks.get``: is another network joined to it?"""
    why = "machines of a peered network answer past the proxy"
    names = [one.get("name", "?") for one in network.get("peerings") or []]
    if names:
        return [Finding("peerings", "missing", ", ".join(names), why, "remove them")]
    return [Finding("peerings", "ok", "none", why)]


def subnets(answer: Iterable[Json], site: Site) -> list[Finding]:
    """``subnetworks.list``: is Private Google Access on where the nodes are?"""
    why = "nodes without an external address reach Google's APIs by it alone"
    name = f"{site.name}-nodes"
    for one in answer:
        if _is(one.get("selfLink") or one.get("name"), site.subnet) or one.get("name") == name:
            if one.get("privateIpGoogleAccess"):
                return [Finding("Private Google Access", "ok", f"on in {name}", why)]
            fix = (
                f"gcloud compute networks subnets update {name} --region {site.region} "
                f"--enable-private-ip-google-access --project {site.project}"
            )
            return [Finding("Private Google Access", "missing", f"off in {name}", why, fix)]
    return [
        Finding("Private Google Access", "missing", f"there is no {name}", why, "airlock gce up")
    ]


def egress(effective: Json, site: Site) -> list[Finding]:
    """``networks.getEffectiveFirewalls``: what may a node without tags send, and to whom?

    Rules of the network and of policies above it. A rule for tags or service accounts that nodes
    do not have is not theirs.
    """
    why = "what a node may send is what it could leak"
    rules = [one for one in effective.get("firewalls") or [] if _for_nodes(one)]
    out = sorted(
        (one for one in rules if one.get("direction") == "EGRESS"), key=lambda one: _rank(one)
    )
    allowed = {PRIVATE_GOOGLE, site.proxy}
    found = []
    closed = False
    for one in out:
        ranges = set(one.get("destinationRanges") or [_EVERYWHERE])
        if one.get("denied") and _EVERYWHERE in ranges and _all(one["denied"]):
            closed = True
            break
        if one.get("allowed") and not ranges <= allowed:
            what = f"{one['name']} lets nodes reach {', '.join(sorted(ranges - allowed))}"
            fix = f"gcloud compute firewall-rules delete {one['name']} --project {site.project}"
            found.append(Finding("egress", "missing", what, why, fix))
    if not closed:
        what = "no rule denies what no rule allows"
        found.append(Finding("egress", "missing", what, why, "airlock gce up"))
    for policy in effective.get("firewallPolicys") or []:
        above = [
            rule
            for rule in policy.get("rules") or []
            if rule.get("direction") == "EGRESS" and rule.get("action") == "allow"
        ]
        if above:
            name = policy.get("shortName") or policy.get("displayName") or policy.get("name", "?")
            what = (
                f"the policy {name} above the project allows egress: look whether nodes are meant"
            )
            found.append(Finding("egress by policy", "note", what, why))
    return found or [Finding("egress", "ok", "Google's APIs and the proxy only", why)]


def ingress(effective: Json) -> list[Finding]:
    """``networks.getEffectiveFirewalls``: does IAP get in, and nobody else?"""
    why = "ssh comes through IAP, which asks who you are"
    doors = [
        one
        for one in effective.get("firewalls") or []
        if one.get("direction") == "INGRESS"
        and one.get("allowed")
        and not one.get("disabled")
        and _reaches(one["allowed"], 22)
    ]
    found = []
    if any(IAP in (one.get("sourceRanges") or []) and _for_nodes(one) for one in doors):
        found.append(Finding("IAP", "ok", f"{IAP} reaches port 22", why))
    else:
        found.append(Finding("IAP", "missing", "no rule lets it in", why, "airlock gce up"))
    for one in doors:
        if _EVERYWHERE in (one.get("sourceRanges") or []):
            what = f"{one['name']} lets everybody reach port 22"
            found.append(Finding("ingress", "missing", what, why, "remove the rule"))
    return found


def machines(answer: Iterable[Json], site: Site) -> list[Finding]:
    """``instances.aggregatedList``: has any machine but the proxy an external address?"""
    why = "an external address is a way out, if a rule lets it"
    open_ones = [
        one["name"]
        for one in answer
        if one["name"] != site.proxy_name
        for card in one.get("networkInterfaces") or []
        if _is(card.get("network"), site.network) and card.get("accessConfigs")
    ]
    if open_ones:
        return [Finding("external addresses", "missing", ", ".join(open_ones), why, "remove them")]
    return [Finding("external addresses", "ok", "none but the proxy's", why)]


def accelerator_metric(accelerator: str, *, spot: bool) -> str:
    """The quota of an accelerator: ``NVIDIA_L4_GPUS``, ``PREEMPTIBLE_NVIDIA_T4_GPUS``.

    As "GPU quota" of Google's documentation has them; newer cards have none of this kind, and then
    the API does not tell.
    """
    word = accelerator.replace("-tesla-", "-").upper().replace("-", "_")
    return f"{'PREEMPTIBLE_' if spot else ''}{word}_GPUS"


def _is(link: object, path: str) -> bool:
    return isinstance(link, str) and (link == path or link.endswith("/" + path))


def _gateway(route: Json) -> bool:
    return str(route.get("nextHopGateway") or "").endswith("/default-internet-gateway")


def _local(route: Json) -> bool:
    """A subnet's own route."""
    return bool(route.get("nextHopNetwork"))


def _tagged(route: Json) -> bool:
    return bool(route.get("tags"))


def _holds(route: Json, wanted: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    try:
        there = ipaddress.ip_network(str(route.get("destRange")))
    except ValueError:
        return False
    return (
        isinstance(there, ipaddress.IPv4Network)
        and isinstance(wanted, ipaddress.IPv4Network)
        and wanted.subnet_of(there)
    )


def _for_nodes(rule: Json) -> bool:
    """Nodes have no tags and no service account."""
    narrowed = rule.get("targetTags") or rule.get("targetServiceAccounts")
    return not rule.get("disabled") and not narrowed


def _rank(rule: Json) -> tuple[int, bool]:
    """Lower wins; among equals what denies wins."""
    return int(rule.get("priority", 1000)), not rule.get("denied")


def _all(entries: Iterable[Json]) -> bool:
    return any(str(one.get("IPProtocol")) == "all" for one in entries)


def _reaches(entries: Iterable[Json], port: int) -> bool:
    for one in entries:
        if str(one.get("IPProtocol")) not in ("all", "tcp", "6"):
            continue
        ports = one.get("ports") or ["0-65535"]
        for text in ports:
            low, _, high = str(text).partition("-")
            if int(low) <= port <= int(high or low):
                return True
    return False
