"""What goes into a capsule, and how it is shown before anything is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from harness.capsules.told import expectations
from installers.blacken import Blackener
from reports.text import plain, size

#: What each file is, for people; also the order they are shown in.
WHAT = {
    "facts.json": "what one exchange told of the node",
    "metadata.json": "what its metadata asks for",
    "expect.json": "what it is held against, by its metadata or its lab",
    "installer-journal.jsonl": "what our installers did on it",
    "ledger.json": "what the lab's proxy and capture saw of it, counted",
    "requests.jsonl": "the last requests at the lab's proxy",
    "journal.txt": "the journal's warnings, and what our units said",
    "kernel.txt": "the kernel's log",
    "console.txt": "the end of its serial console",
    "sbom.cdx.json": "what is installed on it (CycloneDX)",
    "provenance.json": "how, when and by which version this was made",
}
NEVER = (
    "never in it: passwords, tokens, private keys, the files of the node itself, packets, and the "
    "contents of requests"
)


@dataclass
class Contents:
    """The files of a capsule and what is said of them in its manifest."""

    members: dict[str, bytes] = field(default_factory=dict)
    #: File -> how many secrets were taken out of it.
    blackened: dict[str, int] = field(default_factory=dict)
    #: File -> why it is not there.
    missing: dict[str, str] = field(default_factory=dict)
    #: Where on the node the secrets are that were looked for.
    looked_in: list[str] = field(default_factory=list)
    made: str = ""
    simulated: bool = False

    @property
    def notes(self) -> dict[str, Any]:
        """What the manifest says besides digests."""
        from harness.compose import VERSION

        return {
            "airlock": VERSION,
            "made": self.made,
            "simulated": self.simulated,
            "blackened": self.blackened,
            "missing": self.missing,
            "looked_in": self.looked_in,
        }


def gather(
    captured: Mapping[str, Any],
    provenance: Mapping[str, Any],
    lab: Mapping[str, Any] | None = None,
    hide: Iterable[str] = (),
) -> Contents:
    """The contents of a capsule of one node.

    ``captured``: see installers.capture. ``lab``: what the process that holds a node of ours knows
    beside it (``ledger``, ``expect``, ``requests``, ``console``, ``simulated``). ``hide``: words
    to be taken out besides secrets.
    """
    from harness import sbom

    lab = lab or {}
    found = Contents(
        blackened=dict(captured["blackened"]),
        missing=dict(captured["missing"]),
        looked_in=list(captured["looked_in"]),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        simulated=bool(lab.get("simulated")),
    )
    # The node did the same, and knew more. A second look costs nothing, and hides a user's words.
    blackener = Blackener(hide)

    def clean(name: str, value: Any) -> Any:
        before = blackener.count
        value = blackener.value(value)
        if taken := blackener.count - before:
            found.blackened[name] = found.blackened.get(name, 0) + taken
        return value

    def put(name: str, value: Any) -> None:
        if value:
            found.members[name] = json.dumps(clean(name, value), indent=1).encode() + b"\n"

    # The node's clock can only be judged beside another that was read at that moment.
    facts = clean("facts.json", {**captured["facts"], "received": time.time()})
    put("facts.json", facts)
    put("metadata.json", captured["metadata"])
    put("expect.json", lab.get("expect") or expectations(captured["metadata"] or {}))
    put("ledger.json", lab.get("ledger"))
    put("provenance.json", {**provenance, "made": found.made})
    for name, rows in (
        ("installer-journal.jsonl", facts.get("journal")),
        ("requests.jsonl", lab.get("requests")),
    ):
        lines = "".join(json.dumps(clean(name, row)) + "\n" for row in rows or ())
        if lines:
            found.members[name] = lines.encode()
    texts = {**captured["texts"], **({"console.txt": text} if (text := lab.get("console")) else {})}
    for name, text in texts.items():
        found.members[name] = clean(name, text).encode("utf-8", "replace")
    # Made of what is clean already.
    system = facts.get("os") or {}
    image = f"{system.get('id')}-{system.get('version_id')}"
    found.members["sbom.cdx.json"] = sbom.bill("captured", image, "", facts).encode()
    return found


def shown(contents: Contents, packed: int) -> list[str]:
    """The lines that a person reads before it is written. Text of the node cannot do harm in them.

    ``packed``: bytes of the whole.
    """
    order = list(WHAT)
    lines = []
    for name in sorted(contents.members, key=lambda name: (order.index(name), name)):
        taken = contents.blackened.get(name, 0)
        black = f"{taken} blackened" if taken else ""
        lines.append(f"  {name:24} {size(len(contents.members[name])):>8}  {black:14} {WHAT[name]}")
    lines.append(f"  {len(contents.members)} files, {size(packed)} packed")
    if contents.looked_in:
        lines.append("secrets were found on the node, and are not in it, from:")
        lines += [f"  {place}" for place in _folded(contents.looked_in)]
    if contents.missing:
        lines.append("not in it, because it could not be had:")
        lines += [f"  {name}: {why}" for name, why in sorted(contents.missing.items())]
    lines.append(NEVER)
    lines.append("in it as they are: names and addresses of hosts (--hide FILE takes words out)")
    return [plain(line) for line in lines]


def _folded(places: list[str]) -> list[str]:
    """Files one by one, processes as a number."""
    files = [place for place in places if not place.startswith("process ")]
    processes = len(places) - len(files)
    return [*files, *([f"{processes} processes"] if processes else [])]
