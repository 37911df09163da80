"""The sabotages' own shell, on trees that the installers made and the collectors read."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from conformance.modules import test_files as modules
from conformance.proxy import test_no_proxy as bypass
from conformance.proxy import test_settings as proxies
from conformance.secure_boot import test_secure_boot as firmware
from fixtures.pki import Identity, make_signer
from harness.node import CellNames, Node
from installers.asn1 import load_certificate
from installers.collect import hygiene, search, secure_boot, system
from installers.collect import modules as module_facts
from installers.collect import proxy as proxy_facts
from installers.collect.reader import Reader, assignments
from tests.unit.conformance import good, trees
from tests.unit.conformance.conftest import ROOT
from tests.unit.conformance.double import ThisMachine

Checks = Mapping[str, Callable[..., None]]
PROXY: Checks = {
    "proxy.environment": proxies.test_environment,
    "proxy.profile": proxies.test_profile,
    "proxy.apt": proxies.test_apt,
    "proxy.curl": proxies.test_curl,
    "proxy.wget": proxies.test_wget,
    "proxy.git": proxies.test_git,
    "proxy.pip": proxies.test_pip,
    "proxy.no-proxy": bypass.test_no_proxy,
}
MODULES: Checks = {
    "modules.present": modules.test_present,
    "modules.signature": modules.test_signature,
    "modules.vermagic": modules.test_vermagic,
    "modules.boot-kernel": modules.test_boot_kernel,
}
DB: Checks = {
    "secure-boot.db-certificate": firmware.test_db_certificate,
    "secure-boot.microsoft-ca": firmware.test_microsoft_ca,
}
TABLES = {
    table["name"]: table
    for path in sorted((ROOT / "conformance").glob("*/sabotage.toml"))
    for table in tomllib.loads(path.read_text())["sabotage"]
}


def killed(checks: Checks, node: Node) -> set[str]:
    """Ids of the checks that fail; the others must pass."""
    ends = {name: trees.outcome(check, node) for name, check in checks.items()}
    assert {end[0] for end in ends.values()} <= {"pass", "fail"}, ends
    return {name for name, end in ends.items() if end[0] == "fail"}


def a_node(facts: Mapping[str, Any], expect: Mapping[str, Any], transport: ThisMachine) -> Node:
    cell = CellNames("debian-12", "tree", "driver", "tree")
    whole = {"unreadable": {}, **facts}
    return Node("tree", cell, whole, transport, expect)


@pytest.fixture
def transport(tmp_path: Path) -> ThisMachine:
    sample = good.intercepted("", "", "", 80)
    directory = tmp_path / "home"
    directory.mkdir()
    return ThisMachine(sample, directory, directory / "none", {})


@pytest.fixture(scope="module")
def signers() -> dict[str, Identity]:
    names = ("Airlock lab module signing", "Microsoft Corporation UEFI CA 2011")
    return {name.split()[0]: make_signer(name) for name in names}


@pytest.mark.parametrize("name", [t["name"] for t in TABLES.values() if "apply" in t])
def test_the_shell_is_shell(name: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-n", "-c", TABLES[name]["apply"]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("login", ["", "bob:p%40%3A%2F%25%23@"])
@pytest.mark.parametrize(
    "name",
    [
        "",
        *("stale-environment", "stale-profile", "apt-direct", "apt-direct-host", "stale-curl"),
        *("wget-switched-off", "stale-git", "stale-pip", "no-proxy-network"),
        "no-proxy-everywhere-odd",
    ],
)
def test_proxy_settings(tmp_path: Path, transport: ThisMachine, name: str, login: str) -> None:
    """The installers' own files are right as the checks see them, and each break is seen."""
    root = tmp_path / "tree"
    trees.settings(root, f"http://{login}10.0.2.100:3128")
    if name:
        trees.sabotage(root, TABLES[name]["apply"])
    environment = assignments((root / "etc/environment").read_text())
    effective = {k: v for k, v in environment.items() if "proxy" in k.lower()}
    facts = {"proxy": proxy_facts.collect(Reader(str(root)), effective)}
    expect = {"proxy_url_redacted": good.PROXY, "auth": bool(login)}
    node = a_node(facts, expect, transport)
    declared = {*TABLES[name]["kills"]} if name else set()
    assert killed(PROXY, node) == declared
    assert ("/etc/environment" in facts["proxy"]["credential_files"]) == bool(login)


