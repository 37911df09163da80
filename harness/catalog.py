"""What a matrix may name: images and profiles from ``matrices/``, scenarios from ``fixtures/``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from harness import foreign, vendordisk
from harness.cells import Image, Profile
from harness.errors import UsageError
from harness.names import nearest
from harness.requirements import read_requirements

if TYPE_CHECKING:
    from fixtures.scenarios import Scenario

#: The rooms lie side by side, in a checkout and in an installed tool alike.
ROOMS = Path(__file__).resolve().parent.parent
MATRICES = ROOMS / "matrices"
CONFORMANCE = ROOMS / "conformance"

T = TypeVar("T", Image, Profile)


@dataclass(frozen=True)
class Catalog:
    """Everything that can be named, by name."""

    images: Mapping[str, Image]
    scenarios: Mapping[str, Scenario]
    profiles: Mapping[str, Profile]

    def image(self, name: str) -> Image:
        """An image of the catalog, or a vendor's disk by its path or address. UsageError."""
        if name in self.images:
            return self.images[name]
        if vendordisk.is_named(name):
            found = vendordisk.named(name)
            taken = found.name in self.images
            return replace(found, name=f"{found.name}-disk") if taken else found
        raise UsageError(f"unknown image {name!r}", hint=nearest(name, self.images))

    def scenario(self, name: str) -> Scenario:
        """A shipped scenario, several put together (``a+b``), or a user's own by its path.

        UsageError with the nearest name.
        """
        from fixtures.scenarios import ScenarioError, load_scenario

        if name in self.scenarios:
            return self.scenarios[name]
        try:
            return load_scenario(name)
        except ScenarioError as error:
            raise UsageError(error.message, hint=error.hint) from error


def load_catalog(beside: Path | None = None, matrices: Path = MATRICES) -> Catalog:
    """Read the catalog. UsageError with file, line and nearest name for a key that is unknown.

    ``beside``: a user's folder, whose images.toml and profiles.toml (if they are there) add to the
    shipped ones; a name that is in both is an error.
    """
    places = [matrices]
    if beside is not None and beside.resolve() != matrices.resolve():
        places.append(beside)
    return Catalog(
        images=_merged(places, "images.toml", _image),
        scenarios=_scenarios(),
        profiles=_merged(places, "profiles.toml", _profile),
    )


def _merged(
    places: Sequence[Path], file: str, read: Callable[[Path, str, str, dict[str, Any]], T]
) -> dict[str, T]:
    found: dict[str, T] = {}
    for place in places:
        # What ships must be there; a user's own may be.
        if place is not places[0] and not (place / file).exists():
            continue
        for path, text, name, table in _tables(place / file):
            if name in found:
                line = line_of(text, "", f"[{name}]")
                raise UsageError(f"{path}:{line}: {name!r} ships already: take another name")
            found[name] = read(path, text, name, table)
    return found


def _image(path: Path, text: str, name: str, table: dict[str, Any]) -> Image:
    known = {field.name for field in fields(Image)} - {"name"}
    check_keys(path, text, table, known, f"[{name}]")
    where = f"{path}:{line_of(text, '', f'[{name}]')}: [{name}]"
    table = vendordisk.read(table, where, path.parent)
    values = {"name": name, **_tuples(_requires(path, text, name, table))}
    return _build(Image, values, path, text, name)


def _profile(path: Path, text: str, name: str, table: dict[str, Any]) -> Profile:
    from installers.registry import ORDER

    of_a_file = {"title", "installers", "tools", "requires", *foreign.KINDS, *foreign.KEYS}
    check_keys(path, text, table, of_a_file, f"[{name}]")
    own = foreign.read_foreign(path, text, name, table)
    installers = foreign.installers_of(path, text, name, table, ORDER)
    if not installers and own is None:
        line = line_of(text, "installers", f"[{name}]")
        raise UsageError(
            f"{path}:{line}: [{name}] installs nothing",
            hint=f"name installers, or a file of your own: {', '.join(foreign.KINDS)}",
        )
    given = {key: value for key, value in table.items() if key in ("title", "tools", "requires")}
    values = {**_requires(path, text, name, given), "installers": installers, "foreign": own}
    return _build(Profile, {"name": name, **values}, path, text, name)


def _tuples(table: Mapping[str, Any]) -> dict[str, Any]:
    """A table whose lists cannot change."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in table.items()}


def _scenarios() -> Mapping[str, Scenario]:
    from fixtures.scenarios import ScenarioError, load_scenarios

    try:
        return load_scenarios()
    except ScenarioError as error:
        raise UsageError(error.message, hint=error.hint) from error


def read_toml(path: Path) -> tuple[str, dict[str, Any]]:
    """The text and the data of a TOML file; UsageError if there is none or it is not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: not TOML: {error}") from error


def line_of(text: str, key: str, header: str = "", nth: int = 0) -> int:
    """The line of ``key`` below the nth ``header`` line, from 1; the header's line if not found.

    tomllib gives no positions; a message with a line is worth this small search.
    """
    seen, start = -1, 0
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if header and bare.startswith("["):
            if seen == nth and start:
                break
            if bare == header:
                seen += 1
                start = number if seen == nth else 0
            continue
        inside = not header or (seen == nth and start)
        if inside and bare.split("=")[0].strip().strip("\"'") == key:
            return number
    return start or 1


def check_keys(
    path: Path, text: str, table: Mapping[str, Any], known: Iterable[str], header: str, nth: int = 0
) -> None:
    """UsageError for a key that is not known in this table."""
    known = set(known)
    for key in table:
        if key not in known:
            line = line_of(text, key, header, nth)
            raise UsageError(
                f"{path}:{line}: unknown key {key!r} in {header or 'the file'}",
                hint=nearest(key, known),
            )


def _tables(path: Path) -> Iterable[tuple[Path, str, str, dict[str, Any]]]:
    text, data = read_toml(path)
    for name, table in data.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}:{line_of(text, name)}: {name!r} is not a table")
        yield path, text, name, table


def _requires(path: Path, text: str, name: str, table: dict[str, Any]) -> dict[str, Any]:
    """The table, with its requirements read."""
    if "requires" not in table:
        return table
    line = line_of(text, "requires", f"[{name}]")
    header = f"[{name}.requires]"
    found = read_requirements(path, table["requires"], header, line=line)
    return {**table, "requires": found}


def _build(kind: type[T], values: dict[str, Any], path: Path, text: str, name: str) -> T:
    known = {field.name: field for field in fields(kind)}
    check_keys(path, text, values, known, f"[{name}]")
    for key, field in known.items():
        if key not in values and field.default is field.default_factory is MISSING:
            line = line_of(text, "", f"[{name}]")
            raise UsageError(f"{path}:{line}: [{name}] lacks {key!r}")
    return kind(**values)
