"""A node that systemd boots, with its own systemd-resolved and containerd: before, after, rebooted.

Real: systemd, resolved, the libc's resolver, containerd, the node file. A double: the DNS server.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.catalog import load_catalog
from harness.lab import base
from harness.pack import pack
from harness.state import cache_dir
from tests.lab.deferred.container import Node, nspawn

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for systemd-nspawn"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
]
# resolved asks nobody while no link but lo is up with an address.
SERVER = "10.99.0.1"
DNS = f"""import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("{SERVER}", 53))
while True:
    question, peer = s.recvfrom(512)
    end = question.index(0, 12) + 5
    known = question[12:end - 5] == b"\\x04node\\x07example"
    wants = known and question[end - 4:end - 2] == b"\\0\\1"
    head = question[:2] + (b"\\x81\\x80" if known else b"\\x81\\x83")
    body = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4\\x0a\\x63\\0\\x07" if wants else b""
    counts = b"\\0\\1\\0" + bytes([bool(wants)]) + b"\\0\\0\\0\\0"
    s.sendto(head + counts + question[12:end] + body, peer)
"""
DNS_UNIT = f"""[Unit]
DefaultDependencies=no
[Service]
ExecStartPre=-ip link add up0 type veth peer name up1
ExecStartPre=-ip address add {SERVER}/24 dev up0
ExecStartPre=-ip link set up0 up
ExecStartPre=-ip link set up1 up
ExecStart=/usr/bin/python3 /usr/local/sbin/dns-double
[Install]
WantedBy=multi-user.target
"""
BIND = """import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    try:
        s = socket.socket(socket.AF_INET, kind); s.bind(("0.0.0.0", 53)); print("free")
    except OSError as error:
        print(error.strerror)
"""
ATTRIBUTES = {
    "airlock-kubernetes": "true",
    "airlock-registry-mirrors": "nvcr.io=https://registry.corp.example/nvcr",
    "airlock-service-cidr": "172.20.0.0/16",
    "airlock-pod-cidr": "10.244.0.0/16",
    "http-proxy": "proxy.example:3128",
}
STATUS = (
    "systemctl status -n 9 --no-pager dns-double systemd-resolved; resolvectl query node.example;"
    "resolvectl status; cat /etc/resolv.conf /etc/nsswitch.conf 2>&1"
)
PYZ = "/usr/lib/airlock/airlock-node.pyz"
LINKS = {
    "etc/systemd/system/sysinit.target.wants/systemd-resolved.service": "systemd-resolved.service",
    "etc/systemd/system/multi-user.target.wants/containerd.service": "containerd.service",
}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """Debian's root with its resolved and containerd, and the program that boots it."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-port53-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir()
        made = base.build(load_catalog().images["debian-12"], log=Path(scratch) / "log")
        left_out = ["--exclude=./dev/*", "--exclude=./boot/*", "--exclude=./usr/lib/modules/*"]
        subprocess.run(["tar", "-xpf", str(made.tar), "-C", str(root), *left_out], check=True)
        packages = ["systemd-resolved", "containerd", "runc"]
        subprocess.run(["apt-get", "download", "-q", *packages], cwd=scratch, check=True)
        for package in Path(scratch).glob("*.deb"):
            command = (
                f"dpkg-deb --fsys-tarfile {package} | tar -x -C {root} --keep-directory-symlink"
            )
            subprocess.run(command, shell=True, check=True)
        _furnish(root)
        yield root, nspawn(tmp_path_factory.mktemp("nspawn"))


def _furnish(root: Path) -> None:
    units = root / "etc/systemd/system"
    for name, unit in LINKS.items():
        link = root / name
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"/lib/systemd/system/{unit}")
    (units / "dns-double.service").write_text(DNS_UNIT)
    (units / "multi-user.target.wants/dns-double.service").symlink_to("../dns-double.service")
    (root / "usr/local/sbin/dns-double").write_text(DNS)
    (root / "usr/local/sbin/bind").write_text(BIND)
    (root / "etc/systemd/resolved.conf.d").mkdir(exist_ok=True)
    (root / "etc/systemd/resolved.conf.d/00-site.conf").write_text(
        f"[Resolve]\nDNS={SERVER}\nDNSSEC=no\n"
    )
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    (root / "etc/metadata.json").write_text(json.dumps({"instance": {"attributes": ATTRIBUTES}}))
    (root / PYZ[1:]).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(pack(cache_dir("node")).path, root / PYZ[1:])
    (root / "etc/machine-id").write_text("")
    for name in ("systemd-networkd-wait-online", "systemd-udevd", "ssh", "systemd-timesyncd"):
        (units / f"{name}.service").unlink(missing_ok=True)
        (units / f"{name}.service").symlink_to("/dev/null")


