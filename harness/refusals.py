"""Combinations that are known not to work, refused before anything is fetched or built."""

from __future__ import annotations

from harness.cells import Cell
from harness.providers.base import Refusal


def known_refusal(cell: Cell) -> Refusal | None:
    """Why this cell must be refused, from what the catalog knows; None if nothing speaks against.

    The one case today: a driver under Secure Boot on a kernel that does not take module
    signatures by keys in the firmware's db.
    """
    image = cell.image
    wants_driver = "driver" in cell.profile.installers
    if cell.scenario.secure_boot and wants_driver and image.trusts_db is False:
        return Refusal(
            code="secure-boot.db-not-trusted",
            reason=(
                f"{image.name} cannot load a signed driver under Secure Boot: {image.trusts_db_why}"
            ),
            remedy=image.way_out,
        )
    return None
