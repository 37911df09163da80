"""What the sabotages of the deferred configuration change in what a node tells.

BREAKS from here holds all of them: these and those of the other areas.
"""

from __future__ import annotations

from tests.unit.conformance.breaks import BREAKS, of
from tests.unit.conformance.good import Sample

__all__ = ["BREAKS"]
CONF = "/etc/hadoop/conf"


@of("gpu-config-not-required")
def _(s: Sample) -> None:
    name = "/etc/systemd/system/hadoop-yarn-nodemanager.service.d/10-airlock-gpu.conf"
    s.facts["gpu_config"]["unit_files"][name] = "absent"


@of("gpu-config-of-another-boot")
def _(s: Sample) -> None:
    s.facts["gpu_config"]["result"]["boot_id"] = "of-another-boot"


@of("gpu-config-failed")
def _(s: Sample) -> None:
    s.facts["gpu_config"]["result"]["outcome"] = "failed"


@of("stamp-of-another-machine")
def _(s: Sample) -> None:
    s.facts["gpu_config"]["stamp"]["machine_id"] = "0" * 32


@of("resource-types-missing")
def _(s: Sample) -> None:
    s.facts["gpu_config"]["yarn"][f"{CONF}/resource-types.xml"] = {}


@of("calculator-of-memory-alone")
def _(s: Sample) -> None:
    values = s.facts["gpu_config"]["yarn"][f"{CONF}/capacity-scheduler.xml"]
    for key in values:
        values[key] = values[key].replace("Dominant", "Default")


@of("task-share-refused")
def _(s: Sample) -> None:
    s.facts["gpu_config"]["spark"]["spark.task.resource.gpu.amount"] = "0.9"


@of("node-manager-stopped")
def _(s: Sample) -> None:
    units = s.facts["gpu_config"]["units"]
    units["hadoop-yarn-nodemanager.service"]["ActiveState"] = "inactive"


@of("also: an executor that isolates nothing")
def _(s: Sample) -> None:
    del s.facts["gpu_config"]["executor"]["gpu.module.enabled"]


@of("also: a torn yarn-site.xml")
def _(s: Sample) -> None:
    s.facts["gpu_config"]["yarn"][f"{CONF}/yarn-site.xml"] = None


@of("also: a task without a share")
def _(s: Sample) -> None:
    del s.facts["gpu_config"]["spark"]["spark.task.resource.gpu.amount"]
