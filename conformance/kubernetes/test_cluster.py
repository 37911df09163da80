"""The operator and what it brings: ready everywhere, from allowed registries, left by nobody."""

from __future__ import annotations

from typing import Any

from harness.checks import check, cluster, fact, fail
from harness.node import Node

# What the operator must have brought to each GPU node before a pod can use a card.
NEEDED = ("nvidia-device-plugin", "gpu-feature-discovery", "nvidia-operator-validator")
# Labels without which the scheduler, and we, cannot tell what a node has.
LABELS = ("nvidia.com/gpu.count", "nvidia.com/gpu.product", "nvidia.com/gpu.replicas")
_LOOPBACK = ("127.", "::1", "localhost")
_OLDER = 3


def gpu_nodes(node: Node) -> dict[str, Any]:
    """The cluster's GPU nodes; there must be one."""
    found: dict[str, Any] = fact(node, "cluster.nodes")
    if not found:
        fail("no node has an NVIDIA card, by its labels or by what it offers")
    return found


@check(
    id="kubernetes.nodes-ready",
    severity="blocker",
    title="Every GPU node is ready",
    remedy="kubectl describe node NAME: its conditions and events say what the kubelet misses.",
    requires=cluster,
    source="Kubernetes documentation, Node Status",
)
def test_nodes_ready(node: Node) -> None:
    """Pods of a node that is not ready are moved, and none comes."""
    down = sorted(name for name, one in gpu_nodes(node).items() if not one["ready"])
    if down:
        fail(f"{len(down)} GPU nodes are not ready: {', '.join(down)}", down)


@check(
    id="kubernetes.version-skew",
    severity="major",
    title="No kubelet is newer than the API server, or more than three minor releases older",
    remedy="Upgrade the control plane first, then nodes, at most three minor releases apart.",
    requires=cluster,
    source="Kubernetes documentation, Version Skew Policy",
)
def test_version_skew(node: Node) -> None:
    """What is outside of the policy works until it does not."""
    _, minor = fact(node, "cluster.version")
    wrong = []
    for name, one in gpu_nodes(node).items():
        theirs = int(str(one["kubelet"]).split(".")[1])
        if not minor - _OLDER <= theirs <= minor:
            wrong.append(f"{name}: kubelet {one['kubelet']}, API server 1.{minor}")
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="kubernetes.policy-ready",
    severity="blocker",
    title="The operator says that its policy is carried out",
    remedy="kubectl describe clusterpolicy: its conditions name the part that is not ready; the "
    "log of the operator's pod says why.",
    requires=cluster,
    source="NVIDIA/gpu-operator, api/nvidia/v1, ClusterPolicyStatus",
)
def test_policy_ready(node: Node) -> None:
    """There is one ClusterPolicy, and its state is ``ready``."""
    policies = fact(node, "cluster.policies")
    if len(policies) != 1:
        names = [policy["name"] for policy in policies]
        fail(f"there are {len(names)} ClusterPolicies, and the operator carries out one", names)
    if policies[0]["state"] != "ready":
        fail(f"the ClusterPolicy is {policies[0]['state'] or 'without a state'}")


@check(
    id="kubernetes.daemonsets",
    severity="blocker",
    title="What the operator runs on every GPU node is there, up to date and ready",
    remedy="kubectl -n gpu-operator describe daemonset NAME, and the pod of a node where it is "
    "missing.",
    requires=cluster,
    depends=("kubernetes.nodes-ready", "kubernetes.images-pulled"),
    source="NVIDIA/gpu-operator, assets/",
)
def test_daemonsets(node: Node) -> None:
    """A DaemonSet that wants no pod is one whose node labels are missing."""
    found = {one["name"]: one for one in fact(node, "cluster.daemonsets")}
    wrong = [f"{name}: missing" for name in NEEDED if not any(name in have for have in found)]
    for name, one in sorted(found.items()):
        if any(needed in name for needed in NEEDED) and not one["desired"]:
            wrong.append(f"{name}: no node is labelled for it")
        for key in ("ready", "updated"):
            if one[key] < one["desired"]:
                wrong.append(f"{name}: {one[key]} of {one['desired']} {key}")
    if wrong:
        fail(f"{len(wrong)} of the operator's DaemonSets are not right: {wrong[0]}", wrong)


