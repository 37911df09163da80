"""curl, wget, git, pip and npm, for when the environment does not reach them (cron, services)."""

from __future__ import annotations

import re

from installers.dialects.base import Block, Wanted, no_proxy_value
from installers.dialects.ini import IniFile
from installers.host import Host


class Curl(Block):
    """root's ``.curlrc``: curl has no system-wide file. One proxy for every scheme."""

    name = "curl"
    path = "/root/.curlrc"
    mode = 0o600
    secret_mode = 0o600

    def settings(self, want: Wanted) -> dict[str, str]:
        # With two different proxies only the environment can tell them apart.
        if not want.http or want.http != want.https:
            return {}
        return {"proxy": want.single, "noproxy": no_proxy_value(want)}

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in text.splitlines():
            match = re.fullmatch(r'\s*(?:--)?(proxy|noproxy)\s*[=:\s]\s*"?([^"]*?)"?\s*', line)
            if match:
                found[match[1]] = match[2]
        return found

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f'{key} = "{value}"\n' for key, value in settings.items())

    def notes(self, want: Wanted) -> list[str]:
        if want.asserted and want.http != want.https:
            return ["curl: http and https proxies differ, so only the environment tells it"]
        return []


class Wget(Block):
    """``/etc/wgetrc``: only where wget brought it, since it is a conffile of its package."""

    name = "wget"
    path = "/etc/wgetrc"
    _keys = ("use_proxy", "http_proxy", "https_proxy", "no_proxy")

    def applies(self, host: Host) -> bool:
        return host.exists(self.path)

    def settings(self, want: Wanted) -> dict[str, str]:
        if not want.asserted:
            return {}
        values = {"use_proxy": "on", "http_proxy": want.http, "https_proxy": want.https}
        values["no_proxy"] = no_proxy_value(want)
        return {key: value for key, value in values.items() if value}

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in text.splitlines():
            key, equals, value = line.partition("=")
            name = key.strip().lower().replace("-", "_")
            if equals and name in self._keys:
                found[name] = value.strip()
        return found

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key} = {value}\n" for key, value in settings.items())

    def notes(self, want: Wanted) -> list[str]:
        if want.single.startswith("https://") or want.http.startswith("https://"):
            return ["wget: cannot talk TLS to a proxy; it will fail rather than go direct"]
        return []


class Git(Block):
    """``/etc/gitconfig``: ``http.proxy`` serves http and https remotes alike; the last value wins.

    git sends credentials only when challenged, and takes the bypass list from the environment.
    """

    name = "git"
    path = "/etc/gitconfig"

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"http.proxy": want.single} if want.asserted else {}

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        section = ""
        for line in text.splitlines():
            header = re.fullmatch(r"\s*\[([^\]]*)\](.*)", line)
            if header:
                section, line = header[1].strip().lower(), header[2]
            match = re.fullmatch(r'\s*proxy\s*=\s*"?([^"]*?)"?\s*', line, re.IGNORECASE)
            if match and section == "http":
                found["http.proxy"] = match[1]
        return found

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f'[http]\n\tproxy = "{value}"\n' for value in settings.values())

    def notes(self, want: Wanted) -> list[str]:
        if want.http and want.https and want.http != want.https:
            return ["git: has one proxy for both schemes, the https one is used"]
        return []

    def verify(self, host: Host, want: Wanted) -> dict[str, tuple[str, str]]:
        if not want.asserted or host.find_program("git") is None:
            return {}
        said = host.run(["git", "config", "--system", "--get", "http.proxy"], check=False)
        value = said.out.strip()
        return {} if value == want.single else {"http.proxy": (value, want.single)}


class Pip(IniFile):
    """``/etc/pip.conf``: pip accepts neither a section nor a key twice.

    With a proxy of its own pip sends every host to it, those of the bypass list as well (measured
    with 23.2.1: ``airlock prove-proxy --tools pip``). So it gets the environment's, and what others
    wrote is put aside by an empty value, which pip takes for none.
    """

    name = "pip"
    path = "/etc/pip.conf"
    section = "global"
    keys = ("proxy",)
    credentials = False

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"global.proxy": ""} if want.asserted else {}


class Npm(Block):
    """The global ``npmrc``, wherever this npm looks for it; the last value of a key wins."""

    name = "npm"
    _keys = ("proxy", "https-proxy", "noproxy")

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = f"npm {path}"

    def settings(self, want: Wanted) -> dict[str, str]:
        if not want.asserted:
            return {}
        values = {"proxy": want.http, "https-proxy": want.https, "noproxy": no_proxy_value(want)}
        return {key: value for key, value in values.items() if value}

    def read(self, text: str) -> dict[str, str]:
        return properties(text, self._keys)

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key}={value}\n" for key, value in settings.items())


def npm_files(host: Host) -> list[str]:
    """Global npmrc of every npm on the node: the prefix of its node, and Debian's own place.

    npm asks ``node`` for its prefix, not itself; Debian's package has ``/etc/npmrc`` instead.
    """
    found: list[str] = []
    npm = host.find_program("npm")
    if npm is None:
        return found
    if host.exists("/usr/share/nodejs/npm"):
        found.append("/etc/npmrc")
    node = host.find_program("node")
    if node is not None:
        prefix = host.real(node).rsplit("/bin/", 1)[0]
        found.append(f"{prefix}/etc/npmrc")
    return found


def properties(text: str, keys: tuple[str, ...], comments: str = "#;") -> dict[str, str]:
    """``key=value`` lines of the named keys, the last one of each; quotes and blanks taken off."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key.strip() in keys and line.strip()[0] not in comments:
            found[key.strip()] = value.strip().strip("\"'")
    return found
