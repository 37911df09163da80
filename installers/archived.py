"""Which suites have moved to an archive, and sources that name them: data, made to fit the node.

``data/archived.json`` ships the known ones, ``airlock-archived-extra`` adds suites in the shape of
``archived``. Where the archive is, ``airlock-archive-mirror`` says: no address of it is shipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional
from urllib.parse import urlsplit

from installers.aptentries import Source
from installers.compat import load_data
from installers.errors import ConfigError

MIRROR, EXTRA = "airlock-archive-mirror", "airlock-archived-extra"
_FORM = "write https://host/folder: the archive's suites are below folder/debian or folder/ubuntu"
_SHAPE = "docs/archives.md shows the shape"
_WORD = re.compile(r"[\x21-\x7e]+")
_NEEDED = {"repository", "suites", "to"}
_KNOWN = {*_NEEDED, "since", "cited"}
_SCHEMES = ("http", "https", "mirror+file")


@dataclass(frozen=True)
class Moved:
    """Where one suite of one repository is now. ``to`` None: nowhere, and nobody needs it."""

    to: Optional[str]
    since: str


@dataclass(frozen=True)
class Distribution:
    """What a node's own sources look like, and which of them have moved.

    ``paths``: path of a URI → repository; ``moved``: (repository, suite) → where it is.
    """

    name: str
    components: frozenset[str]
    keyrings: tuple[str, ...]
    paths: Mapping[str, str]
    moved: Mapping[tuple[str, str], Moved]

    def suites(self) -> frozenset[str]:
        """Every suite that has moved."""
        return frozenset(suite for _, suite in self.moved)

    def find(self, source: Source, uri: str, suite: str) -> Optional[Moved]:
        """Where the suite has gone to, if this is a source of the distribution's own."""
        parts = urlsplit(uri)
        repository = self.paths.get(parts.path.rstrip("/") or "/")
        known = parts.scheme in _SCHEMES and self.components >= set(source.components)
        # Others' repositories are laid out alike; a keyring of their own tells them apart.
        signed = all(word.startswith(self.keyrings) for word in source.signed_by)
        if repository is None or not known or not signed:
            return None
        return self.moved.get((repository, suite.rstrip("/")))


def distribution(name: str, raw: Mapping[str, str]) -> Optional[Distribution]:
    """The distribution of that os-release ID, None for one without an archive. ConfigError."""
    extra = _extra(raw.get(EXTRA))
    shipped = _shipped()
    for other in extra:
        if other not in shipped:
            raise ConfigError(f"knows no {other!r}: {', '.join(shipped)}", where=EXTRA)
        _check(extra[other], set(shipped[other]["repositories"]))
    if name not in shipped:
        return None
    entry = shipped[name]
    return Distribution(
        name,
        frozenset(entry["components"]),
        tuple(entry["keyrings"]),
        {path: repo for repo, paths in entry["repositories"].items() for path in paths},
        {
            (row["repository"], suite): Moved(row["to"], row.get("since", ""))
            for row in [*entry["archived"], *extra.get(name, [])]
            for suite in row["suites"]
        },
    )


def mirror(raw: Mapping[str, str]) -> Optional[str]:
    """The archive's address without a slash at its end, None where none is named. ConfigError."""
    given = (raw.get(MIRROR) or "").strip()
    if not given:
        return None
    try:
        parts = urlsplit(given)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not _WORD.fullmatch(given) or set(given) & set("@?#[]"):
        raise ConfigError("is not an address without credentials", where=MIRROR, remedy=_FORM)
    return given.rstrip("/")


@lru_cache(maxsize=1)
def _shipped() -> dict[str, Any]:
    found: dict[str, Any] = load_data("archived.json")["distributions"]
    return found


def _extra(text: Optional[str]) -> dict[str, Any]:
    if not (text or "").strip():
        return {}
    try:
        found = json.loads(text or "")
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", where=EXTRA, remedy=_SHAPE) from None
    if not isinstance(found, dict) or not all(isinstance(rows, list) for rows in found.values()):
        raise ConfigError("is not an object of lists", where=EXTRA, remedy=_SHAPE)
    return found


def _check(rows: list[Any], repositories: set[str]) -> None:
    for row in rows:
        if not isinstance(row, dict) or not _NEEDED <= set(row) <= _KNOWN:
            raise ConfigError(
                "an entry has repository, suites and to, and no more than since and cited",
                where=EXTRA,
                remedy=_SHAPE,
            )
        if row["repository"] not in repositories:
            raise ConfigError(
                f"there is no repository {row['repository']!r}",
                where=EXTRA,
                remedy=f"choose from {', '.join(sorted(repositories))}",
            )
        suites, to = row["suites"], row["to"]
        words = [*suites, *([] if to is None else [to])] if isinstance(suites, list) else [None]
        if not suites or not all(isinstance(w, str) and _WORD.fullmatch(w) for w in words):
            raise ConfigError("suites and to are words", where=EXTRA, remedy=_SHAPE)
