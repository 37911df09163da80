"""apt: http and https apart, and hosts it must reach itself."""

from __future__ import annotations

import ipaddress
import re

from installers.dialects.base import OwnFile, Wanted
from installers.host import Host

# apt matches hosts exactly in its own configuration; suffixes only in the variable no_proxy, which
# it also honours. These two are the package hosts below .google.com.
_GOOGLE = ("packages.cloud.google.com", "dl.google.com")
_LINE = re.compile(r'Acquire::(https?)::Proxy(?:::([^\s"]+))? "([^"]*)";')
# Our name for the hosts that have the value DIRECT for both schemes.
_DIRECT = "direct"


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
        if found:
            found[_DIRECT] = ",".join(_direct(want.no_proxy))
        return found

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        direct: dict[str, list[str]] = {"http": [], "https": []}
        for scheme, host, value in _LINE.findall(text):
            if not host:
                found[f"Acquire::{scheme}::Proxy"] = value
            elif value == "DIRECT":
                direct[scheme].append(host)
        both = [host for host in dict.fromkeys(direct["http"]) if host in direct["https"]]
        if both:
            found[_DIRECT] = ",".join(both)
        return found

    def render(self, settings: dict[str, str]) -> str:
        lines = [f'{key} "{value}";' for key, value in settings.items() if key != _DIRECT]
        for scheme in ("http", "https"):
            for host in settings[_DIRECT].split(","):
                lines.append(f'Acquire::{scheme}::Proxy::{host} "DIRECT";')
        return "\n".join(["// Written by airlock; change the metadata instead.", *lines, ""])

    def verify(self, host: Host, want: Wanted) -> dict[str, tuple[str, str]]:
        if host.find_program("apt-config") is None:
            return {}
        said = self.read(host.run(["apt-config", "dump"], timeout=60).out)
        wrong: dict[str, tuple[str, str]] = {}
        for key, value in self.settings(want).items():
            found = said.get(key, "")
            # Others may add hosts of their own.
            missing = set(value.split(",")) - set(found.split(","))
            if missing if key == _DIRECT else found != value:
                wrong[key] = (found, value)
        return wrong


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
