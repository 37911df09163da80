"""MIG and compute mode: what is set on the cards themselves, and is gone after each boot."""

from __future__ import annotations

import re

from installers.deferred import gpus
from installers.deferred.gpus import Gpu
from installers.deferred.settings import COMPUTE_MODES, Settings
from installers.errors import NodeError
from installers.host import Host

_SECONDS = 120.0


def inspect(host: Host, wanted: Settings, found: list[Gpu]) -> dict[str, str]:
    """``gpu <index>:mig`` and ``gpu <index>:compute-mode`` of every card they can be asked of."""
    state: dict[str, str] = {}
    for gpu in found:
        if wanted.mig is not None and gpu.mig is not None:
            state[f"gpu {gpu.index}:mig"] = _mig(gpu)
    if wanted.compute_mode is not None and found:
        asked = ["--query-gpu=index,compute_mode", "--format=csv,noheader"]
        answer = host.run([gpus.SMI, *asked], timeout=_SECONDS).out
        for index, mode in re.findall(r"^(\d+), *(\S+)\s*$", answer, re.M):
            state[f"gpu {index}:compute-mode"] = mode.upper()
    return state


def desired(wanted: Settings, found: list[Gpu]) -> dict[str, str]:
    """The same keys as they should be. NodeError where MIG is asked for and no card has it."""
    state: dict[str, str] = {}
    if wanted.mig and found and all(gpu.mig is None for gpu in found):
        raise NodeError(
            f"no GPU of this node has MIG ({found[0].name})",
            where="ENABLE_MIG",
            remedy="remove ENABLE_MIG, or take A100, H100 or newer cards",
        )
    for gpu in found:
        if wanted.mig is not None and gpu.mig is not None:
            on = f"{max(len(gpu.slices), len(wanted.mig_profiles))} slices"
            state[f"gpu {gpu.index}:mig"] = on if wanted.mig else "off"
        if wanted.compute_mode is not None:
            # nvidia-smi answers Default, Exclusive_Process.
            state[f"gpu {gpu.index}:compute-mode"] = COMPUTE_MODES[wanted.compute_mode]
    return state


def apply(host: Host, wanted: Settings, found: list[Gpu]) -> list[Gpu]:
    """Switch the mode of every card, make its instances; the cards as they are then. NodeError."""
    if wanted.compute_mode is not None and found:
        host.run([gpus.SMI, "-c", COMPUTE_MODES[wanted.compute_mode]], timeout=_SECONDS)
    if wanted.mig is None:
        return found
    for gpu in found:
        if gpu.mig is not None and gpu.mig != wanted.mig:
            host.run([gpus.SMI, "-i", str(gpu.index), "-mig", "01"[wanted.mig]], timeout=_SECONDS)
    changed = gpus.inspect(host)
    waiting = [gpu for gpu in changed if gpu.mig is not None and gpu.mig != wanted.mig]
    if waiting:
        raise NodeError(
            f"MIG of GPU {', '.join(str(gpu.index) for gpu in waiting)} changes after a reset only",
            where=gpus.SMI,
            remedy="stop what uses the GPUs and run 'nvidia-smi --gpu-reset', or reboot",
        )
    if not wanted.mig:
        return changed
    profiles = ",".join(wanted.mig_profiles)
    for gpu in changed:
        # Instances that are there stay, whoever made them: jobs may run on them.
        if gpu.mig and not gpu.slices:
            make = [gpus.SMI, "mig", "-i", str(gpu.index), "-cgi", profiles, "-C"]
            host.run(make, timeout=_SECONDS)
    return gpus.inspect(host)


def _mig(gpu: Gpu) -> str:
    return f"{len(gpu.slices)} slices" if gpu.mig else "off"


def capability_major(host: Host) -> int:
    """Major device number of MIG's capabilities (nvidia-caps). NodeError where there is none."""
    found = re.search(r"^\s*(\d+) nvidia-caps$", host.read("/proc/devices") or "", re.M)
    if found is None:
        raise NodeError(
            "has no nvidia-caps, by which slices are isolated",
            where="/proc/devices",
            remedy="load nvidia.ko of a driver with MIG (450 or newer)",
        )
    return int(found[1])
