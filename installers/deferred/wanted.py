"""Everything that should be on this node, worked out once: the cards, the files, the owners."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Optional

from installers.config import Config
from installers.deferred import cgroups, gpus, hadoopxml, mig, scripts, sections, spark, stamp, yarn
from installers.deferred.cgroups import Hierarchy
from installers.deferred.gpus import Gpu
from installers.deferred.properties import SparkDefaults
from installers.deferred.settings import Settings
from installers.errors import NodeError
from installers.host import Host

_GROUPS = ("video", "render")


@dataclass
class Node:
    """What is wanted on one node. ``hierarchy`` is None without GPUs; ``programs``: path → text."""

    gpus: list[Gpu]
    stamp: stamp.Stamp
    hierarchy: Optional[Hierarchy] = None
    xml: dict[str, dict[str, str]] = field(default_factory=dict)
    executor: sections.Settings = field(default_factory=dict)
    spark: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    groups: list[str] = field(default_factory=list)
    local_dirs: list[str] = field(default_factory=list)


def has_hadoop(host: Host) -> bool:
    """Whether there is anything to configure."""
    return host.exists(yarn.CONF)


def node(host: Host, config: Config, settings: Settings) -> Node:
    """Look at the machine and decide. Raises NodeError for what makes that impossible."""
    found = gpus.inspect(host)
    devices = gpus.devices(found)
    plugin, hierarchy = None, None
    programs: dict[str, str] = {}
    groups: list[str] = []
    local_dirs: list[str] = []
    if found:
        if not devices:
            raise NodeError(
                "MIG is on and no GPU has an instance",
                where=gpus.SMI,
                remedy="set ENABLE_MIG=1 and MIG_CGI, or make instances with 'nvidia-smi mig -cgi'",
            )
        if not _has(host, "passwd", yarn.USER):
            raise NodeError(
                f"there is no user {yarn.USER}, whom the NodeManager runs as",
                where="/etc/passwd",
                remedy="install Hadoop's packages completely",
            )
        hierarchy = cgroups.find(host)
        sliced = any(gpu.mig for gpu in found)
        program = host.find_program(gpus.SMI)
        assert program is not None, "it has just answered"
        plugin = yarn.Plugin(
            scripts.MIG_DIRECTORY if sliced else program.rpartition("/")[0],
            hierarchy,
            mig.capability_major(host) if sliced else 0,
        )
        if sliced:
            programs[scripts.MIG_SMI] = scripts.MIG_AS_CARDS
        groups = [name for name in _GROUPS if _has(host, "group", name)]
        local_dirs = _local_dirs(host)
    amounts: dict[str, str] = {}
    if host.exists(spark.CONF_DIR):
        cores, memory = spark.node_cores(host), spark.node_memory(host)
        foreign = SparkDefaults(spark.CONF).foreign(host.read(spark.CONF) or "")
        amounts = spark.settings(settings, foreign, devices, cores, memory)
        if found:
            programs[spark.SCRIPT] = scripts.DISCOVERY
    facts: dict[str, Any] = {
        "gpus": [gpu.as_json() for gpu in found],
        "settings": [settings.role, settings.spark_gpu, settings.mig, settings.compute_mode],
        "executor": sections.flat(yarn.executor(plugin)),
        "spark": amounts,
    }
    return Node(
        gpus=found,
        stamp=stamp.Stamp(stamp.instance(host, config), stamp.fingerprint(facts)),
        hierarchy=hierarchy,
        xml=yarn.xml(plugin),
        executor=yarn.executor(plugin),
        spark=amounts,
        programs=programs,
        groups=groups,
        local_dirs=local_dirs,
    )


def members(host: Host, group: str) -> list[str]:
    """Users that /etc/group lists in a group."""
    for line in (host.read("/etc/group") or "").splitlines():
        fields = line.split(":")
        if fields[0] == group and len(fields) > 3:
            return [name for name in fields[3].split(",") if name]
    return []


def _has(host: Host, database: str, name: str) -> bool:
    lines = (host.read(f"/etc/{database}") or "").splitlines()
    return any(line.startswith(f"{name}:") for line in lines)


def _local_dirs(host: Host) -> list[str]:
    """Directories of the NodeManager that are there; one with a variable in it is Hadoop's."""
    site = host.read_bytes(yarn.YARN_SITE) or b""
    values = hadoopxml.read(site, yarn.YARN_SITE) if site.strip() else {}
    paths = [path.strip() for path in values.get(yarn.LOCAL_DIRS, "").split(",")]
    return [
        path for path in paths if path.startswith("/") and "$" not in path and host.exists(path)
    ]
