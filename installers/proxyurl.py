"""One strict reader for proxy values, and one normal form that every tool understands.

Percent-encoding every character of user and password that is not unreserved is the only form that
curl, wget, apt, git, pip, Go and systemd all read the same way; a raw ``@`` or ``#`` silently cuts
the password in some of them.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from typing import Optional
from urllib.parse import quote, unquote

from installers.errors import ConfigError

_REMEDY = "write host:port, http://host:port or http://user:password@host:port"
_ENCODE = "percent-encode every special character of user and password (@ is %40, : is %3A)"
_SCHEMES = ("http", "https")
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_USERINFO = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")


@dataclass(frozen=True)
class ProxyURL:
    """A proxy: ``scheme`` (how to talk to the proxy itself), ``host``, ``port``, credentials.

    ``host`` is lower case, IPv6 without brackets; ``user`` and ``password`` are decoded.
    ``str()`` and ``repr()`` never show the password; ``url`` is the only way to it.
    """

    scheme: str
    host: str
    port: int
    user: Optional[str] = None
    password: Optional[str] = field(default=None, repr=False)

    @property
    def hostport(self) -> str:
        """``host:port``, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def without_credentials(self) -> str:
        """``http://host:port``."""
        return f"{self.scheme}://{self.hostport}"

    @property
    def url(self) -> str:
        """The normal form with credentials. A secret: for files of a running node and children."""
        if self.user is None:
            return self.without_credentials
        userinfo = quote(self.user, safe="")
        if self.password is not None:
            userinfo += f":{quote(self.password, safe='')}"
        return f"{self.scheme}://{userinfo}@{self.hostport}"

    @property
    def redacted(self) -> str:
        """The URL for people: the password is hidden and so is the user, it is half a secret."""
        if self.user is None:
            return self.without_credentials
        return f"{self.scheme}://***@{self.hostport}"

    @property
    def has_credentials(self) -> bool:
        """True when a file that holds ``url`` holds a secret."""
        return self.user is not None

    def __str__(self) -> str:
        return self.redacted

    def __repr__(self) -> str:
        return f"ProxyURL({self.redacted!r})"


def parse(value: Optional[str], where: str) -> Optional[ProxyURL]:
    """Read a proxy value; None for one that is not set (absent, blank or a lone ``:``).

    ``where`` is the metadata key, for the message. Raises ConfigError; the message never repeats
    the value, since a value that cannot be read may hold a password anywhere.
    """
    if value is None:
        return None
    text = value.strip(" \t\r\n")
    if text in ("", ":"):
        return None
    if not text.isascii():
        raise ConfigError(
            "holds characters that are not ASCII",
            where=where,
            remedy="write an international name as xn--..., percent-encode the password",
        )
    if any(ord(char) <= 32 or ord(char) == 127 for char in text):
        raise ConfigError("holds a blank or a control character", where=where, remedy=_REMEDY)
    scheme, rest = _split_scheme(text, where)
    userinfo, authority = _split_userinfo(rest, where)
    user, password = _credentials(userinfo, where)
    host, port = _host_port(authority, where)
    return ProxyURL(scheme, host, port, user, password)


def _split_scheme(text: str, where: str) -> tuple[str, str]:
    if "://" not in text:
        return "http", text
    scheme, rest = text.split("://", 1)
    if scheme.lower() not in _SCHEMES:
        raise ConfigError(
            "the scheme of a proxy is http or https",
            where=where,
            remedy=f"{_REMEDY}; {_ENCODE}" if "@" in text else _REMEDY,
        )
    if re.match(r"(?i)https?:/", rest):
        raise ConfigError("has a scheme twice", where=where, remedy=_REMEDY)
    return scheme.lower(), rest


def _split_userinfo(rest: str, where: str) -> tuple[Optional[str], str]:
    if "@" not in rest:
        if re.search(r"/.", rest) or "?" in rest or "#" in rest:
            raise ConfigError("a proxy has no path", where=where, remedy=_REMEDY)
        return None, rest[:-1] if rest.endswith("/") else rest
    userinfo, authority = rest.rsplit("@", 1)
    if "@" in userinfo:
        raise ConfigError("has more than one @", where=where, remedy=_ENCODE)
    if authority.endswith("/"):
        authority = authority[:-1]
    if any(char in authority for char in "/?#"):
        raise ConfigError("has a path, or a password with /, ? or #", where=where, remedy=_ENCODE)
    return userinfo, authority


def _credentials(userinfo: Optional[str], where: str) -> tuple[Optional[str], Optional[str]]:
    if userinfo is None:
        return None, None
    raw_user, colon, raw_password = userinfo.partition(":")
    if not raw_user:
        raise ConfigError("has a password and no user", where=where, remedy=_REMEDY)
    decoded = []
    for what, raw in (("user", raw_user), ("password", raw_password)):
        # A raw ":" in the password is unambiguous: the first one ends the user.
        if not _USERINFO.fullmatch(raw.replace(":", "%3A")):
            raise ConfigError(
                f"the {what} holds a character that must be encoded", where=where, remedy=_ENCODE
            )
        try:
            text = unquote(raw, errors="strict")
        except UnicodeDecodeError:
            raise ConfigError(
                f"the {what} is not UTF-8 once decoded", where=where, remedy=_ENCODE
            ) from None
        if any(ord(char) < 32 or ord(char) == 127 for char in text):
            raise ConfigError(
                f"the {what} holds a control character",
                where=where,
                remedy="no HTTP header can carry it: choose another one",
            )
        decoded.append(text)
    return decoded[0], decoded[1] if colon else None


def _host_port(authority: str, where: str) -> tuple[str, int]:
    if authority.startswith("["):
        inner, bracket, tail = authority[1:].partition("]")
        if not bracket or not tail.startswith(":"):
            raise ConfigError("needs [IPv6]:port", where=where, remedy="write http://[::1]:3128")
        return _ipv6(inner, where), _port(tail[1:], where)
    if authority.count(":") > 1:
        raise ConfigError(
            "has more than one colon after the scheme",
            where=where,
            remedy=f"write an IPv6 address in brackets, [::1]:3128; {_ENCODE}",
        )
    host, colon, port = authority.partition(":")
    if not colon:
        raise ConfigError(
            "has no port", where=where, remedy="tools disagree on a default: write host:port"
        )
    return check_host(host, where), _port(port, where)


def _ipv6(text: str, where: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ConfigError(
            "the address in brackets is not IPv6", where=where, remedy="write http://[::1]:3128"
        ) from None


def check_host(host: str, where: str) -> str:
    """The lower-case name or IPv4 address; raises ConfigError for anything else."""
    labels = host.split(".")
    if not host or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigError("the host is not a name or an address", where=where, remedy=_REMEDY)
    if labels[-1].isdigit():
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ConfigError(
                "the host looks like an IPv4 address and is none", where=where, remedy=_REMEDY
            ) from None
    return host.lower()


def _port(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 1 <= int(text) <= 65535:
        raise ConfigError("the port is not a number from 1 to 65535", where=where, remedy=_REMEDY)
    return int(text)
