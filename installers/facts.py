"""Everything one exchange tells about a node, as one JSON object. Never raises.

A value that cannot be read is null (or empty, where it is a list) and named in ``unreadable`` with
the reason. Every value is read anew at each call: between two calls the node may have been changed,
or be another one, forked from the first.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Optional

from installers.asn1 import Certificate
from installers.collect import (
    boot,
    built,
    containers,
    efi,
    environments,
    gpu,
    gpuconfig,
    hygiene,
    keyservers,
    kmsg,
    kubernetes,
    modules,
    network,
    packages,
    processes,
    proxy,
    records,
    repositories,
    secure_boot,
    system,
    systemd,
    trust,
    upkeep,
    volumes,
)
from installers.collect.reader import Reader
from installers.exits import Exit

SCHEMA = 1
# What can be asked for by itself, and what must be read for it first.
NEEDS = {
    "proxy": {"systemd"},
    "gpu_config": {"systemd"},
    "modules": {"certificates"},
    "installers": {"state"},
}
AREAS = (
    *("identity", "os", "kernel", "python", "secure_boot", "network", "proxy", "trust"),
    *(
        "modules",
        "built",
        "repositories",
        "loaded_modules",
        "signing",
        "systemd",
        "disk",
        "volumes",
        "key_servers",
    ),
    *("memory", "journal", "installers", "hygiene", "packages", "kernel_log_flags"),
    *(
        "gpu_config",
        "environments",
        "gpu",
        "containers",
        "kubernetes",
        "processes",
        "boot",
        "upkeep",
    ),
)
NOT_TRIED = "nobody asked this node to try its cards; only `airlock check` and a lab with cards do"


class _Seen:
    """What is remembered between two looks."""

    def __init__(self) -> None:
        self.modules = modules.Seen()
        self.environments = environments.Seen()


class Collector:
    """Collects facts again and again; a resident agent keeps one, for the cost of hashing.

    ``controls``, ``probes`` and ``searched`` are what the operations found last, as the facts
    repeat it; they are empty until then. ``no_controls`` says why there are none, if they were
    asked for and could not be run. ``cards`` is None until somebody had them tried.
    """

    def __init__(self, root: str = "/") -> None:
        self.root = root
        self.controls: list[dict[str, Any]] = []
        self.no_controls = ""
        self.probes: list[dict[str, Any]] = []
        self.searched: dict[str, Any] = {}
        self._seen = _Seen()
        self.cards: Optional[dict[str, Any]] = None
        self._variables = efi.Variables()

    def collect(
        self, nonce: Optional[str] = None, only: Optional[Collection[str]] = None
    ) -> dict[str, Any]:
        """The facts of this moment; ``nonce`` comes back, so that no answer is taken for another.

        ``only`` names the areas that are wanted; the others are then not read, and not there.
        ``clock`` is the node's Unix time, ``seconds`` how long this took, ``timings`` how long
        each area took, in milliseconds.
        """
        facts = _Look(self.root, self._seen, self._variables, only).facts(nonce)
        if only is not None:
            return {key: facts[key] for key in facts if key in only or key not in AREAS}
        facts["controls"] = self.controls
        if self.no_controls:
            facts["unreadable"] = {**facts["unreadable"], "controls": self.no_controls}
        facts["probes"] = self.probes
        facts["cards"] = self.cards
        if self.cards is None:
            facts["unreadable"] = {**facts["unreadable"], "cards": NOT_TRIED}
        if self.searched and facts["hygiene"]:
            keys = {*facts["hygiene"]["private_keys"], *self.searched["private_keys"]}
            facts["hygiene"] = {
                **facts["hygiene"],
                **self.searched,
                "private_keys": sorted(keys),
            }
        return facts


class _Look:
    """One look at the node."""

    def __init__(
        self,
        root: str,
        seen: _Seen,
        variables: efi.Variables,
        only: Optional[Collection[str]],
    ) -> None:
        asked = set(AREAS if only is None else only)
        self.wanted = asked.union(*(NEEDS.get(area, ()) for area in asked))
        self.reader = Reader(root)
        self.seen = seen
        self.variables = variables
        self.timings: dict[str, float] = {}

    def area(self, name: str, collect: Callable[..., Any], *arguments: Any) -> Any:
        """What a collector returns; None and a note where it breaks, for the rest must not."""
        if name not in self.wanted:
            return None
        started = time.perf_counter()
        try:
            return collect(self.reader, *arguments)
        except Exception as error:  # facts are collected on machines in any state
            self.reader.miss(name, error)
            return None
        finally:
            self.timings[name] = round((time.perf_counter() - started) * 1000, 2)

    def _certificates(self, reader: Reader) -> list[Certificate]:
        """Certificates that a module's signer may be: ours, and those of the firmware's db."""
        found = secure_boot.certificates(self.variables.read(reader, "db", efi.IMAGE_SECURITY))
        installed = modules.installed_certificate(reader)
        return [installed, *found] if installed else found

    def facts(self, nonce: Optional[str]) -> dict[str, Any]:
        """The whole object."""
        started = time.perf_counter()
        manager = self.area("systemd", systemd.collect) or {}
        certificates = self.area("certificates", self._certificates) or []
        state = self.area("state", records.state) or {}
        facts: dict[str, Any] = {
            "schema": SCHEMA,
            "nonce": nonce,
            "identity": self.area("identity", system.identity),
            "os": self.area("os", system.operating_system),
            "kernel": self.area("kernel", system.kernel),
            "python": self.area("python", system.python),
            "secure_boot": self.area("secure_boot", secure_boot.collect, self.variables),
            "network": self.area("network", network.collect),
            "proxy": self._proxy(manager),
            "processes": self.area("processes", processes.collect),
            "trust": self.area("trust", trust.collect),
            "modules": self.area("modules", modules.collect, certificates, self.seen.modules),
            "built": self.area("built", built.collect),
            "boot": self.area("boot", boot.collect, self.seen.modules),
            "repositories": self.area("repositories", repositories.collect),
            "loaded_modules": self.area("loaded_modules", modules.loaded),
            "signing": self.area("signing", _signing),
            "systemd": {key: manager.get(key) for key in ("state", "failed", "version", "stale")},
            "disk": self.area("disk", system.disk),
            "upkeep": self.area("upkeep", upkeep.collect),
            "volumes": self.area("volumes", volumes.collect),
            "key_servers": self.area("key_servers", keyservers.collect),
            "memory": self.area("memory", system.memory),
            "journal": self.area("journal", records.journal),
            "installers": records.outcomes(state),
            "hygiene": self.area("hygiene", hygiene.collect),
            "packages": self.area("packages", packages.collect),
            "kernel_log_flags": self.area("kernel_log_flags", kmsg.collect),
        }
        facts["gpu_config"] = self.area("gpu_config", gpuconfig.collect, manager.get("units"))
        facts["environments"] = self.area(
            "environments", environments.collect, self.seen.environments
        )
        facts["gpu"] = self.area("gpu", gpu.collect)
        facts["containers"] = self.area("containers", containers.collect)
        facts["kubernetes"] = self.area("kubernetes", kubernetes.collect)
        facts["timings"] = self.timings
        facts["unreadable"] = self.reader.unreadable
        facts["clock"] = time.time()
        facts["seconds"] = round(time.perf_counter() - started, 4)
        return facts

    def _proxy(self, manager: dict[str, Any]) -> Any:
        """Proxy settings, with what systemd says of the unit that applies them at boot."""
        found = self.area("proxy", proxy.collect, manager.get("environment"))
        if isinstance(found, dict):
            units = manager.get("units") or {}
            found["unit"] = {systemd.PROXY: units[systemd.PROXY]} if systemd.PROXY in units else {}
        return found


def _signing(reader: Reader) -> Optional[dict[str, str]]:
    """The certificate our driver installer left on the node, None where it left none."""
    found = modules.installed_certificate(reader)
    if found is None:
        return None
    return {"path": modules.CERTIFICATE, "certificate_sha256": found.sha256}


def main(argv: list[str]) -> int:
    """The verb ``facts [--root DIR] [--nonce TEXT] [--json]``; returns an exit code."""
    parser = argparse.ArgumentParser(prog="airlock-node.pyz facts", description=__doc__)
    parser.add_argument("--root", default="/", metavar="DIR", help="root of a mounted image")
    parser.add_argument("--nonce", metavar="TEXT", help="is echoed in the facts")
    parser.add_argument("--cards", action="store_true", help="try the cards first; takes minutes")
    parser.add_argument("--json", action="store_true", help="on one line, for programs")
    options = parser.parse_args(argv)
    if not Path(options.root).is_dir():
        print(f"facts: {options.root} is not a directory", file=sys.stderr)
        return Exit.USAGE
    if options.cards and Path(options.root).resolve() != Path("/"):
        print(
            f"facts: the cards of {options.root} cannot be tried: it does not run", file=sys.stderr
        )
        return Exit.USAGE
    collector = Collector(options.root)
    if options.cards:
        from installers.collect import cards

        collector.cards = cards.Trial().collect()
    facts = collector.collect(options.nonce)
    print(json.dumps(facts, indent=None if options.json else 1))
    return Exit.PASS
