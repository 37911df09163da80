"""Java, Maven and Gradle. A JVM does not look at the environment.

``JAVA_TOOL_OPTIONS`` would reach every JVM, but each then prints a line that breaks programs which
read another one's output. ``net.properties`` of each installation holds the same defaults quietly.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from installers import jvm, proxyurl
from installers.dialects.base import Block, Dialect, Wanted, torn
from installers.dialects.clients import properties
from installers.host import Host
from installers.proxyurl import ProxyURL

_NO_LOGIN = (
    "has no setting for a proxy's password; a program must bring an Authenticator, and "
    "-Djdk.http.auth.tunneling.disabledSchemes= for https"
)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)


def non_proxy_hosts(entries: Iterable[str]) -> str:
    """``http.nonProxyHosts``: separated by ``|``, ``*`` for a whole domain, IPv6 in brackets.

    To every other program a host stands for what is below it as well: ``host|*.host``.
    """
    found: list[str] = []
    for entry in entries:
        if entry.startswith("."):
            found.append(f"*{entry}")
        elif ":" in entry:
            found.append(f"[{entry}]")
        else:
            named = "." in entry and not entry.replace(".", "").isdigit()
            found += [entry, f"*.{entry}"] if named else [entry]
    return "|".join(dict.fromkeys(found))


def system_properties(want: Wanted) -> dict[str, str]:
    """``http.proxyHost`` and its siblings; empty for a proxy that Java cannot use."""
    found: dict[str, str] = {}
    for scheme, url in (("http", want.http), ("https", want.https)):
        proxy = proxyurl.parse(url, "proxy")
        if proxy is not None and proxy.scheme == "http":
            found[f"{scheme}.proxyHost"] = proxy.host
            found[f"{scheme}.proxyPort"] = str(proxy.port)
    if found:
        found["http.nonProxyHosts"] = non_proxy_hosts(want.no_proxy)
    return found


class NetProperties(Block):
    """``net.properties`` of one JVM: what ``ProxySelector.getDefault()`` goes by."""

    credentials = False
    _keys = (
        "http.proxyHost",
        "http.proxyPort",
        "https.proxyHost",
        "https.proxyPort",
        "http.nonProxyHosts",
    )

    def __init__(self, path: str) -> None:
        self.name = f"java {path}"
        self.path = path

    def settings(self, want: Wanted) -> dict[str, str]:
        return system_properties(want)

    def read(self, text: str) -> dict[str, str]:
        return properties(text, self._keys, "#!")

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key}={value}\n" for key, value in settings.items())

    def notes(self, want: Wanted) -> list[str]:
        if want.asserted and want.plain is None:
            return ["Java: cannot talk TLS to a proxy"]
        return [f"Java: {_NO_LOGIN}"] if want.credentials else []


class Gradle(Block):
    """``gradle.properties`` of root: ``systemProp.`` settings for Gradle and what it starts.

    Gradle knows ``proxyUser`` and ``proxyPassword`` for its own downloads.
    """

    name = "gradle"
    path = "/root/.gradle/gradle.properties"
    secret_mode = 0o600
    _prefix = "systemProp."
    _login = ("http.proxyUser", "http.proxyPassword", "https.proxyUser", "https.proxyPassword")
    _keys = (*NetProperties._keys, "https.nonProxyHosts", *_login)
    veiled = frozenset(f"systemProp.{key}" for key in _login)

    def applies(self, host: Host) -> bool:
        return host.find_program("gradle") is not None or host.exists("/root/.gradle")

    def settings(self, want: Wanted) -> dict[str, str]:
        found = system_properties(want)
        if found:
            # Gradle's own client reads one list for each scheme.
            found["https.nonProxyHosts"] = found["http.nonProxyHosts"]
        for scheme, url in (("http", want.http), ("https", want.https)):
            proxy = proxyurl.parse(url, "proxy")
            if found and proxy is not None and proxy.user is not None:
                found[f"{scheme}.proxyUser"] = proxy.user
                found[f"{scheme}.proxyPassword"] = proxy.password or ""
        return {f"{self._prefix}{key}": value for key, value in found.items()}

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in text.splitlines():
            key, equals, value = line.strip().partition("=")
            if equals and key.startswith(self._prefix) and key[len(self._prefix) :] in self._keys:
                found[key] = _unescape(value)
        return found

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key}={_escape(value)}\n" for key, value in settings.items())


def _escape(value: str) -> str:
    """A value of a properties file: a backslash and what is not ASCII, and an outer blank."""
    text = value.replace("\\", "\\\\")
    text = "".join(char if char.isascii() else _units(char) for char in text)
    return f"\\{text}" if text[:1] == " " else text


def _units(char: str) -> str:
    data = char.encode("utf-16-be")
    return "".join(f"\\u{data[at : at + 2].hex()}" for at in range(0, len(data), 2))


def _unescape(value: str) -> str:
    """The reverse, for what :func:`_escape` makes."""

    def one(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][1:]
        return bytes.fromhex(match[0].replace("\\u", "")).decode("utf-16-be")

    return re.sub(r"((?:\\u[0-9a-f]{4})+)|\\.", one, value)


class Maven(Dialect):
    """``settings.xml``: the first active proxy of a protocol wins, unless its bypass list matches.

    Then the next one is tried: so proxies of others are put aside, encoded in our comment.
    """

    secret_mode = 0o600
    _begin, _end = "<!-- >>> airlock; the metadata says this, was: {} -->", "<!-- <<< airlock -->"
    _block = re.compile(r"<!-- >>> airlock;[^>]* was: (\S*) -->.*?<!-- <<< airlock -->", re.DOTALL)
    veiled = frozenset(f"{s}.{key}" for s in ("http", "https") for key in ("username", "password"))

    def __init__(self, path: str) -> None:
        self.name = f"maven {path}"
        self.path = path

    def settings(self, want: Wanted) -> dict[str, str]:
        found: dict[str, str] = {}
        for scheme, url in (("http", want.http), ("https", want.https)):
            proxy = proxyurl.parse(url, "proxy")
            if proxy is not None and proxy.scheme == "http":
                found.update({f"{scheme}.{key}": value for key, value in _of(proxy).items()})
                found[f"{scheme}.nonProxyHosts"] = non_proxy_hosts(want.no_proxy)
        return found

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        if not text.strip():
            return found
        try:
            # The file is root's own, and what it expands to stays in this process.
            tree = ElementTree.fromstring(text)  # noqa: S314
        except ElementTree.ParseError:
            return found
        for element in tree.iter():
            if _local(element) != "proxy":
                continue
            values = {_local(child): (child.text or "") for child in element}
            protocol = values.pop("protocol", "http").strip()
            active = values.pop("active", "true").strip()
            if active == "true" and f"{protocol}.host" not in found:
                values.pop("id", None)
                found.update({f"{protocol}.{key}": value for key, value in values.items()})
        return found

    def ours(self, text: str) -> dict[str, str]:
        match = self._block.search(text)
        return self.read(f"<settings>{_COMMENT.sub('', match[0])}</settings>") if match else {}

    def write(self, text: str, settings: dict[str, str]) -> str:
        match = self._block.search(text)
        if match:
            was = base64.b64decode(match[1]).decode("utf-8", "surrogateescape")
            text = text[: match.start()] + was + text[match.end() :]
        if ">>> airlock" in text or "<<< airlock" in text:
            raise torn(self.path)
        if not settings:
            return "" if text == _EMPTY else text
        text = text or _EMPTY
        # Comments blanked out, so that the example every settings.xml has is not taken for real.
        plain = _COMMENT.sub(lambda found: " " * len(found[0]), text)
        theirs = re.search(r"<proxies\s*/>|<proxies>.*?</proxies>", plain, re.DOTALL)
        closing = plain.rfind("</settings>")
        if theirs is None and closing < 0:
            raise torn(self.path)
        start, end = theirs.span() if theirs else (closing, closing)
        saved = base64.b64encode(text[start:end].encode("utf-8", "surrogateescape")).decode()
        body = f"{self._begin.format(saved)}{_proxies(settings)}{self._end}"
        return text[:start] + body + text[end:]

    def notes(self, want: Wanted) -> list[str]:
        if want.asserted and want.plain is None:
            return ["Maven: cannot talk TLS to a proxy"]
        return []


_EMPTY = "<settings></settings>\n"


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _of(proxy: ProxyURL) -> dict[str, str]:
    values = {"host": proxy.host, "port": str(proxy.port)}
    if proxy.user is not None:
        values.update(username=proxy.user, password=proxy.password or "")
    return values


def _proxies(settings: dict[str, str]) -> str:
    lines = ["<proxies>"]
    for scheme in ("http", "https"):
        mine = {k.partition(".")[2]: v for k, v in settings.items() if k.startswith(f"{scheme}.")}
        if mine:
            fields = "".join(f"<{key}>{escape(value)}</{key}>" for key, value in mine.items())
            head = f"<id>airlock-{scheme}</id><active>true</active><protocol>{scheme}</protocol>"
            lines.append(f"  <proxy>{head}{fields}</proxy>")
    return "\n".join([*lines, "</proxies>"])


def maven_files(host: Host) -> list[str]:
    """``settings.xml`` of the Maven on the path."""
    program = host.find_program("mvn")
    if program is None:
        return []
    home = host.real(program).rsplit("/bin/", 1)[0]
    path = host.real(f"{home}/conf/settings.xml")
    return [path] if host.exists(path) else []


def net_properties(host: Host) -> list[str]:
    """The file of every JVM on the node."""
    paths = (found.net_properties for found in jvm.find(host))
    return list(dict.fromkeys(path for path in paths if path))
