"""A node of which the deferred configuration is right, as its facts tell it."""

from __future__ import annotations

from typing import Any

from installers.deferred import spark, unit, yarn
from installers.deferred.cgroups import Hierarchy

MACHINE_ID = "0123456789abcdef0123456789abcdef"
IDENTITY = {"machine_id": MACHINE_ID, "boot_id": "b007", "hostname": "node"}


def units() -> dict[str, Any]:
    """What systemd says of the unit, which has run, and of the daemons."""
    ran = {"LoadState": "loaded", "ActiveState": "inactive", "Result": "success"}
    runs = {"LoadState": "loaded", "ActiveState": "active", "Result": "success"}
    none = {"LoadState": "not-found", "ActiveState": "inactive", "Result": "success"}
    return {unit.NAME: ran, unit.DAEMONS[0]: runs, unit.DAEMONS[1]: none}


def gpu_config() -> dict[str, Any]:
    """The facts of a worker with one card."""
    plugin = yarn.Plugin("/usr/bin", Hierarchy(1, "/sys/fs/cgroup"))
    who = {"machine_id": MACHINE_ID, "t": 1.0}
    return {
        "unit_files": dict.fromkeys(unit.files(), "ours"),
        "units": units(),
        "stamp": {"instance": "gce:4711", "fingerprint": "f" * 16, **who},
        "result": {
            "outcome": "configured",
            "boot_id": IDENTITY["boot_id"],
            "provenance": {"gpus": [{"index": 0, "name": "NVIDIA L4"}]},
            **who,
        },
        "yarn": yarn.xml(plugin),
        "executor": {"gpu.module.enabled": "true"},
        "spark": {spark.EXECUTOR_AMOUNT: "1", spark.TASK_AMOUNT: "0.25"},
        "discovery": True,
    }
