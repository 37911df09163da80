"""A cell's ledger is the log of its network's proxy: by the node's address, from its beginning."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from conformance.egress import test_egress as egress
from fixtures.gce import Compute
from harness.checks import CheckBroken, CheckFailed, NotVerified
from harness.cloud.upkeep import key_path
from harness.node import CellNames, Node
from harness.providers import fake
from harness.providers.base import Job
from harness.providers.gce import Gce
from harness.providers.gce_iap import Place
from harness.providers.gce_node import GceNode
from harness.state import RunRecord
from harness.transports.base import AgentOperations, Ran
from tests.unit.gce import proxied, site

ADDRESS, OTHER = "10.0.0.77", "10.0.0.78"
JOURNAL = {"installer": "proxy", "event": "end", "t": 0.0}


class Asking(fake.FakeTransport):
    """A node made of data that can ask the proxy: a line in its log, as squid writes one."""

    def __init__(self, log: Path) -> None:
        path = Path(fake.__file__).with_name("fake_node.json")
        super().__init__(json.loads(path.read_text())["facts"], "ok")
        self.log = log
        self.address = ADDRESS
        self.searched_for: list[str] = []

    def ask(self, url: str, client: str = "", ago: float = 0.0) -> None:
        """A request, some seconds ago."""
        row = {"ts": time.time() - ago, "ms": 0, "client": client or self.address, "user": "-"}
        row |= {"method": "GET", "url": url, "status": 200, "squid": "TCP_MISS", "sni": "-"}
        row |= {"bump": "-", "tls": "-", "bytes": 1, "ua": "-", "server": "-"}
        with self.log.open("a") as out:
            out.write(json.dumps(row, separators=(",", ":")) + "\n")

    def run(self, command: Any, *, stdin: bytes = b"", timeout: float = 60) -> Ran:
        del stdin, timeout
        if command[0] == "python3":
            self.ask(command[-1])
        return Ran(0, b"", b"")

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        if op == "hygiene":
            self.searched_for += args["secrets_b64"]
        if op != "apply":
            return super().call(op, timeout=timeout, **args)
        self.ask("http://mirror.test/a_1_all.deb")
        self.ask("http://unplanned.test/x")
        summary = {"contract": {"hosts": ["mirror.test:80"]}, "installers": []}
        return {"code": 0, "summary": summary}

    def get(self, path: str, *, timeout: float = 120) -> bytes:
        del path, timeout
        return json.dumps({**JOURNAL, "t": time.time() - 60}).encode() + b"\n"


class Ground:
    """One node behind the proxy, and what it is asked."""

    def __init__(self, cloud: Compute, run: RunRecord, folder: Path) -> None:
        proxied.was_made()
        self.cloud, self.record = cloud, run
        (folder / "log").touch()
        self.transport = Asking(folder / "log")
        self.machine = proxied.ProxyMachine(folder / "log")
        self.provider = proxied.provider(self.machine, self.connect)
        self.capsule = folder / "capsule"
        self.capsule.mkdir()

    def connect(
        self, provider: Gce, job: Job, place: Place, keys: Mapping[str, str]
    ) -> AgentOperations:
        """What the network knows the instance as, and the way in."""
        del provider, job, keys
        proxied.lives_at(self.cloud, place.name, ADDRESS)
        return self.transport

    def up(self, *installers: str) -> GceNode:
        """The node."""
        cell = proxied.cell(*installers)
        assert self.provider.reasons_not(cell) == []
        self.job = Job(cell, self.capsule, self.capsule, lambda *_: None, self.record.owned)
        return self.provider.up(self.job)

    def judged(self, node: GceNode) -> Node:
        """As checks see it."""
        ledger = {**node.ledger(), "build": self.job.record.build or None}
        names = CellNames("debian-12", "proxy", "plain", "gce")
        return Node("node", names, self.transport.facts(), node.transport, node.expect, ledger)


@pytest.fixture
def ground(cloud: Compute, run: RunRecord, tmp_path: Path) -> Iterator[Ground]:
    """A network with its proxy's log."""
    found = Ground(cloud, run, tmp_path)
    yield found
    found.provider.close()
    assert found.machine.closed == found.machine.connected