@check(
    id="kubernetes.validated",
    severity="blocker",
    title="The operator's validator went through on every GPU node",
    remedy="kubectl -n gpu-operator logs POD -c driver-validation (toolkit-, cuda-, "
    "plugin-validation): the first that waits names what is missing.",
    requires=cluster,
    depends=("kubernetes.daemonsets",),
    source="NVIDIA/gpu-operator, cmd/nvidia-validator",
)
def test_validated(node: Node) -> None:
    """Its init containers wait for driver, toolkit, CUDA and plugin, one after the other."""
    done = {
        pod["node"]
        for pod in fact(node, "cluster.pods")
        if pod["app"] == "nvidia-operator-validator" and pod["ready"]
    }
    missing = sorted(set(gpu_nodes(node)) - done)
    if missing:
        fail(f"nothing has validated {', '.join(missing)}", missing)


@check(
    id="kubernetes.labels",
    severity="major",
    title="Feature discovery has labelled every GPU node",
    remedy="Look at gpu-feature-discovery on the node, and at node-feature-discovery-worker.",
    requires=cluster,
    depends=("kubernetes.daemonsets",),
    source="NVIDIA/k8s-device-plugin, docs/gpu-feature-discovery",
)
def test_labels(node: Node) -> None:
    """Without them nobody can choose a node by its card."""
    wrong = []
    for name, one in sorted(gpu_nodes(node).items()):
        missing = [label for label in LABELS if label not in one["labels"]]
        if missing:
            wrong.append(f"{name} lacks {', '.join(missing)}")
    if wrong:
        fail(f"{len(wrong)} GPU nodes lack labels: {wrong[0]}", wrong)


@check(
    id="kubernetes.cards-offered",
    severity="blocker",
    title="Every GPU node offers its cards, and lets all of them be used",
    remedy="Look at the device plugin of the node: kubectl -n gpu-operator logs ds/nvidia-device-"
    "plugin-daemonset; a card that became unhealthy lowers allocatable alone.",
    requires=cluster,
    depends=("kubernetes.daemonsets",),
    source="Kubernetes documentation, Device Plugins",
)
def test_cards_offered(node: Node) -> None:
    """Capacity is what the plugin announced, allocatable what of it is healthy."""
    wrong = []
    for name, one in sorted(gpu_nodes(node).items()):
        if not any(one["capacity"].values()):
            wrong.append(f"{name} offers none")
        for resource, many in sorted(one["capacity"].items()):
            healthy = one["allocatable"].get(resource, 0)
            if healthy < many:
                wrong.append(f"{name}: {resource}: {healthy} of {many} can be used")
    if wrong:
        fail(f"{wrong[0]}", wrong)


@check(
    id="kubernetes.runtime-class",
    severity="blocker",
    title="There is a runtime class for containers with cards",
    remedy="The operator makes it with toolkit.enabled=true; kubectl get runtimeclass nvidia.",
    requires=cluster,
    source="Kubernetes documentation, Runtime Class; NVIDIA/gpu-operator, operator.runtimeClass",
)
def test_runtime_class(node: Node) -> None:
    """Its handler is a runtime that containerd's configuration must have."""
    classes = fact(node, "cluster.runtime_classes")
    if "nvidia" not in classes:
        fail("there is no runtime class nvidia", sorted(classes))
    if not str(classes["nvidia"]).startswith("nvidia"):
        fail(f"the runtime class nvidia is handled by {classes['nvidia']}")


@check(
    id="kubernetes.images-allowed",
    severity="blocker",
    title="No image comes from a registry that was not allowed",
    remedy="airlock k8s render shows every reference and the value that makes it; set that value, "
    "and apply again.",
    requires=cluster,
    source="the gpu-operator's chart has no value for all of its registries",
)
def test_images_allowed(node: Node) -> None:
    """Of pods, of what makes pods, and of what the operator will make of its policy."""
    allowed = node.expect.get("registries")
    if not allowed:
        return
    images = fact(node, "cluster.images")
    foreign = sorted(
        {
            f"{one['reference']} ({one['object']} {one['path']})"
            for one in images
            if not any(
                one["registry"] == each or one["reference"].startswith(f"{each}/")
                for each in allowed
            )
        }
    )
    if foreign:
        fail(f"{len(foreign)} images come from elsewhere: {foreign[0]}", foreign)


