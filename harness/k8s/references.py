"""References to container images: ``registry/path:tag`` or ``registry/path@digest``."""

from __future__ import annotations

import re
from typing import NamedTuple

#: Where names without a registry come from.
DEFAULT_REGISTRY = "docker.io"
_PATH = re.compile(
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_TAG = re.compile(r"[\w][\w.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Reference(NamedTuple):
    """``registry`` is empty where none was written; ``text`` is what was written.

    ``wrong`` says why it is no reference; the other fields mean nothing then.
    """

    registry: str
    path: str
    tag: str
    digest: str
    text: str
    wrong: str = ""

    @property
    def host(self) -> str:
        """Who is asked for it."""
        return self.registry or DEFAULT_REGISTRY

    @property
    def version(self) -> str:
        """What a registry is asked for: the digest, else the tag, else ``latest``."""
        return self.digest or self.tag or "latest"


def split_registry(text: str) -> tuple[str, str]:
    """(registry or "", the rest): a first part with a dot or port, or localhost, is a registry."""
    first, slash, rest = text.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first, rest
    if not slash and ("." in first and ":" not in first):
        return first, ""
    return "", text


def parse(text: str) -> Reference:
    """Take a reference apart; what is none comes back with the reason in ``wrong``."""
    rest, _, digest = text.partition("@")
    registry, rest = split_registry(rest)
    path, _, tag = rest.partition(":")
    wrong = ""
    if not path or not _PATH.fullmatch(path):
        wrong = f"{path!r} is no name of an image"
    elif tag and not _TAG.fullmatch(tag):
        wrong = f"{tag!r} is no tag"
    elif ":" in rest and not tag:
        wrong = "its tag is empty"
    elif "@" in text and not _DIGEST.fullmatch(digest):
        wrong = f"{digest!r} is no digest"
    return Reference(registry, path, tag, digest, text, wrong)


def parse_loose(text: str) -> Reference | None:
    """A reference with a registry and a tag or digest; None if it is anything else."""
    found = parse(text)
    return found if found.registry and not found.wrong and (found.tag or found.digest) else None
