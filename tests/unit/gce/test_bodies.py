"""The bodies that are sent, word for word, and what the service says to them.

``AIRLOCK_WRITE_GOLDEN=1`` writes the files anew; what changed in them is then to be looked at.
"""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path
from typing import Any

import pytest

from fixtures.gce import Compute
from harness.providers import gce_bodies
from harness.providers.gce_config import Config, Proxy, Source
from tests.unit.gce.bodies import Api
from tests.unit.gce.site import config

GOLDEN = Path(__file__).parent / "golden"
OWN = Source("projects/airlock-test/global/images/own", disk_gb=30, own_keys=True)
CASES: dict[str, tuple[Config, bool]] = {
    "plain-spot": (config(), True),
    "t4-standard": (
        config(
            machine_type="n1-standard-4",
            accelerator="nvidia-tesla-t4",
            accelerators=2,
            provisioning="standard",
            minutes=120,
        ),
        False,
    ),
    "l4-behind-a-proxy": (
        config(
            machine_type="g2-standard-4",
            images={"debian-12": OWN},
            proxy=Proxy("http://10.126.1.2:3128", intercept=True),
            attributes={"http-proxy-pem-uri": "gs://bucket/ca.pem"},
        ),
        True,
    ),
}


def body(case: str) -> dict[str, Any]:
    """The body of a case, with labels that do not change."""
    settings, secure_boot = CASES[case]
    return gce_bodies.instance(
        settings,
        settings.zones[0],
        "airlock-0123456789ab",
        settings.images["debian-12"],
        {**gce_bodies.OURS, gce_bodies.RUN: "a-run", gce_bodies.UNTIL: "1800000000"},
        ssh_key="ssh-ed25519 AAAA",
        secure_boot=secure_boot,
    )


@pytest.mark.parametrize("case", CASES)
def test_the_body_is_the_golden_one(case: str) -> None:
    path = GOLDEN / f"{case}.json"
    if os.environ.get("AIRLOCK_WRITE_GOLDEN"):
        path.write_text(json.dumps(body(case), indent=1) + "\n")
    assert body(case) == json.loads(path.read_text())


@pytest.mark.parametrize("case", CASES)
def test_googles_library_knows_every_field(case: str) -> None:
    from google.cloud import compute_v1

    text = json.dumps(body(case))
    again = json.loads(compute_v1.Instance.to_json(compute_v1.Instance.from_json(text)))
    assert again["machineType"] == body(case)["machineType"]
    assert again["scheduling"]["maxRunDuration"]["seconds"] == str(CASES[case][0].seconds)


@pytest.mark.parametrize("case", CASES)
def test_the_double_takes_it(cloud: Compute, case: str) -> None:
    api = Api(cloud.url)
    source = "projects/debian-cloud/global/images/family/debian-12"
    assert api.ask("POST", "global/images", {"name": "own", "sourceImage": source})[0] == 200
    status, answer = api.insert(body(case))
    assert status == 200, answer
    made = cloud.named("airlock-0123456789ab")
    assert "accessConfigs" not in made["networkInterfaces"][0]
    assert made["serviceAccounts"] == []
    assert len(made["guestAccelerators"]) == (0 if case == "plain-spot" else 1)


def test_labels_are_what_google_takes() -> None:
    found = gce_bodies.labels("20261122T085140-ab12cd", "debian-12+proxy+full", 600)
    assert found["airlock-run"] == "20261122t085140-ab12cd"
    assert found["airlock-cell"] == "debian-12-proxy-full"
    left = int(found["airlock-until"]) - dt.datetime.now(dt.UTC).timestamp()
    assert 600 < left < 600 + 3600
    assert len(gce_bodies.label("x" * 100)) == 63
