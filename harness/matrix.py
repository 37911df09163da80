"""A matrix file: images x scenarios x profiles, with include, exclude and expected refusals.

::

    [matrix]
    images = ["debian-12"]
    scenarios = ["proxy-intercept"]
    profiles = ["driver"]
    provider = "qemu"

    [[include]]                  # one more cell, or another word about one that is there
    image = "debian-11"
    scenario = "proxy-intercept"
    expected = "refused"

    [[exclude]]                  # what it names is left out; a key that is absent matches all
    image = "debian-13"
    scenario = "proxy-auth"

    [requirements]               # of all cells; see harness.requirements
    min_disk_mb = 20480

``profile`` and ``provider`` of an include default to the matrix's. ``inherit = true`` in
``[matrix]``: results of unchanged cells may stand for them (see harness.results).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import vendordisk
from harness.catalog import MATRICES, Catalog, check_keys, line_of, read_toml
from harness.cells import Cell, Expected
from harness.errors import NothingToDo, UsageError
from harness.names import nearest
from harness.providers.registry import PROVIDERS
from harness.requirements import Requirements, read_requirements

DEFAULT_PROVIDER = "qemu"
AXES = {"image": "images", "scenario": "scenarios", "profile": "profiles"}


@dataclass(frozen=True)
class Selection:
    """What the command line asks for. Empty tuples select all."""

    images: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    provider: str | None = None


@dataclass
class _Source:
    """A matrix file being read; knows how to say where something is wrong."""

    path: Path
    text: str
    catalog: Catalog
    default_provider: str = DEFAULT_PROVIDER
    profiles: list[str] = field(default_factory=list)
    requirements: Requirements = field(default_factory=Requirements)
    inherit: bool = False

    def known(self, axis: str, name: Any, key: str, header: str, nth: int = 0) -> str:
        """``name`` if the catalog has it."""
        names = PROVIDERS if axis == "provider" else getattr(self.catalog, AXES[axis])
        if axis == "scenario" and isinstance(name, str) and is_made(name):
            self.catalog.scenario(name)
            return name
        if isinstance(name, str) and name in names:
            return name
        line = line_of(self.text, key, header, nth)
        raise UsageError(
            f"{self.path}:{line}: {key}: unknown {axis} {name!r}", hint=nearest(str(name), names)
        )

    def cell(self, names: dict[str, str], provider: str, expected: Expected) -> Cell:
        """The cell of three known names."""
        return Cell(
            image=self.catalog.images[names["image"]],
            scenario=self.catalog.scenario(names["scenario"]),
            profile=self.catalog.profiles[names["profile"]],
            provider=provider,
            expected=expected,
            requirements=self.requirements,
            inherit=self.inherit,
        )


def is_made(scenario: str) -> bool:
    """Whether a scenario's name is a path, or several names put together."""
    return "/" in scenario or "+" in scenario or scenario.endswith(".toml")


def find_matrix(name: str | None) -> Path:
    """A matrix by path, or by the name of one that ships (``default``)."""
    if name is None:
        return MATRICES / "default.toml"
    path = Path(name)
    if path.exists() or path.suffix == ".toml":
        return path
    shipped = MATRICES / f"{name}.toml"
    if shipped.exists():
        return shipped
    not_matrices = {"images", "profiles"}
    names = [p.stem for p in MATRICES.glob("*.toml") if p.stem not in not_matrices]
    raise UsageError(f"no matrix {name!r}", hint=nearest(name, names))


def load_matrix(path: Path, catalog: Catalog) -> list[Cell]:
    """The cells of a matrix file, in its order. UsageError names file, line, key, nearest name."""
    text, data = read_toml(path)
    source = _Source(path, text, catalog)
    check_keys(path, text, data, {"matrix", "include", "exclude", "requirements"}, "")
    if "requirements" in data:
        header = "[requirements]"
        line = line_of(text, "", header)
        source.requirements = read_requirements(path, data["requirements"], header, line=line)
    cells: dict[str, Cell] = {}
    for cell in _product(source, data):
        cells[cell.id] = cell
    for nth, table in enumerate(_list(source, data, "include")):
        cell = _include(source, table, nth)
        cells[cell.id] = cell
    for nth, table in enumerate(_list(source, data, "exclude")):
        for gone in _exclude(source, table, nth, list(cells.values())):
            del cells[gone]
    return list(cells.values())


