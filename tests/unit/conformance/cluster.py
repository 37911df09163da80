"""A cluster that is as it should be, on the API's double or a real one, and its shell: curl."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.k8s.slicing import GPU_RESOURCE, Group, Slicing
from harness.transports.base import Ran

NAMESPACE = "gpu-operator"
REGISTRY = "registry.corp.example"
SLICING = Slicing((Group("four", {GPU_RESOURCE: 4}),), default="four")
NODES = ("gpu-1", "gpu-2")
EXPECT = {
    "registries": [REGISTRY],
    "pull_secrets": ["regcred"],
    "slicing": {**SLICING.policy(), "data": SLICING.config_map(NAMESPACE)["data"], "nodes": {}},
}
_READY = [{"type": "Ready", "status": "True"}]
_DAEMONSETS = (
    *("nvidia-device-plugin-daemonset", "gpu-feature-discovery", "nvidia-operator-validator"),
    *("nvidia-container-toolkit-daemonset", "nvidia-dcgm-exporter"),
)
SHELL = """
send() { curl -sS --fail-with-body -o /dev/null -X "$1" -H "Content-Type: $2" -d "$4" "$API/$3"; }
patch() { send PATCH application/merge-patch+json "$1" "$2"; }
post() { send POST application/json "$1" "$2"; }
gone() { curl -sS --fail-with-body -o /dev/null -X DELETE "$API/$1"; }
set -e
"""


class Api(Protocol):
    """What KubeApi (the double) and KubeServer (a real one) both are."""

    version: str
    token: str

    @property
    def url(self) -> str: ...

    @property
    def ca_pem(self) -> str: ...

    def put(self, item: dict[str, Any]) -> dict[str, Any]: ...

    def kubeconfig(self, path: Path) -> Path: ...


def good(api: Api) -> None:
    """Two nodes with a card in four slices, and all that the operator brings."""
    api.put(_namespace())
    api.put(_definition())
    api.put({**SLICING.config_map(NAMESPACE)})
    time = dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    api.put(_policy())
    for name in NODES:
        api.put(_node(name, api.version))
        api.put(_pod(f"validator-{name}", "nvidia-operator-validator", name, time))
        api.put(_pod(f"plugin-{name}", "nvidia-device-plugin-daemonset", name, time))
    for name in _DAEMONSETS:
        api.put(_daemonset(name))
    api.put(_named("node.k8s.io/v1", "RuntimeClass", "nvidia", handler="nvidia"))
    labels = {"owner": "helm", "name": NAMESPACE, "status": "deployed", "version": "1"}
    secret = _named("v1", "Secret", "sh.helm.release.v1.gpu-operator.v1", NAMESPACE, labels)
    api.put({**secret, "type": "helm.sh/release.v1"})
    corefile = (
        ".:53 {\n    errors\n    forward . 10.0.0.2 10.0.0.3 {\n      max_concurrent 9\n    }\n}"
    )
    api.put(_named("v1", "ConfigMap", "coredns", "kube-system", data={"Corefile": corefile}))
    dns = _pod("coredns-1", "coredns", "gpu-1", time, "kube-system")
    dns["metadata"]["labels"] = {"k8s-app": "kube-dns"}
    api.put(dns)


def _named(
    version: str, kind: str, name: str, namespace: str = "", labels: Any = None, **rest: Any
) -> dict[str, Any]:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {**meta, **({"labels": labels} if labels else {})},
        **rest,
    }


def _namespace() -> dict[str, Any]:
    return _named("v1", "Namespace", NAMESPACE)


def _definition() -> dict[str, Any]:
    names = {"kind": "ClusterPolicy", "plural": "clusterpolicies", "singular": "clusterpolicy"}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    spec = {
        "group": "nvidia.com",
        "names": names,
        "scope": "Cluster",
        "versions": [{**version, "schema": schema}],
    }
    kind = "CustomResourceDefinition"
    name = "clusterpolicies.nvidia.com"
    return _named("apiextensions.k8s.io/v1", kind, name, spec=spec)


def _policy() -> dict[str, Any]:
    toolkit = {"repository": f"{REGISTRY}/nvidia/k8s", "image": "container-toolkit"}
    spec = {
        "devicePlugin": {"config": SLICING.policy()},
        "driver": {"enabled": False},
        "toolkit": {**toolkit, "version": "v1.17.0"},
    }
    made = _named("nvidia.com/v1", "ClusterPolicy", "cluster-policy", spec=spec)
    return {**made, "status": {"state": "ready"}}


def _node(name: str, version: str) -> dict[str, Any]:
    labels = {"nvidia.com/gpu.present": "true", **SLICING.groups[0].labels(1, "NVIDIA-A10G")}
    four = {GPU_RESOURCE: "4"}
    info = {"kubeletVersion": f"v{version}", "osImage": "Ubuntu 22.04.5 LTS"}
    status = {"conditions": _READY, "capacity": four, "allocatable": four, "nodeInfo": info}
    return _named("v1", "Node", name, labels=labels, status=status)


def _pod(
    name: str, app: str, node: str, started: str, namespace: str = NAMESPACE
) -> dict[str, Any]:
    image = f"{REGISTRY}/nvidia/{app}:v1.0.0"
    spec = {
        "nodeName": node,
        "containers": [{"name": "main", "image": image}],
        "imagePullSecrets": [{"name": "regcred"}],
    }
    status = {"phase": "Running", "startTime": started, "conditions": _READY}
    return _named("v1", "Pod", name, namespace, {"app": app}, spec=spec, status=status)


def _daemonset(name: str) -> dict[str, Any]:
    pod = {"containers": [{"name": "main", "image": f"{REGISTRY}/nvidia/{name}:v1.0.0"}]}
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    names = ("desiredNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable")
    status = dict.fromkeys(names, len(NODES))
    return _named("apps/v1", "DaemonSet", name, NAMESPACE, spec=spec, status=status)


class Shell:
    """The cluster's transport, as far as checks and sabotages need one."""

    name = "cluster"

    def __init__(self, api: Api, home: Path) -> None:
        self._api = api
        self._home = home
        ca = home / "ca.pem"
        ca.write_text(api.ca_pem)
        login = f'cacert = "{ca}"\nheader = "Authorization: Bearer {api.token}"\n'
        (home / ".curlrc").write_text(login)

    def run(self, command: str | Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> Ran:
        """Shell, with what sabotage.toml says is defined for it."""
        assert isinstance(command, str)
        env = {"PATH": os.environ["PATH"], "CURL_HOME": str(self._home), "API": self._api.url}
        done = subprocess.run(
            ["/bin/sh", "-c", SHELL + command],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            env=env,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)
