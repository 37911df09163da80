"""What left the node and the image build, captured from outside of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from conformance.requests import as_a_login
from harness.checks import (
    broken,
    build_ledger,
    check,
    fact,
    fail,
    google,
    ledger,
    not_verified,
    proxy,
    refusing,
)
from harness.node import Node


@check(
    id="egress.no-violation",
    severity="blocker",
    title="Nothing tried to leave but through the proxy",
    remedy="Find the program by the address and port in the evidence, and give it the proxy: a "
    "daemon reads its own configuration, not a shell's environment. Ports 5355 and 5353 are names "
    "that systemd-resolved asks its neighbours for: LLMNR=no, MulticastDNS=no in resolved.conf.",
    requires=(ledger, proxy),
    source="every packet on the node's card and on the build's, "
    "but ARP, DHCP, IGMP and IPv6 ND, RS, MLD",
)
def test_no_violation(node: Node) -> None:
    """On the running node, and while its image was built."""
    stages = _stages(node)
    found = [
        f"{stage}: {violation['text']}"
        for stage, seen in stages.items()
        for violation in seen["violations"]
    ]
    answered = [probe for probe in node.facts.get("probes") or [] if probe["outcome"] == "answered"]
    found += [f"node: our own probe got an answer: {probe['target']}" for probe in answered]
    if found:
        fail(f"{len(found)} attempts to go around the proxy", found)
    if uncaptured := [stage for stage, seen in stages.items() if not seen.get("captured", True)]:
        not_verified(
            f"nobody captured the packets of the {' and the '.join(uncaptured)}: the proxy's log "
            "shows what came to it, and neither packets nor questions for names that went elsewhere"
        )


@check(
    id="egress.metadata-not-proxied",
    severity="blocker",
    title="No request for the metadata server reached the proxy",
    remedy="Add 169.254.169.254 and metadata.google.internal to no_proxy, in both cases; a program "
    "that cannot be told gets no proxy at all.",
    requires=(ledger, proxy),
    depends=["proxy.no-proxy"],
    source="the proxy's own log: metadata answers hold credentials",
)
def test_metadata_not_proxied(node: Node) -> None:
    """On the running node, and while its image was built."""
    found = [
        f"{stage}: {seen['metadata_via_proxy']} requests"
        for stage, seen in _stages(node).items()
        if seen["metadata_via_proxy"]
    ]
    if found:
        fail("the proxy was asked for the metadata server", found)


@check(
    id="egress.probes-seen",
    severity="blocker",
    title="The ledger was awake: it holds our own probes",
    remedy="The lab is at fault, not the node: give the node a default route and a nameserver, so "
    "that attempts leave its card, and see that the capture runs. Where the proxy's log is all "
    "there is, see that it is that proxy's, and that nothing changes the node's address on the "
    "way.",
    requires=ledger,
    source="attempts to reach 192.0.2.1, 2001:db8::1 and probe.invalid, which belong to nobody; "
    "without a capture a request for probe.invalid by the proxy",
)
def test_probes_seen(node: Node) -> None:
    """An error and not a failure: a ledger that sees nothing says nothing about the node."""
    missing = [
        f"{stage}: {target}"
        for stage, seen in _stages(node).items()
        for target in seen.get("missing_probes", [] if seen["probes"] else ["no probe at all"])
    ]
    if missing:
        sent = [f"{one['target']}: {one['outcome']}" for one in node.facts.get("probes") or []]
        broken("the ledger does not hold all of our probes", [*missing, *sent])


@check(
    id="egress.build-ledger",
    severity="blocker",
    title="The build made no request before the proxy was set, and apt's were intercepted",
    remedy="Let the proxy installer run first, before anything is fetched. If apt's requests are "
    "missing, its sources are http: use https on the same mirror.",
    requires=(build_ledger, proxy),
    source="the proxy's log of the image build, and the installers' journal",
)
def test_build_ledger(node: Node) -> None:
    """A build from the cache shows the ledger of the build that made it.

    Not every installer fetches packages. Set-up of a user's own need not fetch anything. It keeps
    no journal: for it the proxy is set when a file of the image's configuration first names it.
    """
    build = _stages(node)["build"]
    first, end = build["first_request"], build["proxy_step_end"]
    foreign = node.expect.get("foreign")
    if not build["requests"]:
        if foreign:
            return
        fail("the proxy saw no request of the build: it took another way, or nothing was installed")
    if end is None:
        fail(
            "requests were made, and no file below /etc or /root ever named the proxy"
            if foreign
            else "the installers' journal does not say that the proxy step ended"
        )
    if first <= end:
        fail(
            f"the first request came {end - first:.3f} s before the proxy was set",
            [f"first request: {first}", f"the proxy was set: {end}"],
        )
    wanted = node.expect.get("intercept") and node.expect.get("fetches_packages", True)
    if wanted and not foreign and not build["bumped_apt_gets"]:
        fail("the proxy intercepted no request of apt's: it saw tunnels, or plain http")


@check(
    id="egress.build-planned",
    severity="major",
    title="The build asked no host that its plan did not name",
    remedy="Read 'airlock-node.pyz plan': an installer fetches from a host that its contract "
    "leaves out, or something else made requests while the image was built.",
    requires=build_ledger,
    source="the contract of the installers, and the proxy's log of the image build",
)
def test_build_planned(node: Node) -> None:
    """Whoever opens a firewall by the plan opens enough, and what was not planned is seen."""
    build = _stages(node)["build"]
    if "planned" not in build or "hosts" not in build:
        not_verified("the build's record does not say which hosts were planned")
    if build["planned"] is None:
        not_verified("set-up of a user's own, whose profile does not say which hosts it asks")
    planned = {urlsplit(f"//{host}").hostname for host in build["planned"]}
    others = sorted(host for host in build["hosts"] if host.lower() not in planned)
    if others:
        fail(
            f"{len(others)} hosts were asked that the plan does not name",
            [f"{host}: {build['hosts'][host]} requests" for host in others],
        )


@check(
    id="egress.refused-at-once",
    severity="minor",
    title="What the network does not let through is refused at once",
    remedy="Have the firewall reject (TCP reset, ICMP unreachable) instead of drop, or give every "
    "program the proxy: one without it hangs for minutes on each attempt.",
    requires=refusing,
    source="our own probes of 192.0.2.1 and 2001:db8::1, port 443",
)
def test_refused_at_once(node: Node) -> None:
    """Silence and a refusal keep the same things out, but only one of them can be waited for."""
    probes = [probe for probe in fact(node, "probes") if probe["target"].startswith("tcp ")]
    if not probes:
        not_verified("the node sent no probe")
    silent = [probe["target"] for probe in probes if probe["outcome"] == "timeout"]
    if silent:
        fail(f"{len(silent)} of {len(probes)} attempts got no answer at all", silent)


@check(
    id="egress.google-direct",
    severity="blocker",
    title="Google's services are reached past the proxy, as no_proxy says",
    remedy="Keep .google.com and .googleapis.com in no_proxy, and see that the names resolve on "
    "the node: without its own resolver, by its hosts file.",
    requires=google,
    depends=["proxy.no-proxy"],
    source="a request for an object, and the proxy's own log",
)
def test_google_direct(node: Node) -> None:
    """It answers, and the proxy never heard of it."""
    url = node.expect["google_url"]
    ran = node.host.run(as_a_login(url))
    if ran.rc != 0 or ran.stdout.strip() != "200":
        why = ran.stderr.strip() or f"status {ran.stdout.strip()}"
        fail(f"{url} failed: {why}", [ran.stderr.strip()])
    asked = [host for host in (node.ledger or {}).get("hosts", {}) if _is_google(host)]
    if asked:
        fail(f"the proxy was asked for {', '.join(asked)}", asked)


def _is_google(host: str) -> bool:
    return f".{host}".endswith((".google.com", ".googleapis.com"))


def _stages(node: Node) -> dict[str, Mapping[str, Any]]:
    """The ledger of the running node, and of the build where there was one."""
    whole = node.ledger or {}
    stages = {"node": whole, "build": whole.get("build")}
    return {stage: seen for stage, seen in stages.items() if seen}
