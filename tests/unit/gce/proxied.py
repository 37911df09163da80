"""A network of ``airlock gce up`` with nodes behind its proxy, and a stand-in for its machine."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from fixtures.gce import Compute
from fixtures.scenarios import Scenario
from harness.cells import Cell
from harness.cloud import ledger, proxyvm
from harness.cloud.journal import opened
from harness.cloud.network import Site
from harness.cloud.upkeep import key_path
from harness.providers.gce import Connect, Gce
from harness.providers.gce_api import Api
from harness.providers.gce_config import Proxy
from harness.transports.base import Ran
from tests.unit.gce import site
from tests.unit.gce.bodies import PROJECT

NETWORK = Site(PROJECT, site.ZONES[0], intercept=False)


class ProxyMachine:
    """The proxy's machine: commands are run here, on a log that lies here."""

    name = "airlock-proxy"

    def __init__(self, log: Path) -> None:
        self._log = log
        self.connected = 0
        self.closed = 0

    def run(self, command: list[str], *, stdin: bytes = b"", timeout: float = 60) -> Ran:
        words = [word.replace(proxyvm.ACCESS_LOG, str(self._log)) for word in command]
        done = subprocess.run(words, input=stdin, capture_output=True, timeout=timeout)
        return Ran(done.returncode, done.stdout, done.stderr)

    def close(self) -> None:
        self.closed += 1

    def connect(self, api: Api, network: Site) -> ProxyMachine:
        """Another way in."""
        del api, network
        self.connected += 1
        return self


def was_made() -> None:
    """As if ``airlock gce up`` had run on this machine."""
    with opened(PROJECT, NETWORK.name) as journal:
        journal.begin(NETWORK)
    key_path(NETWORK).touch()


def provider(machine: ProxyMachine, connect: Connect, **more: Any) -> Gce:
    """A provider whose nodes have that proxy, and its log for a ledger."""
    proxy = Proxy(more.pop("url", NETWORK.proxy_url), network=NETWORK.name)
    return Gce(
        site.config(proxy=proxy, **more),
        api=site.api(),
        connect=connect,
        connect_proxy=cast(ledger.Connect, machine.connect),
    )


def cell(*installers: str) -> Cell:
    """A cell behind a proxy."""
    found = site.cell()
    scenario = Scenario(name="proxy", title="")
    return replace(found, scenario=scenario, profile=replace(found.profile, installers=installers))


def lives_at(cloud: Compute, name: str, address: str) -> None:
    """Which address an instance has in the network."""
    cloud.named(name)["networkInterfaces"][0]["networkIP"] = address
