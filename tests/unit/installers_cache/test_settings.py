"""What the metadata may say about the cache, and the offline driver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.metadata import MetadataServer
from fixtures.pki import Authority
from fixtures.signer import SignerServer
from fixtures.storage import Storage
from installers import fixups, kernels, kmods
from installers.asn1 import read_certificate
from installers.cache import settings
from installers.cache.cache import Cache
from installers.config import from_attributes
from installers.driver import CERTIFICATE, Driver
from installers.engine import Change
from installers.errors import ConfigError, NodeError
from installers.host import Host, Result
from installers.journal import Journal
from installers.modsig import examine
from tests.unit.installers_cache.conftest import BUCKET
from tests.unit.installers_driver import material

KERNEL = "6.1.0-56-cloud-amd64"


def parse(**attributes: str) -> settings.Settings:
    return settings.parse(from_attributes({k.replace("_", "-"): v for k, v in attributes.items()}))


def test_nothing_said_is_no_cache() -> None:
    found = parse()
    assert (found.urls, found.hosts, found.notes) == ((), [], [])
    assert (found.unsigned, found.offline) == (False, False)


def test_the_temp_bucket_is_the_default() -> None:
    found = parse(dataproc_temp_bucket="dataproc-temp-us-1-abc")
    assert found.urls == ("gs://dataproc-temp-us-1-abc/airlock-cache",)
    assert found.hosts == ["storage.googleapis.com"]
    assert any("nobody is believed" in note for note in found.notes)
    named = parse(dataproc_temp_bucket="other", airlock_cache="file:///c, https://m.invalid/x")
    assert named.urls == ("file:///c", "https://m.invalid/x")
    assert named.hosts == ["m.invalid"]
    universe = parse(dataproc_temp_bucket="bbb", universe_domain="example.goog")
    assert universe.hosts == ["storage.example.goog"]


def test_pins() -> None:
    found = parse(airlock_cache="gs://bucket", airlock_cache_signers=f"{'A' * 64} {'b' * 64}")
    assert found.trust.pins == {"a" * 64, "b" * 64}
    assert not any("nobody" in note for note in found.notes)
    assert found.strict
    assert not parse(airlock_cache="file:///c").strict
    warned = parse(airlock_cache="gs://bucket", airlock_cache_unsigned="true")
    assert any("decides what runs here" in note for note in warned.notes)


@pytest.mark.parametrize(
    "attributes",
    [
        {"airlock_cache": "/var/cache"},
        {"airlock_cache": "file://relative"},
        {"airlock_cache": "ftp://host/x"},
        {"airlock_cache": "gs://UPPER"},
        {"airlock_cache": "http://mirror.invalid/x"},
        {"airlock_cache": "file:///ä"},
        {"dataproc_temp_bucket": "no bucket"},
        {"airlock_cache_signers": "abc"},
        {"airlock_cache_unsigned": "yes"},
        {"airlock_offline": "1"},
    ],
)
def test_what_is_refused(attributes: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse(**attributes)
    assert error.value.where


class Quiet(Host):
    """A root without programs: what the driver runs is noted; apt must never be."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.ran: list[list[str]] = []

    def run(self, argv: Any, **_: Any) -> Result:
        self.ran.append(list(argv))
        return Result(0, "", "")


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignerServer]:
    folder = tmp_path_factory.mktemp("s")
    with SignerServer(Authority(folder / "pki"), folder / "sock") as server:
        yield server


@pytest.fixture
def host(tmp_path: Path) -> Quiet:
    host = Quiet(tmp_path / "root")
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    host.write(f"/lib/modules/{KERNEL}/modules.builtin", "")
    return host


IDENTITIES = {"headers": [], "source": {"version": "535"}, "compiler": {"name": "gcc"}}
BODY = material.module({"name": "nvidia", "vermagic": f"{KERNEL} SMP "})


def fill(cache: Cache, host: Host, driver: str = "535.261.03") -> None:
    """What an apply that was online leaves in the cache."""
    wanted = kmods.Wanted(KERNEL, driver, IDENTITIES)
    decision = json.dumps({"driver": driver, "identities": IDENTITIES}).encode()
    question = kmods._question(host, KERNEL)
    cache.put(kmods.DECISION, question, {"decision.json": decision}, {}, renew=True)
    details = {"fixups": [], "built": "2026-01-01", "seconds": 1.0, "environment": {}}
    inputs = wanted.inputs(fixups.candidates(driver))
    cache.put(kmods.KIND, inputs, {"nvidia.ko": BODY}, details)


def test_B22_an_offline_driver_asks_nobody_but_its_cache(
    host: Quiet, signer: SignerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """B22: a warm cache still needed the network. Here apt is never run, and one host is asked."""
    monkeypatch.setattr(settings, "SCRATCH", tmp_path / "scratch")
    with Storage(BUCKET, token="lab.t") as storage, MetadataServer(token="lab.t") as metadata:
        metadata.serve()
        attributes = {
            "dataproc-temp-bucket": BUCKET,
            "airlock-storage-endpoint": storage.url,
            "airlock-signer": str(signer.path),
            "airlock-secure-boot": "off",
            "airlock-offline": "true",
        }
        config = from_attributes(attributes, metadata.url)
        driver = Driver(config)
        log = Journal(host).log("driver")
        change = [Change("kernel", None, KERNEL)]
        with pytest.raises(NodeError, match="told to be offline"):
            driver.apply(host, change, log)
        with driver._cache.open(lambda _: None) as cache:
            fill(cache, host)
        assert driver.refuse(host) == []
        assert driver.contract(host).hosts == ["127.0.0.1"]
        driver.apply(host, change, log)
        assert host.ran == [["depmod", "-a", KERNEL]]
        assert driver.provenance(host)["cache"] == "hit"
        assert not (tmp_path / "scratch").exists()
    certificate = read_certificate(host.read_bytes(CERTIFICATE) or b"")
    module = host.read_bytes(f"{kernels.module_directory(KERNEL)}/nvidia.ko") or b""
    assert examine(module, [certificate]).digest_ok


def test_the_decision_of_an_online_node_is_renewed(host: Quiet, tmp_path: Path) -> None:
    config = from_attributes({"airlock-cache": f"file://{tmp_path}/cache"})
    with settings.parse(config).open(lambda _: None) as cache:
        fill(cache, host)
        fill(cache, host, "550.1")
        assert kmods.from_cache(host, KERNEL, cache).driver == "550.1"
