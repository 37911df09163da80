# ruff: noqa: ARG002 - the base class names arguments that only subclasses use
"""What a dialect is, and the two ways of keeping out of other people's files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from installers import noproxy
from installers.config import ProxySettings
from installers.errors import NodeError
from installers.host import Host

BEGIN = "# >>> airlock: this block is replaced, change the metadata instead"
END = "# <<< airlock"


@dataclass(frozen=True)
class Wanted:
    """The proxy as files shall hold it: URLs with or without credentials, empty when not set."""

    http: str
    https: str
    no_proxy: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    credentials: bool

    @property
    def asserted(self) -> bool:
        """True when there is anything to write."""
        return bool(self.http or self.https)

    @property
    def single(self) -> str:
        """The proxy for tools that take only one; https, because that is what they fetch."""
        return self.https or self.http


def wanted(proxy: ProxySettings, credentials: bool) -> Wanted:
    """Settings for the files of a running node, or (without credentials) of an image."""

    def url(one: Optional[object]) -> str:
        if one is None:
            return ""
        return str(getattr(one, "url" if credentials else "without_credentials"))

    return Wanted(
        http=url(proxy.http),
        https=url(proxy.https),
        no_proxy=tuple(proxy.no_proxy),
        environment=tuple(proxy.environment(credentials).items()),
        credentials=credentials and proxy.has_credentials,
    )


class Dialect:
    """One tool's file. ``mode`` is for a new file, ``secret_mode`` when it holds a password."""

    name = ""
    path = ""
    mode = 0o644
    secret_mode = 0o644
    # PAM complains about a missing /etc/environment: an empty file stays then.
    keep_empty = False

    def applies(self, host: Host) -> bool:
        """Whether the tool can be configured on this node."""
        return True

    def settings(self, want: Wanted) -> dict[str, str]:
        """What the tool shall read, setting → value; empty for no proxy."""
        raise NotImplementedError

    def read(self, text: str) -> dict[str, str]:
        """The proxy settings of a file as the tool reads them: where doubled, the last one."""
        raise NotImplementedError

    def ours(self, text: str) -> dict[str, str]:
        """The same, of the part that we wrote."""
        raise NotImplementedError

    def write(self, text: str, settings: dict[str, str]) -> str:
        """The file with these settings of ours and everything foreign as it was."""
        raise NotImplementedError

    def notes(self, want: Wanted) -> list[str]:
        """What this tool cannot express."""
        return []

    def verify(self, host: Host, want: Wanted) -> dict[str, tuple[str, str]]:
        """Setting → (value the tool itself reads, wanted value), where they differ."""
        return {}


class OwnFile(Dialect):
    """A file that only we write."""

    def ours(self, text: str) -> dict[str, str]:
        return self.read(text)

    def write(self, text: str, settings: dict[str, str]) -> str:
        return self.render(settings) if settings else ""

    def render(self, settings: dict[str, str]) -> str:
        """The whole file."""
        raise NotImplementedError


class Block(Dialect):
    """A marked block at the end of a file that others write too: the last setting wins."""

    def ours(self, text: str) -> dict[str, str]:
        return self.read(split(text, self.path)[1])

    def write(self, text: str, settings: dict[str, str]) -> str:
        foreign = split(text, self.path)[0]
        if not settings:
            return foreign
        if foreign and not foreign.endswith("\n"):
            foreign += "\n"
        return f"{foreign}{BEGIN}\n{self.render(settings)}{END}\n"

    def render(self, settings: dict[str, str]) -> str:
        """The lines of the block, each with its newline."""
        raise NotImplementedError


def split(text: str, where: str) -> tuple[str, str]:
    """``(foreign, ours)`` of a text with any number of our blocks; NodeError for a torn one."""
    foreign: list[str] = []
    ours: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if mark == BEGIN and not inside:
            inside = True
        elif mark == END and inside:
            inside = False
        elif BEGIN in mark or mark == END:
            break
        else:
            (ours if inside else foreign).append(line)
    else:
        if not inside:
            return "".join(foreign), "".join(ours)
    raise NodeError(
        "the marks of our block do not match",
        where=where,
        remedy=f"remove the lines from {BEGIN[:13]!r} to {END!r} by hand",
    )


def no_proxy_value(want: Wanted) -> str:
    """The joined list."""
    return noproxy.join(want.no_proxy)
