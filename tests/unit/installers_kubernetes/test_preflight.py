# ruff: noqa: ARG005 - every case is given the facts and the area, and most need one of them
"""Findings from facts, one thing wrong at a time; and the verb on a machine and on an image."""

from __future__ import annotations

import copy
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from installers import cli
from installers.facts import AREAS as EVERY
from installers.facts import Collector
from installers.glibc import Need
from installers.kubernetes import judging
from installers.kubernetes.wanted import Cluster, cluster
from tests.unit.installers_kubernetes.conftest import ATTRIBUTES
from tests.unit.installers_kubernetes.elves import elf

GIB = 1 << 30
URL = "https://registry.corp.example/v2/nvcr"
NO_PROXY = "localhost,.svc,.cluster.local,cluster.local,172.20.0.1,172.20.0.0/16,10.244.0.0/16"
GOOD: dict[str, Any] = {
    "os": {"id": "ubuntu", "version_id": "22.04", "glibc": "2.35"},
    "loaded_modules": [],
    "proxy": {"environment": {"http_proxy": "http://proxy.example:3128"}},
    "volumes": [{"name": "nvme0n1", "size": 100 * GIB, "uses": ["/"]}],
    "processes": {
        "daemons": [
            {
                "unit": "containerd",
                "pid": 7,
                "variables": {"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": NO_PROXY},
            }
        ]
    },
    "kubernetes": {
        "resolver": {
            "listeners": [],
            "resolved": True,
            "stub": "no",
            "link": "../run/systemd/resolve/resolv.conf",
            "servers": ["10.0.0.2"],
            "upstream": ["10.0.0.2"],
        },
        "kubelet": {
            "path": "/usr/bin/kubelet",
            "config": None,
            "resolv_conf": "/etc/resolv.conf",
            "why": None,
        },
        "containerd": {
            "why": None,
            "mirrors": {
                "nvcr.io": {"server": URL, "hosts": [{"url": URL}]},
                "_default": {"server": "https://registry.corp.example:8443", "hosts": []},
            },
        },
        "kernel": {
            "release": "5.15.0-1-aws",
            "modules": {"overlay": "loaded", "br_netfilter": "available"},
            "sysctls": {
                "net.ipv4.ip_forward": "1",
                "net.bridge.bridge-nf-call-iptables": "1",
                "net.bridge.bridge-nf-call-ip6tables": "1",
            },
            "headers": "/usr/src/linux-headers-5.15.0-1-aws",
        },
        "places": [
            {
                "use": use,
                "path": path,
                "mount": "/",
                "source": "/dev/nvme0n1p1",
                "device": 66305,
                "size": 100 * GIB,
                "free": 90 * GIB,
            }
            for use, path in (("root", "/"), ("containerd", "/var/lib/containerd"))
        ],
        "access": {
            "ssh": {"listening": [], "keys": []},
            "serial": {"consoles": ["ttyS0"], "logins": [], "passwords": []},
            "agents": ["amazon-ssm-agent"],
        },
    },
}


def wanted() -> Cluster:
    found = cluster(ATTRIBUTES)
    assert found is not None
    return found


def found(change: Callable[[Any, Any], Any], *needs: Need) -> list[judging.Finding]:
    facts = copy.deepcopy(GOOD)
    change(facts, facts["kubernetes"])
    return judging.judge(facts, wanted(), needs)


def test_nothing_is_in_the_way_of_a_good_node() -> None:
    assert found(lambda facts, here: None, Need("x", version="2.34")) == []


def listener(address: str, scope: str, program: str | None) -> dict[str, Any]:
    return {"protocol": "udp", "address": address, "scope": scope, "pid": 1, "program": program}


def small(facts: Any, here: Any) -> None:
    for place in here["places"]:
        place.update(size=20 * GIB, free=16 * GIB)
    facts["volumes"].append({"name": "nvme1n1", "size": 100 * GIB, "uses": []})


def elsewhere(facts: Any, here: Any) -> None:
    """The root is small and full enough, and containerd's folder is on another disk."""
    small(facts, here)
    facts["volumes"][-1]["uses"] = ["/data"]
    here["places"][1].update(device=66306, mount="/data", size=100 * GIB, free=99 * GIB)


