"""The driver's installer: refusals before anything is fetched, state compared by value."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fixtures.pki import Authority, Identity
from fixtures.signer import SignerServer
from installers import audit, driver, kernels, kmods, modsig, newkernel, signed
from installers.asn1 import read_certificate
from installers.config import Config, NodeKey
from installers.driver import Driver
from installers.engine import diff
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Journal
from tests.unit.installers_driver import material

KERNEL = "6.1.0-56-cloud-amd64"
SOURCES = "deb https://mirror.invalid/debian bookworm main contrib non-free non-free-firmware\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A Debian 12 image with a kernel and complete apt sources."""
    host = Host(tmp_path)
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
    host.write("/etc/apt/sources.list", SOURCES)
    host.write(f"/lib/modules/{KERNEL}/modules.builtin", "")
    return host


@pytest.fixture
def config(server: SignerServer) -> Config:
    return Config(signer=str(server.path), secure_boot="required", image_build=True)


def _codes(config: Config, host: Host) -> list[str]:
    refusals = Driver(config).refuse(host)
    assert all(refusal.reason and refusal.remedy for refusal in refusals)
    return [refusal.code for refusal in refusals]


def test_a_good_image_is_not_refused(config: Config, host: Host) -> None:
    assert _codes(config, host) == []
    contract = Driver(config).contract(host)
    assert contract.hosts == ["mirror.invalid"]
    assert contract.disk
    assert contract.bytes
    assert any("pci-resize-resource" in note for note in contract.notes)


def test_debian_11_is_refused_under_secure_boot(config: Config, host: Host) -> None:
    kernel = Path(host.path(f"/lib/modules/{KERNEL}"))
    kernel.rename(kernel.with_name("5.10.0-32-cloud-amd64"))
    (refusal,) = Driver(config).refuse(host)
    assert refusal.code == "driver.kernel-ignores-db"
    assert "UEFI db" in refusal.reason
    assert "Debian 12" in refusal.remedy
    relaxed = Config(signer=config.signer, secure_boot="off")
    assert _codes(relaxed, host) == []


def test_a_kernel_nobody_measured_is_noted(config: Config, host: Host) -> None:
    kernel = Path(host.path(f"/lib/modules/{KERNEL}"))
    kernel.rename(kernel.with_name("6.6.1-amd64"))
    assert _codes(config, host) == []
    assert any("nobody has measured" in note for note in Driver(config).contract(host).notes)


def test_other_systems_and_no_kernel(config: Config, host: Host) -> None:
    wanted = Config(signer=config.signer, boot_kernel="6.1.0-99")
    (refusal,) = Driver(wanted).refuse(host)
    assert (refusal.code, "6.1.0-99" in refusal.reason) == ("driver.kernel", True)
    host.remove("/lib/modules")
    assert _codes(config, host) == ["driver.kernel"]
    assert Driver(config).contract(host).bytes == 0
    host.write("/etc/os-release", "ID=rocky\n")
    assert _codes(config, host) == ["driver.system"]


@pytest.mark.parametrize(
    ("components", "named"),
    [("main", "contrib and non-free"), ("main contrib", "non-free"), ("main non-free", "contrib")],
)
def test_missing_components(config: Config, host: Host, components: str, named: str) -> None:
    host.write("/etc/apt/sources.list", f"deb http://mirror.invalid bookworm {components}\n")
    (refusal,) = Driver(config).refuse(host)
    assert refusal.code == "driver.apt-components"
    assert f"component(s) {named}," in refusal.reason


def test_no_signer(host: Host, tmp_path: Path) -> None:
    assert _codes(Config(), host) == ["driver.no-signer"]
    assert _codes(Config(signer=str(tmp_path / "nobody")), host) == ["driver.signer"]


def test_a_signer_whose_certificate_no_kernel_takes(host: Host, tmp_path: Path) -> None:
    for options, reason in (({"purposes": None}, "codeSigning"), ({"days": (-9, -1)}, "expired")):
        who = material.identity(**cast(dict[str, Any], options))
        authority = cast(Authority, SimpleNamespace(module=who, stranger=who))
        with SignerServer(authority, tmp_path / "sock"):
            (refusal,) = Driver(Config(signer=str(tmp_path / "sock"))).refuse(host)
        assert refusal.code == "driver.certificate"
        assert reason in refusal.reason


