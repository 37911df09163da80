"""Frozen nodes: a machine that is ready, kept with its memory, and forked in a blink.

The guest's memory lives in a file. While a node is prepared the file is shared; saving then takes
the devices' state only (migration capability ``x-ignore-shared``), and a fork maps the same file
copy-on-write. A fork has its own overlay and variable store; its clock, identity and entropy are
made new by the agent (op ``thaw``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.lab.base import exclusive
from harness.lab.namespace import host_env
from harness.lab.vm import Machine, VirtualMachine

_IGNORE_SHARED = (
    "migrate-set-capabilities",
    {"capabilities": [{"capability": "x-ignore-shared", "state": True}]},
)
# A restored QEMU announces the guest's card by packets of its own, which the guest never sent.
_NO_ANNOUNCEMENT = ("migrate-set-parameters", {"announce-rounds": 0})


@dataclass(frozen=True)
class Frozen:
    """A node at rest: ``ram``, ``state`` (devices), ``root.qcow2``, ``vars.fd``, ``boot.pcap``."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def ram(self) -> Path:
        return self.directory / "ram"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def root(self) -> Path:
        return self.directory / "root.qcow2"

    @property
    def variables(self) -> Path:
        return self.directory / "vars.fd"


def find(directory: Path) -> Frozen | None:
    """The frozen node in ``directory``, if it is whole: its manifest is written last."""
    try:
        return Frozen(directory, json.loads((directory / "manifest.json").read_text()))
    except (OSError, ValueError):
        return None


@contextlib.contextmanager
def making(directory: Path) -> Iterator[Path]:
    """A place to prepare what will be ``directory``; only one process prepares it at a time."""
    with exclusive(directory):
        place = Path(tempfile.mkdtemp(dir=directory.parent, prefix="partial-"))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def freeze(vm: VirtualMachine, place: Path, directory: Path, notes: dict[str, Any]) -> Frozen:
    """Save a ready machine whose files lie in ``place``, end it, and publish it as ``directory``.

    ``notes`` go into the manifest. Raises :class:`InfraError` when QEMU cannot save it.
    """
    vm.monitor("stop", _IGNORE_SHARED)
    vm.monitor(("migrate", {"uri": f"exec:cat > {place / 'state'}"}))
    deadline = Deadline(60, "saving the machine's devices")
    while (status := vm.monitor("query-migrate")[0].get("status")) not in ("completed", "failed"):
        deadline.check()
        time.sleep(0.01)
    if status == "failed":
        raise InfraError("QEMU could not save the machine's devices")
    vm.stop()
    for name in ("agent.sock", "qmp.sock"):
        (place / name).unlink(missing_ok=True)
    manifest = {"frozen": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"), **notes}
    (place / "manifest.json").write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(directory, ignore_errors=True)
    place.rename(directory)
    return Frozen(directory, manifest)


def signature(machine: Machine) -> dict[str, Any]:
    """What a saved state depends on besides the disk: QEMU itself, and the machine's shape."""
    ran = subprocess.run(
        ["qemu-system-x86_64", "--version"],
        capture_output=True,
        text=True,
        env=host_env(),
        check=False,
    )
    code = machine.firmware.code.stat()
    return {
        "qemu": ran.stdout.partition("\n")[0],
        "firmware": [str(machine.firmware.code), code.st_size, code.st_mtime_ns],
        "accelerator": machine.accelerator,
        "memory": machine.memory,
        "cores": machine.cores,
        **({"volume_mb": machine.volume_mb} if machine.volume_mb else {}),
        "format": 3,
    }


def fork(frozen: Frozen, machine: Machine) -> Machine:
    """Give ``machine`` (its directory is new) its own overlay and variables over ``frozen``."""
    root, variables = machine.directory / "root.qcow2", machine.directory / "vars.fd"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2"]
    argv += ["-b", str(frozen.root), str(root)]
    done = subprocess.run(argv, capture_output=True, text=True, env=host_env(), check=False)
    if done.returncode:
        raise InfraError(f"qemu-img failed: {done.stderr.strip()}")
    shutil.copy(frozen.variables, variables)
    return replace(machine, root=root, variables=variables, ram=frozen.ram, fork=True)


def thaw(vm: VirtualMachine, frozen: Frozen) -> None:
    """Let a fork run on from where the node was frozen. It answers at once; thaw its clock next."""
    restore = ("migrate-incoming", {"uri": f"exec:cat {frozen.state}"})
    vm.monitor(_IGNORE_SHARED, _NO_ANNOUNCEMENT, restore)
    deadline = Deadline(30, "restoring the machine's devices")
    while vm.monitor("query-status")[0]["status"] == "inmigrate":
        vm.check_alive()
        deadline.check()
        time.sleep(0.005)
    vm.monitor("cont")
