"""One cell of a run and everything that became of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.cells import Cell, Expected
from harness.errors import AirlockError
from harness.patterns import Sighting
from harness.providers.base import Record, Refusal, Running

#: What a node says of its cards it says in these areas; see installers.collect.gpu, ``double``.
CARDS = ("driver", "cuda", "frameworks", "mig", "containers", "performance")


class Unavailable(AirlockError):
    """There is no node for this cell. ``kind``: error | failed | refused | stopped."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


@dataclass
class Station:
    """One cell and everything that became of it."""

    cell: Cell
    capsule: Path
    scratch: Path
    record: Record = field(default_factory=Record)
    lock: threading.RLock = field(default_factory=threading.RLock)
    running: Running | None = None
    #: Its facts are in the capsule.
    met: bool = False
    expect: Mapping[str, Any] = field(default_factory=dict)
    ledger: dict[str, Any] | None = None
    simulated: bool = False
    trouble: Unavailable | None = None
    refusal: Refusal | None = None
    #: What a failed installer gave as the cause, a code; empty if none did.
    cause: str = ""
    #: pytest's node id -> what its check is (promised) and what became of it (checks).
    promised: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: When its worker died, if nobody came back since (monotonic).
    orphaned: float | None = None
    last_line: str = ""
    #: Its last check is done, and its evidence in the capsule.
    released: bool = False
    #: The run ends without it: it stays up.
    kept: bool = False
    #: What its console and journal said that no good node says.
    sightings: list[Sighting] = field(default_factory=list)

    def meet(self, expect: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Its facts are there. A node may say that its cards are doubles: nobody has to know."""
        gpu, cards = facts.get("gpu") or {}, facts.get("cards") or {}
        doubled = bool(gpu.get("double") or (cards.get("nvml") or {}).get("double"))
        doubles = [*expect.get("doubles", ()), *(CARDS if doubled else ())]
        self.expect = {**expect, "doubles": doubles}

    @property
    def good(self) -> bool:
        """Whether nothing speaks against the cell so far; in a faulty one, its cause is named."""
        if self.cell.expected is Expected.NAMED:
            failed = {said["id"] for said in self.checks.values() if said["outcome"] == "fail"}
            return self.cell.scenario.named_by in {self.cause, *failed}
        outcomes = {said["outcome"] for said in self.checks.values()}
        bad = self.trouble is not None or any(sighting.fails for sighting in self.sightings)
        return not bad and not outcomes & {"fail", "error"} and "pass" in outcomes
