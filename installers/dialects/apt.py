"""apt: http and https apart, and hosts it must reach itself."""

from __future__ import annotations

import ipaddress
import re

from installers.dialects.base import OwnFile, Wanted
from installers.host import Host

# apt matches hosts exactly in its own configuration; suffixes only in the variable no_proxy, which
# it also honours. These two are the package hosts below .google.com.
_GOOGLE = ("packages.cloud.google.com", "dl.google.com")
_LINE = re.compile(r'(Acquire::https?::Proxy(?:::[^\s"]+)?) "([^"]*)";')


class Apt(OwnFile):
    """A file in ``apt.conf.d`` that sorts behind other people's ``99proxy``: the last one wins."""

    name = "apt"
    path = "/etc/apt/apt.conf.d/99zz-airlock-proxy"
    secret_mode = 0o600

    def applies(self, host: Host) -> bool:
        return host.exists("/etc/apt")

    def settings(self, want: Wanted) -> dict[str, str]:
        found: dict[str, str] = {}
        for scheme, url in (("http", want.http), ("https", want.https)):
            if url:
                found[f"Acquire::{scheme}::Proxy"] = url
            if want.asserted:
                for host in _direct(want.no_proxy):
                    found[f"Acquire::{scheme}::Proxy::{host}"] = "DIRECT"
        return found

    def read(self, text: str) -> dict[str, str]:
        return dict(_LINE.findall(text))

    def render(self, settings: dict[str, str]) -> str:
        lines = (f'{key} "{value}";\n' for key, value in settings.items())
        return "// Written by airlock; change the metadata instead.\n" + "".join(lines)

    def verify(self, host: Host, want: Wanted) -> dict[str, tuple[str, str]]:
        if host.find_program("apt-config") is None:
            return {}
        said = self.read(host.run(["apt-config", "dump"], timeout=60).out)
        return {
            key: (said.get(key, ""), value)
            for key, value in self.settings(want).items()
            if said.get(key) != value
        }


def command_line_file(want: Wanted) -> str:
    """The configuration for ``apt-get -c=``: the same settings, with credentials."""
    return Apt().render(Apt().settings(want))


def _direct(no_proxy: tuple[str, ...]) -> list[str]:
    hosts = [entry for entry in no_proxy if not entry.startswith(".") and not _is_ipv6(entry)]
    return list(dict.fromkeys([*hosts, *_GOOGLE]))


def _is_ipv6(entry: str) -> bool:
    # "::" separates the parts of an apt setting, so an IPv6 address cannot be one.
    try:
        return ipaddress.ip_address(entry).version == 6
    except ValueError:
        return False
