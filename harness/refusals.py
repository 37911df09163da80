"""Combinations that are known not to work, refused before anything is fetched or built."""

from __future__ import annotations

from harness.cells import Cell
from harness.providers.base import Refusal
from installers.compat import image_trust


def known_refusal(cell: Cell) -> Refusal | None:
    """Why this cell must be refused; None if nothing is known against it.

    A driver under Secure Boot on a kernel that takes no module signatures by keys in the firmware's
    db; a foreign installer whose program the image does not have; and what the lab cannot do to a
    vendor's disk.
    """
    return _vendors(cell) or _untrusted(cell) or _without_program(cell)


def _vendors(cell: Cell) -> Refusal | None:
    """What is done to files of a tree cannot be done to a disk that only its own kernel reads."""
    if not cell.image.cloud:
        return None
    own = cell.profile.foreign
    if own is not None:
        return Refusal(
            "image.cloud-foreign",
            f"{cell.image.name} is a vendor's disk, and {own.path.name} is run in a tree of files",
            "use an image of kind packages for set-up of your own",
        )
    if cell.scenario.disk.size_mb or cell.scenario.disk.free_mb:
        return Refusal(
            "image.cloud-disk",
            f"{cell.scenario.name} resizes the root file system, and nobody knows which a vendor's "
            f"disk ({cell.image.name}) has",
            "use an image of kind packages for this scenario",
        )
    return None


def _untrusted(cell: Cell) -> Refusal | None:
    if not cell.scenario.secure_boot or "driver" not in cell.profile.parts:
        return None
    trust = image_trust(cell.image.family, cell.image.version)
    if trust.trusts_db is not False:
        return None
    return Refusal("secure-boot.db-not-trusted", trust.reason, trust.remedy)


def _without_program(cell: Cell) -> Refusal | None:
    """What runs in the image is the image's own: nothing is added to it during the build."""
    foreign = cell.profile.foreign
    if foreign is None or not foreign.packages or {*foreign.packages} & {*cell.image.packages}:
        return None
    return Refusal(
        f"foreign.{foreign.kind}",
        f"{cell.image.name} has no {foreign.packages[0]}, which must run {foreign.path.name}",
        f'name an image with it (packages = ["{foreign.packages[0]}"] in images.toml; '
        "debian-12-cloud ships), or use a script",
    )