def select(cells: Sequence[Cell], selection: Selection, catalog: Catalog) -> list[Cell]:
    """The cells a command line asks for. UsageError for a name that does not exist anywhere.

    Images, scenarios and profiles that exist but are not in the matrix together make cells of
    their own, so ``--image debian-13 --scenario proxy-auth`` works without a matrix file.
    NothingToDo if nothing is left.
    """
    asked = {
        "image": selection.images,
        "scenario": selection.scenarios,
        "profile": selection.profiles,
    }
    for axis, names in asked.items():
        known = getattr(catalog, AXES[axis])
        for name in names:
            own = {"scenario": is_made, "image": vendordisk.is_named}.get(axis)
            if name not in known and not (own and own(name)):
                raise UsageError(f"--{axis}: unknown {axis} {name!r}", hint=nearest(name, known))
    scenarios = [catalog.scenario(name) for name in selection.scenarios]
    images = [catalog.image(name) for name in selection.images]
    asked["scenario"] = tuple(scenario.name for scenario in scenarios)
    asked["image"] = tuple(image.name for image in images)
    chosen = [
        cell
        for cell in cells
        if all(not names or getattr(cell, axis).name in names for axis, names in asked.items())
    ]
    given = any(image.name not in catalog.images for image in images)
    if given and not selection.scenarios:
        # A disk of one's own in the scenarios of the matrix.
        scenarios = list({cell.scenario.name: cell.scenario for cell in cells}.values())
    if not chosen and images and scenarios and (cells or selection.profiles):
        provider = selection.provider or (cells[0].provider if cells else DEFAULT_PROVIDER)
        profiles = selection.profiles or tuple(dict.fromkeys(cell.profile.name for cell in cells))
        chosen = [
            Cell(image, scenario, catalog.profiles[profile], provider)
            for image in images
            for scenario in scenarios
            for profile in profiles
        ]
    if not chosen:
        asked_for = ", ".join(f"{axis} {'|'.join(names)}" for axis, names in asked.items() if names)
        raise NothingToDo(
            f"the matrix selects nothing{f' for {asked_for}' if asked_for else ''}",
            hint="airlock plan lists its cells",
        )
    if selection.provider:
        if selection.provider not in PROVIDERS:
            raise UsageError(
                f"--provider: unknown provider {selection.provider!r}",
                hint=nearest(selection.provider, PROVIDERS),
            )
        chosen = [replace(cell, provider=selection.provider) for cell in chosen]
    return chosen


def _product(source: _Source, data: dict[str, Any]) -> list[Cell]:
    table = data.get("matrix", {})
    if not isinstance(table, dict):
        raise UsageError(f"{source.path}:{line_of(source.text, 'matrix')}: matrix is not a table")
    header = "[matrix]"
    check_keys(source.path, source.text, table, {*AXES.values(), "provider", "inherit"}, header)
    if not isinstance(table.get("inherit", False), bool):
        line = line_of(source.text, "inherit", header)
        raise UsageError(f"{source.path}:{line}: inherit must be true or false")
    source.inherit = table.get("inherit", False)
    if "provider" in table:
        source.default_provider = source.known("provider", table["provider"], "provider", header)
    names: dict[str, list[str]] = {}
    for axis, key in AXES.items():
        values = table.get(key, [])
        if not isinstance(values, list):
            line = line_of(source.text, key, header)
            raise UsageError(f"{source.path}:{line}: {key} must be a list of names")
        names[axis] = [source.known(axis, value, key, header) for value in values]
    source.profiles = names["profile"]
    return [
        source.cell(
            {"image": image, "scenario": scenario, "profile": profile},
            source.default_provider,
            Expected.PASS,
        )
        for image in names["image"]
        for scenario in names["scenario"]
        for profile in names["profile"]
    ]


def _list(source: _Source, data: dict[str, Any], key: str) -> list[dict[str, Any]]:
    tables = data.get(key, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        line = line_of(source.text, key)
        raise UsageError(f"{source.path}:{line}: {key} must be written [[{key}]]")
    return tables


def _include(source: _Source, table: dict[str, Any], nth: int) -> Cell:
    header = "[[include]]"
    check_keys(source.path, source.text, table, {*AXES, "provider", "expected"}, header, nth)
    table = dict(table)
    if len(source.profiles) == 1:
        table.setdefault("profile", source.profiles[0])
    for axis in AXES:
        if axis not in table:
            line = line_of(source.text, "", header, nth)
            raise UsageError(f"{source.path}:{line}: {header} lacks {axis!r}")
    names = {axis: source.known(axis, table[axis], axis, header, nth) for axis in AXES}
    expected = table.get("expected", Expected.PASS.value)
    if expected not in list(Expected):
        line = line_of(source.text, "expected", header, nth)
        raise UsageError(
            f"{source.path}:{line}: expected: {expected!r}",
            hint=nearest(str(expected), [e.value for e in Expected]),
        )
    provider = table.get("provider", source.default_provider)
    provider = source.known("provider", provider, "provider", header, nth)
    return source.cell(names, provider, Expected(expected))


def _exclude(source: _Source, table: dict[str, Any], nth: int, cells: list[Cell]) -> list[str]:
    header = "[[exclude]]"
    check_keys(source.path, source.text, table, AXES, header, nth)
    names = {axis: source.known(axis, name, axis, header, nth) for axis, name in table.items()}
    gone = [
        cell.id
        for cell in cells
        if all(getattr(cell, axis).name == name for axis, name in names.items())
    ]
    if not gone or not names:
        line = line_of(source.text, "", header, nth)
        raise UsageError(f"{source.path}:{line}: {header} excludes no cell of this matrix")
    return gone