def _installed(host: Host, server: SignerServer) -> None:
    """What apply leaves behind: modules, their record, certificate, blacklist."""
    who = server.authority.module
    place = kernels.module_directory(KERNEL)
    modules = {}
    for name in ("nvidia.ko", "nvidia-uvm.ko"):
        body = material.module({"name": name, "vermagic": f"{KERNEL} SMP "})
        signed = modsig.attach(body, material.sign(who, body))
        host.write(f"{place}/{name}", signed)
        modules[name] = {
            "sha256": hashlib.sha256(signed).hexdigest(),
            "body_sha256": hashlib.sha256(body).hexdigest(),
        }
    record = {"schema": 1, "kernel": KERNEL, "driver": "535.261.03", "modules": modules}
    record |= {"certificate": who.sha256, "provenance": {"cache": "hit"}}
    host.write(f"{place}/{audit.RECORD}", json.dumps(record))
    host.write(driver.CERTIFICATE, who.der)
    host.write(driver.BLACKLIST, "# ours\nblacklist nouveau\noptions nouveau modeset=0\n")
    newkernel.install(host)


def test_an_installed_driver_needs_nothing(
    config: Config, host: Host, server: SignerServer
) -> None:
    _installed(host, server)
    # With the signer, and on a booted node that has none: nothing to do, nothing to refuse.
    for one in (config, Config()):
        assert diff(Driver(one).inspect(host), Driver(one).desired(host)) == []
        assert _codes(one, host) == []
        assert Driver(one).contract(host).hosts == []
        assert Driver(one).provenance(host) == {"cache": "hit"}


def _tamper(host: Host) -> None:
    path = host.path(f"{kernels.module_directory(KERNEL)}/nvidia.ko")
    path.write_bytes(path.read_bytes() + b"x")


@pytest.mark.parametrize(
    ("break_it", "keys"),
    [
        (_tamper, {"module nvidia.ko"}),
        (
            lambda host: host.remove(f"{kernels.module_directory(KERNEL)}/nvidia-uvm.ko"),
            {"module nvidia-uvm.ko"},
        ),
        (
            lambda host: host.write(f"{kernels.module_directory(KERNEL)}/evil.ko", b"x"),
            {"module evil.ko"},
        ),
        (lambda host: host.write(driver.CERTIFICATE, b"other"), {"certificate"}),
        (lambda host: host.write(driver.BLACKLIST, "blacklist none\n"), {"blacklist"}),
        (lambda host: host.remove(newkernel.HOOKS[0]), {"new-kernel"}),
        (lambda host: host.write("/usr/sbin/dkms", "mok_signing_key"), {"dkms"}),
    ],
)
def test_differences_are_seen_by_value(
    config: Config,
    host: Host,
    server: SignerServer,
    break_it: Callable[[Host], Any],
    keys: set[str],
) -> None:
    _installed(host, server)
    break_it(host)
    changes = diff(Driver(config).inspect(host), Driver(config).desired(host))
    assert {change.key for change in changes} == keys


def test_a_newer_kernel_or_another_key_is_a_change(
    config: Config, host: Host, server: SignerServer, tmp_path: Path, stranger: Identity
) -> None:
    _installed(host, server)
    authority = cast(Authority, SimpleNamespace(module=stranger, stranger=stranger))
    with SignerServer(authority, tmp_path / "sock"):
        other = Driver(Config(signer=str(tmp_path / "sock")))
        keys = {change.key for change in diff(other.inspect(host), other.desired(host))}
    assert {"certificate", "module nvidia.ko"} <= keys
    host.write("/lib/modules/6.1.0-57-cloud-amd64/modules.builtin", "")
    one = Driver(config)
    keys = {change.key for change in diff(one.inspect(host), one.desired(host))}
    assert {"kernel", "module nvidia.ko"} <= keys


