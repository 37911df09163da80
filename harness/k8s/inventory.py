"""Every reference to a container image in rendered objects, in all forms that charts use.

Three forms: ``image:`` of a container in any pod template; ``repository``/``image``/``version``
(or ``tag``) side by side in a custom resource; and whole references in strings (environment
variables, arguments, ConfigMaps) that begin with a registry's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from harness.k8s.references import Reference, parse, parse_loose

Object = dict[str, Any]
_POD_LISTS = ("containers", "initContainers", "ephemeralContainers")
#: Within a longer text: a host with a dot or a port, a path, and a tag or digest.
_IN_TEXT = re.compile(
    r"(?<![\w./@:-])((?:[a-z0-9][a-z0-9.-]*\.[a-z]{2,}|localhost|\d+(?:\.\d+){3})(?::\d+)?"
    r"(?:/[a-z0-9][a-z0-9._-]*)+(?::[\w][\w.-]{0,127}|@sha256:[0-9a-f]{64}))(?![\w/@])"
)


class Found(NamedTuple):
    """One reference, where it stands, and in which form (``pod``, ``parts`` or ``text``)."""

    reference: Reference
    object: str
    path: str
    form: str


def inventory(objects: Iterable[Object]) -> list[Found]:
    """All references, in the objects' order."""
    found: list[Found] = []
    for item in objects:
        if item.get("kind") == "CustomResourceDefinition":
            continue
        name = f"{item.get('kind')}/{(item.get('metadata') or {}).get('name')}"
        found += (Found(ref, name, path, form) for ref, path, form in _walk(item, ""))
    return found


def _walk(value: Any, path: str, key: str = "") -> Iterator[tuple[Reference, str, str]]:
    if isinstance(value, dict):
        yield from _parts(value, path)
        for name, inner in value.items():
            if not _is_part(value, name):
                yield from _walk(inner, f"{path}.{name}", str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            if (
                key in _POD_LISTS
                and isinstance(inner, dict)
                and isinstance(inner.get("image"), str)
            ):
                at = f"{path}[{inner.get('name', number)}]"
                yield parse(inner["image"]), f"{at}.image", "pod"
                rest = {name: each for name, each in inner.items() if name != "image"}
                yield from _walk(rest, at)
                continue
            named = inner.get("name") if isinstance(inner, dict) else None
            yield from _walk(inner, f"{path}[{named or number}]")
    elif isinstance(value, str):
        for match in _IN_TEXT.finditer(value):
            if reference := parse_loose(match[1]):
                yield reference, path, "text"


def _parts(value: Object, path: str) -> Iterator[tuple[Reference, str, str]]:
    """The operator's own rule: ``image`` alone is the whole of it, else the three are joined."""
    image = value.get("image")
    if not isinstance(image, str) or not image or "repository" not in value:
        return
    repository = value.get("repository") or ""
    version = value.get("version") or value.get("tag") or ""
    if not isinstance(repository, str) or not isinstance(version, str | int | float):
        return
    whole = f"{repository.rstrip('/')}/{image}" if repository else image
    if version:
        whole += f"@{version}" if str(version).startswith("sha256:") else f":{version}"
    yield parse(whole), path, "parts"


def _is_part(value: Object, name: Any) -> bool:
    together = isinstance(value.get("image"), str) and "repository" in value
    return together and name in ("image", "repository", "version", "tag")
