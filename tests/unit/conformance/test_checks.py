"""Good nodes pass everything; each sabotage fails its checks with the right words and no other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from conformance.hygiene import test_baked_in
from conformance.proxy import test_service
from harness.catalog import load_catalog
from harness.checks import SEVERITIES, Check, NotVerified, why_not
from harness.matrix import find_matrix, load_matrix
from harness.node import CellNames, Node
from harness.patterns import shipped
from harness.sabotage import load_sabotages
from harness.station import CARDS
from tests.unit.conformance import good
from tests.unit.conformance.breaks_deferred import BREAKS
from tests.unit.conformance.conftest import ROOT, Said
from tests.unit.conformance.lived_in import LIVED_IN

CONFORMANCE = ROOT / "conformance"


SABOTAGES = load_sabotages(CONFORMANCE)
#: What a console shows fails a cell as a check does: see test_patterns.
CONSOLE = {f"console.{pattern.name}" for pattern in shipped().patterns}
#: Those that a directory is enough for are run, not written down: see test_lived_in.
#: Those of the cards need more than facts: see test_gpu_tree.
OF_CARDS = {
    name
    for name, sabotage in SABOTAGES.items()
    if {check.partition(".")[0] for check in sabotage.kills} <= {*CARDS} and sabotage.kills
}
#: Those of clusters have an API for a shell: see test_cluster_tree.
CLUSTER = "kubernetes"
OF_CLUSTERS = set(load_sabotages(CONFORMANCE, CLUSTER))


# Sabotage or extra break -> check that fails -> words its message must hold.
WORDS = {
    "secure-boot-off": {"secure-boot.enabled": "Secure Boot is off"},
    "setup-mode": {"secure-boot.enabled": "setup mode"},
    "lockdown-none": {"secure-boot.lockdown-integrity": "lockdown is 'none'"},
    "db-without-our-certificate": {
        "secure-boot.db-certificate": "the UEFI db does not hold the signing certificate 5e5e"
    },
    "db-without-microsoft": {
        "secure-boot.microsoft-ca": "holds no Microsoft UEFI CA",
        "secure-boot.ca-2023": "lacks Microsoft UEFI CA 2023",
    },
    "daemon-without-proxy": {"proxy.daemons": "kubelet (process 900): https_proxy: not set"},
    "password-shown": {"proxy.password-private": "/root/.curlrc: mode 0644"},
    "password-in-arguments": {"hygiene.arguments": "process 901: python3 --proxy http://***@"},
    "kernel-died": {"system.taint": "the kernel died"},
    "also: a module that was forced": {"system.taint": "a module was forced to load"},
    "inodes-used-up": {"system.inodes": "/srv: 0 of 8 left"},
    "drop-in-not-loaded": {"system.reloaded": "airlock-proxy.service"},
    "order-not-loaded": {
        "deferred.order": "has no Requires=dataproc-gpu-config.service",
        "system.reloaded": "hadoop-yarn-nodemanager.service",
    },
    "script-says-more": {"deferred.spark-finds": "printed no JSON of Spark's"},
    "also: a script that finds too few": {"deferred.spark-finds": "names 1 cards, and there are 2"},
    "shim-told-not-to-verify": {"secure-boot.shim-verifies": "validation is switched off"},
    "also: a daemon that does not know no_proxy": {"proxy.daemons": "no_proxy is not set"},
    "also: a shim without generations": {"secure-boot.shim-current": "has no SBAT data"},
    "also: a shim below the firmware's level": {"secure-boot.shim-current": "5 is needed"},
    "firmware-without-secure-boot": {
        "secure-boot.enabled": "Secure Boot is off",
        "secure-boot.lockdown-integrity": "lockdown is 'none'",
        "modules.control-unsigned": "got ENODEV, not EKEYREJECTED: the kernel took it",
        "modules.control-stranger": "got ENODEV, not EKEYREJECTED: the kernel took it",
        "modules.not-tainted-unsigned": "bit 13",
    },
    "certificate-not-enrolled": {
        "secure-boot.db-certificate": "does not hold the signing certificate",
        "modules.control-ours": "refused our own nvidia module: EKEYREJECTED",
    },
    "stranger-enrolled": {"modules.control-stranger": "got ENODEV"},
    "unsigned-module": {"modules.signature": "1 of 5 nvidia modules are not soundly signed"},
    "signed-twice": {"modules.signature": "1 of 5"},
    "stray-module": {
        "modules.audit": "1 of 4012 modules: /lib/modules/6.1.0-40-amd64/extra/loop.ko"
    },
    "builder-baked-in": {"hygiene.baked-in": "/etc/default/cluster: the builder's instance/name"},
    "gpus-baked-in": {"hygiene.baked-in": "spark.executor.resource.gpu.amount is '4'"},
    "also: set-up of a user's own that never set the proxy": {
        "egress.build-ledger": "no file below /etc or /root ever named the proxy"
    },
    "also: packages that came through tunnels": {
        "egress.build-ledger": "the proxy intercepted no request of apt's"
    },
    "also: a cluster baked into the image": {
        "hygiene.baked-in": "yarn.resourcemanager.hostname is 'a-cluster-m'"
    },
    "also: a stamp baked into the image": {"hygiene.baked-in": "a configuration's stamp"},
    "also: an audit of nothing": {"modules.audit": "saw no module at all"},
    "altered-module": {
        "modules.signature": "1 of 5",
        "modules.control-ours": "refused our own nvidia module: EKEYREJECTED",
        "cache.contents": "1 modules are not those",
    },
    "missing-module": {
        "modules.present": "no nvidia_drm module for the boot kernel 6.1.0-40",
        "cache.contents": "1 modules are not those",
    },
    "doubled-module": {"modules.present": "more than one file for nvidia_uvm"},
    "wrong-vermagic": {
        "modules.vermagic": "1 nvidia modules were built for another kernel",
        "modules.signature": "1 of 5",
    },
    "newer-kernel": {"modules.boot-kernel": "kernel 99.0.0-1-amd64 is newer than 6.1.0-40"},
    "unsigned-taint": {"modules.not-tainted-unsigned": "bit 13"},
    "modules-disabled": {
        "modules.control-unsigned": "got EPERM, not EKEYREJECTED: refused for another reason",
        "modules.control-stranger": "got EPERM, not EKEYREJECTED: refused for another reason",
        "modules.control-ours": "refused our own nvidia module: EPERM",
    },
    "gpu-config-not-required": {"deferred.unit": "10-airlock-gpu.conf: absent"},
    "gpu-config-of-another-boot": {"deferred.applied": "of another boot"},
    "gpu-config-failed": {
        "deferred.applied": "ended as 'failed'",
        "deferred.daemon": "runs although the configuration failed",
    },
    "stamp-of-another-machine": {"deferred.stamp": "the stamp is of gce:1, this is gce:4711"},
    "resource-types-missing": {"deferred.yarn": "resource-types.xml: yarn.resource-types is None"},
    "calculator-of-memory-alone": {"deferred.yarn": "DefaultResourceCalculator', not"},
    "task-share-refused": {"deferred.spark": "refuses a task's share of 0.9 of 1"},
    "node-manager-stopped": {"deferred.daemon": "nodemanager.service is inactive"},
    "gpu-config-may-fail": {"deferred.fails-closed": "ran although its configuration had failed"},
    "gpu-config-once": {
        "deferred.stale-stamp": "the stamp of gce:1 is still there",
        "deferred.second-boot": "the second boot configured nothing",
        "deferred.fails-closed": "ran although its configuration had failed",
        "deferred.applied": "of another boot",
        "deferred.stamp": "the stamp is of gce:1",
    },
    "environment-of-another-lock": {"conda.installed": "is of lock 0000000000000000, not 1a1a"},
    "environment-patched-in-place": {"conda.files": "1 of 600 files of lab: tensors/__init__.py"},
    "environment-file-lost": {
        "conda.files": "4 of 600 files of lab: models/__init__.py",
        "conda.imports": "cannot import lab: models: ModuleNotFoundError",
    },
    "module-shadowed": {
        "conda.imports": "lab/bin/python does not run",
        "conda.strays": "lab: json.py is no package's",
    },
    "kernel-not-registered": {"conda.kernel": "the kernel of lab starts None"},
    "also: an environment that is elsewhere": {"conda.installed": "lab is at /opt/conda, not at"},
    "also: an environment without a file": {"conda.files": "lab has no files at all"},
    "also: a second boot that failed": {"deferred.second-boot": "ended as 'failed'"},
    "also: a failed configuration that says it went well": {
        "deferred.fails-closed": "ended as 'configured'"
    },
    "also: an executor that isolates nothing": {"deferred.yarn": "does not isolate GPUs"},
    "also: a torn yarn-site.xml": {"deferred.yarn": "yarn-site.xml cannot be read"},
    "also: a task without a share": {"deferred.spark": "tasks share a GPU silently"},
    "stale-environment": {"proxy.environment": "HTTP_PROXY: http://10.0.2.100:9; expected"},
    "stale-profile": {"proxy.profile": "HTTPS_PROXY: http://10.0.2.100:9; expected"},
    "stale-manager": {"proxy.systemd-manager": "https_proxy: http://10.0.2.100:9; expected"},
    "apt-direct": {"proxy.apt": "'DIRECT' is not a proxy URL"},
    "apt-direct-host": {"proxy.apt": "goes around the proxy for mirror.example.org"},
    "stale-curl": {"proxy.curl": "http://10.0.2.100:9; expected"},
    "wget-switched-off": {"proxy.wget": "switched off"},
    "stale-git": {"proxy.git": "http://10.0.2.100:9; expected"},
    "stale-pip": {"proxy.pip": "http://10.0.2.100:9; expected"},
    "no-proxy-network": {"proxy.no-proxy": "differs between its cases or places"},
    "no-proxy-everywhere-odd": {"proxy.no-proxy": "a port is understood by Go only"},
    "service-stopped": {"proxy.service": "it is inactive"},
    "service-failed": {
        "proxy.service": "failed: exit-code",
        "system.running": "airlock-proxy.service",
    },
    "password-copied": {"proxy.credentials-listed": "1 files hold the proxy password"},
    "password-wrong": {"proxy.auth-required": "credentials got 407 from the proxy, not 200"},
    "ca-removed": {
        "trust.os-store": "does not hold the proxy's CA",
        "trust.tls-through-proxy": "SSL certificate problem",
    },
    "ca-appended": {"trust.os-store-once": "holds the proxy's CA 2 times"},
    "curl-own-store": {"trust.tls-through-proxy": "curl: (77)"},
    "curl-insecure": {"trust.tls-needs-ca": "answered 200 although the proxy's CA was not trusted"},
    "direct-connection": {"egress.no-violation": "1 attempts to go around the proxy"},
    "direct-name": {"egress.no-violation": "1 attempts"},
    "metadata-by-proxy": {"egress.metadata-not-proxied": "asked for the metadata server"},
    "request-before-proxy": {
        "egress.build-ledger": "2.500 s before the proxy was set",
        "cache.hit-fetches-nothing": "and 1 packages were fetched",
    },
    "request-unplanned": {
        "egress.build-planned": "1 hosts were asked that the plan does not name",
        "egress.build-ledger": "2.500 s before the proxy was set",
    },
    "capture-blind": {"egress.probes-seen": "does not hold all of our probes"},
    "private-key-left": {"hygiene.private-keys": "1 private keys"},
    "password-logged": {"hygiene.secrets": "1 files hold a secret"},
    "package-cache-left": {"hygiene.build-leftovers": "1 files and 0 packages"},
    "ssh-host-keys-of-the-image": {"hygiene.ssh-host-keys": "they are the image's"},
    "machine-id-of-the-image": {"hygiene.machine-id": "s older than the image"},
    "failed-unit": {"system.running": "airlock-broken.service"},
    "kernel-oops": {"system.kernel-log": "unable to handle page fault"},
    "disk-full": {"system.disk": "1 file systems are nearly full"},
    "clock-two-days-behind": {"system.clock": "2 days behind"},
    "port-taken": {"system.ports-free": "taken: tcp 127.0.0.53:53"},
    "volume-unmounted": {"system.volumes": "/dev/vdc: 100 GiB, mounted nowhere"},
    "glibc-old": {"system.glibc": "has the C library 2.9; its programs need 2.36"},
    "nouveau-named": {"modules.nouveau": "nouveau is loaded"},
    "egress-dropped": {"egress.refused-at-once": "2 of 2 attempts got no answer"},
    "google-unresolved": {"egress.google-direct": "storage.airlock.invalid"},
    "curl-slowed-down": {"proxy.throughput": "kB/s through the proxy, 256 are needed"},
    "curl-cut-short": {"proxy.whole-downloads": "curl: (63)"},
    "key-server-script": {"proxy.key-servers": "/usr/local/sbin/add-key:1: gpg --keyserver"},
    "keyring-of-a-stranger": {"keyrings.pinned": "holds 4CB50190207B4758A3F73A796ED0E7B82643E131"},
    "keyring-with-a-second-key": {"keyrings.pinned": "pinned is 0123456789ABCDEF"},
    "keyring-private": {"keyrings.file": "has mode 0600, not 0644"},
    "source-without-keyring": {
        "keyrings.signed-by": "is signed by any key that apt knows",
        "keyrings.every-source": "/etc/apt/sources.list.d/other.sources",
        "keyrings.no-conflict": "1 repositories have two keyrings",
    },
    "lists-too-old": {"keyrings.apt-verifies": "is expired"},
    "apt-insecure": {"keyrings.apt-refuses": "apt took the lists although the key"},
    "record-without-key": {
        "cache.provenance": "names no key of the cache: None",
        "cache.signed": "belongs to other inputs",
        "cache.contents": "5 modules are not those",
    },
    "entry-unsigned": {"cache.signed": "the manifest is not signed"},
    "entry-altered": {
        "cache.signed": "does not fit the manifest",
        "cache.contents": "1 modules are not those",
    },
    "tool-without-proxy": {"proxy.every-tool": "1 tools do not know the proxy"},
    "also: a tool that was never told": {"proxy.every-tool": "1 tools"},
    "also: a keybox": {"keyrings.file": "is keybox, not a binary"},
    "also: signed by somebody else": {"cache.signed": "is signed by 7777"},
    "also: a key baked into the image": {"hygiene.secrets": "built with 1 secrets in it"},
    "also: signed by a stranger": {"modules.signature": "1 of 5"},
    "also: another kernel's module, unsigned": {"modules.signature": "1 of 6"},
}


@pytest.mark.parametrize(
    ("name", "skipped"),
    [
        (
            "intercepted",
            {
                *("proxy.credentials-listed", "proxy.auth-required", "egress.google-direct"),
                "proxy.password-private",
            },
        ),
        (
            "authenticated",
            {
                *("trust.os-store", "trust.tls-through-proxy", "trust.tls-needs-ca"),
                *("trust.os-store-once", "egress.google-direct", "trust.hashed", "trust.java"),
                *("trust.bundles", "trust.environment", "trust.git", "trust.pip", "trust.conda"),
                *("trust.node", "trust.google"),
            },
        ),
    ],
)
def test_a_good_node_passes(
    said: Said, checks: Mapping[str, Any], name: str, skipped: set[str]
) -> None:
    found = said[name]
    assert set(found) == set(checks)
    skipped = {
        *skipped,
        *(check for check in checks if check.partition(".")[0] in {*CARDS, CLUSTER}),
    }
    wrong = {
        check: (entry["outcome"], entry["message"])
        for check, entry in found.items()
        if entry["outcome"] != ("skip" if check in skipped else "pass")
    }
    assert not wrong
    for check in skipped:
        assert found[check]["message"].startswith("does not apply: needs ")


def test_what_cannot_be_read_never_passes(said: Said) -> None:
    """But for those that look at what the lab saw or make a request, and read no facts."""
    passed = {check for check, entry in said["mute"].items() if entry["outcome"] == "pass"}
    assert passed == {
        "keyrings.apt-verifies",
        "keyrings.apt-refuses",
        "trust.tls-through-proxy",
        "proxy.throughput",
        "proxy.whole-downloads",
        "egress.no-violation",
        "egress.metadata-not-proxied",
        "egress.probes-seen",
        "egress.build-ledger",
        "egress.build-planned",
        "modules.audit",
        "hygiene.baked-in",
        "deferred.fails-closed",
        "deferred.stale-stamp",
        "deferred.second-boot",
    }
    others = {entry["outcome"] for c, entry in said["mute"].items() if c not in passed}
    assert others == {"not-verified", "skip"}, said["mute"]
    reason = said["mute"]["modules.present"]["message"]
    assert reason == "modules could not be read: the disk is gone"


def test_a_torn_file_of_the_image_may_hold_anything() -> None:
    """What the build could not read is no proof that nothing was baked in."""
    left = {"gpu_config": {"yarn": {"/etc/hadoop/conf/yarn-site.xml": None}}, "builder": []}
    cell = CellNames("debian-12", "proxy", "driver", "tree")
    node = Node("torn", cell, {}, None, {}, {"build": {"left": left}})  # type: ignore[arg-type]
    with pytest.raises(NotVerified, match=r"yarn-site\.xml could not be read"):
        test_baked_in.test_baked_in(node)


@pytest.mark.parametrize("name", sorted(BREAKS))
def test_a_break_kills_its_checks_and_no_other(said: Said, name: str) -> None:
    words = WORDS[name]
    outcome = SABOTAGES[name].outcome if name in SABOTAGES else "fail"
    killed = {check: entry for check, entry in said[name].items() if entry["outcome"] == outcome}
    assert set(killed) == set(words), {c: e["message"] for c, e in killed.items()}
    for check, text in words.items():
        assert text in killed[check]["message"]
    other = {e["outcome"] for c, e in said[name].items() if c not in killed}
    assert other <= {"pass", "skip", "not-verified"}


@pytest.mark.parametrize(
    "name",
    sorted(
        name
        for name, sabotage in SABOTAGES.items()
        if sabotage.kills and name not in {*OF_CARDS, *OF_CLUSTERS, *LIVED_IN}
    ),
)
def test_a_sabotage_declares_what_it_kills(name: str, checks: Mapping[str, Any]) -> None:
    sabotage = SABOTAGES[name]
    declared = {*sabotage.kills, *sabotage.dependants}
    assert declared <= {*checks, *CONSOLE}
    assert {*sabotage.kills} - CONSOLE <= {*WORDS[name]} <= declared
    assert name in BREAKS


def test_a_sabotage_in_another_environment_leaves_what_is_right_as_it_was() -> None:
    """Each can be put together with each scenario of the default matrix, and must fail there."""
    catalog = load_catalog()
    cells = load_matrix(find_matrix(None), catalog)
    made = [s for s in SABOTAGES.values() if s.scenario]
    assert len(made) >= 6
    for sabotage in made:
        for cell in cells:
            broken = sabotage.cell(cell, catalog)
            assert broken.scenario.name.startswith(f"{cell.scenario.name}+")
            assert broken.expected == cell.expected
            assert broken.scenario.secure_boot == cell.scenario.secure_boot


def test_a_sabotage_of_the_build_makes_another_image() -> None:
    assert SABOTAGES["request-before-proxy"].of_build
    assert SABOTAGES["key-server-answers-with-another-key"].of_build
    assert not SABOTAGES["unsigned-module"].of_build


def test_every_check_is_whole(checks: Mapping[str, tuple[Check, Path]]) -> None:
    for name, (check, path) in checks.items():
        assert check.area.replace("-", "_") == path.parent.name, name
        assert check.severity in SEVERITIES, name
        assert check.title, name
        assert check.remedy.endswith("."), name
        assert check.source, name
        assert set(check.depends) <= set(checks) - {name}, name


def test_every_check_has_a_sabotage(checks: Mapping[str, Any]) -> None:
    killed = {check for sabotage in SABOTAGES.values() for check in sabotage.kills}
    assert killed - CONSOLE == set(checks)


def test_a_broken_chain_of_dependencies_has_an_end(
    checks: Mapping[str, tuple[Check, Path]],
) -> None:
    def follow(name: str, seen: tuple[str, ...]) -> None:
        assert name not in seen, f"{name} depends on itself by {seen}"
        for other in checks[name][0].depends:
            follow(other, (*seen, name))

    for name in checks:
        follow(name, ())


def test_our_unit_is_not_asked_of_others() -> None:
    """Whoever sets the proxy by other means has no unit of ours."""
    [mark] = test_service.test_service.pytestmark  # type: ignore[attr-defined]
    cell = CellNames("debian-12", "proxy", "mine", "tree")
    expect = {"proxy_url_redacted": good.PROXY}
    for foreign, reason in ((False, ""), (True, "a user's own set-up set the proxy")):
        told = {**expect, "foreign_proxy": foreign}
        node = Node("a", cell, {}, None, told)  # type: ignore[arg-type]
        assert why_not(mark.args[0], node).removeprefix("does not apply: ") == reason
