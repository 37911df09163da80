"""Images of kind ``cloud``: a vendor's disk that carries cloud-init, by its path or its address.

In ``images.toml``, the path relative to that file::

    [rocky-9]
    title = "Rocky Linux 9"
    kind = "cloud"
    source = "Rocky-9-GenericCloud.qcow2"      # or https://..., which needs sha256
    sha256 = "..."                             # of the file as it is
    # family, version: what its os-release says, where only a booted machine could read it
    # memory_mb, disk_mb: the disk grows to that

or without a table: ``--image ./Rocky-9-GenericCloud.qcow2``, ``--image URL#sha256=HEX``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from harness.cells import Image
from harness.errors import UsageError

#: What a table of kind ``cloud`` may not have: it says how packages make an image.
OF_PACKAGES = ("suite", "kernel", "archives", "packages", "mirror")
OF_CLOUD = ("source", "sha256")
KINDS = ("packages", "cloud")
_SUFFIXES = (".qcow2", ".img", ".raw")
_SCHEMES = ("http://", "https://")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FRAGMENT = "sha256="


def is_named(text: str) -> bool:
    """Whether the name of an image is a file or an address, and no name of the catalog's."""
    return "/" in text or text.endswith(_SUFFIXES)


def named(text: str) -> Image:
    """The image of a command line. UsageError where it cannot be one; files are looked at."""
    source, _, fragment = text.partition("#") if text.startswith(_SCHEMES) else (text, "", "")
    digest = fragment.removeprefix(_FRAGMENT).lower() if fragment.startswith(_FRAGMENT) else ""
    values = checked(source, digest, Path(), f"--image {text}")
    stem = Path(urlsplit(source).path if source.startswith(_SCHEMES) else source).name
    for suffix in _SUFFIXES:
        stem = stem.removesuffix(suffix)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "image"
    if not source.startswith(_SCHEMES):
        from harness.lab.cloud import look

        look(Path(values["source"]))
    return Image(
        name=name,
        title=f"the disk {stem}",
        kind="cloud",
        source=values["source"],
        sha256=values["sha256"],
    )


def read(table: Mapping[str, Any], where: str, beside: Path) -> dict[str, Any]:
    """The values of a table of ``images.toml``, whichever its kind. UsageError names ``where``."""
    kind = table.get("kind", "packages")
    if kind not in KINDS:
        raise UsageError(f"{where} kind: must be {' or '.join(KINDS)}, and is {kind!r}")
    strange = OF_PACKAGES if kind == "cloud" else OF_CLOUD
    for key in strange:
        if key in table:
            raise UsageError(f"{where} {key}: is not for images of kind {kind}")
    if kind == "packages":
        for key in ("family", "version", "suite", "kernel"):
            if not table.get(key):
                raise UsageError(f"{where} lacks {key!r}")
        return dict(table)
    if not isinstance(table.get("source"), str) or not table["source"]:
        raise UsageError(f"{where} lacks 'source'", hint="the path or the address of its disk")
    return {**table, **checked(table["source"], str(table.get("sha256", "")), beside, where)}


def checked(source: str, digest: str, beside: Path, where: str) -> dict[str, str]:
    """``source`` and ``sha256`` of an image, the path absolute. UsageError."""
    if digest and not _DIGEST.fullmatch(digest):
        raise UsageError(
            f"{where} sha256: {digest!r} is none", hint="64 hexadecimal digits, lower case"
        )
    if not source.startswith(_SCHEMES):
        if "://" in source:
            raise UsageError(f"{where}: {source} is no address", hint="https://... or a path")
        return {"source": str((beside / source).expanduser().resolve()), "sha256": digest}
    if urlsplit(source).username is not None:
        raise UsageError(f"{where}: an address must not hold a password: it would be in reports")
    if not digest:
        raise UsageError(
            f"{where}: {source} needs a sha256: what it serves may change",
            hint=f"sha256 = \"...\" in images.toml, or --image '{source}#{_FRAGMENT}...'",
        )
    return {"source": source, "sha256": digest}
