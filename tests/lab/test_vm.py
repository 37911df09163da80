"""QEMU itself: how a machine that dies, or never gets anywhere, is reported."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.deadline import DeadlinePassed
from harness.errors import InfraError
from harness.lab import firmware, kvm, vm
from harness.transports.agent import AgentTransport

pytestmark = pytest.mark.lab


@pytest.fixture
def machine(tmp_path: Path) -> vm.Machine:
    """A machine whose disks are empty: its firmware runs, and finds nothing to boot."""
    esp = tmp_path / "esp.img"
    esp.write_bytes(bytes(1 << 20))
    root = tmp_path / "root.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", root, "16M"], check=True)
    code = firmware.find()
    variables = tmp_path / "vars.fd"
    firmware.enroll(code, [], variables)
    return vm.Machine(
        directory=tmp_path,
        root=root,
        esp=esp,
        firmware=code,
        variables=variables,
        proxy_port=None,
        metadata_port=9,
        memory=256,
    )


@pytest.fixture
def running(machine: vm.Machine) -> Iterator[vm.VirtualMachine]:
    with vm.VirtualMachine(machine) as started:
        yield started


def test_a_machine_that_never_gets_ready_is_reported_with_its_console(
    running: vm.VirtualMachine,
) -> None:
    transport = AgentTransport(running.machine.channel, name="empty")
    with pytest.raises(DeadlinePassed, match="ready") as caught:
        transport.wait_ready(timeout=15, alive=running.check_alive)
    assert not transport.heard
    transport.close()
    assert "serial console: " in str(running.explain(caught.value))
    assert "BdsDxe" in str(running.explain(caught.value))


def test_a_machine_that_dies_at_once_says_what_qemu_said(machine: vm.Machine) -> None:
    broken = replace(machine, root=machine.directory / "missing.qcow2")
    with vm.VirtualMachine(broken) as started:
        transport = AgentTransport(broken.channel, name="dead")
        with pytest.raises(InfraError) as caught:
            transport.wait_ready(timeout=20, alive=started.check_alive)
        said = str(started.explain(caught.value))
    assert "QEMU ended with 1" in said
    assert "missing.qcow2" in said


def test_without_qemu_the_message_names_the_remedy(
    machine: vm.Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vm, "host_env", lambda: {**os.environ, "PATH": str(tmp_path)})
    with pytest.raises(InfraError, match=r"not installed.*doctor --fix"):
        machine.arguments()


def test_leaving_the_machine_ends_qemu(machine: vm.Machine) -> None:
    with vm.VirtualMachine(machine) as started:
        pid = started.pid
        assert started.monitor("query-status")[0]["status"] == "running"
    assert not Path(f"/proc/{pid}").exists()


def test_the_probe_boot_tells_an_accelerator_that_works() -> None:
    assert kvm.boots("tcg")
    assert not kvm.boots("no-such-accelerator")
