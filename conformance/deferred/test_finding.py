"""How YARN and Spark find the cards: programs that are there, may be run, and say what is true."""

from __future__ import annotations

import json
import shlex
from typing import Any

from conformance.deferred.test_deferred import MANAGER, REMEDY, UNIT, record
from harness.checks import check, deferred, fact, fail, not_verified
from harness.node import Node

SINCE = "2026-11-22"
SITE = "/etc/hadoop/conf/yarn-site.xml"
YARN_KEY = "yarn.nodemanager.resource-plugins.gpu.path-to-discovery-executables"
SPARK_KEY = "spark.executor.resource.gpu.discoveryScript"
AMOUNT = "spark.executor.resource.gpu.amount"
RUNNABLE = 0o005


@check(
    id="deferred.order",
    severity="blocker",
    title="systemd itself lets the NodeManager wait for the configuration, and need it",
    remedy="Run 'systemctl daemon-reload', then 'systemctl show -p Requires -p After "
    + MANAGER
    + "': drop-ins that were written into a running system are not in force.",
    requires=deferred,
    depends=["deferred.unit"],
    source="org.freedesktop.systemd1.Unit: Requires and After as loaded",
    since=SINCE,
)
def test_order(node: Node) -> None:
    """deferred.unit reads the files; this is what systemd made of them."""
    state = fact(node, "gpu_config.units").get(MANAGER) or {}
    if state.get("LoadState") != "loaded":
        not_verified(f"{MANAGER} is not on this node")
    for name in ("Requires", "After"):
        if UNIT not in (state.get(name) or ()):
            fail(f"{MANAGER} has no {name}={UNIT}", [f"{name}: {state.get(name)}"])


@check(
    id="deferred.yarn-program",
    severity="blocker",
    title="The program by which the NodeManager finds cards is there, and can be run",
    remedy=f"Set {YARN_KEY} to the folder of nvidia-smi ('command -v nvidia-smi'), or remove what "
    "somebody has set. " + REMEDY,
    requires=deferred,
    depends=["deferred.applied"],
    source="GpuDiscoverer.initialize: 'Failed to find GPU discovery executable'; YARN then ends",
    since=SINCE,
)
def test_yarn_program(node: Node) -> None:
    """'Failed to bootstrap configured resource subsystems!' is all that YARN says."""
    if not _gpus(node):
        not_verified("the node was configured for no card")
    site = fact(node, "gpu_config.yarn").get(SITE)
    if site is None:
        not_verified(f"{SITE} cannot be read; see deferred.yarn")
    told = site.get(YARN_KEY)
    if not told:
        fail(f"{YARN_KEY} is not set in {SITE}")
    path = told if told.endswith("/nvidia-smi") else f"{told.rstrip('/')}/nvidia-smi"
    _can_be_run(node, path)


@check(
    id="deferred.spark-script",
    severity="major",
    title="The script that Spark was told to find cards by is there, and everybody can run it",
    remedy=f"Run 'chmod 0755' on the script, or remove {SPARK_KEY} from spark-defaults.conf. "
    + REMEDY,
    requires=deferred,
    depends=["deferred.applied"],
    source="ResourceDiscoveryScriptPlugin: 'Resource script ... isn't found', or error=13, "
    "Permission denied, in every executor",
    since=SINCE,
)
def test_spark_script(node: Node) -> None:
    """Executors run as the user of the job."""
    told = fact(node, "gpu_config.spark").get(SPARK_KEY)
    if told is None:
        if fact(node, "gpu_config.spark").get(AMOUNT):
            fail(f"{AMOUNT} is set and {SPARK_KEY} is not: executors cannot find their GPUs")
        return
    _can_be_run(node, told)


@check(
    id="deferred.spark-finds",
    severity="major",
    title="Spark's script names as many cards as the node was configured for",
    remedy='Run the script by hand: it must print {"name": "gpu", "addresses": ["0"]} and '
    "nothing else. If nvidia-smi names other cards than before: " + REMEDY,
    requires=deferred,
    depends=["deferred.spark-script"],
    source="Spark: ResourceInformationJson, parsed from what the script prints",
    since=SINCE,
)
def test_spark_finds(node: Node) -> None:
    """Run as Spark runs it; a word too many on its output is a parse error."""
    gpus = _gpus(node)
    told = fact(node, "gpu_config.spark").get(SPARK_KEY)
    if not gpus or told is None:
        not_verified("Spark was told of no card")
    ran = node.host.run(f"sh {shlex.quote(told)}")
    try:
        said: Any = json.loads(ran.stdout)
        addresses = said["addresses"]
    except (ValueError, KeyError, TypeError):
        fail(f"{told} printed no JSON of Spark's: {ran.stdout[:200]!r}", [ran.stderr])
    if said.get("name") != "gpu" or len(set(addresses)) != len(gpus):
        fail(f"{told} names {len(set(addresses))} cards, and there are {len(gpus)}", [ran.stdout])


@check(
    id="deferred.amounts-fit",
    severity="major",
    title="No executor of Spark's asks for more cards than the node has",
    remedy=f"Lower {AMOUNT} in the cluster's properties, or remove it there: the unit then sets "
    "one that fits. YARN waits for ever for a node that could give more.",
    requires=deferred,
    depends=["deferred.applied"],
    source="Spark on YARN: executors are never allocated, and no log says why",
    since=SINCE,
)
def test_amounts_fit(node: Node) -> None:
    """A property of the cluster's that was right for another type of machine."""
    gpus, amount = _gpus(node), fact(node, "gpu_config.spark").get(AMOUNT)
    if not gpus:
        not_verified("the node was configured for no card")
    if amount and amount.isdigit() and int(amount) > len(gpus):
        fail(f"an executor asks for {amount} cards, and the node has {len(gpus)}")


def _gpus(node: Node) -> list[Any]:
    """The cards that the configuration was made for."""
    return list((record(node, "result").get("provenance") or {}).get("gpus") or [])


def _can_be_run(node: Node, path: str) -> None:
    mode = fact(node, "gpu_config.programs").get(path)
    if mode is None:
        fail(f"{path} is not there")
    if int(mode, 8) & RUNNABLE != RUNNABLE:
        fail(f"{path} has mode {mode}: not everybody can run it")
