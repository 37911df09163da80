"""Nodes on the double of the API behind a real sshd, through ssh and a stand-in for the tunnel.

What is real here: ssh, sshd, keys, host keys, the agent on the node, the pool and the verdicts.
What is a double: the API, and ``gcloud`` (its one command that is used).
"""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fixtures import pki
from fixtures.gce import Compute, Guest
from harness.providers.base import Job
from harness.providers.gce import Gce
from harness.providers.gce_api import ENDPOINT
from harness.providers.gce_build import Forwarding
from harness.providers.gce_iap import IapTransport, Place
from harness.providers.gce_machine import log_in
from harness.state import RunRecord
from harness.verdict import EXITS
from installers.exits import Exit
from reports.read import read_report
from tests.lab.channel.machine import running
from tests.lab.gce.relay import Relay
from tests.unit.gce import site
from tests.unit.gce.bodies import PROJECT, instance
from tests.unit.gce.bodies import Api as Plain

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="who is not root becomes it by sudo on a node"),
]
ROOT = Path(__file__).resolve().parents[3]
#: Google's own, before the stand-in beside this file takes its name.
GCLOUD = shutil.which("gcloud")


@dataclass
class Ground:
    """The API, and the folder of the sshd that every instance of it is."""

    cloud: Compute
    folder: Path
    port: int

    def cut(self) -> None:
        """No tunnel lives, and none comes up, from now on."""
        (self.folder / "cut").touch()

    def asked(self) -> str:
        """What the tunnel was asked for, the last time."""
        return (self.folder / "asked").read_text().splitlines()[-1]

    def publish(self, key: str) -> None:
        """What guests say is their host key: a file's name."""
        kind, text, *_ = (self.folder / f"{key}.pub").read_text().split()
        self.cloud.guest = Guest(boots=0, attributes={"hostkeys": {kind: text}})

    def admitting(
        self, provider: Gce, job: Job, place: Place, keys: Mapping[str, str]
    ) -> IapTransport:
        """What the guest agent does with the metadata, and then the real way in."""
        items = self.cloud.named(place.name)["metadata"]["items"]
        line = next(item["value"] for item in items if item["key"] == "ssh-keys")
        (self.folder / "user.pub").write_text(line.partition(":")[2] + "\n")
        return log_in(provider, job, place, keys)

    def provider(self, boot: float = 300) -> Gce:
        """A provider that logs in for real, and gives up after so many seconds."""
        pace = replace(site.PACE, boot=boot)
        settings = site.config(user=getpass.getuser())
        return Gce(settings, api=site.api(pace), connect=self.admitting)


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Ground]:
    """The API, its network, an sshd, and a gcloud that leads there."""
    monkeypatch.setenv("PATH", f"{Path(__file__).parent}:{os.environ['PATH']}")
    with running() as machine, Compute(PROJECT) as cloud:
        folder, port = machine.folder, machine.port
        monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
        monkeypatch.setenv("AIRLOCK_TEST_TUNNEL", f"{folder}:{port}")
        monkeypatch.setenv(ENDPOINT, cloud.url)
        site.network(cloud)
        found = Ground(cloud, folder, port)
        found.publish("host")
        yield found


@pytest.fixture
def run(ground: Ground) -> Iterator[RunRecord]:
    """A run."""
    del ground
    with RunRecord() as record:
        yield record


def _error(attempt: site.Attempt, word: str) -> None:
    cell = attempt.end()
    assert (cell.verdict, EXITS[cell.verdict]) == ("error", Exit.UNKNOWN)
    assert word in cell.reason, cell.reason
    assert not [check for check in cell.checks if check.outcome == "fail"]


def test_facts_come_through_the_tunnel(ground: Ground, run: RunRecord) -> None:
    attempt = site.Attempt(run, ground.provider())
    assert attempt.up() == ""
    name = ground.cloud.made("instances")[0].rpartition("/")[2]
    assert f"start-iap-tunnel {name} 22 --listen-on-stdin --project={PROJECT}" in ground.asked()
    assert (attempt.station.capsule / "facts.json").stat().st_size > 1000
    key = attempt.station.scratch / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    attempt.end()
    assert not key.exists()
    assert ground.cloud.made("instances") == []
    assert run.owned.instances() == []


def test_a_socket_of_ours_is_led_to_the_node(ground: Ground, run: RunRecord) -> None:
    """As the signer's is to a machine that an image is built on."""
    attempt = site.Attempt(run, ground.provider())
    assert attempt.up() == ""
    node = attempt.station.running
    assert node is not None
    assert isinstance(node.transport, Forwarding)
    here, there = attempt.station.scratch / "our.sock", "/tmp/airlock-test.sock"
    with socket.socket(socket.AF_UNIX) as ours:
        ours.bind(str(here))
        ours.listen()
        node.transport.forward(there, here)
        ask = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); "
        ask += "s.sendall(b'from the node'); s.shutdown(1); print(s.recv(99).decode())"
        answer = threading.Thread(target=_answer, args=(ours,))
        answer.start()
        ran = node.transport.run(["python3", "-c", ask, there], timeout=60)
        answer.join()
    assert (ran.code, ran.out) == (0, b"from here to from the node\n")
    attempt.end()


def _answer(listener: socket.socket) -> None:
    link, _ = listener.accept()
    with link:
        link.sendall(b"from here to " + link.recv(99))


