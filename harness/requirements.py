"""What cells require and providers offer, and why the two do not fit.

In a matrix file for all of its cells, in ``images.toml`` and ``profiles.toml`` for one image or
profile::

    [requirements]                 # [NAME.requires] in the other two
    features = ["gpu"]             # see FEATURES
    arch = ["x86_64"]              # any of these, as uname -m says it
    min_disk_mb = 20480            # of the node
    min_memory_mb = 8192

A scenario with Secure Boot requires ``secure-boot`` by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UsageError
from harness.names import nearest

if TYPE_CHECKING:
    from harness.cells import Cell
    from harness.providers.base import Provider

#: What a provider may offer, in words that end "it needs ...".
FEATURES = {
    "gpu": "a GPU",
    "secure-boot": "Secure Boot with keys of ours",
    "fork": "nodes that are forked from frozen ones",
    "ledger": "a network whose packets are recorded",
    "console": "a serial console that is kept",
}


@dataclass(frozen=True)
class Requirements:
    """What a cell needs of whatever makes its node. Sizes are the node's, in MiB."""

    features: frozenset[str] = frozenset()
    arch: frozenset[str] = frozenset()
    min_disk_mb: int = 0
    min_memory_mb: int = 0

    def __or__(self, other: Requirements) -> Requirements:
        """Both at once."""
        either = self.arch | other.arch
        both = self.arch & other.arch
        return Requirements(
            self.features | other.features,
            both or (either if not (self.arch and other.arch) else frozenset({"none"})),
            max(self.min_disk_mb, other.min_disk_mb),
            max(self.min_memory_mb, other.min_memory_mb),
        )


@dataclass(frozen=True)
class Offer:
    """What a provider can make: the largest disk and memory of one node, in MiB."""

    features: frozenset[str]
    arch: frozenset[str]
    disk_mb: int
    memory_mb: int


#: Of a provider that can make anything, or takes what is there.
ANYTHING = Offer(frozenset(FEATURES), frozenset(), 1 << 40, 1 << 40)


def required(cell: Cell) -> Requirements:
    """Everything that the cell's parts and its matrix require."""
    needs = cell.image.requires | cell.profile.requires | cell.requirements
    return needs | Requirements(
        features=frozenset({"secure-boot"} if cell.scenario.secure_boot else ()),
        arch=frozenset({cell.image.arch}),
        min_disk_mb=cell.image.disk_mb,
        min_memory_mb=cell.image.memory_mb,
    )


def unmet(cell: Cell, provider: Provider) -> list[str]:
    """Why this provider cannot make this cell, as sentences: requirements, then the machine."""
    needs, offer = required(cell), provider.offers()
    reasons = [
        f"it needs {FEATURES[feature]} ({feature}), which {provider.name} does not offer"
        for feature in sorted(needs.features - offer.features)
    ]
    if needs.arch and offer.arch and not needs.arch & offer.arch:
        wanted, there = " or ".join(sorted(needs.arch)), ", ".join(sorted(offer.arch))
        reasons.append(f"it needs {wanted}, and {provider.name} makes {there} here")
    for what, wanted_mb, there_mb in (
        ("disk", needs.min_disk_mb, offer.disk_mb),
        ("memory", needs.min_memory_mb, offer.memory_mb),
    ):
        if wanted_mb > there_mb:
            reasons.append(
                f"it needs {wanted_mb} MiB of {what}, and {provider.name} has {there_mb} here"
            )
    return reasons + provider.reasons_not(cell)


def read_requirements(path: Path, table: Any, header: str, *, line: int) -> Requirements:
    """Requirements from a TOML table. UsageError names file, line and the nearest known name."""
    where = f"{path}:{line}: {header}"
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} is not a table")
    known = [each.name for each in fields(Requirements)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(f"{where}: unknown key {key!r}", hint=nearest(key, known))
        if key in ("features", "arch"):
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                raise UsageError(f"{where}: {key} must be a list of names")
            values[key] = frozenset(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            values[key] = value
        else:
            raise UsageError(f"{where}: {key} must be a number of MiB")
    for feature in sorted(values.get("features", ())):
        if feature not in FEATURES:
            raise UsageError(
                f"{where}: unknown feature {feature!r}", hint=nearest(feature, FEATURES)
            )
    return Requirements(**values)
