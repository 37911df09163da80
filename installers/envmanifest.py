"""What an environment holds: its files, its links, and which archive has what."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from installers.cache.store import TamperedError

MANIFEST = "manifest.json"
#: Of archives and manifest; part of the cache's key.
FORMAT = 2


@dataclass(frozen=True)
class File:
    """A file as it was packed; ``mtime``: whole seconds since the epoch.

    ``how`` its prefix is rewritten: text, binary or None.
    """

    sha256: str
    size: int
    mode: int
    mtime: int
    how: Optional[str] = None


@dataclass(frozen=True)
class Manifest:
    """Everything in an environment; names are relative.

    ``shards``: archive → its blocks, each the files that are in the member of that number.
    """

    prefix: str
    files: Mapping[str, File]
    links: Mapping[str, str]
    shards: Mapping[str, list[list[str]]]

    def text(self) -> str:
        """As JSON."""
        files = {name: [f.sha256, f.size, f.mode, f.mtime, f.how] for name, f in self.files.items()}
        links, shards = dict(self.links), dict(self.shards)
        document = {"schema": FORMAT, "prefix": self.prefix, "files": files}
        return json.dumps({**document, "links": links, "shards": shards}, sort_keys=True)


def read_manifest(text: str) -> Manifest:
    """The JSON of a manifest. TamperedError when it names anything outside of the environment."""
    try:
        document = json.loads(text)
        if document["schema"] != FORMAT:
            raise ValueError(f"of schema {document['schema']!r}")
        files = {name: File(*row) for name, row in document["files"].items()}
        made = Manifest(document["prefix"], files, document["links"], document["shards"])
        packed = [name for blocks in made.shards.values() for names in blocks for name in names]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TamperedError(f"is no manifest: {error}", where=MANIFEST) from None
    for name in [*made.files, *made.links, *made.shards]:
        parts = name.split("/")
        if name.startswith("/") or ".." in parts or "" in parts or "\0" in name:
            raise TamperedError(f"names {name!r}", where=MANIFEST)
    if sorted(packed) != sorted(made.files):
        raise TamperedError("does not say of each file which archive has it", where=MANIFEST)
    for name, target in made.links.items():
        inside = os.path.normpath(os.path.join(os.path.dirname(name), target))  # noqa: PTH118, PTH120
        if target.startswith("/") or inside.startswith(".."):
            raise TamperedError(f"links {name} to {target}", where=MANIFEST)
    return made
