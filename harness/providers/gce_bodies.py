"""The bodies of requests to the Compute API, as plain JSON; golden files in the tests hold them."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.providers.gce_config import Config, Source
from harness.state import state_dir

#: What every instance of ours is labelled with; ``airlock reap`` deletes nothing without them.
OURS = {"managed-by": "airlock"}
RUN, UNTIL, HOME, CELL = "airlock-run", "airlock-until", "airlock-home", "airlock-cell"
#: On an image that stays, in the place of RUN: which run built it.
BUILT_BY = "airlock-built-by"
#: Seconds that Google may take from the insertion until the time limit begins to count.
SLACK = 1800


def label(text: str) -> str:
    """Any text as a label's value: at most 63 of lower-case letters, digits, ``-`` and ``_``."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]


def home() -> str:
    """Which state directory of which machine a run lives in: only there its death can be seen."""
    try:
        machine = Path("/etc/machine-id").read_text().strip()
    except OSError:
        machine = ""
    return hashlib.sha256(f"{machine} {state_dir()}".encode()).hexdigest()[:16]


def labels(run: str, cell: str, seconds: int) -> dict[str, str]:
    """Whose instance it is, and until when (seconds since 1970) it may be anybody's."""
    until = int(time.time()) + seconds + SLACK
    return {**OURS, RUN: label(run), UNTIL: str(until), HOME: home(), CELL: label(cell)}


def instance(
    config: Config,
    zone: str,
    name: str,
    image: Source,
    marks: Mapping[str, str],
    *,
    ssh_key: str,
    secure_boot: bool,
    more: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A node: no external address, Shielded, deleted by Google when its time is up.

    No service account: a node under test has no identity. ``ssh_key``: one line of OpenSSH;
    ``more``: metadata that goes before the user's.
    """
    region = zone.rpartition("-")[0]
    metadata = {
        "block-project-ssh-keys": "TRUE",
        "enable-guest-attributes": "TRUE",
        # OS Login would take keys from accounts only, and ours is of this run alone.
        "enable-oslogin": "FALSE",
        "ssh-keys": f"{config.user}:{ssh_key} {config.user}",
        **({"http-proxy": config.proxy.url} if config.proxy else {}),
        # So that an intercepting proxy's ledger can show what apt fetches.
        **({"airlock-apt-https": "true"} if config.proxy and config.proxy.intercept else {}),
        **config.attributes,
        **(more or {}),
    }
    body: dict[str, Any] = {
        "name": name,
        "description": f"made by Airlock; gone by itself after {config.minutes} minutes",
        "machineType": f"zones/{zone}/machineTypes/{config.machine_type}",
        "labels": dict(marks),
        "disks": [
            {
                "boot": True,
                "autoDelete": True,
                "initializeParams": {
                    "sourceImage": image.source,
                    "diskSizeGb": str(image.disk_gb),
                    "diskType": f"zones/{zone}/diskTypes/{config.disk_type}",
                    "labels": dict(marks),
                },
            }
        ],
        "networkInterfaces": [
            {
                "subnetwork": (
                    f"projects/{config.project}/regions/{region}/subnetworks/{config.subnetwork}"
                ),
                "stackType": "IPV4_ONLY",
                "nicType": "GVNIC",
            }
        ],
        "shieldedInstanceConfig": {
            "enableSecureBoot": secure_boot,
            "enableVtpm": True,
            "enableIntegrityMonitoring": True,
        },
        "scheduling": {
            # A node that was moved or started again is another node.
            "onHostMaintenance": "TERMINATE",
            "automaticRestart": False,
            "provisioningModel": config.provisioning.upper(),
            "instanceTerminationAction": "DELETE",
            "maxRunDuration": {"seconds": str(config.seconds)},
        },
        "metadata": {"items": [{"key": k, "value": v} for k, v in metadata.items()]},
        "serviceAccounts": [],
    }
    if config.accelerator:
        body["guestAccelerators"] = [
            {
                "acceleratorType": f"zones/{zone}/acceleratorTypes/{config.accelerator}",
                "acceleratorCount": config.accelerators,
            }
        ]
    return body
