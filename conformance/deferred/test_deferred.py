"""YARN and Spark know this node's GPUs, and do not run where nobody told them."""

from __future__ import annotations

from typing import Any

from harness.checks import check, deferred, fact, fail, not_verified, restarted
from harness.node import Node

UNIT = "dataproc-gpu-config.service"
MANAGER = "hadoop-yarn-nodemanager.service"
CONF = "/etc/hadoop/conf"
GPU = "yarn.io/gpu"
CALCULATOR = "org.apache.hadoop.yarn.util.resource.DominantResourceCalculator"
# No instance has this number (see harness.lab.rehearsal, which checks do not import).
STRANGER = "gce:1"
REMEDY = f"Read 'journalctl -u {UNIT}', then 'systemctl start {UNIT}'."


def record(node: Node, name: str) -> dict[str, Any]:
    """The stamp or the result; a node that is configured has both."""
    found: dict[str, Any] | None = fact(node, "gpu_config").get(name)
    if not found:
        fail(f"there is no {name} of the configuration in /var/lib/airlock")
    return found


@check(
    id="deferred.unit",
    severity="blocker",
    title="YARN's daemons depend on the configuration, and wait for it",
    remedy="Run 'airlock-node.pyz apply --only deferred': Before= alone lets the NodeManager start "
    "without its GPUs when the configuration fails.",
    requires=deferred,
    source="systemd.unit(5): Requires= with After= fails closed, Before= only orders",
)
def test_unit(node: Node) -> None:
    """The unit and a drop-in for each daemon, word for word."""
    files = fact(node, "gpu_config.unit_files")
    wrong = [f"{path}: {state}" for path, state in files.items() if state != "ours"]
    if wrong:
        fail(f"{len(wrong)} files of {UNIT} are not as installed: {wrong[0]}", wrong)


@check(
    id="deferred.applied",
    severity="blocker",
    title="The configuration was applied at this boot, every step of it",
    remedy=REMEDY,
    requires=deferred,
    source="a result file of the run; success only if each step was one",
)
def test_applied(node: Node) -> None:
    """A result of this very boot: an image may bring an old one along."""
    result = record(node, "result")
    seen = [f"{key}={value}" for key, value in sorted(result.items()) if key != "provenance"]
    if result.get("outcome") not in ("configured", "unchanged"):
        fail(f"the configuration ended as {result.get('outcome')!r}", seen)
    if result.get("boot_id") != fact(node, "identity.boot_id"):
        fail("the result is of another boot", seen)
    unit = (fact(node, "gpu_config.units").get(UNIT)) or {}
    if unit.get("Result") not in (None, "success"):
        fail(f"{UNIT} failed after that: {unit.get('Result')}", seen)


@check(
    id="deferred.stamp",
    severity="blocker",
    title="The configuration is this instance's own",
    remedy="Remove /var/lib/airlock/gpu-config-stamp.json before an image is taken of a node. "
    + REMEDY,
    requires=deferred,
    source="an image that was taken of a configured node has that node's stamp",
)
def test_stamp(node: Node) -> None:
    """The stamp names this instance."""
    stamp = record(node, "stamp")
    here = fact(node, "gpu_config.instance")
    if stamp.get("instance") != here:
        fail(f"the stamp is of {stamp.get('instance')}, this is {here}")


@check(
    id="deferred.yarn",
    severity="blocker",
    title="YARN has the resource type, counts it, and its NodeManager finds and isolates GPUs",
    remedy=REMEDY,
    requires=deferred,
    depends=["deferred.applied"],
    source="Hadoop: UsingGpus; a client without resource-types.xml drops the GPU silently",
)
def test_yarn(node: Node) -> None:
    """In the file that is read for it: the calculator in yarn-site.xml is read by nobody."""
    files = fact(node, "gpu_config.yarn")
    torn = [path for path, values in files.items() if values is None]
    if torn:
        fail(f"{torn[0]} cannot be read", torn)
    wanted = {
        ("resource-types.xml", "yarn.resource-types"): GPU,
        ("yarn-site.xml", "yarn.resource-types"): GPU,
        ("capacity-scheduler.xml", "yarn.scheduler.capacity.resource-calculator"): CALCULATOR,
    }
    if _gpus(node):
        wanted["yarn-site.xml", "yarn.nodemanager.resource-plugins"] = GPU
        if fact(node, "gpu_config.executor").get("gpu.module.enabled") != "true":
            fail("the container-executor does not isolate GPUs: [gpu] module.enabled is not true")
    found = {key: files.get(f"{CONF}/{key[0]}", {}).get(key[1]) for key in wanted}
    wrong = [
        f"{name}: {key} is {found[name, key]!r}, not {value!r}"
        for (name, key), value in wanted.items()
        if found[name, key] != value
    ]
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="deferred.spark",
    severity="major",
    title="Spark asks for amounts of this node that it will accept",
    remedy=REMEDY,
    requires=deferred,
    depends=["deferred.applied"],
    source="Spark: ResourceUtils, a task's share is whole or at most a half",
)
def test_spark(node: Node) -> None:
    """Without a task's share, all tasks of an executor use one GPU and nobody says so."""
    found = fact(node, "gpu_config.spark")
    if not found:
        not_verified("there is no spark-defaults.conf")
    amount = found.get("spark.executor.resource.gpu.amount")
    if amount is None:
        return
    share = found.get("spark.task.resource.gpu.amount")
    if share is None:
        fail("spark.task.resource.gpu.amount is not set: tasks share a GPU silently")
    try:
        executor, task = int(amount), float(share)
    except ValueError:
        fail(f"amounts are no numbers: {amount!r} for an executor, {share!r} for a task")
    if not 0 < task <= executor or (task > 0.5 and task != int(task)):
        fail(f"Spark refuses a task's share of {share} of {amount}")
    if _gpus(node) and not fact(node, "gpu_config.discovery"):
        fail("the discovery script is not there: executors cannot find their GPUs")


