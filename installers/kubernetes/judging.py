"""What the facts of a node mean for a cluster: findings, each with its way out."""

from __future__ import annotations

import functools
import json
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

from installers import glibc, noproxy, space
from installers.collect.kubernetes import MODULES, SYSCTLS
from installers.collect.resolver import RESOLV_CONF, STUBS, UPSTREAM
from installers.glibc import Need
from installers.kubernetes.wanted import Cluster

#: What has to be asked of a node (installers.facts.AREAS).
AREAS = ("os", "kernel", "proxy", "loaded_modules", "volumes", "kubernetes", "processes")
SEVERITIES = ("blocker", "major", "note")
#: Smaller disks are firmware's, or hold a configuration.
_LEAST_VOLUME = 8 << 30
_GIB = 1 << 30
#: Units that fetch images or talk to the API server.
_OF_THE_CLUSTER = ("kubelet", "containerd", "docker", "crio")


@dataclass(frozen=True)
class Finding:
    """``severity``: blocker (the cluster will not work), major (something in it will not), note."""

    code: str
    severity: str
    what: str
    remedy: str
    evidence: list[str] = field(default_factory=list)


def judge(
    facts: Mapping[str, Any],
    wanted: Cluster,
    needs: Sequence[Need] = (),
    budgets: Optional[Mapping[str, int]] = None,
) -> list[Finding]:
    """Findings, worst first. ``facts``: of AREAS; ``needs``: what is to run on the host;
    ``budgets``: bytes for each use of a disk.
    """
    here = facts.get("kubernetes") or {}
    found = [
        *_system(facts),
        *_glibc(facts, needs),
        *_disk(here, facts.get("volumes") or [], budget() if budgets is None else budgets),
        *(_resolver(here) if here else ()),
        *(_containerd(here, wanted) if here else ()),
        *_daemons(facts, wanted),
        *(_kernel(here) if here else ()),
        *(_access(here) if here else ()),
    ]
    return sorted(found, key=lambda one: SEVERITIES.index(one.severity))


def in_the_way(findings: Sequence[Finding]) -> bool:
    """Whether any of them is more than a note."""
    return any(finding.severity != "note" for finding in findings)


@functools.lru_cache(maxsize=1)
def data() -> dict[str, Any]:
    """``data/kubernetes_node.json``."""
    text = pkgutil.get_data("installers", "data/kubernetes_node.json")
    loaded: dict[str, Any] = json.loads(text or b"")
    return loaded


def budget() -> dict[str, int]:
    """Bytes that each use of a disk is to find free."""
    return {use: int(size * _GIB) for use, size in data()["disk"]["gib"].items()}


def system(found: Mapping[str, Any]) -> dict[str, Any]:
    """{"tag", "image", "note", "sources"}: the vendor's driver image for an operating system.

    ``image`` is None where nobody has said whether there is one. ``found``: the facts ``os``.
    """
    name, version = str(found.get("id") or ""), str(found.get("version_id") or "")
    for row in data()["systems"]:
        known = [v for v in row["versions"] if v in ("", version) or version.startswith(f"{v}.")]
        if row["id"] == name and known:
            shown = version if row["id"] in ("ubuntu", "rhcos") else known[0] or version
            return {
                "tag": row["tag"].format(version=shown),
                "image": row["image"],
                "note": row.get("note", ""),
                "sources": row["sources"],
            }
    return {"tag": f"{name}{version}", "image": None, "note": "", "sources": []}


def ways_in(access: Mapping[str, Any]) -> list[str]:
    """How an operator gets in: by ssh, by an agent, by the serial console."""
    ways = [f"agent {name}" for name in access.get("agents") or []]
    ssh, serial = access.get("ssh") or {}, access.get("serial") or {}
    if ssh.get("listening") and ssh.get("keys"):
        ways.append(f"ssh as {', '.join(ssh['keys'])}")
    if serial.get("logins") and serial.get("passwords") != []:
        ways.append(f"serial console {', '.join(serial['logins'])}")
    return ways


def _system(facts: Mapping[str, Any]) -> Iterator[Finding]:
    if not facts.get("os"):
        return
    found = system(facts["os"])
    has_driver = "nvidia" in (facts.get("loaded_modules") or [])
    if found["image"] is False and not has_driver:
        yield Finding(
            "system.no-driver-image",
            "major",
            f"the operator's driver has no image for {found['tag']}",
            "install the driver on the node (this program does) and set driver.enabled=false in "
            "the operator's values, or take an image of Ubuntu",
            list(found["sources"]),
        )
    elif found["image"] is None:
        yield Finding(
            "system.unknown",
            "note",
            f"whether the operator's driver has an image for {found['tag']} is not known",
            f"ask the registry for nvcr.io/nvidia/driver:BRANCH-{found['tag']} before it is needed",
        )


