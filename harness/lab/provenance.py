"""Where a node comes from, as the report shows it."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import InfraError
from harness.lab.base import sha256_file
from installers.collect import modules

if TYPE_CHECKING:
    from fixtures.pki import Authority
    from harness.lab.base import Base
    from harness.lab.build import Built
    from harness.lab.cloud import Disk
    from harness.pack import Packed
    from harness.providers.base import Job


def of_build(
    base: Base | Disk, built: Built, node_file: Packed, authority: Authority
) -> dict[str, Any]:
    """What a built image was made of and with."""
    manifest = built.manifest
    driver = manifest["provenance"].get("driver", {})
    return {
        "pyz_sha256": node_file.sha256,
        "certificate_sha256": authority.module.sha256,
        "kernel": manifest["kernel"],
        "ca_sha256": authority.proxy.sha256,
        "driver_version": driver.get("driver", ""),
        "fixups": [
            f"{fixup['id']}: {fixup['why']}"
            for fixup in driver.get("fixups", [])
            if fixup["state"] == "applied"
        ],
        "cache": [
            _use("base image", base.cached, base.digest, base.built),
            _use("image", built.cached, built.directory.name, manifest["built"]),
            *_modules(driver),
        ],
        "installers": manifest["provenance"],
        **({"inspected": manifest["inspected"]} if "inspected" in manifest else {}),
        "subject": {"disk_sha256": manifest["disk_sha256"]} if "disk_sha256" in manifest else None,
    }


def bound(job: Job, built: Built) -> Built:
    """A built image with its disk's SHA-256 in the manifest, where the run asks for that.

    Minutes for a disk of some GiB, so it is done once and kept.
    """
    if not job.options.bind or "disk_sha256" in built.manifest:
        return built
    with job.phase("digest", "SHA-256 of the disk"):
        manifest = built.manifest | {"disk_sha256": sha256_file(built.root)}
    partial = built.directory / "manifest.json.partial"
    partial.write_text(json.dumps(manifest, indent=1))
    partial.replace(built.directory / "manifest.json")
    return dataclasses.replace(built, manifest=manifest)


def _use(name: str, hit: bool, key: str, created: str) -> dict[str, Any]:
    """One content-addressed thing."""
    return {"name": name, "hit": hit, "key": key, "created": created}


def _modules(driver: Mapping[str, Any]) -> list[dict[str, Any]]:
    if "cache_key" not in driver:
        return []
    hit = driver["cache"] == "hit"
    return [_use("kernel modules", hit, driver["cache_key"], driver["built"])]


def audit(run: Callable[[list[str]], tuple[int, str]], certificate: str) -> dict[str, Any]:
    """The image's own audit of all its modules; ``run`` runs a verb of the node file in it.

    ``certificate``: the path in the image of whose signatures are right.

    As ``audit-modules --json`` prints it: ``modules`` and ``distribution`` (how many),
    ``findings``, ``exit``. Raises InfraError where it says nothing.
    """
    code, said = run(["audit-modules", modules.TREE, "--cert", certificate, "--json"])
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError as error:
        raise InfraError(f"the audit of the image's modules ended with {code}") from error
    return found


def step_end(journal: str, installer: str) -> float | None:
    """When ``installer`` had ended, by the journal (unix seconds)."""
    end = None
    for line in io.StringIO(journal):
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a line torn by a power cut; the engine repeats the step
        if entry.get("installer") == installer and entry.get("event") == "end":
            end = float(entry["t"])
    return end