def with_driver(facts: Any, _here: Any) -> None:
    facts["os"].update(id="amzn", version_id="2023")
    facts["loaded_modules"] = ["nvidia"]


CASES: list[tuple[Callable[[Any, Any], Any], dict[str, str]]] = [
    (
        lambda f, h: h["resolver"].update(
            listeners=[listener("127.0.0.53", "stub", "systemd-resolve")],
            servers=["127.0.0.53"],
            link="../run/systemd/resolve/stub-resolv.conf",
        ),
        {"port53.stub": "stub holds port 53", "kubelet.resolv-conf": "asks itself"},
    ),
    (
        lambda f, h: h["resolver"].update(listeners=[listener("0.0.0.0", "wildcard", "dnsmasq")]),
        {"port53.wildcard": "dnsmasq listens"},
    ),
    (lambda f, h: h["resolver"].update(listeners=[listener("10.0.0.1", "address", "x")]), {}),
    (lambda f, h: h["resolver"].update(servers=[]), {"resolver.none": "names no server"}),
    (
        lambda f, h: h["kubelet"].update(resolv_conf="/run/systemd/resolve/stub-resolv.conf"),
        {"kubelet.resolv-conf": "stub-resolv.conf"},
    ),
    (
        small,
        {
            "disk.too-small": "has 14.0 GiB to give (a tenth is kubelet's), and 27 GiB",
            "disk.unmounted": "1 attached disks",
        },
    ),
    (elsewhere, {}),
    (
        lambda f, h: f["os"].update(id="amzn", version_id="2023"),
        {"system.no-driver-image": "no image for amzn2023"},
    ),
    (
        lambda f, h: (
            f["os"].update(id="amzn", version_id="2"),
            f.update(loaded_modules=["nvidia"]),
        ),
        {},
    ),
    (lambda f, h: f["os"].update(id="rhel", version_id="9.6"), {}),
    (
        lambda f, h: f["os"].update(id="plan9", version_id="4"),
        {"system.unknown": "plan94 is not known"},
    ),
    (
        lambda f, h: h["containerd"].update(why="/etc/containerd/config.toml: line 3: no"),
        {"containerd.config": "line 3"},
    ),
    (
        lambda f, h: h["containerd"]["mirrors"]["nvcr.io"].update(server="https://nvcr.io"),
        {"containerd.mirrors": "does not go to the mirrors"},
    ),
    (lambda f, h: h.update(containerd=None), {"containerd.mirrors": "does not go"}),
    (
        lambda f, h: f["processes"]["daemons"][0].update(variables={}),
        {"daemons.no-proxy-variables": "containerd (process 7)"},
    ),
    (
        lambda f, h: f["processes"]["daemons"][0]["variables"].update(NO_PROXY="localhost,.svc"),
        {"daemons.no-proxy-cluster": "lacks .cluster.local, 172.20.0.1, 172.20.0.0/16"},
    ),
    (
        lambda f, h: h["kernel"]["modules"].update(br_netfilter="absent"),
        {"kernel.modules": "lacks br_netfilter"},
    ),
    (
        lambda f, h: h["kernel"]["sysctls"].update({"net.ipv4.ip_forward": "0"}),
        {"kernel.sysctls": "not set up"},
    ),
    (lambda f, h: h["kernel"].update(headers=None), {"kernel.headers": "5.15.0-1-aws"}),
    (lambda f, h: h["access"].update(agents=[]), {"access.none": "nobody gets into"}),
    (
        lambda f, h: h["access"].update(
            agents=[], ssh={"listening": ["0.0.0.0:22"], "keys": ["ubuntu"]}
        ),
        {},
    ),
    (
        lambda f, h: h["access"].update(
            agents=[], serial={"consoles": ["ttyS0"], "logins": ["ttyS0"], "passwords": []}
        ),
        {"access.none": "nobody"},
    ),
]


