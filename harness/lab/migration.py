"""QEMU's migration to and from a file: how a running machine is saved and brought back."""

from __future__ import annotations

import shlex
import time
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.lab.vm import PATIENCE, Command, VirtualMachine

#: Memory that lies in a shared file is left out of the state; experimental since QEMU 4.0.
IGNORE_SHARED = "x-ignore-shared"
# A restored QEMU announces the guest's card by packets of its own, which the guest never sent.
_NO_ANNOUNCEMENT: Command = ("migrate-set-parameters", {"announce-rounds": 0})


def _capability(ignore_shared: bool) -> Command:
    setting = {"capability": IGNORE_SHARED, "state": ignore_shared}
    return ("migrate-set-capabilities", {"capabilities": [setting]})


def save(
    vm: VirtualMachine, state: Path, *, ignore_shared: bool, timeout: float = PATIENCE
) -> None:
    """Write the state of a stopped machine to ``state``; with its memory, unless that is shared.

    The machine stays, stopped, and gives up its disks until it runs on (``cont``).
    """
    if vm.machine.ram is not None:  # else this QEMU may not know the capability
        vm.monitor(_capability(ignore_shared))
    # 0: as fast as the disk takes it.
    vm.monitor(
        ("migrate-set-parameters", {"max-bandwidth": 0}),
        ("migrate", {"uri": f"exec:cat > {shlex.quote(str(state))}"}),
    )
    deadline = Deadline(timeout, "saving the machine's state")
    while (status := vm.monitor("query-migrate")[0].get("status")) not in ("completed", "failed"):
        vm.check_alive()
        deadline.check()
        time.sleep(0.01)
    if status == "failed":
        raise InfraError("QEMU could not save the machine's state")


def restore(
    vm: VirtualMachine, state: Path, *, ignore_shared: bool, timeout: float = PATIENCE
) -> None:
    """Read the state into a machine that was started for it; it is stopped afterwards."""
    commands = [_capability(True)] if ignore_shared else []
    uri = f"exec:cat {shlex.quote(str(state))}"
    vm.monitor(*commands, _NO_ANNOUNCEMENT, ("migrate-incoming", {"uri": uri}))
    deadline = Deadline(timeout, "restoring the machine's state")
    while vm.monitor("query-status")[0]["status"] == "inmigrate":
        vm.check_alive()
        deadline.check()
        time.sleep(0.005)
