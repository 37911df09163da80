"""Where a node begins: the base image of its cell, made of packages here or a vendor's disk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from harness.lab import base, cloud
from harness.lab.diskimage import BadImage
from harness.providers.base import Job, Refusal, Refused
from harness.refusals import known_refusal

if TYPE_CHECKING:
    from harness.lab.base import Base
    from harness.lab.cloud import Disk


def image_of(job: Job) -> Base | Disk:
    """The base image, from the cache or made now.

    Raises :class:`Refused` where a vendor's disk is not what it should be, or is of a system that
    is known not to do, and :class:`InfraError` where it cannot be had.
    """
    image = job.cell.image
    with job.phase("base", f"base image {image.name}") as phase:
        found = _disk(job) if image.cloud else base.build(image, log=job.capsule / "base.log")
        phase.outcome = "cached" if found.cached else "ok"
        job.record.image_digest = f"sha256:{found.digest}"
    return found


def _disk(job: Job) -> Disk:
    image = job.cell.image
    try:
        found = cloud.take(image, lambda line: job.say("base", line))
        found.inspection.require_bootable(image.name)
    except BadImage as error:
        raise Refused(Refusal(error.code, error.message, error.hint)) from error
    for sentence in found.inspection.untold:
        job.say("base", sentence)
    if refusal := known_refusal(replace(job.cell, image=cloud.known(image, found))):
        raise Refused(refusal)
    return found
