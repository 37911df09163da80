"""A node of which the deferred configuration is right, as its facts tell it."""

from __future__ import annotations

from typing import Any

from installers.deferred import spark, unit, yarn
from installers.deferred.cgroups import Hierarchy

MACHINE_ID = "0123456789abcdef0123456789abcdef"
INSTANCE = "gce:4711"
IDENTITY = {"machine_id": MACHINE_ID, "boot_id": "b007", "hostname": "node"}


def units() -> dict[str, Any]:
    """What systemd says of the unit, which has run, and of the daemons."""
    ran = {"LoadState": "loaded", "ActiveState": "inactive", "Result": "success"}
    runs: dict[str, Any] = {"LoadState": "loaded", "ActiveState": "active", "Result": "success"}
    runs |= {"Requires": [unit.NAME], "After": ["network.target", unit.NAME]}
    none = {"LoadState": "not-found", "ActiveState": "inactive", "Result": "success"}
    return {unit.NAME: ran, unit.DAEMONS[0]: runs, unit.DAEMONS[1]: none}


def gpu_config() -> dict[str, Any]:
    """The facts of a worker with one card."""
    plugin = yarn.Plugin("/usr/bin", Hierarchy(1, "/sys/fs/cgroup"))
    return {
        "unit_files": dict.fromkeys(unit.files(), "ours"),
        "units": units(),
        "instance": INSTANCE,
        "stamp": {"instance": INSTANCE, "fingerprint": "f" * 16, "t": 1.0},
        "result": {
            "outcome": "configured",
            "boot_id": IDENTITY["boot_id"],
            "provenance": {"gpus": [{"index": 0, "name": "NVIDIA L4"}]},
            "t": 1.0,
        },
        "yarn": yarn.xml(plugin),
        "executor": {"gpu.module.enabled": "true"},
        "spark": {
            spark.EXECUTOR_AMOUNT: "1",
            spark.TASK_AMOUNT: "0.25",
            spark.DISCOVERY: spark.SCRIPT,
        },
        "discovery": True,
        "programs": {spark.SCRIPT: "0755", "/usr/bin/nvidia-smi": "0755"},
    }


PREFIX = "/opt/airlock/envs/lab"
ENVIRONMENTS = {"lab": {"lock": "1a" * 32, "prefix": PREFIX, "kernel": f"{PREFIX}/bin/python"}}


def environments() -> dict[str, Any]:
    """The facts of one environment that is whole."""
    state: dict[str, Any] = {"files": 600, "changed": 0, "first": [], "imports": {}}
    state |= {key: [] for key in ("closed", "writable", "strays", "unmet", "before")}
    return {name: {**wanted, **state} for name, wanted in ENVIRONMENTS.items()}


def rehearsed() -> dict[str, Any]:
    """What the lab saw of it before it was frozen, after a restart."""
    ran = {"daemon": "active", "instance": INSTANCE, "boot_id": IDENTITY["boot_id"]}
    first = {**ran, "starts": ["gpu=1"], "outcome": "configured", "boot_id": "b006"}
    second = {**ran, "starts": ["gpu=1"] * 2, "outcome": "configured"}
    failed = {**second, "daemon": "inactive", "outcome": "failed"}
    stale = {**second, "starts": ["gpu=1"] * 3}
    when = "2026-11-22T06:00:00+00:00"
    return {"when": when, "boots": [first, second], "failed": failed, "stale": stale}
