"""The doctor, the permissions, images and the ledger, on the double."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from fixtures.gce import Compute
from fixtures.pki import Authority
from harness import keydb
from harness.cli import main
from harness.cloud import images, ledger
from harness.cloud.api import Google
from harness.cloud.permissions import METHODS, NODES, needed
from harness.errors import InfraError, UsageError
from harness.providers.gce_config import Source
from harness.state import RunRecord
from installers.asn1 import load_certificate
from tests.unit.cloud.calls import methods
from tests.unit.cloud.conftest import PROJECT, SITE, ZONE
from tests.unit.cloud.test_up import DOWN, UP, VERIFY, WHERE
from tests.unit.gce import site as nodes
from tests.unit.gce.proxied import ProxyMachine

DOCTOR = ["doctor", "--provider", "gce", *WHERE, "--zone", ZONE, "--json"]
PAGE = Path(__file__).parents[3] / "docs/gce-network.md"
DATAPROC = "projects/cloud-dataproc/global/images/"


def bad(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the doctor finds missing."""
    found = json.loads(capsys.readouterr().out)
    return [f"{one['name']}: {one['what']}" for one in found if one["level"] == "missing"]


def test_the_doctor_finds_each_fault_and_none_in_a_good_network(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(UP) == 0
    capsys.readouterr()
    assert main(DOCTOR) == 0
    assert bad(capsys) == []
    cloud.disabled.add("iap.googleapis.com")
    cloud.denied.add("compute.images.create")
    cloud.set_quota("IN_USE_ADDRESSES", 0)
    place = f"projects/{PROJECT}/regions/europe-west4/routers/r"
    network = cloud.store.link(SITE.network)
    router = {"name": "r", "network": network, "nats": [{"name": "way-out"}]}
    cloud.store.add(place, router, "2026-01-01")
    assert main(DOCTOR) == 3
    assert bad(capsys) == [
        "API iap.googleapis.com: switched off",
        "permission compute.images.create: not granted",
        "quota IN_USE_ADDRESSES: 0 of 0 used",
        "NAT: there is r/way-out",
    ]


def test_what_cannot_be_asked_is_a_finding_and_the_rest_is_asked(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    cloud.disabled.add("compute.googleapis.com")
    assert main(DOCTOR) == 3
    found = bad(capsys)
    assert found[0] == "API compute.googleapis.com: switched off"
    assert any(line.startswith("quota: ") and "disabled" in line for line in found)
    assert any(line.startswith("network: ") for line in found)


def write_config(path: Path, source: str) -> None:
    """A gce.toml with an N1 and its card."""
    path.write_text(
        f'project = "{PROJECT}"\nzones = ["{ZONE}"]\nmachine_type = "n1-standard-4"\n'
        'accelerator = "nvidia-tesla-t4"\naccelerators = 1\n'
        f'[images.debian-12]\nsource = "{source}"\n'
    )


@pytest.mark.parametrize("gone", ["nvidia-tesla-t4", "n1-standard-4"])
def test_what_a_zone_does_not_have_is_told(
    gone: str,
    cloud: Compute,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRLOCK_GCE", str(tmp_path / "gce.toml"))
    write_config(tmp_path / "gce.toml", "projects/debian-cloud/global/images/family/debian-12")
    for path in [path for path in cloud.store.things if path.endswith(f"/{gone}")]:
        del cloud.store.things[path]
    assert main(["doctor", "--provider", "gce", "--json"]) == 3
    assert f"zone {ZONE}: no {gone}" in bad(capsys)


def test_the_permissions_are_those_of_the_calls(
    cloud: Compute, tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that calls Google is run: nothing is asked that the table has not, and the table
    has nothing that is not asked."""
    monkeypatch.setenv("AIRLOCK_GCE", str(tmp_path / "gce.toml"))
    write_config(tmp_path / "gce.toml", "projects/debian-cloud/global/images/family/debian-12")
    dataproc(cloud, "d-1", "2-2-60-debian12")
    cloud.seconds[""] = 0.2  # long enough that operations have to be waited for
    assert main([*UP, "--machine-type", "e2-small"]) == 0
    assert main(VERIFY) == 0
    main(["doctor", "--provider", "gce"])
    image = "dataproc:2.2.60-debian12"
    certificate = tmp_path / "db.der"
    certificate.write_bytes(authority.module.der)
    words = ["gce", "trust", image, "mine", "--certificate", str(certificate), "--yes"]
    assert main([*words, *WHERE]) == 0
    assert main(DOWN) == 0
    assert methods(cloud) == set(METHODS) - {"iap.tunnel"}


def test_the_documented_role_is_the_table() -> None:
    text = PAGE.read_text()
    listed = re.findall(r"^- (\w+\.\w+\.\w+)$", text, re.MULTILINE)
    assert listed == needed(METHODS, NODES)


def test_nodes_call_nothing_that_the_role_has_not(cloud: Compute) -> None:
    nodes.network(cloud)
    with RunRecord() as record:
        attempt = nodes.Attempt(record, nodes.provider())
        cloud.requests.clear()
        assert attempt.up() == ""
        attempt.end()
    assert methods(cloud) <= {*METHODS, *NODES}
    assert "instances.getSerialPortOutput" in methods(cloud)


def dataproc(cloud: Compute, name: str, label: str, day: int = 1, **more: Any) -> None:
    """An image as Dataproc's project has them."""
    body = {
        "name": name,
        "kind": "compute#image",
        "labels": {images.DATAPROC_LABEL: label},
        "status": "READY",
        "architecture": "X86_64",
        "diskSizeGb": "30",
        "guestOsFeatures": [{"type": "UEFI_COMPATIBLE"}],
        **more,
    }
    cloud.store.add(DATAPROC + name, body, f"2026-10-{day:02}T00:00:00.000-07:00")


def test_a_dataproc_version_is_the_newest_usable_image_with_its_label(cloud: Compute) -> None:
    label = "2-2-60-debian12"
    # Names say nothing: each of these looks like another one than it is.
    dataproc(cloud, "a-2-2-60-old", label, 1)
    dataproc(cloud, "z-dataproc-2-2-60-debian12", "2-2-59-debian12", 9)
    dataproc(cloud, "b-nameless", label, 2)
    dataproc(cloud, "c-pending", label, 3, status="PENDING")
    dataproc(cloud, "d-obsolete", label, 4, deprecated={"state": "OBSOLETE"})
    found = Google(PROJECT).image("dataproc:2.2.60-debian12")
    assert (found.name, found.dataproc) == ("b-nameless", label)
    assert found.id.isdigit()
    assert found.architecture == "X86_64"
    assert found.features == ("UEFI_COMPATIBLE",)
    with pytest.raises(UsageError, match=r"2\.2\.61-debian12: no image that can be used"):
        Google(PROJECT).image("dataproc:2.2.61-debian12")


def test_a_node_is_made_of_a_dataproc_version(cloud: Compute) -> None:
    nodes.network(cloud)
    dataproc(cloud, "b", "2-2-60-debian12", architecture="X86_64")
    source = Source("dataproc:2.2.60-debian12", disk_gb=30)
    with RunRecord() as record:
        attempt = nodes.Attempt(record, nodes.provider(images={"debian-12": source}))
        assert attempt.up() == ""
        said = attempt.station.record.provenance
        attempt.end()
    (row,) = cloud.said("POST", r"/instances$")
    assert row["body"]["disks"][0]["initializeParams"]["sourceImage"] == DATAPROC + "b"
    assert said["image"] == DATAPROC + "b"
    assert said["image_id"].isdigit()


def test_an_image_is_told_by_its_id_and_refused_without_uefi(
    cloud: Compute, capsys: pytest.CaptureFixture[str]
) -> None:
    family = "projects/debian-cloud/global/images/family/debian-12"
    assert main(["gce", "image", family, *WHERE, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["name"].startswith("debian-12-bookworm-v")
    assert said["id"].isdigit()
    dataproc(cloud, "bios", "x", guestOsFeatures=[])
    assert main(["gce", "image", DATAPROC + "bios", *WHERE]) == 1
    assert "UEFI_COMPATIBLE" in capsys.readouterr().err
    assert main(["gce", "image", DATAPROC + "none", *WHERE]) == 2
    assert main(["gce", "image", "debian-12", *WHERE]) == 2


def test_an_image_that_trusts_us_keeps_microsofts_keys(
    cloud: Compute, authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    family = "projects/debian-cloud/global/images/family/debian-12"
    path = tmp_path / "db.der"
    path.write_bytes(authority.module.der)
    words = ["gce", "trust", family, "mine", "--certificate", str(path), *WHERE]
    assert main(words) == 2
    assert cloud.made("images") == []
    assert main([*words, "--yes"]) == 0
    assert "own_keys = true" in capsys.readouterr().out
    found = Google(PROJECT).image(f"projects/{PROJECT}/global/images/mine")
    ours = load_certificate(authority.module.der)
    microsofts = {one.sha256 for one in keydb.microsoft().values()}
    assert set(found.trusted) == {ours.sha256, *microsofts}
    assert len(microsofts) == 4
    base = Google(PROJECT).image(family)
    assert found.labels["airlock-base"] == base.id
    assert set(base.features) <= set(found.features)
    assert images.trusts(found, [ours]) == []
    assert images.trusts(base, [ours]) != []


@pytest.mark.usefixtures("cloud")
def test_the_ledger_is_squids_log_by_node_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    row = {
        "ts": 100.5,
        "ms": 500,
        "client": "10.126.0.5",
        "user": "-",
        "method": "GET",
        "url": "http://a.test/",
        "status": 200,
        "squid": "TCP_MISS",
        "sni": "-",
        "bump": "-",
        "tls": "-",
        "bytes": 1,
        "ua": "-",
        "server": "-",
    }
    lines = [row, {**row, "client": "10.126.0.6"}, {**row, "ts": 900.0}]
    compact = [json.dumps(one, separators=(",", ":")) for one in lines]
    log.write_text("".join(f"{one}\n" for one in compact) + '{"torn')
    monkeypatch.setattr(ledger, "BLOCK", 100)
    machine = ProxyMachine(log)
    kept = ledger.ProxyLog(Google(PROJECT), SITE, cast(ledger.Connect, machine.connect))
    found = kept.rows(client="10.126.0.5")
    assert [one["start"] for one in found] == [100.0, 899.5]
    assert len(kept.rows(since=500)) == 1
    kept.fetch(tmp_path / "raw")
    assert (tmp_path / "raw").read_bytes() == log.read_bytes() + b"\n"
    assert machine.connected == 1
    kept.close()
    assert machine.closed == 1
    log.unlink()
    with pytest.raises(InfraError, match="cannot be read"):
        kept.rows()
