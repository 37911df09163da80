"""What each program does with a ``no_proxy`` entry, and what we write instead.

The programs are data (``data/noproxy_tools.json``); this module only evaluates them. Nothing is
looked up: a network matches addresses that stand in a URL, never what a name resolves to.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Optional, Union

from installers import noproxy
from installers.compat import load_data
from installers.exits import Exit

_DEFAULT_PORT = 80
_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


@dataclass(frozen=True)
class Tool:
    """One program's reading of the list; the fields are explained in the data file."""

    name: str
    source: str
    version: str
    lists: str
    after_comma: str
    bare: str
    dot: str
    star: str
    star_prefix: bool
    star_suffix: bool
    port: str
    case: str
    trailing_dot: bool
    cidr: tuple[int, ...]
    http_proxy: str
    no_proxy: str
    wins: str
    schemeless: bool
    loopback: bool
    ipv6: tuple[str, ...]
    network_address: bool = False
    ipv6_direct: bool = True
    breaks: str = ""
    since: tuple[tuple[str, dict[str, object]], ...] = ()

    def at(self, version: str) -> Tool:
        """The program as of a release: what the data file says changed by then."""
        changed: dict[str, Any] = {}
        for first, fields in self.since:
            if _numbers(version) >= _numbers(first):
                changed.update(fields)
        return replace(self, **changed)

    def bypasses(
        self, value: str, host: str, port: int = _DEFAULT_PORT, *, named: bool = False
    ) -> bool:
        """Whether ``host`` is not left to the proxy. ``named``: the URL names the port itself."""
        name = host.strip("[]").lower()
        if self.loopback and (name == "localhost" or _is_loopback(name)):
            return True
        entries = self._entries(value)
        if entries == ["*"]:
            return self.star == "all" or (self.star == "names" and _address(name) is None)
        return any(self._matches(entry, name, port, named) for entry in entries)

    def way(self, value: str, host: str, port: int = _DEFAULT_PORT, *, named: bool = False) -> str:
        """``direct``, ``via-proxy``, or ``failed`` where the request comes to nothing."""
        if self.breaks and re.search(self.breaks, value):
            return "failed"
        if not self.bypasses(value, host, port, named=named):
            return "via-proxy"
        return "direct" if self.ipv6_direct or not _is_ipv6(host.strip("[]")) else "failed"

    def chosen(self, variables: Sequence[tuple[str, str]], name: str) -> Optional[str]:
        """The value that counts of ``name`` (``http_proxy`` or ``no_proxy``) in an environment.

        ``variables`` are in the order of the environment, which decides for one program.
        """
        reads = self.no_proxy if name == "no_proxy" else self.http_proxy
        known = {name, name.upper()} if reads == "any" else {name} if reads == "lower" else set()
        present = [(key, value) for key, value in variables if key in known]
        if self.wins == "upper":
            present.sort(key=lambda pair: pair[0].isupper())
        elif self.wins == "lower":
            present.sort(key=lambda pair: pair[0].islower())
        return present[-1][1] if present else None

    def _entries(self, value: str) -> list[str]:
        if self.lists == "bar":
            return [entry for entry in value.split("|") if entry]
        if self.lists == "comma-blank":
            return [entry for entry in re.split(r"[,\s]+", value) if entry]
        entries = value.split(",")
        if self.after_comma == "trimmed":
            entries = [entry.strip() for entry in entries]
        return [entry for entry in entries if entry]

    def _matches(self, entry: str, host: str, port: int, named: bool) -> bool:
        if self.case == "insensitive":
            entry = entry.lower()
        network = self._network(entry)
        if network is not None:
            address = _address(host)
            return address is not None and address in network
        if entry.startswith("[") or _is_ipv6(entry):
            spelling = "bracketed" if entry.startswith("[") else "bare"
            return spelling in self.ipv6 and host == entry.strip("[]")
        if self.network_address and _address(entry.partition("/")[0]) is not None:
            entry = entry.partition("/")[0]
        entry, wanted = _split_port(entry)
        if wanted is not None:
            knows = self.port == "always" or (self.port == "explicit" and named)
            if not knows or port != wanted:
                return False
        if self.trailing_dot:
            entry, host = entry.rstrip("."), host.rstrip(".")
        if entry.endswith("*") and self.star_suffix:
            return host.startswith(entry[:-1])
        if entry.startswith("*.") and self.star_prefix:
            return host.endswith(entry[1:])
        if entry.startswith("."):
            if self.dot == "subdomains":
                return host.endswith(entry)
            if self.dot == "never":
                return False
            bare = entry.lstrip(".")
            return host == bare or host.endswith(bare if self.bare == "suffix" else f".{bare}")
        if host == entry:
            return True
        if self.bare == "exact":
            return False
        return host.endswith(entry if self.bare == "suffix" else f".{entry}")

    def _network(self, entry: str) -> Optional[Union[ipaddress.IPv4Network, ipaddress.IPv6Network]]:
        if "/" not in entry:
            return None
        try:
            network = ipaddress.ip_network(entry, strict=False)
        except ValueError:
            return None
        return network if network.version in self.cidr else None


