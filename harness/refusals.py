"""Combinations that are known not to work, refused before anything is fetched or built."""

from __future__ import annotations

from harness.cells import Cell
from harness.providers.base import Refusal
from installers.compat import image_trust


def known_refusal(cell: Cell) -> Refusal | None:
    """Why this cell must be refused; None if nothing is known against it.

    The one case today: a driver under Secure Boot on a kernel that takes no module signatures by
    keys in the firmware's db.
    """
    if not cell.scenario.secure_boot or "driver" not in cell.profile.installers:
        return None
    trust = image_trust(cell.image.family, cell.image.version)
    if trust.trusts_db is not False:
        return None
    return Refusal("secure-boot.db-not-trusted", trust.reason, trust.remedy)
