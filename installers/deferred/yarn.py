"""What YARN's files say on a node with GPUs, and on one without.

Every node: the resource type, since a client that does not know it drops the GPU from its request
without a word, and the calculator, without which the scheduler counts memory alone. A node with
GPUs: the plugin, the executor that isolates devices, and where its cgroups are.

Sources: Hadoop's UsingGpus and NodeManagerCgroups documents; yarn-default.xml.
"""

from __future__ import annotations

from dataclasses import dataclass

from installers.deferred import sections
from installers.deferred.cgroups import Hierarchy

CONF = "/etc/hadoop/conf"
YARN_SITE = f"{CONF}/yarn-site.xml"
RESOURCE_TYPES = f"{CONF}/resource-types.xml"
SCHEDULER = f"{CONF}/capacity-scheduler.xml"
EXECUTOR = f"{CONF}/container-executor.cfg"
XML_FILES = (RESOURCE_TYPES, SCHEDULER, YARN_SITE)

GPU = "yarn.io/gpu"
GROUP = "yarn"
USER = "yarn"
_NM = "yarn.nodemanager"
_LCE = f"{_NM}.linux-container-executor"
EXECUTOR_CLASS = "org.apache.hadoop.yarn.server.nodemanager.LinuxContainerExecutor"
#: Names a folder with nvidia-smi in it.
DISCOVERY = f"{_NM}.resource-plugins.gpu.path-to-discovery-executables"
CALCULATOR = "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator"
LOCAL_DIRS = f"{_NM}.local-dirs"


@dataclass(frozen=True)
class Plugin:
    """What the NodeManager of a node with GPUs needs: where nvidia-smi is, and its cgroups.

    ``major`` is the device number of MIG's capabilities, 0 for whole cards (195, the default).
    """

    discovery: str
    hierarchy: Hierarchy
    major: int = 0


def xml(plugin: Plugin | None) -> dict[str, dict[str, str]]:
    """File → property → value. ``plugin`` None: a node without GPUs."""
    site = {"yarn.resource-types": GPU}
    if plugin is not None:
        site.update(
            {
                f"{_NM}.resource-plugins": GPU,
                f"{_NM}.resource-plugins.gpu.allowed-gpu-devices": "auto",
                DISCOVERY: plugin.discovery,
                f"{_NM}.container-executor.class": EXECUTOR_CLASS,
                f"{_LCE}.group": GROUP,
                # The hierarchy is there before the NodeManager is; it shall not mount any itself.
                f"{_LCE}.cgroups.mount": "false",
                f"{_LCE}.cgroups.mount-path": plugin.hierarchy.mount_path,
                f"{_LCE}.cgroups.hierarchy": plugin.hierarchy.name,
            }
        )
    return {
        RESOURCE_TYPES: {"yarn.resource-types": GPU},
        SCHEDULER: {"yarn.scheduler.capacity.resource-calculator": CALCULATOR},
        YARN_SITE: site,
    }


def executor(plugin: Plugin | None) -> sections.Settings:
    """``container-executor.cfg``; empty on a node without GPUs."""
    if plugin is None:
        return {}
    gpu = {"module.enabled": "true"}
    if plugin.major:
        gpu["gpu.major-device-number"] = str(plugin.major)
    return {
        "": {f"{_LCE}.group": GROUP},
        "gpu": gpu,
        "cgroups": {
            "root": plugin.hierarchy.mount_path,
            "yarn-hierarchy": plugin.hierarchy.name,
        },
    }