def test_a_damaged_record_means_not_installed(
    config: Config, host: Host, server: SignerServer
) -> None:
    _installed(host, server)
    for text in ("", "{", "[]", '{"schema": 2}'):
        host.write(f"{kernels.module_directory(KERNEL)}/{audit.RECORD}", text)
        assert diff(Driver(config).inspect(host), Driver(config).desired(host))
        assert Driver(config).provenance(host) == {}


def test_a_signer_that_signs_with_another_key(ours: Identity, stranger: Identity) -> None:
    body = material.module({"name": "nvidia"})
    certificate = read_certificate(ours.der)
    ready = signed.attach("nvidia.ko", body, material.sign(ours, body), certificate)
    assert modsig.examine(ready, [certificate]).digest_ok
    for cms in (
        material.sign(stranger, body),
        material.sign(ours, body + b"x"),
        material.sign(Identity(stranger.key, ours.cert), body),
        b"nonsense",
    ):
        with pytest.raises(NodeError, match=r"the signature of nvidia\.ko"):
            signed.attach("nvidia.ko", body, cms, certificate)


def test_B29_B30_every_module_of_one_build_is_signed_by_whoever_signs(
    host: Host, server: SignerServer, tmp_path: Path, stranger: Identity
) -> None:
    """What the cache keeps is unsigned and knows of no key: another signer needs no other build."""
    names = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm", "nvidia-peermem")
    built = {
        f"{name}.ko": material.module({"name": name, "vermagic": f"{KERNEL} SMP "})
        for name in names
    }
    wanted = kmods.Wanted(KERNEL, "550.142", {"source": {"name": "x"}})
    assert not {"certificate", "signer", "signed"} & set(wanted.inputs([]))
    log = Journal(host).log("driver")
    authority = cast(Authority, SimpleNamespace(module=stranger, stranger=stranger))
    seen = set()
    with SignerServer(authority, tmp_path / "sock") as other:
        for one in (server, other):
            ready, certificate = signed.Signing(Config(signer=str(one.path))).sign(
                host, dict(built), KERNEL, log
            )
            assert certificate is not None
            assert sorted(ready) == sorted(built)
            for name, data in ready.items():
                found = modsig.examine(data, [certificate])
                assert (found.signatures, found.digest_ok) == (1, True)
                assert modsig.split(data).body == built[name]
            seen.add(certificate.sha256)
    assert len(seen) == 2


def test_B32_unsigned_modules_only_where_they_were_asked_for(host: Host) -> None:
    one = Driver(Config(unsigned_modules=True))
    assert one.refuse(host) == []
    assert any("stay unsigned" in note for note in one.contract(host).notes)
    body = material.module({"name": "nvidia", "vermagic": f"{KERNEL} SMP "})
    log = Journal(host).log("driver")
    ready, certificate = one._signing.sign(host, {"nvidia.ko": body}, KERNEL, log)
    assert (ready, certificate) == ({"nvidia.ko": body}, None)
    place = kernels.module_directory(KERNEL)
    host.write(f"{place}/nvidia.ko", body)
    modules = {"nvidia.ko": driver._recorded(body, body)}
    record = {"schema": 1, "kernel": KERNEL, "driver": "535.1", "modules": modules}
    host.write(f"{place}/{audit.RECORD}", json.dumps({**record, "certificate": signed.UNSIGNED}))
    host.write(driver.BLACKLIST, driver._BLACKLIST_TEXT)
    newkernel.install(host)
    assert diff(one.inspect(host), one.desired(host)) == []
    problems = [problem.what for problem in one.verify(host)]
    assert not any("unsigned" in what for what in problems), problems
    # The same node under Secure Boot: they are not right any more.
    later = Driver(Config(secure_boot="required"))
    assert [refusal.code for refusal in later.refuse(host)] == ["driver.no-signer"]
    assert [problem.what for problem in later.verify(host)] == [
        "no driver is installed for the kernel that will boot"
    ]


def test_a_signer_outside_is_preferred(config: Config, host: Host) -> None:
    both = dataclasses.replace(config, node_key=NodeKey("p", "k", "c", "1"))
    one = signed.Signing(both)
    assert one.way == "external"
    assert "is not used" in one.notes[0]
    assert one.refuse(host, KERNEL) == []
