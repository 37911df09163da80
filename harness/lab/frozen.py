"""Frozen nodes: a machine that is ready, kept with its memory, and forked in a blink.

There are two ways, behind one interface; ``method`` says which this machine's QEMU can go:

* ``memory``: the guest's memory lies in a file. While a node is prepared the file is shared; saving
  then takes the devices' state only (migration capability ``x-ignore-shared``), and a fork maps
  the same file copy-on-write.
* ``snapshot``: memory and devices are a snapshot in the disks (``savevm``), of which each fork has
  a copy. Every writable disk must then be qcow2, the variable store too.

A fork has its own disk and variable store either way; its clock, identity and entropy are made new
by the agent (op ``thaw``).
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from harness.cached import used
from harness.errors import InfraError, UsageError
from harness.lab import disk, migration
from harness.lab.base import canonical
from harness.lab.namespace import host_env
from harness.lab.vm import Machine, VirtualMachine
from harness.state import cache_dir, exclusive

Method = Literal["memory", "snapshot"]
#: Chooses the way by hand: for a QEMU whose experimental capability is there and broken.
VARIABLE = "AIRLOCK_FREEZE"
_SNAPSHOT = "frozen"


@dataclass(frozen=True)
class Frozen:
    """A node at rest: ``root.qcow2``, the variable store, ``boot.pcap``, and by the method ``ram``
    and ``state`` (devices).
    """

    directory: Path
    manifest: dict[str, Any]

    @property
    def method(self) -> Method:
        return cast(Method, self.manifest["method"])

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
        return self.directory / variables_name(self.method)


def method() -> Method:
    """The way that this machine's QEMU can go, asked once; ``AIRLOCK_FREEZE`` overrides it."""
    chosen = os.environ.get(VARIABLE) or ""
    if chosen in ("memory", "snapshot"):
        return cast(Method, chosen)
    if chosen:
        raise UsageError(f"{VARIABLE}={chosen}: must be memory or snapshot")
    return "memory" if migration.IGNORE_SHARED in _capabilities() else "snapshot"


@functools.cache
def _capabilities() -> frozenset[str]:
    """The migration capabilities of QEMU, by a machine without anything (0.1 s)."""
    asks = ("qmp_capabilities", "query-migrate-capabilities", "quit")
    argv = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none"]
    try:
        done = subprocess.run(
            [*argv, "-qmp", "stdio"],
            input="".join(json.dumps({"execute": ask}) + "\n" for ask in asks),
            capture_output=True,
            text=True,
            timeout=20,
            env=host_env(),
            check=False,
        )
    except FileNotFoundError as e:
        raise InfraError(f"{e.filename} is not installed", hint="airlock doctor --fix") from e
    except subprocess.TimeoutExpired as e:
        raise InfraError("QEMU did not say within 20 s what it can do") from e
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    lists = [a["return"] for a in answers if isinstance(a.get("return"), list)]
    return frozenset(entry["capability"] for entry in lists[0]) if lists else frozenset()


def variables_name(way: Method) -> str:
    """The variable store's file in a directory."""
    return "vars.fd" if way == "memory" else "vars.qcow2"


def prepare(machine: Machine, place: Path) -> Machine:
    """``machine`` so that it can be frozen once it runs; what it writes lies in ``place``."""
    way = method()
    return replace(
        machine,
        root=place / "root.qcow2",
        variables=place / variables_name(way),
        variables_format="raw" if way == "memory" else "qcow2",
        ram=place / "ram" if way == "memory" else None,
    )


def find(directory: Path) -> Frozen | None:
    """The frozen node in ``directory``, if it is whole: its manifest is written last."""
    try:
        return Frozen(directory, json.loads((directory / "manifest.json").read_text()))
    except (OSError, ValueError):
        return None


def beside(directory: Path) -> Path:
    """Where a frozen node goes that nobody shall find by its key."""
    return directory.with_name(f"degraded-{directory.name}")


@contextlib.contextmanager
def making(directory: Path) -> Iterator[Path]:
    """A place to prepare what will be ``directory``; only one process prepares it at a time."""
    with exclusive(directory):
        used(directory)
        place = Path(tempfile.mkdtemp(dir=directory.parent, prefix="partial-"))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


def keep_boot(place: Path, machine: Machine, requests: Sequence[Mapping[str, Any]]) -> None:
    """The evidence of the boot goes with the frozen machine. ``requests``: the proxy's rows."""
    (place / "boot-requests.json").write_text(json.dumps(requests))
    shutil.copy(machine.console, place / "boot-console.log")
    shutil.copy(machine.capture, place / "boot.pcap")


def freeze(vm: VirtualMachine, place: Path, directory: Path, notes: dict[str, Any]) -> Frozen:
    """Save a ready machine whose files lie in ``place``, end it, and publish it as ``directory``.

    ``notes`` go into the manifest. Raises :class:`InfraError` when QEMU cannot save it.
    """
    way: Method = "snapshot" if vm.machine.ram is None else "memory"
    vm.monitor("stop")
    if way == "memory":
        migration.save(vm, place / "state", ignore_shared=True)
    elif said := vm.human(f"savevm {_SNAPSHOT}"):
        raise InfraError(f"QEMU could not save the machine: {said}")
    vm.stop()
    frozen = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    manifest = {"frozen": frozen, "method": way, **notes}
    (place / "manifest.json").write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(directory, ignore_errors=True)
    place.rename(directory)
    return Frozen(directory, manifest)


def place_of(
    machine: Machine, image: Sequence[str], metadata: Mapping[str, str], store: object
) -> Path:
    """Where such a node is kept: by all that decides what it is. ``store``: its firmware's."""
    made_of = {"image": list(image), "metadata": dict(metadata), "firmware": store}
    key = canonical({**made_of, "machine": signature(machine)})
    return cache_dir("frozen") / key[:32]


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
        "cpu": machine.cpu,
        "memory": machine.memory,
        "cores": machine.cores,
        "method": method(),
        **({"volume_mb": machine.volume_mb} if machine.volume_mb else {}),
        **({"disks": [machine.esp is not None, machine.seed is not None]} if machine.seed else {}),
        "format": 7,
    }


def fork(frozen: Frozen, machine: Machine) -> Machine:
    """Give ``machine`` (its directory is new) its own disk and variables from ``frozen``."""
    root = machine.directory / "root.qcow2"
    variables = machine.directory / frozen.variables.name
    machine = replace(machine, root=root, variables=variables)
    if frozen.method == "memory":
        disk.make_overlay(frozen.root, root, "qcow2")
        shutil.copy(frozen.variables, variables)
        return replace(machine, ram=frozen.ram, start="incoming")
    # A snapshot lies in its own file: an overlay over it would not have it.
    disk.copy(frozen.root, root)
    disk.copy(frozen.variables, variables)
    return replace(machine, ram=None, variables_format="qcow2", start="stopped")


def thaw(vm: VirtualMachine, frozen: Frozen) -> None:
    """Let a fork run on from where the node was frozen. It answers at once; thaw its clock next."""
    if frozen.method == "memory":
        migration.restore(vm, frozen.state, ignore_shared=True)
    elif said := vm.human(f"loadvm {_SNAPSHOT}"):
        raise InfraError(f"QEMU could not restore the machine: {said}")
    vm.monitor("cont")