@pytest.mark.parametrize(("change", "codes"), CASES, ids=range(len(CASES)))
def test_one_thing_is_wrong(change: Callable[[Any, Any], Any], codes: dict[str, str]) -> None:
    findings = found(change)
    assert {one.code for one in findings} == set(codes)
    for one in findings:
        assert codes[one.code] in one.what
        assert one.remedy


def test_the_field_reports_disk() -> None:
    """The finding names the volume that nobody mounted, and where it would be of use."""
    first = found(small)[0]
    assert first.code == "disk.too-small"
    assert "at /var/lib/containerd; /dev/nvme1n1: 100 GiB, mounted nowhere" in first.remedy


def test_the_c_library() -> None:
    needs = (Need("old.whl", version="2.26"), Need("new.whl", version="2.38", because=["x.so"]))
    (one,) = found(lambda facts, here: None, *needs)
    assert (one.code, one.severity, one.evidence) == ("glibc.too-old", "blocker", ["x.so"])
    assert "new.whl needs the C library 2.38; the node has 2.35" in one.what
    (one,) = found(lambda facts, here: facts["os"].update(glibc=None), needs[0])
    assert one.code == "glibc.unknown"
    (one,) = found(lambda facts, here: None, Need("x", damaged=[("a", "cut off")]))
    assert (one.code, one.severity) == ("glibc.damaged", "note")


def test_the_data_has_sources() -> None:
    for row in judging.data()["systems"]:
        assert row["sources"], row["id"]
        assert all(url.startswith("https://") for url in row["sources"])
    assert set(judging.AREAS) <= set(EVERY)


def test_facts_of_this_machine() -> None:
    """Every part is there, and a listener of ours on port 53's neighbour is not taken for one."""
    facts = Collector().collect(only=judging.AREAS)
    here = facts["kubernetes"]
    assert set(here) == set(GOOD["kubernetes"])
    assert set(here["resolver"]) == set(GOOD["kubernetes"]["resolver"])
    assert set(here["kernel"]["sysctls"]) == set(GOOD["kubernetes"]["kernel"]["sysctls"])
    root = here["places"][0]
    assert (root["use"], root["mount"]) == ("root", "/")
    assert all(place["real"].startswith("/") for place in here["places"])
    judging.judge(facts, wanted())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for port 53")
def test_who_holds_port_53() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.53", 53))
        facts = Collector().collect(only=["kubernetes"])["kubernetes"]["resolver"]
    (one,) = (item for item in facts["listeners"] if item["address"] == "127.0.0.53")
    assert (one["protocol"], one["scope"], one["pid"]) == ("udp", "stub", os.getpid())
    assert one["program"]


def test_the_verb_on_an_image(
    root: Path, tmp_path: Path, metadata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf({"libc.so.6": ["GLIBC_2.38"]}))
    libc = root / "lib/x86_64-linux-gnu/libc.so.6"
    libc.parent.mkdir(parents=True)
    libc.write_bytes(elf(offers=["libc.so.6", "GLIBC_2.2.5", "GLIBC_2.26", "GLIBC_PRIVATE"]))
    argv = ["preflight", f"--root={root}", f"--metadata={metadata}", "--json"]
    argv.append(f"--host-binaries={program}")
    assert cli.main(argv) == 1
    answer = json.loads(capsys.readouterr().out)
    codes = {one["code"]: one for one in answer["findings"]}
    assert "needs the C library 2.38; the node has 2.26" in codes["glibc.too-old"]["what"]
    assert "containerd.mirrors" in codes
    assert answer["needs"][0]["version"] == "2.38"
    assert answer["unreadable"]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--root=/nowhere"], "--root /nowhere: is not a directory"),
        (["--disk=home=3"], "--disk: there is no use 'home'"),
        (["--disk=root=much"], "--disk root: 'much' is no number of GiB"),
        (["--host-binaries=/nowhere"], "/nowhere: cannot be read: No such file"),
        (["--host-binaries=/etc/passwd"], "/etc/passwd: cannot be read: is neither"),
        (["--metadata=/nowhere.json"], "/nowhere.json: No such file or directory"),
    ],
)
def test_bad_input(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preflight", *argv]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
