"""The end of every build stage: the installers run, and what they left is written down.

The same for a chamber and for a machine that was booted; both run programs in the image.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fixtures import capture as captures
from fixtures.ledger import summarise
from harness.applied import judge
from harness.lab import addresses as at
from harness.lab import canary, foreign, provenance
from harness.lab.namespace import last_words
from harness.lab_units import NODE_FILE
from harness.providers.base import Job, NodeFailed
from installers.collect import modules

#: The log of a build in the capsule, and the packets of it beside the image.
LOG, CAPTURE = "build.log", "build.pcap"
PYTHON = ["/usr/bin/python3", NODE_FILE]
JOURNAL = "/var/lib/airlock/journal.jsonl"
# Compiling the driver takes the longest: 3 to 6 minutes on two cores that do nothing else.
_SECONDS = 2400
_AUDIT_SECONDS = 180
# What apt fetches besides lists: packages, and sources of packages.
_PACKAGES = (".deb", ".dsc", ".tar.gz", ".tar.xz")


class Workplace(Protocol):
    """Where an image is built: programs can be run in it."""

    def run(self, argv: Sequence[str], *, timeout: float) -> tuple[int, str]:
        """Exit status and standard output; see Chamber.run."""


@dataclass(frozen=True)
class Look:
    """What the built image says of itself: its journal, its facts, the audit of its modules."""

    journal: str
    facts: str
    audit: dict[str, Any] | None


@dataclass(frozen=True)
class Traffic:
    """What the proxy saw of a build.

    ``requests``: its rows, of which the first ``fetched`` were made until the installers had ended.
    ``named``: when the image first named the proxy (unix time).
    """

    requests: Sequence[Mapping[str, Any]]
    fetched: int
    named: float | None


def apply(job: Job, place: Workplace) -> dict[str, Any]:
    """Run the installers; the journal and the log say how far they came.

    Raises :class:`Refused` when one refuses, and :class:`NodeFailed` when one fails.
    """
    only = ",".join(job.cell.profile.installers)
    url = f"http://{at.METADATA}"
    code, out = place.run(
        [*PYTHON, "apply", "--metadata", url, "--only", only, "--json"], timeout=_SECONDS
    )
    (job.capsule / "apply.json").write_text(out)
    tail = last_words(job.capsule / LOG)
    try:
        results: dict[str, Any] = json.loads(out)
    except ValueError as e:
        raise NodeFailed(f"the installers gave no result (exit {code}): {tail}") from e
    judge(job, code, results, tail)
    return results


def look(job: Job, place: Workplace, results: Mapping[str, Any]) -> Look:
    """Ask the image once nothing will be changed any more; the probes show the capture's eyes."""
    _, journal = place.run(["cat", JOURNAL], timeout=20) if results else (0, "")
    place.run([*PYTHON, "probe"], timeout=60)
    audit = None
    if "driver" in job.cell.profile.parts:
        own = job.cell.profile.foreign
        audit = provenance.audit(
            lambda words: place.run([*PYTHON, *words], timeout=_AUDIT_SECONDS),
            foreign.CERTIFICATE if own and own.driver else modules.CERTIFICATE,
        )
    _, told = place.run([*PYTHON, "facts", "--json"], timeout=_AUDIT_SECONDS)
    return Look(journal, told, audit)


def manifest(
    job: Job,
    out: Path,
    results: Mapping[str, Any],
    last: Look,
    traffic: Traffic,
    signatures: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The built image's manifest; its evidence goes beside it."""
    requests = traffic.requests
    (out / "journal.jsonl").write_text(last.journal)
    (out / "facts.json").write_text(last.facts)
    (out / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests))
    seen = captures.classify(captures.read(out / CAPTURE), at.peers())
    ledger = summarise(requests, [seen]) | {
        "proxy_step_end": traffic.named,
        "packages": packages(requests[: traffic.fetched]),
        "audit": last.audit,
        "planned": foreign.planned(job, results),
        "left": {"gpu_config": json.loads(last.facts)["gpu_config"]},
    }
    return {
        "built": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "ledger": ledger,
        "installers": list(job.record.installers),
        "contract": results.get("contract", {}),
        "signatures": list(signatures),
        "provenance": {
            i["name"]: i["provenance"] for i in results.get("installers", []) if i["provenance"]
        },
    }


def packages(requests: Sequence[Mapping[str, Any]]) -> int:
    """How many requests at the proxy were for packages, or for sources of packages."""
    return sum(str(row["url"]).endswith(_PACKAGES) for row in requests)


def search(disk: Path, secrets: Mapping[str, bytes], ledger: dict[str, Any]) -> None:
    """Look for secrets and for the builder in a written disk; ``ledger`` says what is there."""
    builder = {name: str(value).encode() for name, value in foreign.BUILDER.items()}
    hits = canary.search(disk, {**secrets, **builder})
    baked = [hit for hit in hits if hit["name"] in builder]
    ledger["secrets"] = [hit for hit in hits if hit not in baked]
    ledger["left"]["builder"] = baked
