"""One channel, three processes: what pytest's workers do with a node."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.broker import Broker, Client
from harness.pool import Pool
from harness.providers.host import Host, host_cell
from harness.remote import remote_node
from harness.state import RunRecord
from harness.transports.base import RemoteError

# A worker: asks by testinfra and by the agent, many times, and says what it got.
WORKER = """
import sys
from harness.broker import Client
from harness.remote import remote_node
path, name = sys.argv[1:]
client = Client(path)
cell = client.ask("hello")[0]
node = remote_node(client, cell, client.ask("acquire", cell=cell["id"]))
for number in range(10):
    assert node.host.check_output(f"echo {name} {number}") == f"{name} {number}"
    facts = node.transport.facts(f"{name} {number}")
    assert facts["nonce"] == f"{name} {number}"
assert node.host.file("/etc/passwd").exists
print(node.facts["identity"]["boot_id"])
"""


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """This machine as the one node of a run."""
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    with RunRecord() as run:
        pool = Pool([host_cell("local")], {"host": Host()}, run, tmp_path / "capsules")
        try:
            with Broker(pool, run.scratch / "pool") as served:
                yield served
        finally:
            pool.close()


def test_three_processes_share_a_node(broker: Broker) -> None:
    argv = [sys.executable, "-c", WORKER, str(broker.path)]
    workers = [
        subprocess.Popen([*argv, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name in ("one", "two", "three")
    ]
    ended = [(*worker.communicate(timeout=120), worker.returncode) for worker in workers]
    assert [(err, code) for _out, err, code in ended] == [("", 0)] * 3
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert {out.strip() for out, _err, _code in ended} == {boot_id}


def test_the_nodes_refusal_reaches_the_worker_as_such(broker: Broker) -> None:
    client = Client(str(broker.path))
    cell = client.ask("hello")[0]
    node = remote_node(client, cell, client.ask("acquire", cell=cell["id"]))
    with pytest.raises(RemoteError, match="no operation 'dance'"):
        node.transport.call("dance", timeout=5)
