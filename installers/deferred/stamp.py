"""Whose configuration this is: the stamp; and how the last run ended: the result.

Both are below /var/lib/airlock. An image that was taken of a configured node brings a stamp along,
so a stamp counts for the instance it names and for no other.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass
from typing import Any, Optional

from installers import metadata
from installers.config import Config
from installers.errors import NodeError
from installers.host import Host
from installers.journal import STATE_DIR

STAMP = f"{STATE_DIR}/gpu-config-stamp.json"
RESULT = f"{STATE_DIR}/gpu-config-result.json"
MACHINE_ID = "/etc/machine-id"
#: Where a machine without a metadata server finds who it is, in this order.
IDENTITIES = {"dmi": "/sys/class/dmi/id/product_uuid", "machine-id": MACHINE_ID}
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Stamp:
    """``instance``: by whom it is named, and its id; ``fingerprint``: hardware and inputs."""

    instance: str
    fingerprint: str


def instance(host: Host, config: Config) -> str:
    """The identity of this machine: ``gce:ID``, ``dmi:UUID`` or ``machine-id:ID``.

    A metadata server that gave the attributes is asked for the id as well; UnreachableError where
    it does not answer. NodeError for a machine with no identity at all.
    """
    if config.source.startswith("http"):
        number = metadata.instance_id(config.source)
        if number is not None:
            return f"gce:{number}"
    for kind, path in IDENTITIES.items():
        text = (host.read(path) or "").strip()
        if text and text != "uninitialized":
            return f"{kind}:{text}"
    raise NodeError(
        "this machine has no identity", where=MACHINE_ID, remedy="run systemd-machine-id-setup"
    )


def fingerprint(facts: Any) -> str:
    """A short hash of everything the configuration was computed from."""
    text = json.dumps(facts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(host: Host) -> Optional[Stamp]:
    """The stamp; None where there is none that can be read."""
    try:
        value = json.loads(host.read(STAMP) or "")
        return Stamp(str(value["instance"]), str(value["fingerprint"]))
    except (ValueError, KeyError, TypeError):
        return None


def write(host: Host, stamp: Stamp) -> None:
    """Put the stamp; the last step of a configuration."""
    record = {**asdict(stamp), "t": round(time.time(), 3)}
    host.write(STAMP, json.dumps(record) + "\n")


def clear(host: Host) -> None:
    """Take stamp and result away: before anything is changed, and in images."""
    host.remove(STAMP)
    host.remove(RESULT)


def write_result(host: Host, outcome: str, **data: Any) -> None:
    """``outcome``: configured, unchanged or failed; with the boot that it was on."""
    record = {
        "schema": 1,
        "outcome": outcome,
        "boot_id": _line(host, _BOOT_ID),
        "t": round(time.time(), 3),
        **data,
    }
    host.write(RESULT, json.dumps(record) + "\n")


def _line(host: Host, path: str) -> Optional[str]:
    return (host.read(path) or "").strip() or None
