"""``airlock gce up`` and ``down``: what they show, ask, do, and wait for."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from harness.cloud import making, proxyvm, questions
from harness.cloud.api import Google
from harness.cloud.compare import Action, Step
from harness.cloud.journal import Journal
from harness.cloud.network import Resource, Site, resources
from harness.doctor import Finding
from harness.errors import InfraError, UsageError
from harness.providers.gce_config import Config
from harness.providers.gce_iap import RunKey
from harness.state import private_dir, state_dir
from installers.asn1 import Certificate, DERError, load_certificate

Say = Callable[[str], None]
#: Asked before anything is made or removed; raises UsageError for a no.
Confirm = Callable[[str], None]


def wanted(site: Site, journal: Journal) -> list[Resource]:
    """Everything that the network is to consist of."""
    proxy = proxyvm.machine(site, journal.marker, journal.run, _public_key(site))
    return resources(site, journal.marker, proxy)


def up(
    api: Google, site: Site, journal: Journal, config: Config | None, confirm: Confirm, say: Say
) -> bool:
    """Make what is missing and wait until the proxy answers; False if there was nothing to do."""
    if journal.things and journal.site and _place(journal.site) != _place(site):
        raise UsageError(
            f"{site.name} was made in {journal.site.zone} with {journal.site.nodes} and "
            f"{journal.site.proxy}",
            hint=f"ask for the same, or airlock gce down --project {site.project} "
            f"--name {site.name} first",
        )
    steps = making.planned(api, site, wanted(site, journal), journal.marker)
    making.refuse(site, steps)
    if not making.changes(steps):
        return False
    for line in described(steps):
        say(line)
    say(cost(config, site))
    confirm(f"make this in {site.project}?")
    journal.begin(site)
    making.make(api, site, steps, journal, say)
    await_proxy(api, site, say)
    return True


def down(api: Google, journal: Journal, site: Site, confirm: Confirm, say: Say) -> int:
    """Remove what ``up`` made; how many things that was."""
    things = making.removable(api, site, journal)
    for thing in things:
        say(f"  remove {thing.title}")
    if things:
        confirm(f"remove this from {site.project}?")
    making.remove(api, site, things, journal, say)
    for path in (key_path(site), key_path(site).with_suffix(".pub"), ca_path(site)):
        path.unlink(missing_ok=True)
    return len(things)


def described(steps: Sequence[Step]) -> list[str]:
    """A plan for people, a line for each resource that would change or is otherwise."""
    lines = []
    for step in steps:
        if step.action is Action.KEEP:
            continue
        lines.append(f"  {step.action.value} {step.resource.title}")
        lines += [f"      {why}" for why in step.why]
    return lines


def cost(config: Config | None, site: Site) -> str:
    """What the proxy costs an hour, as the user's own prices have it."""
    rest = "besides: its external address, its disk, traffic, the DNS zone, logs of what is denied"
    for price in sorted(config.prices if config else (), key=lambda one: one.date, reverse=True):
        place = (price.machine_type, price.region, price.provisioning)
        if place == (site.machine_type, site.region, "standard"):
            longest = price.per_hour * site.hours
            return (
                f"costs {price.per_hour:g} {price.currency} an hour, at most {longest:.2f} in "
                f"{site.hours} hours ({price.source}, {price.date}); {rest}"
            )
    where = config.path if config else "gce.toml"
    return (
        f"costs: one {site.machine_type} in {site.region} for at most {site.hours} hours; nobody "
        f"said its price ([[prices]] of {where}, provisioning standard); {rest}"
    )


def await_proxy(api: Google, site: Site, say: Say) -> Certificate | None:
    """Wait until the proxy runs as configured; its CA, None if it opens no TLS.

    Raises InfraError when it says that it failed, is gone, or says nothing in time. Guest
    attributes may be asked for ten times a minute ("Setting and querying guest attributes").
    """
    say(f"waiting for {site.proxy_name}: it installs squid")
    until = time.monotonic() + 2 * api.pace.boot
    machine = Resource("instances", site.proxy_name, {})
    while True:
        told = api.attributes(site, site.proxy_name, proxyvm.NAMESPACE)
        if told.get(proxyvm.READY, "").strip() == proxyvm.digest(site):
            return _authority(site, told.get(proxyvm.CA, ""))
        hint = (
            f"gcloud compute instances get-serial-port-output {site.proxy_name} "
            f"--zone {site.zone} --project {site.project}"
        )
        if failed := told.get(proxyvm.FAILED, "").strip():
            raise InfraError(f"{site.proxy_name}: its set-up failed: {failed}", hint=hint)
        if api.get(site, machine) is None:
            raise InfraError(f"{site.proxy_name} is gone", hint="airlock gce up, again")
        if time.monotonic() > until:
            raise InfraError(f"{site.proxy_name}: squid does not run yet", hint=hint)
        time.sleep(api.pace.look * 2.5)


def verify(api: Google, site: Site, journal: Journal) -> tuple[list[Step], list[Finding]]:
    """What is otherwise than it should be. Only looks."""
    steps = making.planned(api, site, wanted(site, journal), journal.marker)
    return steps, look(api, site)


def look(api: Google, site: Site) -> list[Finding]:
    """Is the network closed, whoever made it?"""
    network = api.get(site, Resource("networks", site.name, {}))
    if network is None:
        why, fix = "nodes are made in it", "airlock gce up"
        what = f"there is no network {site.name}"
        return [Finding("network", "missing", what, why, fix)]
    effective = api.effective(site)
    return [
        *questions.subnets(api.listed(site, "subnetworks"), site),
        *questions.routes(api.listed(site, "routes"), site),
        *questions.nat(api.listed(site, "routers"), site),
        *questions.peerings(network),
        *questions.egress(effective, site),
        *questions.ingress(effective),
        *questions.machines(api.machines(site), site),
    ]


def key_path(site: Site) -> Path:
    """The key that the proxy's log is fetched with, mode 0600; its public part is beside it."""
    return _home(site) / f"{site.name}.key"


def ca_path(site: Site) -> Path:
    """The proxy's CA, as it told it."""
    return _home(site) / f"{site.name}-ca.pem"


def _home(site: Site) -> Path:
    return private_dir(state_dir() / "gce" / site.project)


def _public_key(site: Site) -> str:
    """The public part of the network's own key, made when it is first wanted."""
    path, public = key_path(site), key_path(site).with_suffix(".pub")
    if not (path.is_file() and public.is_file()):
        key = RunKey()
        key.write(path)
        public.write_text(key.public)
    return f"{public.read_text().strip()} {proxyvm.USER}"


def _place(site: Site) -> tuple[str, str, str]:
    """What cannot be changed in place."""
    return site.zone, site.nodes, site.proxy


def _authority(site: Site, pem: str) -> Certificate | None:
    if not site.intercept:
        return None
    if not pem:
        raise InfraError(f"{site.proxy_name} runs, and has not told its CA", hint="repeat it")
    try:
        certificate = load_certificate(pem.encode())
    except DERError as error:
        raise InfraError(f"{site.proxy_name} told no certificate as its CA: {error}") from error
    ca_path(site).write_text(pem)
    return certificate