@dataclass(frozen=True)
class Finding:
    """What comes of one entry.

    ``target`` is a host that the entry means; ``direct`` and ``proxied`` are the programs that
    reach it that way, ``failing`` those that reach nothing; ``written`` is what we write in
    its place, ``note`` what there is to say.
    """

    entry: str
    target: str
    direct: tuple[str, ...]
    proxied: tuple[str, ...]
    failing: tuple[str, ...]
    written: tuple[str, ...]
    note: str

    @property
    def portable(self) -> bool:
        """True when every program agrees."""
        return not (self.direct and self.proxied) and not self.failing

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.effect}; {self.note}" if self.note else self.effect

    @property
    def effect(self) -> str:
        """What programs would do, had we handed them the entry as it is."""
        said = f"{noproxy.KEY} entry {self.entry}: {self.target} would be "
        if self.portable:
            return f"{said}{'direct' if self.direct else 'proxied'} for every program"
        ways = (("direct", self.direct), ("proxied", self.proxied), ("an error", self.failing))
        return said + "; ".join(f"{way} for {', '.join(names)}" for way, names in ways if names)


@lru_cache(maxsize=1)
def tools() -> dict[str, Tool]:
    """The programs of the data file, by name."""
    raw: dict[str, Any] = load_data("noproxy_tools.json")
    found: dict[str, Tool] = {}
    for name, fields in raw.items():
        if isinstance(fields, dict):
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in fields.items()
            }
            found[name] = Tool(name=name, **values)
    return found


def lint(value: Optional[str]) -> list[Finding]:
    """A finding for each host that each entry of a user's value means.

    Java is asked with ``|`` for commas, as its own list is written. An entry that is no host at all
    raises ConfigError, as it does when it is applied.
    """
    findings: list[Finding] = []
    text = value or ""
    for entry in re.split(r"[,\s]+", text):
        if entry:
            written, note = noproxy.entry(entry)
            for target in _targets(entry):
                findings.append(Finding(entry, target, *_ask(entry, target), tuple(written), note))
    if re.search(r"\S[ \t]+\S", text.replace(",", "")):
        findings += _blanks(text)
    return findings


def notes(value: Optional[str]) -> list[str]:
    """Lines for a plan: entries that we cannot write as the user did, and who would have minded."""
    return [f.effect for f in lint(value) if f.note and not f.portable]


_Names = tuple[str, ...]


def _ask(value: str, target: str) -> tuple[_Names, _Names, _Names]:
    """The programs for which ``target`` is direct, proxied, and not reached at all."""
    ways: dict[str, list[str]] = {"direct": [], "via-proxy": [], "failed": []}
    for name, tool in tools().items():
        shown = re.sub(r"[,\s]+", "|", value) if tool.lists == "bar" else value
        ways[tool.way(shown, target)].append(name)
    return tuple(ways["direct"]), tuple(ways["via-proxy"]), tuple(ways["failed"])


def _blanks(text: str) -> list[Finding]:
    """Blanks between entries: what happens to the last one."""
    entries = [entry for entry in re.split(r"[,\s]+", text) if entry]
    last = _targets(entries[-1])[-1]
    direct, proxied, failing = _ask(text.strip(), last)
    alone = _ask(entries[-1], last)[1]
    proxied = tuple(name for name in proxied if name not in alone)
    note = "written with commas and no blanks"
    return [Finding("with blanks", last, direct, proxied, failing, (), note)] if proxied else []


def _targets(entry: str) -> list[str]:
    """Hosts that whoever wrote the entry means."""
    text = entry.lower()
    if "/" in text:
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            return [text]
        return [str(network[1] if network.num_addresses > 1 else network[0])]
    if text == "*":
        return ["any.example"]
    text = _split_port(text)[0].rstrip(".") or text
    if text.startswith("*."):
        return [f"host{text[1:]}"]
    if text.startswith("."):
        return [f"host{text}", text.lstrip(".")]
    if re.fullmatch(r"[0-9.]+(\.\*)?", text) and _address(text) is None:
        parts = [part for part in text.split(".") if part.isdigit()]
        return [".".join((parts + ["1"] * 4)[:4])]
    return [text.replace("*", "x").strip("[]")]


def _split_port(entry: str) -> tuple[str, Optional[int]]:
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*):(\d+)", entry)
    return (match[1], int(match[2])) if match else (entry, None)


def _address(text: str) -> Optional[_Address]:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _is_ipv6(text: str) -> bool:
    address = _address(text)
    return address is not None and address.version == 6


def _is_loopback(text: str) -> bool:
    address = _address(text)
    return address is not None and address.is_loopback


def main(args: list[str]) -> int:
    """``lint VALUE``: exit 0 when every program understands the value alike, else 1."""
    parser = argparse.ArgumentParser(
        prog="airlock-node.pyz lint", description="What programs do with a no_proxy value."
    )
    parser.add_argument("value", help="as in the metadata key no-proxy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(args)
    findings = lint(options.value)
    written = noproxy.join(noproxy.parse(options.value)[0])
    if options.json:
        rows = [{**vars(finding), "portable": finding.portable} for finding in findings]
        print(json.dumps({"findings": rows, "written": written}))
    else:
        for finding in findings:
            print(finding.text)
        print(f"written: {written}")
    return int(Exit.PASS if all(finding.portable for finding in findings) else Exit.FAIL)
