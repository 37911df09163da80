"""The amounts in ``spark-defaults.conf``, computed from this node and from what others have set."""

from __future__ import annotations

import re
from collections.abc import Mapping

from installers.deferred.settings import Settings
from installers.errors import NodeError
from installers.host import Host

# /etc/spark/conf is a link to it through /etc/alternatives; links are followed.
CONF_DIR = "/etc/spark/conf"
CONF = f"{CONF_DIR}/spark-defaults.conf"
SCRIPT = "/usr/lib/spark/scripts/gpu/getGpusResources.sh"
EXECUTOR_AMOUNT = "spark.executor.resource.gpu.amount"
TASK_AMOUNT = "spark.task.resource.gpu.amount"
DISCOVERY = "spark.executor.resource.gpu.discoveryScript"
CORES = "spark.executor.cores"
MEMORY = "spark.executor.memory"
# What the operating system, the NodeManager and a driver in client mode leave for executors.
_SHARE = 0.75


def settings(
    wanted: Settings, foreign: Mapping[str, str], devices: int, cores: int, memory: int
) -> dict[str, str]:
    """Keys of our block: none of those that somebody else has set.

    ``devices``: GPUs (or slices) of this node; ``cores``, ``memory`` (bytes): all of this node.
    An executor for each device. A worker without GPUs asks for nothing; a master without one is
    where jobs for the workers' GPUs are submitted. Raises NodeError for foreign amounts that Spark
    would refuse.
    """
    if not wanted.spark_gpu or (not devices and wanted.role == "Worker"):
        return {}
    ours: dict[str, str] = {EXECUTOR_AMOUNT: "1", DISCOVERY: SCRIPT}
    if devices:
        ours[CORES] = str(_even(int(cores * _SHARE) // devices))
        ours[MEMORY] = f"{max(1, int(memory * _SHARE) // devices >> 30)}g"
    amount = _whole(foreign, EXECUTOR_AMOUNT, ours[EXECUTOR_AMOUNT])
    # Spark on YARN gives an executor one core where nothing is said.
    each = _whole(foreign, CORES, ours.get(CORES, "1"))
    ours[TASK_AMOUNT] = task_amount(amount, each)
    return {key: value for key, value in ours.items() if key not in foreign}


def task_amount(amount: int, cores: int) -> str:
    """The share of a task, so that an executor with ``cores`` runs that many tasks at once.

    Spark takes whole numbers, or shares of at most a half of which floor(1/share) fit one GPU: the
    share is rounded down.
    """
    if amount >= cores:
        return str(amount // cores)
    tasks = -(-cores // amount)
    return f"{10**6 // tasks / 10**6:.6f}".rstrip("0")


def node_cores(host: Host) -> int:
    """Processors of this node, from /proc/cpuinfo of its root."""
    return max(1, len(re.findall(r"^processor\s*:", host.read("/proc/cpuinfo") or "", re.M)))


def node_memory(host: Host) -> int:
    """Bytes of memory of this node."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", host.read("/proc/meminfo") or "", re.M)
    return int(found[1]) << 10 if found else 0


def _even(cores: int) -> int:
    """At least one, and even above it: hyperthreads of one core stay together."""
    return max(1, cores if cores < 2 else cores - cores % 2)


def _whole(foreign: Mapping[str, str], key: str, ours: str) -> int:
    value = foreign.get(key, ours)
    if not value.isdigit() or int(value) < 1:
        raise NodeError(
            f"{key} is {value!r}, not a whole number from 1 on",
            where=CONF,
            remedy="Spark refuses it; correct it in the cluster's properties, or remove it",
        )
    return int(value)
