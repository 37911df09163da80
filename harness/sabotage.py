"""Deliberate breaks of a good node, as data beside the checks that they must turn red.

``conformance/<area>/sabotage.toml``::

    [[sabotage]]
    name = "unsigned-module"
    kills = ["modules.signature"]        # checks that must fail
    dependants = ["modules.controls"]    # checks that may fail because those did
    apply = "..."                        # shell, run on the node after boot and before facts
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.catalog import check_keys, line_of, read_toml
from harness.errors import UsageError
from harness.names import nearest


@dataclass(frozen=True)
class Sabotage:
    """One break. ``kills`` must fail, ``dependants`` may, and nothing else."""

    name: str
    kills: tuple[str, ...]
    dependants: tuple[str, ...]
    apply: str
    title: str = ""

    def judge(self, outcomes: Mapping[str, str]) -> list[str]:
        """What is wrong with the outcomes (check id -> outcome) of a sabotaged node."""
        wrong = [
            f"{check} must fail under {self.name} and was {outcomes.get(check, 'not run')}"
            for check in self.kills
            if outcomes.get(check) != "fail"
        ]
        expected = {*self.kills, *self.dependants}
        return wrong + [
            f"{check} failed under {self.name}, which does not name it"
            for check, outcome in outcomes.items()
            if outcome == "fail" and check not in expected
        ]


def load_sabotages(conformance: Path) -> dict[str, Sabotage]:
    """Every sabotage under a conformance directory, by name."""
    found: dict[str, Sabotage] = {}
    for path in sorted(conformance.glob("*/sabotage.toml")):
        for sabotage in _read(path):
            if sabotage.name in found:
                raise UsageError(f"{path}: a second sabotage called {sabotage.name!r}")
            found[sabotage.name] = sabotage
    return found


def find_sabotage(conformance: Path, name: str) -> Sabotage:
    """One sabotage; UsageError with the nearest name if there is none."""
    known = load_sabotages(conformance)
    if name not in known:
        raise UsageError(f"--sabotage: unknown sabotage {name!r}", hint=nearest(name, known))
    return known[name]


def _read(path: Path) -> Iterable[Sabotage]:
    text, data = read_toml(path)
    check_keys(path, text, data, {"sabotage"}, "")
    header = "[[sabotage]]"
    for nth, table in enumerate(data.get("sabotage", [])):
        check_keys(path, text, table, Sabotage.__dataclass_fields__, header, nth)
        for key in ("name", "kills", "apply"):
            if not table.get(key):
                line = line_of(text, key, header, nth)
                raise UsageError(f"{path}:{line}: {header} lacks {key!r}")
        values: dict[str, Any] = {
            **table,
            "kills": tuple(table["kills"]),
            "dependants": tuple(table.get("dependants", ())),
        }
        yield Sabotage(**values)