def _glibc(facts: Mapping[str, Any], needs: Sequence[Need]) -> Iterator[Finding]:
    has = (facts.get("os") or {}).get("glibc")
    for need in needs:
        if need.damaged:
            shown = [f"{path}: {why}" for path, why in need.damaged[:5]]
            yield Finding(
                "glibc.damaged",
                "note",
                f"{need.source}: {len(need.damaged)} ELF files cannot be read",
                "take them from where they came once more",
                shown,
            )
        if need.version is None:
            continue
        if has is None:
            yield Finding(
                "glibc.unknown",
                "major",
                f"{need.source} needs the GNU C library {need.version}, and this node's is unknown",
                "a system without it (Alpine's musl) runs none of these programs",
                need.because,
            )
        elif glibc.number(need.version) > glibc.number(has):
            yield Finding(
                "glibc.too-old",
                "blocker",
                f"{need.source} needs the C library {need.version}; the node has {has}",
                "use an image of a newer system, or programs that were built for this one: the C "
                "library cannot be replaced by itself",
                need.because,
            )


def _disk(
    here: Mapping[str, Any], volumes: Sequence[Mapping[str, Any]], budgets: Mapping[str, int]
) -> Iterator[Finding]:
    idle = [
        f"/dev/{disk['name']}: {disk['size'] / _GIB:.0f} GiB, mounted nowhere"
        for disk in volumes
        if disk["size"] >= _LEAST_VOLUME and not disk["uses"]
    ]
    places = [place for place in here.get("places") or [] if budgets.get(place["use"])]
    mounts = {place["path"]: place for place in places}
    # kubelet evicts pods where less than a tenth of a file system is free.
    reserve = data()["disk"]["reserve"]
    needs = [
        (
            place["path"],
            place["device"],
            budgets[place["use"]],
            max(0, int(place["free"] - reserve * place["size"])),
        )
        for place in places
    ]
    for short in space.too_small(needs):
        one = mounts[short.paths[0]]
        advice = f"; {idle[0]}" if idle else ""
        yield Finding(
            "disk.too-small",
            "blocker",
            f"{one['source']} on {one['mount']} has {short.free / _GIB:.1f} GiB to give (a tenth "
            f"is kubelet's), and {short.need / _GIB:.0f} GiB are needed there",
            f"enlarge it, or mount a volume at {_largest(short.paths, mounts, budgets)}{advice}",
            [
                f"{path}: {budgets[mounts[path]['use']] / _GIB:.0f} GiB for {mounts[path]['use']}"
                for path in short.paths
            ],
        )
    if idle:
        yield Finding(
            "disk.unmounted",
            "major",
            f"{len(idle)} attached disks are mounted nowhere",
            "mount each where the space is needed, before that is filled",
            idle,
        )


def _largest(paths: Sequence[str], mounts: Mapping[str, Any], budgets: Mapping[str, int]) -> str:
    return max(
        (path for path in paths if path != "/"),
        key=lambda path: budgets[mounts[path]["use"]],
        default="/",
    )


def _resolver(here: Mapping[str, Any]) -> Iterator[Finding]:
    found = here["resolver"]
    held = [one for one in found["listeners"] if one["scope"] in ("stub", "wildcard")]
    evidence = [
        f"{one['protocol']} {one['address']}:53, {one['program'] or 'by whom only root can tell'}"
        for one in found["listeners"]
    ]
    if any(one["scope"] == "wildcard" for one in held):
        who = ", ".join(sorted({one["program"] or "?" for one in held}))
        yield Finding(
            "port53.wildcard",
            "major",
            f"{who} listens on port 53 of every address",
            "let it listen on addresses of its own, or the cluster's DNS on none of the host's",
            evidence,
        )
    elif held:
        yield Finding(
            "port53.stub",
            "major",
            "systemd-resolved's stub holds port 53: a DNS server that binds every address of the "
            "host gets 'address already in use'",
            "airlock-node.pyz apply --only kubernetes switches the stub off and keeps the "
            "resolver; never disable systemd-resolved: the node would resolve no names",
            evidence,
        )
    path = here["kubelet"]["resolv_conf"]
    looped = path == "/run/systemd/resolve/stub-resolv.conf" or (
        path == RESOLV_CONF and set(found["servers"]) & set(STUBS)
    )
    if looped:
        yield Finding(
            "kubelet.resolv-conf",
            "major",
            f"kubelet gives pods {path}, which names the node's own 127.0.0.53: CoreDNS asks "
            "itself ('Loop detected')",
            f"resolvConf: {UPSTREAM} in kubelet's configuration, or free port 53",
        )
    if not found["servers"]:
        yield Finding(
            "resolver.none",
            "major",
            f"{RESOLV_CONF} names no server"
            + (f" (a link to {found['link']})" if found["link"] else ""),
            "start systemd-resolved again, or write the servers there",
        )


