"""Takes over what today's scripts, or an apply that was killed, left on this node.

It comes first: what others left must neither win over what the later installers write nor be taken
for the site's own. What it takes is kept (:mod:`installers.adopt.kept`) and given back last.
"""

from __future__ import annotations

from typing import Any

from installers import retired
from installers.adopt import kept
from installers.adopt.rows import FATES, ROWS, Row, by_id
from installers.adopt.taking import Found, find, take, tell
from installers.choice import Choice
from installers.engine import Change, Contract, Installer
from installers.host import Host
from installers.journal import Log


class Adopt(Installer):
    """Settings ``<row>:<path>`` are what is there to be taken over; none of them should be."""

    name = "adopt"

    def inspect(self, host: Host) -> dict[str, Any]:
        found = {one.key: "left by others" for one in self._found(host) if one.row.fate != "left"}
        found.update({f"told:{what}": "not yet" for what in kept.memory(host)["after"]})
        return found

    def desired(self, host: Host) -> dict[str, Any]:  # noqa: ARG002 - of the base class
        return {}

    def contract(self, host: Host) -> Contract:
        found = self._found(host)
        notes = [
            f"{one.path} ({one.row.what}): {one.row.remedy or FATES[one.row.fate]}" for one in found
        ]
        notes += retired.notes(self.config.raw, retired.ADOPT)
        # The kept files are the old ones: nothing is written twice but what is cut.
        return Contract(disk={kept.DIRECTORY: 1 << 20} if found else {}, notes=notes)

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        wanted = {change.key for change in changes}
        for one in self._found(host):
            if one.key in wanted:
                with log.step(f"adopt {one.row.id}", path=one.path, fate=one.row.fate):
                    take(host, one.row, one.path)
        tell(host, log)

    def remove(self, host: Host) -> None:
        known = kept.memory(host)
        waiting = sorted({by_id(r["row"]).after for r in known["files"].values()} - {""})
        kept.store(host, {**known, "after": [*known["after"], *waiting]})
        self.remains = kept.give_back(host)
        held = kept.memory(host)["holds"]
        if held:
            host.run(["apt-mark", "hold", *held])
            kept.store(host, {**kept.memory(host), "holds": []})
        tell(host, None)

    def _found(self, host: Host) -> list[Found]:
        """What is there to be taken over or reported in this run."""
        mine = [row for row in ROWS if self._concerns(row)]
        return [one for one in find(host, mine) if self._wanted(one.row)]

    def _concerns(self, row: Row) -> bool:
        return not row.part or row.part in self.beside

    def _wanted(self, row: Row) -> bool:
        # Without a driver of ours theirs stays in use.
        return row.fate == "left" or row.part != "driver" or not Choice(self.config).nothing
