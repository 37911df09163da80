"""A cell on Google Cloud and a real squid: its log, read as on the proxy's machine, is the ledger.

What is real here: squid, who asks it, its log, and the node's agent. What is a double: the API, the
way to the proxy's machine, and the network, in which everybody has an address of 127.0.0.0/8.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from conformance.egress import test_egress as egress
from fixtures import daemons
from fixtures.gce import Compute
from fixtures.origin import NAME, Origin
from fixtures.pki import Authority
from fixtures.squid import Squid
from harness import pack
from harness.checks import CheckFailed, NotVerified
from harness.cloud import ledger
from harness.node import CellNames, Node
from harness.providers.base import Job
from harness.providers.gce import Gce
from harness.providers.gce_api import ENDPOINT
from harness.providers.gce_config import Proxy
from harness.providers.gce_iap import Place
from harness.state import RunRecord
from harness.transports.base import AgentOperations, RemoteError
from harness.transports.local import LocalTransport
from tests.lab.test_squid import state
from tests.unit.gce import proxied, site
from tests.unit.gce.bodies import PROJECT

pytestmark = pytest.mark.lab
NODE, OTHER = "127.0.0.1", "127.0.0.9"


class Unsearched(LocalTransport):
    """This machine; its files are not the test's to search."""

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        if op == "hygiene":
            raise RemoteError("not here")
        return super().call(op, timeout=timeout, **args)


def test_squids_log_is_the_cells_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    authority = Authority(tmp_path / "keys")
    install = daemons.squid(state())
    transport = Unsearched(pack.pack(tmp_path / "node-file").path)
    with Compute(PROJECT) as cloud, Origin(authority) as origin, RunRecord() as run:
        monkeypatch.setenv(ENDPOINT, cloud.url)
        site.network(cloud)
        ports = [origin.https_port, origin.http_port]
        hosts = {NAME: "127.0.0.1"}
        squid = Squid(
            *(tmp_path / "squid", install, authority, hosts), intercept=False, connect_ports=ports
        )

        def let_in(
            provider: Gce, job: Job, place: Place, keys: Mapping[str, str]
        ) -> AgentOperations:
            del provider, job, keys
            proxied.lives_at(cloud, place.name, NODE)
            return transport

        with squid:
            machine = proxied.ProxyMachine(squid.access_log)
            url = f"http://127.0.0.1:{squid.port}"
            provider = Gce(
                site.config(proxy=Proxy(url, network=proxied.NETWORK.name)),
                api=site.api(),
                connect=let_in,
                connect_proxy=cast(ledger.Connect, machine.connect),
            )
            # The network's proxy is at an address of its own, which is not on this machine.
            provider.__dict__["_watched"] = (proxied.NETWORK, "")
            capsule = tmp_path / "capsule"
            capsule.mkdir()

            def ask(what: str, source: str = NODE) -> None:
                words = ["curl", "-sS", "-o", "/dev/null", "--max-time", "20", "-x", url]
                transport.run([*words, "--interface", source, what], timeout=30)

            ask("http://169.254.169.254/of-an-earlier-node")
            node = provider.up(Job(proxied.cell(), capsule, capsule, lambda *_: None, run.owned))
            ask(f"http://{NAME}:{origin.http_port}/")
            ask("http://169.254.169.254/of-another-node", OTHER)
            if node._traffic is not None:
                node._traffic.probe(transport)

            def judged() -> Node:
                names = CellNames("debian-12", "proxy", "plain", "gce")
                return Node("node", names, {}, transport, node.expect, node.ledger())

            seen = judged()
            assert seen.ledger is not None
            assert (seen.ledger["requests"], seen.ledger["hosts"]) == (1, {NAME: 1})
            assert (seen.ledger["probes"], seen.ledger["missing_probes"]) == (1, [])
            egress.test_probes_seen(seen)
            egress.test_metadata_not_proxied(seen)
            with pytest.raises(NotVerified, match="nobody captured the packets"):
                egress.test_no_violation(seen)
            ask("http://169.254.169.254/computeMetadata/v1/")
            with pytest.raises(CheckFailed):
                egress.test_metadata_not_proxied(judged())
            node.down()
            provider.close()
    assert machine.connected == machine.closed == 1