@pytest.mark.parametrize(
    "name",
    [
        "",
        *("unsigned-module", "signed-twice", "altered-module", "missing-module"),
        *("doubled-module", "wrong-vermagic", "newer-kernel"),
    ],
)
def test_modules(
    tmp_path: Path, transport: ThisMachine, signers: dict[str, Identity], name: str
) -> None:
    """A real signature over a real ELF file, read back by the node's own code."""
    root, ours = tmp_path / "tree", signers["Airlock"]
    for module in good.MODULES:
        trees.module(root, module, ours)
    if name:
        trees.sabotage(root, TABLES[name]["apply"])
    reader = Reader(str(root))
    certificate = load_certificate(ours.der)
    found = module_facts.collect(reader, [certificate], module_facts.Seen())
    kernel = {**system.kernel(reader), "release": trees.RELEASE}
    expect = {"cert_sha256": ours.sha256, "boot_kernel": trees.RELEASE}
    node = a_node({"modules": found, "kernel": kernel}, expect, transport)
    table = TABLES.get(name, {"kills": []})
    declared = {*table["kills"], *table.get("dependants", ())} & set(MODULES)
    assert killed(MODULES, node) == declared


@pytest.mark.parametrize("name", ["", "db-without-our-certificate", "db-without-microsoft"])
def test_signature_database(
    tmp_path: Path, transport: ThisMachine, signers: dict[str, Identity], name: str
) -> None:
    """The script takes the right lists out of the variable, and the rest can still be read."""
    root = tmp_path / "tree"
    trees.signature_database(root, list(signers.values()))
    path = root / trees.DB
    if name:
        trees.sabotage(root, TABLES[name]["apply"])
        path = root / "run/sabotage"
    platform = [{"description": "Airlock lab module signing", "keyid": None}]
    facts = {
        "secure_boot": {
            "db": secure_boot.database(path.read_bytes()[4:]),
            "keyrings": {".platform": platform},
        }
    }
    expect = {"secure_boot": True, "cert_sha256": signers["Airlock"].sha256}
    node = a_node(facts, expect, transport)
    assert killed(DB, node) == ({*TABLES[name]["kills"]} if name else set())


@pytest.mark.parametrize(
    ("name", "where", "found"),
    [
        ("password-copied", "secrets", "/etc/environment.orig"),
        ("password-logged", "secrets", "/var/log/setup.log"),
        ("private-key-left", "private_keys", "/root/.ssh/id_ed25519"),
    ],
)
def test_what_a_search_finds(tmp_path: Path, name: str, where: str, found: str) -> None:
    """The node's own search finds what these leave behind."""
    root = tmp_path / "tree"
    trees.settings(root, "http://bob:p%40%3A%2F%25%23@10.0.2.100:3128")
    (root / "var/log").mkdir(parents=True)
    trees.sabotage(root, TABLES[name]["apply"])
    said = search.search([b"p@:/%#"], reader=Reader(str(root)))
    hits = [hit["path"] if isinstance(hit, dict) else hit for hit in said[where]]
    assert found in hits


def test_leftovers(tmp_path: Path) -> None:
    """What apt's cache holds is a leftover."""
    root = tmp_path / "tree"
    (root / "var/cache/apt/archives").mkdir(parents=True)
    assert not hygiene.collect(Reader(str(root)))["leftovers"]
    trees.sabotage(root, TABLES["package-cache-left"]["apply"])
    left = hygiene.collect(Reader(str(root)))["leftovers"]
    assert left == ["/var/cache/apt/archives/gcc-12_12.2.0-14_amd64.deb"]


def test_a_wrong_password_is_hidden_like_a_right_one(tmp_path: Path) -> None:
    """password-wrong changes the credentials and not the address."""
    root = tmp_path / "tree"
    trees.settings(root, "http://bob:p%40%3A%2F%25%23@10.0.2.100:3128")
    before = proxy_facts.collect(Reader(str(root)), {})
    trees.sabotage(root, TABLES["password-wrong"]["apply"])
    assert "airlock:expired@10.0.2.100" in (root / "root/.curlrc").read_text()
    assert proxy_facts.collect(Reader(str(root)), {}) == before
