"""An image is built on a machine of Google Cloud, and nodes are made of it."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.gce import Compute
from fixtures.pki import Authority
from harness import keydb
from harness.cells import Cell
from harness.cloud.permissions import METHODS, NODES
from harness.errors import InfraError, UsageError
from harness.providers import fake
from harness.providers.base import Job, NodeFailed
from harness.providers.gce import Gce
from harness.providers.gce_config import Build, Config, Limit, Price, Source, read_config
from harness.providers.gce_iap import Place
from harness.providers.gce_node import GceNode
from harness.providers.gce_reap import Ledger, reap
from harness.state import RunRecord
from harness.sweep import sweep
from harness.transports.base import AgentOperations, Ran
from installers.asn1 import load_certificate
from installers.signing import Signer
from tests.unit.cloud.calls import methods
from tests.unit.gce import site
from tests.unit.gce.bodies import PROJECT

GOLDEN = Path(__file__).parent / "golden"
DEBIAN = "projects/debian-cloud/global/images/family/debian-12"
ROW = {"name": "proxy", "outcome": "ok"}
GOOD = {"code": 0, "summary": {"contract": {"hosts": []}, "installers": [ROW]}}


class Machine(fake.FakeTransport):
    """A machine made of data, on which installers do what they are told here."""

    def __init__(self, done: Mapping[str, Any]) -> None:
        path = Path(fake.__file__).with_name("fake_node.json")
        super().__init__(json.loads(path.read_text())["facts"], "ok")
        self.done = done
        self.applied: list[list[str]] = []
        self.signers: dict[str, str] = {}

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        if op != "apply":
            return super().call(op, timeout=timeout, **args)
        self.applied.append(args["only"])
        return self.done

    def run(self, command: Any, *, stdin: bytes = b"", timeout: float = 60) -> Ran:
        del command, stdin, timeout
        return Ran(0, b"the journal\n", b"")

    def forward(self, there: str, here: Path) -> None:
        """Ask the key's socket who signs there, as an installer does."""
        with Signer(str(here)) as signer:
            self.signers[there] = signer.certificate().sha256


class Ground:
    """A provider that builds, and what its machines were asked."""

    def __init__(self, run: RunRecord, folder: Path, authority: Authority) -> None:
        self.record, self.folder = run, folder
        self.done: Mapping[str, Any] = GOOD
        self.machines: list[Machine] = []
        self.ours = load_certificate(authority.module.der)
        self.build = Build(key=f"file:{authority.module.path}", machine_type="e2-standard-4")
        self._count = 0

    def connect(
        self, provider: Gce, job: Job, place: Place, keys: Mapping[str, str]
    ) -> AgentOperations:
        del provider, job, place, keys
        self.machines.append(Machine(self.done))
        return self.machines[-1]

    def provider(self, **more: Any) -> Gce:
        images = {"debian-12": Source(DEBIAN, disk_gb=30, build=True)}
        given = {"images": images, "build": self.build, **more}
        return Gce(site.config(**given), api=site.api(), connect=self.connect)

    def job(self) -> Job:
        """Another cell of the run."""
        self._count += 1
        capsule = self.folder / str(self._count)
        capsule.mkdir()
        return Job(cell(), capsule, capsule, lambda *_: None, self.record.owned)


def cell() -> Cell:
    """With something to install."""
    found = site.cell()
    return replace(found, profile=replace(found.profile, installers=("proxy", "seal")))


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def ground(cloud: Compute, run: RunRecord, tmp_path: Path, authority: Authority) -> Ground:
    """A run on the double."""
    del cloud
    return Ground(run, tmp_path, authority)


