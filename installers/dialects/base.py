# ruff: noqa: ARG002 - the base class names arguments that only subclasses use
"""What a dialect is, and the two ways of keeping out of other people's files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from installers import noproxy, originals, proxyurl
from installers.config import ProxySettings
from installers.errors import NodeError
from installers.host import Host
from installers.proxyurl import ProxyURL

_TEXT = ": this block is replaced, change the metadata instead"
BEGIN = f"# >>> airlock{_TEXT}"
END = "# <<< airlock"
# Directories that no package brings, or that only hold what somebody adds to a unit.
_OURS_ALONE = re.compile(
    r"/etc/(?:airlock|conda|conda/condarc\.d|containers/containers\.conf\.d"
    r"|systemd/system\.conf\.d|systemd/system/[^/]+\.service\.d)"
)


@dataclass(frozen=True)
class Wanted:
    """The proxy as files shall hold it: URLs with or without credentials, empty when not set.

    ``networks`` bypass it for programs that know networks.

    ``ca_bundle`` and ``ca_file`` (node paths: everything trusted, our authorities alone) belong to
    the interception CA, which is independent of the proxy's scheme; empty when there is none.
    """

    http: str = ""
    https: str = ""
    no_proxy: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    credentials: bool = False
    ca_bundle: str = ""
    ca_file: str = ""

    @property
    def asserted(self) -> bool:
        """True when there is anything to write."""
        return bool(self.http or self.https)

    @property
    def single(self) -> str:
        """The proxy for tools that take only one; https, because that is what they fetch."""
        return self.https or self.http

    @property
    def plain(self) -> Optional[ProxyURL]:
        """``single`` in parts for tools that speak only plain HTTP to a proxy; None otherwise."""
        proxy = proxyurl.parse(self.single, "proxy")
        return proxy if proxy is not None and proxy.scheme == "http" else None


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
        networks=tuple(proxy.networks),
        environment=tuple(proxy.environment(credentials).items()),
        credentials=credentials and proxy.has_credentials,
    )


class Dialect:
    """One tool's file. ``mode`` is for a new file, ``secret_mode`` when it holds a password.

    ``label`` tells blocks apart that two installers have in one file. ``veiled`` are settings whose
    whole value is a secret, to be compared and never shown.
    """

    name = ""
    path = ""
    label = ""
    mode = 0o644
    secret_mode = 0o644
    # False for tools that cannot be given a password in this file.
    credentials = True
    veiled: frozenset[str] = frozenset()
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
        return self.read(split(text, self.path, self.label)[1])

    def write(self, text: str, settings: dict[str, str]) -> str:
        foreign = split(text, self.path, self.label)[0]
        if not settings:
            return foreign
        if foreign and not foreign.endswith("\n"):
            foreign += "\n"
        begin, end = marks(self.label)
        return f"{foreign}{begin}\n{self.render(settings)}{end}\n"

    def render(self, settings: dict[str, str]) -> str:
        """The lines of the block, each with its newline."""
        raise NotImplementedError


def marks(label: str = "") -> tuple[str, str]:
    """The first and the last line of a block, without newlines."""
    name = f"airlock {label}".strip()
    return f"# >>> {name}{_TEXT}", f"# <<< {name}"


def split(text: str, where: str, label: str = "") -> tuple[str, str]:
    """``(foreign, ours)`` of a text with any number of our blocks; NodeError for a torn one."""
    begin, end = marks(label)
    foreign: list[str] = []
    ours: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        mark = line.strip()
        if mark == begin and not inside:
            inside = True
        elif mark == end and inside:
            inside = False
        elif begin in mark or mark == end:
            break
        else:
            (ours if inside else foreign).append(line)
    else:
        if not inside:
            return "".join(foreign), "".join(ours)
    raise torn(where)


def torn(where: str) -> NodeError:
    """The error for a file in which a mark of ours is alone."""
    return NodeError(
        "the marks of our block do not match",
        where=where,
        remedy=f"remove the lines from {BEGIN[:13]!r} to {END!r} by hand",
    )


def put(host: Host, dialect: Dialect, settings: dict[str, str], secret: bool) -> None:
    """Write the dialect's file, or take our part out of it where ``settings`` is empty.

    ``secret``: these settings hold a credential. A file of others keeps its mode, unless that would
    show root's secret to everyone.
    """
    old = host.read(dialect.path)
    new = dialect.write(old or "", settings)
    if old is not None and settings:
        originals.keep(host, dialect.path, old, dialect.write(new, {}))
    elif old is not None and originals.restore(host, dialect.path, new):
        return
    if not new and (old is None or not dialect.keep_empty):
        if old is not None and dialect.ours(old):
            host.remove(dialect.path)
            prune(host, dialect.path)
        return
    mode = dialect.secret_mode if secret and settings else dialect.mode
    if old is not None:
        present = host.path(dialect.path).stat().st_mode & 0o7777
        foreign = dialect.write(old, {})
        mode = present & mode if mode == 0o600 and foreign else (present if foreign else mode)
    host.write(dialect.path, new, mode=mode)


def prune(host: Host, path: str) -> None:
    """Remove the directories of a file of ours that is gone, if only we had a use for them."""
    directory = path.rpartition("/")[0]
    while _OURS_ALONE.fullmatch(directory) and host.prune(directory):
        directory = directory.rpartition("/")[0]


def no_proxy_value(want: Wanted) -> str:
    """The joined list."""
    return noproxy.join(want.no_proxy)