@check(
    id="deferred.daemon",
    severity="blocker",
    title="The NodeManager runs, on the configuration",
    remedy=f"Mend the configuration, then 'systemctl start {MANAGER}'. " + REMEDY,
    requires=deferred,
    depends=["deferred.applied"],
    source="systemd's own state of the unit",
)
def test_daemon(node: Node) -> None:
    """It must not run where the configuration failed, and must run where it did not."""
    state = fact(node, "gpu_config.units").get(MANAGER) or {}
    if state.get("LoadState") != "loaded":
        not_verified(f"{MANAGER} is not on this node")
    active = state.get("ActiveState") == "active"
    ended = record(node, "result").get("outcome")
    if ended == "failed" and active:
        fail(f"{MANAGER} runs although the configuration failed")
    if not active:
        fail(f"{MANAGER} is {state.get('ActiveState')}")


@check(
    id="deferred.fails-closed",
    severity="blocker",
    title="Where the configuration failed, the NodeManager did not run",
    remedy="Let nothing but its unit start the NodeManager, and let no drop-in call a failure of "
    f"{UNIT} a success or skip it.",
    requires=deferred,
    source="a start that was rehearsed with metadata that cannot be used",
)
def test_fails_closed(node: Node) -> None:
    """A node without its GPUs takes work all the same, and the jobs fail one by one."""
    failed = rehearsed(node)["failed"]
    if failed["daemon"] == "active":
        fail("the NodeManager ran although its configuration had failed", shown(failed))
    if failed["outcome"] != "failed":
        fail(f"the failed configuration ended as {failed['outcome']!r}", shown(failed))


@check(
    id="deferred.stale-stamp",
    severity="blocker",
    title="A stamp of another instance is not believed",
    remedy=f"Let {UNIT} run at every start of YARN's daemons: a condition on a stamp, or on the "
    "first boot, lets an image's configuration through on another machine.",
    requires=deferred,
    source="a start that was rehearsed with the stamp of another instance",
)
def test_stale_stamp(node: Node) -> None:
    """An image that was taken of a configured node brings its stamp along."""
    stale = rehearsed(node)["stale"]
    if stale["instance"] == STRANGER:
        fail(f"the stamp of {STRANGER} is still there: nothing was configured", shown(stale))
    if stale["outcome"] != "configured" or stale["daemon"] != "active":
        fail(
            f"after it the configuration ended as {stale['outcome']!r}, and the NodeManager is "
            f"{stale['daemon']}",
            shown(stale),
        )


@check(
    id="deferred.second-boot",
    severity="blocker",
    title="The second boot found its configuration, and made what does not outlive a boot",
    remedy="Nothing that the configuration needs may live below /run or in a first boot's memory. "
    + REMEDY,
    requires=(deferred, restarted),
    source="what the configuration said after each boot of one machine",
)
def test_second_boot(node: Node) -> None:
    """What was written at the first boot is there, and what is not kept was made again."""
    first, second = rehearsed(node)["boots"]
    seen = [*shown(first), *shown(second)]
    if first["outcome"] != "configured":
        fail(f"the first boot ended as {first['outcome']!r}", seen)
    if first["boot_id"] == second["boot_id"]:
        fail("the second boot configured nothing: its result is the first one's", seen)
    if second["outcome"] not in ("configured", "unchanged") or second["daemon"] != "active":
        fail(f"it ended as {second['outcome']!r}, and the NodeManager is {second['daemon']}", seen)
    if second["starts"] != ["gpu=1", "gpu=1"]:
        fail(f"the NodeManager started as {' '.join(second['starts'])}", seen)


def rehearsed(node: Node) -> dict[str, Any]:
    """What the lab saw before it froze the node (harness.lab.rehearsal)."""
    found: dict[str, Any] | None = node.expect.get("rehearsed")
    if found is None:
        not_verified("nobody has rehearsed a failure on this node")
    return found


def shown(look: dict[str, Any]) -> list[str]:
    """One look, as evidence."""
    return [f"{key}: {value}" for key, value in look.items()]


def _gpus(node: Node) -> list[Any]:
    """The cards that the configuration was made for."""
    provenance = record(node, "result").get("provenance") or {}
    return list(provenance.get("gpus") or [])