@pytest.mark.slow
@pytest.mark.skipif(GCLOUD is None, reason="needs the Google Cloud CLI, which no package index has")
def test_googles_own_client_makes_the_tunnel(
    ground: Ground, run: RunRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``gcloud`` is real, and so is what it says to a double of the relay."""
    authority = pki.make_ca("relay")
    pem, trusted = tmp_path / "relay.pem", tmp_path / "ca.pem"
    pem.write_bytes(pki.make_leaf(authority, ["localhost"]).key_and_cert())
    trusted.write_bytes(authority.pem)
    (tmp_path / "token").write_text("a-token")
    (tmp_path / "bin").mkdir()
    with Relay(pem, ground.port) as relay:
        wrapper = tmp_path / "bin" / "gcloud"
        override = f"--iap-tunnel-url-override={relay.url}"
        wrapper.write_text(f'#!/bin/sh\nexec {GCLOUD} "$@" {override}\n')
        wrapper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
        for name, value in {
            "CONFIG": str(tmp_path / "config"),
            "CORE_CUSTOM_CA_CERTS_FILE": str(trusted),
            "AUTH_ACCESS_TOKEN_FILE": str(tmp_path / "token"),
            "CORE_CHECK_GCE_METADATA": "false",
        }.items():
            monkeypatch.setenv(f"CLOUDSDK_{name}", value)
        attempt = site.Attempt(run, ground.provider())
        assert attempt.up() == ""
        name = ground.cloud.made("instances")[0].rpartition("/")[2]
        assert relay.asked[0]["instance"] == name
        assert (relay.asked[0]["project"], relay.asked[0]["port"]) == (PROJECT, "22")
        assert relay.tokens == {"Bearer a-token"}
        assert (attempt.station.capsule / "facts.json").stat().st_size > 1000
        attempt.end()


def test_another_host_key_ends_it(ground: Ground, run: RunRecord) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ground.folder / "other")]
    subprocess.run(argv, check=True)
    ground.publish("other")
    attempt = site.Attempt(run, ground.provider())
    assert "its host key is another" in attempt.up()
    _error(attempt, "its host key is another")
    assert ground.cloud.made("instances") == []


def test_the_tunnel_is_cut(ground: Ground, run: RunRecord) -> None:
    attempt = site.Attempt(run, ground.provider())
    assert attempt.up() == ""
    running = attempt.station.running
    assert running is not None
    ground.cut()
    with pytest.raises(Exception, match="airlock-"):
        attempt.pool.call(site.cell().id, "ping", 60, {})
    _error(attempt, "airlock-")
    assert ground.cloud.made("instances") == []


def test_the_tunnel_never_comes_up(ground: Ground, run: RunRecord) -> None:
    ground.cut()
    attempt = site.Attempt(run, ground.provider(boot=5))
    attempt.up()
    _error(attempt, "the connection ended")
    assert ground.cloud.made("instances") == []


def test_the_instance_is_deleted_under_us(ground: Ground, run: RunRecord) -> None:
    attempt = site.Attempt(run, ground.provider())
    assert attempt.up() == ""
    ground.cloud.vanish(ground.cloud.made("instances")[0].rpartition("/")[2])
    ground.cut()
    with pytest.raises(Exception, match="does not exist any more"):
        attempt.pool.call(site.cell().id, "ping", 60, {})
    _error(attempt, "does not exist any more")
    assert run.owned.instances() == []


def _check(ground: Ground, tmp_path: Path, name: str) -> subprocess.CompletedProcess[str]:
    target = f"gce://{getpass.getuser()}@{PROJECT}/{site.ZONES[0]}/{name}"
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700, exist_ok=True)
    identity = home / ".ssh" / "google_compute_engine"
    identity.write_bytes((ground.folder / "user").read_bytes())
    identity.chmod(0o600)
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", "check", target, "-k", "kernel or os"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )


def test_check_of_an_instance_that_is_not_ours(ground: Ground, tmp_path: Path) -> None:
    api, subnet = Plain(ground.cloud.url), "regions/europe-west4/subnetworks/airlock-nodes"
    items = [{"key": "enable-guest-attributes", "value": "TRUE"}]
    body = instance("worker-1", metadata={"items": items})
    api.insert(body | {"networkInterfaces": [{"subnetwork": subnet}]})
    before = len(ground.cloud.requests)
    done = _check(ground, tmp_path, "worker-1")
    (cell,) = read_report(tmp_path / "out" / "latest").cells
    assert "worker-1" in cell.image.name
    assert {check.outcome for check in cell.checks} & {"pass", "fail"}, done.stdout + done.stderr
    # Nothing but questions: its own project and instance are as they were.
    assert {row["method"] for row in ground.cloud.requests[before:]} == {"GET"}
    ground.cut()
    done = _check(ground, tmp_path, "worker-1")
    assert done.returncode == Exit.UNKNOWN, done.stdout + done.stderr
    assert len(ground.cloud.made("instances")) == 1


def test_check_of_an_instance_that_is_not_there(ground: Ground, tmp_path: Path) -> None:
    done = _check(ground, tmp_path, "nobody")
    assert done.returncode == Exit.UNKNOWN
    assert "there is no such instance" in done.stdout + done.stderr
