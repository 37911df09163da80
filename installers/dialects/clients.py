"""curl, wget, git and pip, for when the environment does not reach them (sudo, cron, services)."""

from __future__ import annotations

import re

from installers.dialects.base import BEGIN, END, Block, Dialect, Wanted, no_proxy_value, split
from installers.host import Host

_WAS = "# airlock-was: "


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


class Pip(Dialect):
    """``/etc/pip.conf``: an INI file in which pip accepts neither a section nor a key twice.

    So our line goes below the ``[global]`` that is there, and a foreign ``proxy`` is put aside as a
    comment until ours is removed.
    """

    name = "pip"
    path = "/etc/pip.conf"

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"global.proxy": want.single} if want.asserted else {}

    def read(self, text: str) -> dict[str, str]:
        found = _pip_proxies(text)
        return {"global.proxy": found[-1][1]} if found else {}

    def ours(self, text: str) -> dict[str, str]:
        block = split(text, self.path)[1]
        header = "" if "[global]" in block else "[global]\n"
        return self.read(header + block)

    def write(self, text: str, settings: dict[str, str]) -> str:
        lines = split(text, self.path)[0].splitlines(keepends=True)
        lines = [line.removeprefix(_WAS) for line in lines]
        if not settings:
            return "".join(lines)
        for number, _ in _pip_proxies("".join(lines)):
            lines[number] = _WAS + lines[number]
        headers = [i for i, line in enumerate(lines) if line.strip().lower() == "[global]"]
        if lines and not lines[-1].endswith("\n"):
            lines[-1] += "\n"
        ours = [f"{BEGIN}\n", f"proxy = {settings['global.proxy']}\n", f"{END}\n"]
        if headers:
            lines[headers[0] + 1 : headers[0] + 1] = ours
        else:
            lines += [ours[0], "[global]\n", *ours[1:]]
        return "".join(lines)

    def notes(self, want: Wanted) -> list[str]:
        if want.asserted:
            return ["pip: a configured proxy serves every host, the bypass list does not apply"]
        return []


def _pip_proxies(text: str) -> list[tuple[int, str]]:
    """``(line number, value)`` of each ``proxy`` in ``[global]``."""
    found: list[tuple[int, str]] = []
    section = ""
    for number, line in enumerate(text.splitlines()):
        if line.strip().startswith("["):
            section = line.strip().lower()
        match = re.fullmatch(r"proxy\s*[=:]\s*(.*?)\s*", line, re.IGNORECASE)
        if match and section == "[global]":
            found.append((number, match[1]))
    return found