@check(
    id="kubernetes.images-pulled",
    severity="blocker",
    title="No pod waits for its image",
    remedy="The message says which registry refused and why: the name of the image, the pull "
    "secret, the proxy of containerd, or the CA that it trusts.",
    requires=cluster,
    depends=("kubernetes.images-allowed", "kubernetes.pull-secrets"),
    source="Kubernetes documentation, Images, ImagePullBackOff",
)
def test_images_pulled(node: Node) -> None:
    """The kubelet's own words are the evidence."""
    waiting = [
        f"{pod['name']}: {line}"
        for pod in fact(node, "cluster.pods")
        for line in pod["waiting"]
        if "Image" in line
    ]
    if waiting:
        fail(f"{len(waiting)} containers wait for images: {waiting[0]}", waiting)


@check(
    id="kubernetes.pull-secrets",
    severity="major",
    title="Every pod of the operator names the registry's pull secret",
    remedy="imagePullSecrets is a value of each component: airlock k8s render sets all of them.",
    requires=cluster,
    source="NVIDIA/gpu-operator, values.yaml",
)
def test_pull_secrets(node: Node) -> None:
    """A component that was forgotten works until its image leaves the node's cache."""
    needed = set(node.expect.get("pull_secrets") or ())
    if not needed:
        return
    bare = [pod["name"] for pod in fact(node, "cluster.pods") if not needed & set(pod["secrets"])]
    if bare:
        fail(f"{len(bare)} pods name no pull secret: {', '.join(bare[:3])}", bare)


@check(
    id="kubernetes.containers-run",
    severity="blocker",
    title="No container of the operator fails again and again",
    remedy="Read kubectl -n gpu-operator logs POD -c CONTAINER --previous.",
    requires=cluster,
    source="Kubernetes documentation, Pod Lifecycle, CrashLoopBackOff",
)
def test_containers_run(node: Node) -> None:
    """Neither one that ends at once nor one that cannot be made."""
    waiting = [
        f"{pod['name']}: {line}"
        for pod in fact(node, "cluster.pods")
        for line in pod["waiting"]
        if "Image" not in line
    ]
    if waiting:
        fail(f"{len(waiting)} containers do not run: {waiting[0]}", waiting)


@check(
    id="kubernetes.release",
    severity="blocker",
    title="Helm's last word about every release is that it is deployed",
    remedy="airlock k8s apply goes on where an upgrade was interrupted; it never destroys first.",
    requires=cluster,
    source="Helm documentation, helm status",
)
def test_release(node: Node) -> None:
    """``pending-upgrade`` blocks every later upgrade, ``failed`` leaves half of one."""
    last: dict[str, Any] = {}
    for row in fact(node, "cluster.releases"):
        if row["revision"] >= last.get(row["name"], {"revision": -1})["revision"]:
            last[row["name"]] = row
    wrong = [
        f"{name}: revision {row['revision']} is {row['status']}"
        for name, row in sorted(last.items())
        if row["status"] != "deployed"
    ]
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="kubernetes.hooks",
    severity="major",
    title="No hook of Helm's is left behind",
    remedy="airlock k8s apply removes a hook's job that failed before it tries again; kubectl -n "
    "gpu-operator delete job NAME does it by hand.",
    requires=cluster,
    source="Helm documentation, Chart Hooks, hook-delete-policy",
)
def test_hooks(node: Node) -> None:
    """The next install or upgrade meets the old job and fails on its name."""
    left = [
        f"{job['name']} ({job['hook']}): {'failed' if job['failed'] else 'not done'}"
        for job in fact(node, "cluster.jobs")
        if job["hook"] and not job["done"]
    ]
    if left:
        fail(f"{len(left)} hooks are left: {left[0]}", left)


@check(
    id="kubernetes.dns",
    severity="blocker",
    title="The cluster's DNS runs, and does not ask itself",
    remedy="Give the kubelet resolvConf: /run/systemd/resolve/resolv.conf, or CoreDNS a server of "
    "its own; airlock-node.pyz on the node frees port 53 without disabling the resolver.",
    requires=cluster,
    source="CoreDNS documentation, plugin loop; Kubernetes issue 45828",
)
def test_dns(node: Node) -> None:
    """A stub of the node's resolver in a pod is the pod itself: CoreDNS sees the loop and ends."""
    found = fact(node, "cluster.dns")
    if not found:
        fail("no pod of the cluster's DNS was found (kube-system, k8s-app=kube-dns)")
    wrong = [f"{pod['name']}: {line}" for pod in found for line in pod["waiting"]]
    wrong += [f"{pod['name']} is not ready" for pod in found if not pod["ready"]]
    forwards = [to for to in found[0]["forward"] if to.startswith(_LOOPBACK)]
    wrong += [f"it forwards to {to}, which is itself" for to in forwards]
    if wrong:
        fail(wrong[0], wrong)