def _steady(cloud: Compute, text: str) -> Any:
    """What is different each time, by its name. Certificates are told by their digests."""
    for pattern, word in {
        r"airlock-[0-9a-f]{12}\b": "airlock-MACHINE",
        r"airlock-debian-12-[0-9a-f]{8}": "airlock-debian-12-RANDOM",
        r'"airlock-until": "\d+"': '"airlock-until": "UNTIL"',
        r'"airlock-run": "[^"]+"': '"airlock-run": "RUN"',
        r'"airlock-home": "[^"]+"': '"airlock-home": "HOME"',
        r"ssh-ed25519 [A-Za-z0-9+/=]+": "ssh-ed25519 KEY",
        re.escape(cloud.url): "https://compute.googleapis.com",
        r'"value": "[0-9a-f]{64}"': '"value": "FINGERPRINT"',
        r'"\d{19}"': '"ID"',
        r"id \d{19}": "id ID",
    }.items():
        text = re.sub(pattern, word, text)
    return json.loads(text)


def _golden(name: str, found: Any) -> None:
    path = GOLDEN / name
    if os.environ.get("AIRLOCK_WRITE_GOLDEN"):
        path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(path.read_text())


def test_a_node_is_made_of_an_image_that_was_built_for_it(cloud: Compute, ground: Ground) -> None:
    provider = ground.provider()
    assert provider.reasons_not(cell()) == []
    cloud.requests.clear()
    job = ground.job()
    node = provider.up(job)
    builder, machine = (row["body"] for row in cloud.said("POST", r"/instances$"))
    (image,) = (row["body"] for row in cloud.said("POST", r"/images$"))
    certificates = [entry.pop("content") for entry in image["shieldedInstanceInitialState"]["dbs"]]
    assert len(certificates) == 1 + len(keydb.microsoft())
    _golden("build-machine.json", _steady(cloud, json.dumps(builder)))
    _golden("build-image.json", _steady(cloud, json.dumps(image)))
    changes = [
        row["path"].rpartition("/")[2].replace(builder["name"], "BUILDER")
        for row in cloud.requests
        if row["method"] != "GET" and not row["path"].endswith("/wait")
    ]
    assert changes == ["instances", "stop", "images", "BUILDER", "instances"]
    # Signed modules are for a machine with Secure Boot, of the image as it was built.
    made = f"projects/{PROJECT}/global/images/{image['name']}"
    assert machine["disks"][0]["initializeParams"]["sourceImage"] == made
    assert machine["shieldedInstanceConfig"]["enableSecureBoot"] is True
    assert [one.applied for one in ground.machines] == [[["proxy", "seal"]], []]
    socket = next(i["value"] for i in builder["metadata"]["items"] if i["key"] == "airlock-signer")
    assert ground.machines[0].signers == {socket: ground.ours.sha256}
    subject = job.record.provenance["subject"]
    microsofts = [one.sha256 for one in keydb.microsoft().values()]
    assert subject["db_sha256"] == sorted([ground.ours.sha256, *microsofts])
    assert (subject["project"], subject["id"].isdigit()) == (PROJECT, True)
    assert job.record.installers == [ROW]
    assert node.expect["image_built"] > 0
    names = [phase.name for phase in job.record.phases]
    assert names[:6] == [
        *("build instance", "build boot", "build login", "install", "stop", "image"),
    ]
    assert methods(cloud) <= {*METHODS, *NODES}
    node.down()
    assert cloud.made("images") == [made]
    provider.close()
    assert cloud.made("images") == cloud.made("instances") == cloud.made("disks") == []
    assert ground.record.owned.instances() == []


def test_cells_of_a_run_share_an_image(cloud: Compute, ground: Ground) -> None:
    provider = ground.provider()
    first, second = ground.job(), ground.job()
    for job in (first, second):
        provider.up(job).down()
    assert len(cloud.said("POST", r"/images$")) == 1
    assert len(cloud.said("POST", r"/instances$")) == 3
    assert second.record.phases[0].outcome == "cached"
    assert second.record.installers == first.record.installers
    assert second.record.provenance["image_id"] == first.record.provenance["image_id"]
    provider.close()


