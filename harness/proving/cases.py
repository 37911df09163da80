"""What every program is asked: a bypass list, and an address to fetch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from harness.errors import NothingToDo
from harness.names import nearest
from installers import noproxy

#: Names that the chamber's hosts file knows, and their addresses.
NAMES = {
    "corp.example": "10.9.8.7",
    "pkg.corp.example": "10.9.8.7",
    "evilcorp.example": "10.9.8.7",
    "build.example": "10.9.8.7",
    "host.build.example": "10.9.8.7",
    "other.example": "10.9.8.7",
    # Squid looks for the name of an address that it is asked for.
    "six.example": "fd00:9::7",
    "metadata.google.internal": "169.254.169.254",
}
ADDRESSES = ("10.9.8.7", "fd00:9::7", "169.254.169.254")

#: A bypass list as a customer writes it, and one that holds nothing we ask for.
CUSTOM = ".corp.example, build.example 10.9.8.7,fd00:9::7"
NOTHING = "nobody.example"


@dataclass(frozen=True)
class Case:
    """One question. ``entry``: the list, and ``url`` what is fetched (without a path).

    ``written``: the list is a customer's, and the program gets what we make of it; otherwise the
    program gets it as it is.
    """

    entry: str
    url: str
    written: bool = False

    @property
    def host(self) -> str:
        """Of the URL, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int | None:
        """The one that the URL names, if it does."""
        return urlsplit(self.url).port

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return urlsplit(self.url).scheme

    @property
    def entries(self) -> list[str]:
        """What we write for the list; only for ``written`` ones."""
        return noproxy.parse(self.entry)[0]

    @property
    def value(self) -> str:
        """The value of ``no_proxy``."""
        return noproxy.join(self.entries) if self.written else self.entry


_AS_IT_IS = (
    ("pkg.corp.example", "http://pkg.corp.example"),
    ("pkg.corp.example", "https://pkg.corp.example"),
    ("pkg.corp.example", "http://pkg.corp.example:8080"),
    ("corp.example", "http://corp.example"),
    ("corp.example", "http://pkg.corp.example"),
    ("corp.example", "http://evilcorp.example"),
    (".corp.example", "http://pkg.corp.example"),
    (".corp.example", "http://corp.example"),
    ("*.corp.example", "http://pkg.corp.example"),
    ("*.corp.example", "http://corp.example"),
    ("*", "http://pkg.corp.example"),
    ("*", "http://10.9.8.7"),
    ("10.9.8.7", "http://10.9.8.7"),
    ("10.0.0.0/8", "http://10.9.8.7"),
    ("10.0.0.0/8", "http://pkg.corp.example"),
    ("10.9.8.7/32", "http://10.9.8.7"),
    ("10.9.8.*", "http://10.9.8.7"),
    ("10.", "http://10.9.8.7"),
    ("fd00:9::7", "http://[fd00:9::7]"),
    ("[fd00:9::7]", "http://[fd00:9::7]"),
    ("[fd00:9::7]", "http://pkg.corp.example"),
    ("fd00::/8", "http://[fd00:9::7]"),
    ("fd00::/8", "http://pkg.corp.example"),
    ("pkg.corp.example:80", "http://pkg.corp.example"),
    ("pkg.corp.example:8080", "http://pkg.corp.example:8080"),
    ("pkg.corp.example:8080", "http://pkg.corp.example"),
    ("pkg.corp.example:443", "https://pkg.corp.example"),
    ("nobody.example, corp.example", "http://pkg.corp.example"),
    ("nobody.example corp.example", "http://pkg.corp.example"),
    (" corp.example ", "http://pkg.corp.example"),
    ("CORP.EXAMPLE", "http://pkg.corp.example"),
    ("corp.example.", "http://pkg.corp.example"),
    ("metadata.google.internal", "http://metadata.google.internal"),
    ("169.254.169.254", "http://169.254.169.254"),
    ("169.254.0.0/16", "http://169.254.169.254"),
    ("localhost", "http://localhost"),
    ("127.0.0.1", "http://127.0.0.1"),
    ("127.0.0.0/8", "http://127.0.0.1"),
    ("::1", "http://[::1]"),
    (NOTHING, "http://pkg.corp.example"),
    (NOTHING, "https://pkg.corp.example"),
    (NOTHING, "http://10.9.8.7"),
    (NOTHING, "http://[fd00:9::7]"),
    (NOTHING, "http://metadata.google.internal"),
    (NOTHING, "http://169.254.169.254"),
    (NOTHING, "http://localhost"),
    (NOTHING, "http://127.0.0.1"),
    (NOTHING, "http://[::1]"),
)
#: With CUSTOM: what must be direct for every program, and what must not.
DIRECT = (
    "http://pkg.corp.example",
    "https://pkg.corp.example",
    "http://pkg.corp.example:8080",
    "http://corp.example",
    "http://build.example",
    "http://host.build.example",
    "http://10.9.8.7",
    "http://[fd00:9::7]",
    "http://metadata.google.internal",
    "http://169.254.169.254",
    "http://localhost",
    "http://127.0.0.1",
    "http://[::1]",
)
PROXIED = ("http://other.example", "https://other.example")

CASES = (
    *(Case(entry, url) for entry, url in _AS_IT_IS),
    *(Case(CUSTOM, url, written=True) for url in (*DIRECT, *PROXIED)),
)


def chosen(entries: Sequence[str]) -> list[Case]:
    """The cases with these lists, all where none is named. NothingToDo: there is no such case."""
    if not entries:
        return list(CASES)
    found = [case for case in CASES if case.entry in entries]
    for entry in entries:
        if entry not in {case.entry for case in CASES}:
            raise NothingToDo(
                f"--entry {entry!r}: nothing is asked about it",
                hint=nearest(entry, {case.entry for case in CASES}),
            )
    return found