def _containerd(here: Mapping[str, Any], wanted: Cluster) -> Iterator[Finding]:
    found = here["containerd"]
    if found is not None and found["why"]:
        yield Finding(
            "containerd.config",
            "blocker",
            f"containerd's configuration cannot be read: {found['why']}",
            "mend it; 'containerd config dump' says whether containerd takes it",
        )
        return
    missing = []
    for registry, url in wanted.mirrors.items():
        asked = ((found or {}).get("mirrors") or {}).get(registry) or {}
        urls = [asked.get("server"), *(one["url"] for one in asked.get("hosts") or [])]
        if set(urls) != {url}:
            told = ", ".join(sorted({str(one) for one in urls if one})) or "nothing"
            missing.append(f"{registry}: {told}, not {url} alone")
    if missing:
        yield Finding(
            "containerd.mirrors",
            "major",
            "containerd does not go to the mirrors that are wanted",
            "airlock-node.pyz apply --only kubernetes writes them",
            missing,
        )


def _daemons(facts: Mapping[str, Any], wanted: Cluster) -> Iterator[Finding]:
    proxied = bool((facts.get("proxy") or {}).get("environment"))
    for daemon in (facts.get("processes") or {}).get("daemons") or []:
        name = daemon["unit"]
        if name not in _OF_THE_CLUSTER:
            continue
        values = {key.lower(): value for key, value in daemon["variables"].items()}
        if not values.get("https_proxy"):
            if proxied:
                yield Finding(
                    "daemons.no-proxy-variables",
                    "major",
                    f"{name} (process {daemon['pid']}) was started without the proxy",
                    f"systemctl restart {name}, after its drop-in is written",
                )
            continue
        entries = [one for one in values.get("no_proxy", "").split(",") if one]
        missing = [
            entry
            for entry in (*wanted.names, *wanted.networks)
            if entry not in entries and not noproxy.matches(entry.strip("."), entries)
        ]
        if missing:
            yield Finding(
                "daemons.no-proxy-cluster",
                "major",
                f"{name} would ask the proxy for the cluster's own: no_proxy lacks "
                f"{', '.join(missing)}",
                "set airlock-kubernetes, airlock-service-cidr and airlock-pod-cidr in the "
                f"metadata, apply, and restart {name}",
            )


def _kernel(here: Mapping[str, Any]) -> Iterator[Finding]:
    found = here["kernel"]
    absent = [name for name in MODULES if found["modules"].get(name) == "absent"]
    if absent:
        yield Finding(
            "kernel.modules",
            "blocker",
            f"the kernel {found['release']} lacks {', '.join(absent)}",
            "boot a kernel that has them, or install its package of further modules",
        )
    wrong = [
        f"{name} is {found['sysctls'][name] or 'not there'}, not {value}"
        for name, value in SYSCTLS.items()
        if name in found["sysctls"] and found["sysctls"][name] != value
    ]
    if wrong:
        yield Finding(
            "kernel.sysctls",
            "major",
            "the kernel is not set up for services and pods",
            "airlock-node.pyz apply --only kubernetes sets them now and for every boot",
            wrong,
        )
    if found["release"] and not found["headers"]:
        yield Finding(
            "kernel.headers",
            "note",
            f"the headers of {found['release']} are not there",
            "a driver that is compiled on the node needs them; give its sources (or the driver "
            "container, by driver.repoConfig) a repository that has them",
        )


def _access(here: Mapping[str, Any]) -> Iterator[Finding]:
    access = here["access"]
    if not ways_in(access):
        ssh, serial = access["ssh"], access["serial"]
        yield Finding(
            "access.none",
            "major",
            "nobody gets into this node once something is wrong with it",
            "put an agent of the cloud (SSM) into the image and its role on the instance, or an "
            "authorized key, or a password for the serial console, before it is needed",
            [
                f"ssh: {'listens' if ssh['listening'] else 'does not listen'}, "
                f"{len(ssh['keys'])} accounts have keys",
                f"serial console: {', '.join(serial['consoles']) or 'none'}, "
                f"login on {', '.join(serial['logins']) or 'none'}",
                "agents: none",
            ],
        )
