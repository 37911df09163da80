"""What each program of the node takes as its proxy, from the node's facts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from harness.checks import fact, fail
from harness.node import Node

SCHEMES = ("http", "https")
# "key = value" as curl, wget, git and pip write it, quoted or not.
_SETTING = re.compile(r"^([\w.-]+)\s*[=:\s]\s*[\"']?([^\"'\s]*)[\"']?$")
_SECTION = re.compile(r"^\[([^\]]*)\]")


class Address(NamedTuple):
    """A proxy without its credentials; ``credentials`` says whether it has any."""

    scheme: str
    host: str
    port: int | None
    credentials: bool

    def __str__(self) -> str:
        userinfo = "***@" if self.credentials else ""
        return f"{self.scheme}://{userinfo}{self.host}:{self.port}"


def address(url: str) -> Address | None:
    """A proxy URL as facts hold it (redacted); ``None`` for one without scheme or host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.hostname:
        return None
    return Address(parts.scheme, parts.hostname, port, "@" in parts.netloc)


def wrong(node: Node, value: str | None) -> str:
    """What is wrong with one proxy setting, or ``""``.

    Credentials are demanded nowhere by this (a program may take them from elsewhere), but where
    the proxy wants none there must be none: they are from another time.
    """
    wanted = address(node.expect["proxy_url_redacted"])
    assert wanted is not None, "the lab's own proxy address"
    if not value:
        return f"not set; expected {wanted}"
    found = address(value)
    if found is None:
        return f"{value!r} is not a proxy URL; expected {wanted}"
    if found[:3] != wanted[:3]:
        return f"{found}; expected {wanted}"
    if found.credentials and not node.expect.get("auth"):
        return f"{found} holds credentials that this proxy does not ask for"
    return ""


def demand(node: Node, what: str, settings: Mapping[str, str | None]) -> None:
    """Fail unless every setting is the scenario's proxy. ``what`` names the place, for people."""
    found = [f"{key}: {why}" for key, value in settings.items() if (why := wrong(node, value))]
    if found:
        fail(f"{what} has the wrong proxy: {found[0]}", found)


def variables(values: Mapping[str, str]) -> dict[str, str | None]:
    """The four proxy variables: programs differ in which case they read."""
    names = [f"{scheme}_proxy" for scheme in SCHEMES]
    return {name: values.get(name) for name in (*names, *map(str.upper, names))}


def settings(lines: Iterable[str]) -> dict[str, str]:
    """``key = value`` lines as a mapping, the last one winning; below a section, ``section.key``.

    git's ``[http "https://host/"]`` becomes ``http.https://host/.key``, as git itself names it.
    """
    found = {}
    section = ""
    for line in lines:
        if header := _SECTION.match(line):
            name, _, rest = header[1].partition(" ")
            section = ".".join(part.strip('"') for part in (name, rest) if part) + "."
        elif setting := _SETTING.match(line):
            found[section + setting[1]] = setting[2]
    return found


def environment(node: Node) -> Mapping[str, str]:
    """What a login through PAM gets: ``/etc/environment``."""
    values: Mapping[str, str] = fact(node, "proxy.environment")
    return values
