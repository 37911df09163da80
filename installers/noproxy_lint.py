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
from dataclasses import dataclass
from functools import lru_cache
from typing import Optional, Union

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
    star: bool
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

    def bypasses(self, value: str, host: str, port: Optional[int] = None) -> bool:
        """Whether ``host`` is reached directly. ``port``: the one the URL names, if it does."""
        name = host.strip("[]").lower()
        if self.loopback and (name == "localhost" or _is_loopback(name)):
            return True
        entries = self._entries(value)
        if entries == ["*"]:
            return self.star
        return any(self._matches(entry, name, port) for entry in entries)

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

    def _matches(self, entry: str, host: str, port: Optional[int]) -> bool:
        if self.case == "insensitive":
            entry = entry.lower()
        network = self._network(entry)
        if network is not None:
            address = _address(host)
            return address is not None and address in network
        entry, wanted = _split_port(entry)
        if wanted is not None:
            said = port if self.port == "explicit" else (port or _DEFAULT_PORT)
            if self.port == "never" or said != wanted:
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
        entry = entry.strip("[]")
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
    reach it that way; ``written`` is what we write in its place, ``note`` what there is to say.
    """

    entry: str
    target: str
    direct: tuple[str, ...]
    proxied: tuple[str, ...]
    written: tuple[str, ...]
    note: str

    @property
    def portable(self) -> bool:
        """True when every program agrees."""
        return not (self.direct and self.proxied)

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
        return f"{said}direct for {', '.join(self.direct)}; proxied for {', '.join(self.proxied)}"


@lru_cache(maxsize=1)
def tools() -> dict[str, Tool]:
    """The programs of the data file, by name."""
    raw = load_data("noproxy_tools.json")
    return {
        name: Tool(name=name, **{**fields, "cidr": tuple(fields["cidr"])})
        for name, fields in raw.items()
        if isinstance(fields, dict)
    }


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
                direct, proxied = _ask(entry, target)
                findings.append(Finding(entry, target, direct, proxied, tuple(written), note))
    if re.search(r"\S[ \t]+\S", text.replace(",", "")):
        findings += _blanks(text)
    return findings


def notes(value: Optional[str]) -> list[str]:
    """Lines for a plan: entries that we cannot write as the user did, and who would have minded."""
    return [f.effect for f in lint(value) if f.note and not f.portable]


def _ask(value: str, target: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    direct: list[str] = []
    proxied: list[str] = []
    for name, tool in tools().items():
        shown = re.sub(r"[,\s]+", "|", value) if tool.lists == "bar" else value
        (direct if tool.bypasses(shown, target) else proxied).append(name)
    return tuple(direct), tuple(proxied)


def _blanks(text: str) -> list[Finding]:
    """Blanks between entries: what happens to the last one."""
    entries = [entry for entry in re.split(r"[,\s]+", text) if entry]
    last = _targets(entries[-1])[-1]
    direct, proxied = _ask(text.strip(), last)
    alone = _ask(entries[-1], last)[1]
    proxied = tuple(name for name in proxied if name not in alone)
    note = "written with commas and no blanks"
    return [Finding("with blanks", last, direct, proxied, (), note)] if proxied else []


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
