"""A closed network on the double, and nodes that are made in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fixtures.gce import Compute, Guest
from fixtures.scenarios import Scenario
from harness.admission import Admission
from harness.cells import Cell, Image, Profile
from harness.cloud.api import Google
from harness.compose import compose_cell
from harness.pool import Pool
from harness.providers import fake
from harness.providers.base import Job
from harness.providers.gce import Gce
from harness.providers.gce_api import Pace
from harness.providers.gce_config import Config, Source
from harness.providers.gce_iap import Place
from harness.state import RunRecord
from harness.station import Unavailable
from harness.transports.base import AgentOperations
from reports import model
from tests.unit.gce.bodies import PROJECT
from tests.unit.gce.bodies import Api as Plain

ZONES = ("europe-west4-a", "europe-west4-b")
KEYS = {"hostkeys": {"ssh-ed25519": "AAAAC3NzaC1lZDI1NTE5AAAA"}}
#: Generous, for slow machines; tests of what takes too long set their own.
PACE = Pace(patience=60, operation=60, boot=60, answer=30, slice=0.2, look=0.05, end=60)


def network(compute: Compute) -> None:
    """The network of ``airlock gce up``, as far as nodes need it."""
    api = Plain(compute.url)
    body = {"name": "airlock", "autoCreateSubnetworks": False}
    assert api.ask("POST", "global/networks", body)[0] == 200
    for at, region in enumerate(("europe-west4", "us-central1")):
        subnet = {
            "name": "airlock-nodes",
            "network": "global/networks/airlock",
            "ipCidrRange": f"10.{at}.0.0/16",
            "privateIpGoogleAccess": True,
        }
        assert api.ask("POST", f"regions/{region}/subnetworks", subnet)[0] == 200
    compute.external_addresses = False
    compute.guest = Guest(boots=0, attributes=KEYS)
    compute.seconds["insert"] = compute.seconds["delete"] = 0.02


def config(**more: Any) -> Config:
    """A file's content."""
    values: dict[str, Any] = {
        "path": Path("gce.toml"),
        "project": PROJECT,
        "zones": ZONES,
        "machine_type": "e2-medium",
        "images": {"debian-12": Source("projects/debian-cloud/global/images/family/debian-12")},
        "minutes": 10,
    }
    return Config(**{**values, **more})


def cell() -> Cell:
    """A cell that gce can make."""
    return Cell(
        image=Image("debian-12", "", "debian", "12", "bookworm", "linux"),
        scenario=Scenario(name="direct", title="", network="direct"),
        profile=Profile("plain", "", ()),
        provider="gce",
    )


def double_node() -> AgentOperations:
    """A good node, made of data."""
    path = Path(fake.__file__).with_name("fake_node.json")
    return fake.FakeTransport(json.loads(path.read_text())["facts"], "ok")


def double_login(provider: Gce, job: Job, place: Place, keys: Mapping[str, str]) -> AgentOperations:
    """A double of the way in: the API is what is tested here; tests/lab has the real one."""
    del provider, job, place
    assert keys == KEYS["hostkeys"]
    return double_node()


def api(pace: Pace = PACE, credentials: Any = None) -> Google:
    """The client of whatever AIRLOCK_COMPUTE_ENDPOINT names."""
    return Google(PROJECT, pace=pace, credentials=credentials)


def provider(pace: Pace = PACE, credentials: Any = None, **more: Any) -> Gce:
    """A provider on whatever AIRLOCK_COMPUTE_ENDPOINT names."""
    return Gce(config(**more), api=api(pace, credentials), connect=double_login)


class Attempt:
    """One cell of a run on a provider, by the pool that real runs have."""

    def __init__(self, record: RunRecord, made_by: Gce, of: Cell | None = None) -> None:
        self.record = record
        self.cell = of or cell()
        self.pool = Pool(
            [self.cell],
            {"gce": made_by},
            record,
            record.path / "capsules",
            admission=Admission(4096, 8),
        )
        self.station = self.pool.stations[self.cell.id]

    def up(self) -> str:
        """Bring it up: empty, or why there is no node."""
        try:
            self.pool.acquire(self.cell.id)
        except Unavailable as error:
            return f"{error.kind}: {error}"
        return ""

    def end(self) -> model.Cell:
        """End everything; what the report says of the cell."""
        self.pool.close()
        return compose_cell(self.station, "", [])