def test_the_report_says_which_image_was_tested(cloud: Compute, ground: Ground) -> None:
    attempt = site.Attempt(ground.record, ground.provider(), cell())
    assert attempt.up() == ""
    (path,) = cloud.made("images")
    number = cloud.store.things[path]["id"]
    found = attempt.end()
    subject = found.provenance.subject
    assert subject is not None
    assert (subject.project, subject.id) == (PROJECT, number)
    assert subject.created is not None
    assert ground.ours.sha256 in subject.db_sha256
    assert found.provenance.certificate_sha256 == ground.ours.sha256
    assert found.provenance.extra["image"] == path
    assert found.provenance.extra["build machine_type"] == "e2-standard-4"
    assert [phase.name for phase in found.phases][:7] == [
        *("build instance", "build boot", "build login", "install", "stop", "image", "instance"),
    ]
    assert [row.name for row in found.installers] == ["proxy"]
    assert (attempt.station.capsule / "build-serial.log").is_file()
    assert cloud.made("images") == cloud.made("instances") == []


def test_an_image_that_stays_is_the_users(cloud: Compute, ground: Ground) -> None:
    ground.build = replace(ground.build, keep=True, family="gpu")
    provider = ground.provider()
    provider.up(ground.job()).down()
    provider.close()
    (path,) = cloud.made("images")
    image = cloud.store.things[path]
    assert image["family"] == "gpu"
    assert {"airlock-run", "airlock-until"}.isdisjoint(image["labels"])
    assert image["labels"]["airlock-built-by"]
    assert ground.record.owned.instances() == []
    assert reap([PROJECT], everything=True, pace=site.PACE).ended == []
    assert cloud.made("images") == [path]


def test_what_an_installer_did_wrong_is_the_images_fault_and_told_once(
    cloud: Compute, ground: Ground
) -> None:
    problem = {"what": "the module does not build", "cause": "driver.build", "remedy": "r"}
    row = {"name": "driver", "problems": [problem]}
    ground.done = {"code": 1, "summary": {"installers": [row]}}
    provider = ground.provider()
    for job in (ground.job(), ground.job()):
        with pytest.raises(NodeFailed, match="the module does not build"):
            provider.up(job)
    assert len(cloud.said("POST", r"/instances$")) == 1
    assert cloud.made("images") == cloud.made("instances") == []
    provider.close()
    assert ground.record.owned.instances() == []


def test_an_image_that_cannot_be_made_leaves_nothing(cloud: Compute, ground: Ground) -> None:
    cloud.refuse("insert", "INTERNAL_ERROR", "no", times=0)
    cloud.fail("POST", r"/images$", 403, "quotaExceeded", "Quota 'IMAGES' exceeded.", times=9)
    provider = ground.provider()
    with pytest.raises(InfraError, match="IMAGES"):
        provider.up(ground.job())
    provider.close()
    assert cloud.made("images") == cloud.made("instances") == cloud.made("disks") == []
    assert Ledger().all() == []
    assert ground.record.owned.instances() == []


def test_an_image_without_our_certificate_is_not_used(cloud: Compute, ground: Ground) -> None:
    """As if Google had kept its own lists."""
    provider = ground.provider()
    plain = provider.api.make_image
    del cloud

    def forgetful(body: Mapping[str, Any], *more: Any) -> Any:
        return plain({k: v for k, v in body.items() if "InitialState" not in k}, *more)

    provider.api.make_image = forgetful  # type: ignore[assignment]
    with pytest.raises(InfraError, match="in its db"):
        provider.up(ground.job())
    provider.close()
    assert ground.record.owned.instances() == []


def test_kill_9_while_the_node_lives(cloud: Compute, ground: Ground) -> None:
    provider = ground.provider()
    assert isinstance(provider.up(ground.job()), GceNode)
    assert (len(cloud.made("images")), len(cloud.made("instances"))) == (1, 1)
    ground.record._lock_file.close()  # as the kernel does it for a process that is gone
    swept = sweep()
    assert any("/global/images/airlock-debian-12-" in line for line in swept.ended), swept
    assert cloud.made("images") == cloud.made("instances") == []


