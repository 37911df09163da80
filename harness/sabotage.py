"""Deliberate breaks of a good node, as data beside the checks that they must turn red.

``conformance/<area>/sabotage.toml``::

    [[sabotage]]
    name = "unsigned-module"
    title = "strip ran after signing"
    kills = ["modules.signature"]        # checks that must fail
    dependants = ["modules.controls"]    # checks that may fail because those did
    apply = "..."                        # shell, run on the node after boot and before facts

What a node is made from is broken in three other ways::

    stage = "build"                      # apply runs in the image, before the installers
    scenario = "volume-unmounted"        # the node is made in this environment as well: the name
                                         # of a scenario, or a file beside sabotage.toml
    serves = {"/a" = "/b"}               # during the build our origin answers /a with what is at /b

``outcome``: how the checks must end where that is not "fail". ``stops``: the installer that must
end the build instead; there is then no node, and no check to kill.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.catalog import Catalog, check_keys, line_of, read_toml
from harness.errors import UsageError
from harness.names import nearest

if TYPE_CHECKING:
    from harness.cells import Cell
    from reports import model

#: Seconds that a break may take on a node: under emulation the hooks of a package take long.
SECONDS = 300.0
_STAGES = ("node", "build")
_OUTCOMES = ("fail", "error")


@dataclass(frozen=True)
class Sabotage:
    """One break. ``kills`` must fail; ``dependants``, and what says that it depends on those, may;
    nothing else.
    """

    name: str
    title: str
    kills: tuple[str, ...] = ()
    dependants: tuple[str, ...] = ()
    apply: str = ""
    stage: str = "node"
    scenario: str = ""
    serves: Mapping[str, str] = field(default_factory=dict)
    outcome: str = "fail"
    stops: str = ""

    @property
    def on_node(self) -> str:
        """Shell for the node; empty where something else is broken."""
        return self.apply if self.stage == "node" else ""

    @property
    def in_image(self) -> str:
        """Shell for the image before the installers; empty where something else is broken."""
        return self.apply if self.stage == "build" else ""

    @property
    def of_build(self) -> dict[str, Any]:
        """What makes an image another one than without it; empty for a break of the node."""
        found: dict[str, Any] = {"script": self.in_image, "serves": dict(self.serves)}
        return {name: value for name, value in found.items() if value}

    def cell(self, cell: Cell, catalog: Catalog) -> Cell:
        """The cell, broken in this way. What is right for it stays the same."""
        if not self.scenario:
            return replace(cell, sabotage=self)
        own = str(cell.scenario.path or cell.scenario.name)
        made = catalog.scenario(f"{own}+{self.scenario}")
        # A scenario may say that its cause must be named; here checks must fail all the same.
        scenario = replace(made, expected="pass", named_by="")
        return replace(cell, scenario=scenario, sabotage=self)

    def judge(self, cell: model.Cell) -> list[str]:
        """What is wrong with the outcomes of a sabotaged cell; empty if it was found."""
        if self.stops:
            stopped = cell.verdict == "fail" and cell.reason.startswith(f"{self.stops}: ")
            said = f"{cell.verdict}: {cell.reason}" if cell.reason else cell.verdict
            return [] if stopped else [f"{self.stops} must stop {self.name}, and it was {said}"]
        outcomes = {check.id: check.outcome for check in cell.checks}
        ended = {check: outcomes.get(check, "not run") for check in self.kills}
        wrong = [
            f"{check} must {self.outcome} under {self.name} and was {outcome}"
            for check, outcome in ended.items()
            if outcome != self.outcome
        ]
        expected = _with_dependants({*self.kills, *self.dependants}, cell)
        return wrong + [
            f"{check} failed under {self.name}, which does not name it"
            for check, outcome in outcomes.items()
            if outcome in ("fail", self.outcome) and check not in expected
        ]


def _with_dependants(checks: set[str], cell: model.Cell) -> set[str]:
    """The checks, and those that may fail because one of these did."""
    found = set(checks)
    while more := {c.id for c in cell.checks if found & set(c.depends)} - found:
        found |= more
    return found


def load_sabotages(conformance: Path, area: str = "*") -> dict[str, Sabotage]:
    """Every sabotage under a conformance directory, or of one area there, by name."""
    found: dict[str, Sabotage] = {}
    for path in sorted(conformance.glob(f"{area}/sabotage.toml")):
        for sabotage in _read(path):
            if sabotage.name in found:
                raise UsageError(f"{path}: a second sabotage called {sabotage.name!r}")
            found[sabotage.name] = sabotage
    return found


def find_sabotage(conformance: Path, name: str) -> Sabotage:
    """One sabotage; UsageError with the nearest name if there is none."""
    known = load_sabotages(conformance)
    if name not in known:
        raise UsageError(f"--only: unknown sabotage {name!r}", hint=nearest(name, known))
    return known[name]


def of_file(path: Path, kills: Iterable[str]) -> Sabotage:
    """A stranger's break: shell in a file, and the checks that must fail after it. UsageError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise UsageError(f"--apply {path}: {why}") from error
    if not text.strip():
        raise UsageError(f"--apply {path}: breaks nothing: it is empty")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem) or "break"
    return Sabotage(name, f"the shell of {path.name}", kills=tuple(kills), apply=text)


def _read(path: Path) -> Iterable[Sabotage]:
    text, data = read_toml(path)
    check_keys(path, text, data, {"sabotage"}, "")
    header = "[[sabotage]]"
    for nth, table in enumerate(data.get("sabotage", [])):
        check_keys(path, text, table, [f.name for f in fields(Sabotage)], header, nth)
        why, key = _wrong(table)
        if why:
            raise UsageError(f"{path}:{line_of(text, key, header, nth)}: {header} {why}")
        values: dict[str, Any] = {
            **table,
            "kills": tuple(table.get("kills", ())),
            "dependants": tuple(table.get("dependants", ())),
        }
        if (scenario := str(table.get("scenario", ""))).endswith(".toml"):
            values["scenario"] = str(path.parent / scenario)
        yield Sabotage(**values)


def _wrong(table: Mapping[str, Any]) -> tuple[str, str]:
    """Why a table is no sabotage, and by which key; empty if it is one."""
    for key in ("name", "title"):
        if not table.get(key):
            return f"lacks {key!r}", key
    if not any(table.get(way) for way in ("apply", "scenario", "serves")):
        return "breaks nothing: it lacks 'apply', 'scenario' and 'serves'", "apply"
    if bool(table.get("kills")) == bool(table.get("stops")):
        return "needs either 'kills' or 'stops'", "kills"
    for key, known in (("stage", _STAGES), ("outcome", _OUTCOMES)):
        if table.get(key, known[0]) not in known:
            return f"has {key} = {table[key]!r}; known: {', '.join(known)}", key
    return "", ""
