"""A running node as files: saved as it is, memory and all, and brought back here or elsewhere.

The files need nothing else of the machine that they were made on: ``root.qcow2`` is flat,
``state`` holds memory and devices. They hold whatever the node held, secrets too, and are
readable by their owner only.
"""

from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.errors import InfraError, UsageError
from harness.lab import disk, migration
from harness.lab.namespace import host_env
from harness.lab.vm import Machine, VirtualMachine

_FORMAT = 1
_MANIFEST = "manifest.json"
_FILES = ("root.qcow2", "vars.fd", "state")
_SAVE_SECONDS = 300.0
_RESTORE_SECONDS = 120.0


@dataclass(frozen=True)
class Saved:
    """A node in ``directory``: root.qcow2, vars.fd, state, manifest.json, esp.img or seed.img."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def state(self) -> Path:
        return self.directory / "state"


def save(vm: VirtualMachine, target: Path, notes: dict[str, Any]) -> Saved:
    """Write a running machine to ``target``: a directory that is not there, or a ``.tar`` file.

    The machine stands still meanwhile (seconds), and then runs on. ``notes`` go into the manifest.
    """
    if target.exists():
        raise UsageError(f"{target} is there already", hint="name one that is not")
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}")
    place = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        manifest = {
            "format": _FORMAT,
            "saved": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "qemu": _version(),
            "machine": _kind(vm),
            "accelerator": vm.machine.accelerator,
            "memory": vm.machine.memory,
            "cores": vm.machine.cores,
            **notes,
        }
        beside = _write(vm, place)
        (place / _MANIFEST).write_text(json.dumps(manifest, indent=1))
        if target.suffix == ".tar":
            partial = place.with_suffix(".tar")
            with tarfile.open(partial, "w") as tar:
                # First, so that it can be read without the rest.
                for name in (_MANIFEST, *_FILES, *beside):
                    tar.add(place / name, arcname=name)
            partial.chmod(0o600)
            partial.replace(target)
        else:
            place.rename(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return Saved(target, manifest)


def _write(vm: VirtualMachine, place: Path) -> list[str]:
    """Write everything but the manifest; the names of the disks that it only reads."""
    vm.monitor("stop")
    try:
        migration.save(vm, place / "state", ignore_shared=False, timeout=_SAVE_SECONDS)
        # A machine that was migrated has let go of its disks, until it runs on.
        disk.flatten(vm.machine.root, place / "root.qcow2")
        if vm.machine.variables_format == "raw":
            shutil.copy(vm.machine.variables, place / "vars.fd")
        else:
            disk.flatten(vm.machine.variables, place / "vars.fd", "raw")
    finally:
        vm.monitor("cont")
    beside = {"esp.img": vm.machine.esp, "seed.img": vm.machine.seed}
    for name, path in beside.items():
        if path is not None:
            disk.copy(path, place / name)
    return [name for name, path in beside.items() if path is not None]


def load(source: Path, scratch: Path) -> Saved:
    """The node saved as ``source``; a tar file is unpacked into ``scratch``.

    Raises :class:`UsageError` when it is none, or of a format that we do not know.
    """
    manifest = peek(source)
    directory = source
    if source.is_file():
        directory = scratch / "saved"
        directory.mkdir()
        with tarfile.open(source) as tar:
            for member in tar:
                _unpack(tar, member, directory)
    return Saved(directory.absolute(), manifest)


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, directory: Path) -> None:
    """Not by extractall: before Python 3.11.4 it writes wherever a member's name says."""
    file = tar.extractfile(member) if member.isreg() else None
    if file is None or Path(member.name).name != member.name:
        raise UsageError(f"{tar.name!r} holds {member.name}, which no saved node has")
    with file, (directory / member.name).open("xb") as out:
        shutil.copyfileobj(file, out, 1 << 20)


def peek(source: Path) -> dict[str, Any]:
    """The manifest of a saved node, without unpacking anything."""
    try:
        if source.is_file():
            with tarfile.open(source) as tar:
                member = tar.extractfile(_MANIFEST)
                data = member.read() if member else b""
        else:
            data = (source / _MANIFEST).read_bytes()
        manifest: dict[str, Any] = json.loads(data)
        version = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as e:
        raise UsageError(f"{source} is no saved node: {e}") from e
    if version != _FORMAT:
        raise UsageError(f"{source} is of format {version}, and we know {_FORMAT}")
    return manifest


def wake(saved: Saved, machine: Machine) -> Machine:
    """Give ``machine`` the shape of the saved one; its disk lies over the saved one."""
    root, variables = machine.directory / "root.qcow2", machine.directory / "vars.fd"
    disk.make_overlay(saved.directory / "root.qcow2", root, "qcow2")
    shutil.copy(saved.directory / "vars.fd", variables)
    manifest = saved.manifest
    if machine.accelerator != manifest["accelerator"]:
        raise InfraError(
            f"the node ran with {manifest['accelerator']}, and here is {machine.accelerator}",
            hint="a processor's state cannot be carried from one to the other",
        )
    return replace(
        machine,
        root=root,
        esp=_there(saved.directory / "esp.img"),
        seed=_there(saved.directory / "seed.img"),
        variables=variables,
        kind=manifest["machine"],
        memory=manifest["memory"],
        cores=manifest["cores"],
        start="incoming",
    )


def _there(path: Path) -> Path | None:
    return path if path.exists() else None


def resume(vm: VirtualMachine, saved: Saved) -> None:
    """Let the machine run on. Its clock stands where it stood."""
    try:
        migration.restore(vm, saved.state, ignore_shared=False, timeout=_RESTORE_SECONDS)
    except InfraError as e:
        here = _version()
        if here == saved.manifest["qemu"]:
            raise
        hint = f"it was saved by {saved.manifest['qemu']!r}, and here is {here!r}"
        raise InfraError(e.message, hint=hint) from e
    vm.monitor("cont")


def _version() -> str:
    argv = ["qemu-system-x86_64", "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, env=host_env(), check=False)
    return done.stdout.partition("\n")[0]


def _kind(vm: VirtualMachine) -> str:
    """The machine type with its version: "q35" is another machine in each release of QEMU."""
    (machines,) = vm.monitor("query-machines")
    kinds = {m["alias"]: str(m["name"]) for m in machines if "alias" in m}
    return kinds.get(vm.machine.kind, vm.machine.kind)