def _ask(node: Node, verb: str, *more: str) -> dict[str, Any]:
    argv = ["python3", PYZ, verb, "--metadata", "/etc/metadata.json", "--json", *more]
    said = node.run(*argv)
    answer: dict[str, Any] = json.loads(said)
    return answer


def _apply(node: Node, verb: str) -> None:
    answer = _ask(node, verb, "--only", "proxy,kubernetes")
    told = [(one["name"], one["problems"], one["refusals"]) for one in answer["installers"]]
    assert answer["exit"] == 0, str(told)


def _resolves(node: Node) -> bool:
    return node.run("getent", "hosts", "node.example").startswith("10.99.0.7")


def _bind(node: Node) -> list[str]:
    """What who binds every address of port 53 gets, while the double's own address is free."""
    node.run("systemctl", "stop", "dns-double")
    try:
        return node.run("python3", "/usr/local/sbin/bind").splitlines()
    finally:
        node.run("systemctl", "start", "dns-double")


def _codes(node: Node) -> set[str]:
    return {finding["code"] for finding in _ask(node, "preflight")["findings"]}


def _right(node: Node) -> None:
    """Port 53 is free, names resolve, nothing names the stub, and resolved goes on."""
    assert _resolves(node)
    assert _bind(node) == ["free", "free"]
    assert "127.0.0.53" not in (node.run("cat", "/etc/resolv.conf"))
    assert node.run("systemctl", "is-active", "systemd-resolved") == "active"
    assert "uplink" in node.run("resolvectl", "status")
    assert not {"port53.stub", "port53.wildcard", "kubelet.resolv-conf", "resolver.none"} & _codes(
        node
    )


def test_port_53_before_after_and_after_a_reboot(image: tuple[Path, Any]) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-node-") as scratch,
        Node(image[0], Path(scratch) / "port53", image[1]) as node,
    ):
        node.boot(agent=False)
        assert _resolves(node), node.run("sh", "-c", STATUS)
        assert _bind(node) == ["Address already in use"] * 2
        assert {"port53.stub", "kubelet.resolv-conf"} <= _codes(node)
        holders = _ask(node, "preflight")["findings"]
        (stub,) = (one for one in holders if one["code"] == "port53.stub")
        assert any("127.0.0.53:53, systemd-resolve" in line for line in stub["evidence"])

        _apply(node, "apply")
        _right(node)
        assert _ask(node, "apply", "--only", "kubernetes")["installers"][0]["outcome"] == (
            "unchanged"
        )

        node.stop()
        node.boot(agent=False)
        _right(node)
        _apply(node, "verify")
        dump = node.run("containerd", "config", "dump")
        assert 'config_path = "/etc/containerd/certs.d"' in dump
        facts = json.loads(node.run("python3", PYZ, "facts", "--json"))
        (daemon,) = (d for d in facts["processes"]["daemons"] if d["unit"] == "containerd")
        assert daemon["variables"]["HTTPS_PROXY"] == "http://proxy.example:3128"
        entries = daemon["variables"]["NO_PROXY"].split(",")
        assert {".svc", ".cluster.local", "172.20.0.1", "172.20.0.0/16", "10.244.0.0/16"} <= set(
            entries
        )
        assert not {code for code in _codes(node) if code.startswith("daemons.")}

        _apply(node, "remove")
        assert _resolves(node)
        assert _bind(node) == ["Address already in use"] * 2


def test_what_disabling_resolved_does(image: tuple[Path, Any]) -> None:
    """Why it is never done: names are gone at once, and after the next boot the file as well."""
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-node-") as scratch,
        Node(image[0], Path(scratch) / "disabled", image[1]) as node,
    ):
        node.boot(agent=False)
        node.run("systemctl", "disable", "--now", "systemd-resolved")
        assert not _resolves(node)
        node.stop()
        node.boot(agent=False)
        assert not _resolves(node)
        assert "resolver.none" in _codes(node)
