"""``airlock doctor --provider gce``: everything that can be known before money is spent."""

from __future__ import annotations

from collections.abc import Callable

from harness.cloud import questions, upkeep
from harness.cloud.api import Google
from harness.cloud.images import refusal
from harness.cloud.network import Site
from harness.cloud.permissions import METHODS, NODES, needed
from harness.doctor import Finding
from harness.errors import AirlockError
from harness.providers.gce_config import Config

#: Of the project, for one network: two subnets, six rules.
_PROJECT = {"NETWORKS": 1.0, "FIREWALLS": 6.0}


def examine(site: Site, config: Config | None, api: Google | None = None) -> list[Finding]:
    """Ask Google. What cannot be asked is a finding too, and the others are asked all the same."""
    google = api or Google(site.project)
    groups: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("services", lambda: _services(google, site)),
        ("permissions", lambda: _permissions(google, site)),
        ("quota", lambda: _quota(google, site, config)),
        ("network", lambda: upkeep.look(google, site)),
    ]
    if config is not None:
        groups += [
            ("machine types", lambda: _machines(google, config)),
            ("images", lambda: _images(google, config)),
        ]
    found: list[Finding] = []
    for name, ask in groups:
        try:
            found += ask()
        except AirlockError as error:
            why = "could not be asked for"
            found.append(Finding(name, "missing", error.message, why, error.hint))
    return found


def _services(api: Google, site: Site) -> list[Finding]:
    states = [api.service(site.project, name) for name in questions.SERVICES]
    return questions.services({"services": states}, site.project)


def _permissions(api: Google, site: Site) -> list[Finding]:
    asked = needed(METHODS, NODES)
    return questions.permissions(api.granted(site.project, asked), asked)


def _quota(api: Google, site: Site, config: Config | None) -> list[Finding]:
    """Room for the network, its proxy, and one node."""
    region, project = api.quotas(site)
    proxy = {"IN_USE_ADDRESSES": 1.0, "INSTANCES": 2.0, "CPUS": 2.0}
    world = dict(_PROJECT)
    if config is not None:
        spot = config.provisioning == "spot"
        cpus = f"{'PREEMPTIBLE_' if spot else ''}CPUS"
        machine = api.thing(site, "machineTypes", config.machine_type) or {}
        proxy[cpus] = proxy.get(cpus, 0.0) + float(machine.get("guestCpus", 0))
        cards = {config.accelerator: config.accelerators} if config.accelerator else {}
        for one in machine.get("accelerators", []):
            cards[one["guestAcceleratorType"]] = int(one["guestAcceleratorCount"])
        for accelerator, count in cards.items():
            proxy[questions.accelerator_metric(accelerator, spot=spot)] = float(count)
            world["GPUS_ALL_REGIONS"] = world.get("GPUS_ALL_REGIONS", 0.0) + count
    return [
        *questions.quota(region, proxy, site.region, site.project),
        *questions.quota(project, world, "the project", site.project),
    ]


def _machines(api: Google, config: Config) -> list[Finding]:
    """Are the machine type and the cards to be had in each zone of the file?"""
    found = []
    for zone in config.zones:
        site = Site(config.project, zone)
        why = "nodes are of this type"
        wanted = [("machineTypes", config.machine_type)]
        if config.accelerator:
            wanted.append(("acceleratorTypes", config.accelerator))
        lacking = [name for kind, name in wanted if api.thing(site, kind, name) is None]
        if lacking:
            what, fix = f"no {' and no '.join(lacking)}", f"{config.path}: name another zone"
            found.append(Finding(f"zone {zone}", "missing", what, why, fix))
        else:
            what = ", ".join(name for _, name in wanted)
            found.append(Finding(f"zone {zone}", "ok", what, why))
    return found


def _images(api: Google, config: Config) -> list[Finding]:
    """Do the file's images exist, and can they be booted under Secure Boot?"""
    found = []
    arch = {"x86_64": "X86_64", "aarch64": "ARM64"}[config.arch]
    for name, source in config.images.items():
        why = f"[images.{name}] of {config.path}"
        try:
            image = api.image(source.source)
        except AirlockError as error:
            found.append(Finding(f"image {name}", "missing", error.message, why, error.hint))
            continue
        if problem := refusal(image, arch):
            found.append(Finding(f"image {name}", "missing", problem, why, "name another"))
        elif source.own_keys and not image.trusted:
            what = "own_keys is true, and the image brings no list of certificates"
            found.append(Finding(f"image {name}", "missing", what, why, "airlock gce trust"))
        else:
            what = f"{image.link}, id {image.id}, {image.created:%Y-%m-%d}"
            level = "note" if image.deprecated else "ok"
            found.append(Finding(f"image {name}", level, what, why))
    return found