def test_reap_finds_images_by_their_labels(cloud: Compute, ground: Ground) -> None:
    provider = ground.provider()
    provider.up(ground.job()).down()
    (path,) = cloud.made("images")
    assert "its run is alive" in reap([PROJECT], pace=site.PACE).spared[0]
    labels = cloud.store.things[path]["labels"]
    labels["airlock-home"] = "0123456789abcdef"
    assert "another machine" in reap([PROJECT], pace=site.PACE).spared[0]
    cloud.fail("DELETE", r"/images/", 403, "forbidden", "no", times=1)
    done = reap([PROJECT], everything=True, pace=site.PACE)
    assert path in done.refused[0]
    assert [left.place.text for left in Ledger().all()] == [path]
    assert reap([], pace=site.PACE).ended == [path]
    assert (cloud.made("images"), Ledger().all()) == ([], [])


@pytest.mark.parametrize("given", [{"key": "file:none.key"}, {"certificates": ("none.pem",)}])
def test_whom_to_trust_is_known_before_anything_is_paid_for(
    cloud: Compute, ground: Ground, given: dict[str, Any]
) -> None:
    ground.build = Build(**given)
    with pytest.raises(UsageError, match=r"none\.(key|pem)"):
        ground.provider().up(ground.job())
    assert cloud.said("POST", r"/instances$") == []


def _prices(build: float) -> dict[str, Any]:
    def price(machine: str, how: str, per_hour: float) -> Price:
        words: Any = {"currency": "USD", "source": "a test", "date": dt.date(2026, 11, 1)}
        return Price(machine, "europe-west4", how, per_hour, **words)

    rows = price("e2-medium", "spot", 6.0), price("e2-standard-4", "standard", build)
    return {"prices": rows, "limit": Limit(2.0, "USD")}


def test_the_limit_is_over_both_machines(cloud: Compute, ground: Ground) -> None:
    """Ten minutes of a node cost 1, three hours of building 1.5."""
    reasons = ground.provider(**_prices(0.5)).reasons_not(cell())
    assert reasons == [
        "a node and the building of its image in europe-west4-a may cost 2.50 USD, and the limit "
        "is 2.00"
    ]
    provider = ground.provider(**_prices(0.2))
    assert provider.reasons_not(cell()) == []
    assert "0.2 USD an hour" in provider.price(cell())
    assert "6 USD an hour" in provider.price(cell())
    with pytest.raises(InfraError, match="may cost"):
        ground.provider(**_prices(50.0)).up(ground.job())
    assert cloud.said("POST", r"/instances$") == []


WHOLE = f"""
project = "{PROJECT}"
zones = ["europe-west4-a"]
machine_type = "g2-standard-4"
[images.debian-12]
source = "{DEBIAN}"
build = true
"""


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("", r"build needs a table \[build\]"),
        ("[build]\n", r"key or certificates must be given"),
        ('[build]\ncertificates = "a"\n', "must be a list of texts"),
        ('[build]\nkey = "file:k"\nprovisioning = "cheap"\n', "spot"),
        ('[build]\nkey = "file:k"\nminutes = 0\n', "Google's own limit"),
        ('[build]\nkey = "file:k"\nmachine_type = "g2-standard-4"\n', "without cards"),
        ('[build]\nkey = "file:k"\nmachine_type = "c4a-standard-4"\n', "of x86_64"),
        ('[build]\nkey = "file:k"\nfamily = "f"\n', "images that stay"),
    ],
)
def test_a_file_that_cannot_be_built_by(tmp_path: Path, table: str, word: str) -> None:
    path = tmp_path / "gce.toml"
    path.write_text(WHOLE + table)
    with pytest.raises(UsageError, match=word):
        read_config(path)


def test_the_table_build(tmp_path: Path) -> None:
    path = tmp_path / "gce.toml"
    path.write_text(WHOLE + '[build]\ncertificates = ["db.pem"]\nkeep = true\nfamily = "f"\n')
    found: Config = read_config(path)
    assert found.build == Build(certificates=("db.pem",), keep=True, family="f")
    assert (found.builder.machine_type, found.builder.gpu, found.gpu) == (
        *("e2-standard-4", False, True),
    )
