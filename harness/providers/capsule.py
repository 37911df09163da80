"""Nodes that were captured: what they said then is judged again, by the checks of today."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.capsules.archive import Capsule
from harness.cells import Cell, Image, Profile
from harness.providers.asis import AsIs
from harness.providers.base import Job
from harness.transports.base import AgentOperations, NodeAbsent


class Captured(AsIs):
    """The provider of one capsule's node."""

    name = "capsule"

    def __init__(self, capsule: Capsule) -> None:
        self._capsule = capsule

    def reasons_not(self, cell: Cell) -> list[str]:
        """It needs nothing."""
        del cell
        return []

    def up(self, job: Job) -> CapturedNode:
        """There is nothing to make."""
        job.record.provenance["capsule"] = {
            "sha256": self._capsule.digest,
            "made": self._capsule.manifest.get("made"),
        }
        return CapturedNode(self._capsule)


class CapturedNode:
    """A node that is not there."""

    #: Its facts are those of a capsule: see harness.node.Recorded.
    recorded = True

    def __init__(self, capsule: Capsule) -> None:
        facts = capsule.table("facts.json")
        #: When its facts were read, by the clock beside it; Unix time.
        self.received: float | None = facts.get("received")
        self.simulated = bool(capsule.manifest.get("simulated"))
        self.transport = Replay(capsule.path.name, facts)
        self.expect: Mapping[str, Any] = capsule.table("expect.json")
        self._capsule = capsule

    def exercise(self) -> None:
        """What was not tried then cannot be tried now."""

    def ledger(self) -> dict[str, Any]:
        """What was recorded of its traffic, if anything was."""
        return self._capsule.table("ledger.json")

    def symptom(self) -> str:
        """None can be shown."""
        return ""

    def keep_evidence(self, capsule: Path) -> None:
        """The logs of the capsule, where those of other nodes are; not what the run writes."""
        for name, data in self._capsule.members.items():
            if name.endswith((".txt", ".log", ".jsonl")) and Path(name).name == name:
                (capsule / name).write_bytes(data)

    def down(self) -> None:
        """Nothing is up."""


class Replay(AgentOperations):
    """Answers with the facts of then; everything else takes a node."""

    def __init__(self, name: str, facts: Mapping[str, Any]) -> None:
        self.name = name
        self._facts = facts

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport."""
        del timeout
        if op == "facts":
            return {**self._facts, "nonce": args.get("nonce")}
        raise NodeAbsent(f"{self.name} is a capsule: there is no node that could be asked")

    def close(self) -> None:
        """Nothing is open."""


def captured_cell(capsule: Capsule, image: str) -> Cell:
    """The one cell of a check of a capsule; ``image``: what the node is an instance of."""
    from fixtures.scenarios import Scenario

    title = f"captured {capsule.manifest.get('made', '')}"
    return Cell(
        image=Image(name=image, title=image, family="", version="", suite="", kernel=""),
        scenario=Scenario(name="as-it-was", title=title, network="direct"),
        profile=Profile(name="as-it-was", title="Whatever was on it", installers=()),
        provider=Captured.name,
    )
