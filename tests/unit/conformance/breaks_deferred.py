"""What the sabotages of the deferred configuration and of environments change in what a node tells.

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
    s.facts["gpu_config"]["stamp"]["instance"] = "gce:1"


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


@of("order-not-loaded")
def _(s: Sample) -> None:
    name = "hadoop-yarn-nodemanager.service"
    s.facts["gpu_config"]["units"][name]["Requires"] = []
    s.facts["systemd"]["stale"] = [name]


@of("script-says-more")
def _(s: Sample) -> None:
    s.home["cards.sh"] = "echo looking for cards\n"


@of("also: a script that finds too few")
def _(s: Sample) -> None:
    s.facts["gpu_config"]["result"]["provenance"]["gpus"].append({"index": 1})


@of("gpu-config-may-fail")
def _(s: Sample) -> None:
    s.expect["rehearsed"]["failed"] |= {"daemon": "active", "starts": ["gpu=1", "gpu=1", "gpu=0"]}


@of("gpu-config-once")
def _(s: Sample) -> None:
    seen = s.expect["rehearsed"]
    skipped = {"instance": "gce:1", "daemon": "active"}
    first, second = seen["boots"]
    second["boot_id"] = first["boot_id"]
    seen["failed"] |= {"daemon": "active", "outcome": "configured"}
    seen["stale"] |= skipped
    s.facts["gpu_config"]["stamp"]["instance"] = "gce:1"
    s.facts["gpu_config"]["result"]["boot_id"] = first["boot_id"]


@of("environment-of-another-lock")
def _(s: Sample) -> None:
    s.facts["environments"]["lab"]["lock"] = "0" * 64


@of("environment-patched-in-place")
def _(s: Sample) -> None:
    s.facts["environments"]["lab"] |= {"changed": 1, "first": ["tensors/__init__.py"]}


@of("environment-file-lost")
def _(s: Sample) -> None:
    why = {"models": "ModuleNotFoundError: No module named 'models'"}
    state = {"changed": 4, "first": ["models/__init__.py"], "imports": why}
    s.facts["environments"]["lab"] |= state


@of("module-shadowed")
def _(s: Sample) -> None:
    s.facts["environments"]["lab"]["imports"] = None
    s.facts["environments"]["lab"]["strays"] = ["json.py"]


@of("kernel-not-registered")
def _(s: Sample) -> None:
    s.facts["environments"]["lab"]["kernel"] = None


@of("also: an environment that is elsewhere")
def _(s: Sample) -> None:
    s.facts["environments"]["lab"]["prefix"] = "/opt/conda"


@of("also: an environment without a file")
def _(s: Sample) -> None:
    s.facts["environments"]["lab"]["files"] = 0


@of("also: a second boot that failed")
def _(s: Sample) -> None:
    s.expect["rehearsed"]["boots"][1]["outcome"] = "failed"


@of("also: a failed configuration that says it went well")
def _(s: Sample) -> None:
    s.expect["rehearsed"]["failed"]["outcome"] = "configured"


@of("also: an executor that isolates nothing")
def _(s: Sample) -> None:
    del s.facts["gpu_config"]["executor"]["gpu.module.enabled"]


@of("also: a torn yarn-site.xml")
def _(s: Sample) -> None:
    s.facts["gpu_config"]["yarn"][f"{CONF}/yarn-site.xml"] = None


@of("also: a task without a share")
def _(s: Sample) -> None:
    del s.facts["gpu_config"]["spark"]["spark.task.resource.gpu.amount"]
