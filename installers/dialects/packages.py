"""dnf, yum, dirmngr and conda: tools that bring software onto the node."""

from __future__ import annotations

import re

from installers.dialects.base import Block, OwnFile, Wanted
from installers.dialects.environment import HEADER
from installers.dialects.ini import IniFile
from installers.host import Host


class Dnf(IniFile):
    """``[main]`` of dnf or yum: the password is in the URL, where libcurl decodes it once.

    ``proxy_password`` loses outer blanks, and a ``%41`` in it becomes an ``A`` (dnf 4.14); so
    a user and password of others are put aside, and ours are not written that way.
    """

    section = "main"
    keys = ("proxy", "proxy_username", "proxy_password")
    secret_mode = 0o600
    # It was there before us: a conffile of its package.
    keep_empty = True

    def __init__(self, name: str = "dnf", path: str = "/etc/dnf/dnf.conf") -> None:
        self.name = name
        self.path = path

    def applies(self, host: Host) -> bool:
        # On RHEL 8 and later yum.conf is a link to dnf.conf: one file, one block.
        return host.exists(self.path) and host.real(self.path) == self.path

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"main.proxy": want.single} if want.asserted else {}

    def notes(self, want: Wanted) -> list[str]:
        if want.http and want.https and want.http != want.https:
            return [f"{self.name}: has one proxy for both schemes, the https one is used"]
        return []


class Dirmngr(Block):
    """GnuPG's key fetcher. It has one plain HTTP proxy and no bypass list.

    ``honor-http-proxy`` would do without a password in the file, but dirmngr is started by whoever
    calls gpg first, with that one's environment.
    """

    name = "dirmngr"
    path = "/etc/gnupg/dirmngr.conf"
    # dirmngr runs as the user who calls gpg: that user must be able to read it.
    secret_mode = 0o644

    def applies(self, host: Host) -> bool:
        return host.find_program("dirmngr") is not None

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"http-proxy": want.plain.url} if want.plain else {}

    def read(self, text: str) -> dict[str, str]:
        found = re.findall(r"^[ \t]*http-proxy[ \t]+(\S+)", text, re.MULTILINE)
        return {"http-proxy": found[-1]} if found else {}

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key} {value}\n" for key, value in settings.items())

    def notes(self, want: Wanted) -> list[str]:
        if want.asserted and want.plain is None:
            return ["dirmngr: cannot talk TLS to a proxy; fetching keys by keyserver will fail"]
        return []


class Conda(OwnFile):
    """A file of our own in conda's system-wide search path, which mamba reads too.

    Files nearer to the user win, so a foreign ``proxy_servers`` in an installation's own
    ``.condarc`` is a problem that ``verify`` tells.
    """

    name = "conda"
    path = "/etc/conda/condarc.d/zz-airlock-proxy.yml"
    # conda runs as an ordinary user.
    secret_mode = 0o644

    def applies(self, host: Host) -> bool:
        return bool(conda_roots(host))

    def settings(self, want: Wanted) -> dict[str, str]:
        values = {"http": want.http, "https": want.https}
        return {f"proxy_servers.{key}": value for key, value in values.items() if value}

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        inside = False
        for line in text.splitlines():
            if re.match(r"\S", line) and not line.startswith("#"):
                inside = line.split(":")[0] == "proxy_servers"
            match = re.fullmatch(r"""\s+["']?(https?)["']?\s*:\s*["']?(.*?)["']?\s*""", line)
            if match and inside:
                found[f"proxy_servers.{match[1]}"] = match[2]
        return found

    def render(self, settings: dict[str, str]) -> str:
        lines = (f'  {key.partition(".")[2]}: "{value}"\n' for key, value in settings.items())
        return f"{HEADER}proxy_servers:\n{''.join(lines)}"

    def verify(self, host: Host, want: Wanted) -> dict[str, tuple[str, str]]:
        wrong: dict[str, tuple[str, str]] = {}
        should = self.settings(want)
        for path in [*(f"{root}/.condarc" for root in conda_roots(host)), "/root/.condarc"]:
            for key, value in self.read(host.read(path) or "").items():
                if should and should.get(key) != value:
                    wrong[f"{key} of {path}"] = (value, should.get(key, ""))
        return wrong


def conda_roots(host: Host) -> list[str]:
    """Base environments of conda and mamba: a prefix with ``conda-meta`` and ``condabin``."""
    found: list[str] = []
    for home in ("/opt", "/opt/conda", "/usr/local", "/root"):
        found += [home, *(host.glob(home, "*") if host.exists(home) else [])]
    bases = [p for p in found if host.exists(f"{p}/conda-meta") and host.exists(f"{p}/condabin")]
    return list(dict.fromkeys(host.real(path) for path in bases))