def test_a_cell_is_judged_by_its_own_requests(ground: Ground) -> None:
    """Another node's, and an earlier one's of the same address, are not its."""
    ground.transport.ask("http://169.254.169.254/x", client=OTHER)
    ground.transport.ask("http://169.254.169.254/x", ago=3600)
    node = ground.up()
    ground.transport.ask("http://own.test/")
    node.exercise()
    seen = ground.judged(node)
    assert seen.ledger is not None
    assert (seen.ledger["requests"], seen.ledger["hosts"]) == (1, {"own.test": 1})
    assert (seen.ledger["probes"], seen.ledger["missing_probes"]) == (1, [])
    egress.test_metadata_not_proxied(seen)
    egress.test_probes_seen(seen)
    with pytest.raises(NotVerified, match="nobody captured the packets of the node"):
        egress.test_no_violation(seen)
    ground.transport.ask("http://169.254.169.254/computeMetadata/v1/")
    with pytest.raises(CheckFailed, match="metadata server"):
        egress.test_metadata_not_proxied(ground.judged(node))
    node.keep_evidence(ground.capsule)
    assert len((ground.capsule / "requests.jsonl").read_text().splitlines()) == 3
    node.down()
    assert ground.machine.connected == 1


def test_installers_ask_what_they_planned(ground: Ground) -> None:
    node = ground.up("proxy")
    build = ground.job.record.build
    assert (build["requests"], build["packages"], build["captured"]) == (2, 1, False)
    node.exercise()
    # The run's own key must not be on the node: the line of it that holds its private part.
    (secret,) = ground.transport.searched_for
    key = ground.provider.key.write(ground.capsule / "key").read_bytes()
    assert base64.b64decode(secret) in key.splitlines()
    seen = ground.judged(node)
    assert seen.ledger is not None
    assert seen.ledger["requests"] == 0
    egress.test_build_ledger(seen)
    egress.test_probes_seen(seen)
    with pytest.raises(CheckFailed) as found:
        egress.test_build_planned(seen)
    assert found.value.evidence == ["unplanned.test: 1 requests"]
    with pytest.raises(NotVerified, match="of the node and the build"):
        egress.test_no_violation(seen)
    node.down()


def test_the_report_says_that_nobody_captured_packets(ground: Ground) -> None:
    attempt = site.Attempt(ground.record, ground.provider, proxied.cell("proxy"))
    assert attempt.up() == ""
    found = attempt.end()
    assert found.ledger is not None
    assert found.ledger.build is not None
    assert (found.ledger.captured, found.ledger.build.captured) == (False, False)
    assert (found.ledger.probes, found.ledger.build.probes) == (1, 1)
    assert (found.ledger.build.requests, found.ledger.build.packages) == (2, 1)
    assert (attempt.station.capsule / "build-requests.jsonl").is_file()


def test_a_log_that_knows_the_node_by_another_address_proves_nothing(ground: Ground) -> None:
    node = ground.up()
    ground.transport.address = OTHER
    node.exercise()
    with pytest.raises(CheckBroken, match="does not hold all of our probes") as found:
        egress.test_probes_seen(ground.judged(node))
    assert found.value.evidence[0].startswith("node: http://probe.invalid/")
    node.down()


def test_a_log_that_cannot_be_read_is_not_the_nodes_fault(ground: Ground) -> None:
    node = ground.up()
    ground.transport.log.unlink()
    with pytest.raises(Exception, match="cannot be read") as found:
        node.ledger()
    assert type(found.value).__name__ == "InfraError"
    node.down()


@pytest.mark.usefixtures("cloud")
def test_a_network_that_is_not_ours_to_read_is_named_in_the_plan(tmp_path: Path) -> None:
    machine = proxied.ProxyMachine(tmp_path / "log")

    def reasons(**more: Any) -> list[str]:
        return proxied.provider(machine, site.double_login, **more).reasons_not(proxied.cell())

    assert "was not made from here" in reasons()[0]
    proxied.was_made()
    assert reasons() == []
    assert "has the proxy http://10.126.1.2:3128, not" in reasons(url="http://10.0.0.9:3128")[0]
    key_path(proxied.NETWORK).unlink()
    assert "no key of it is here" in reasons()[0]
