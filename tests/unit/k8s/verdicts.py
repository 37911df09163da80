"""What a real API server (v1.20.2) says of objects that are nearly right, and so must the double.

``make lab-kube`` puts every case to the real one, the required suite to the double.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.k8s.client import Cluster
from harness.k8s.errors import ClusterError

Object = dict[str, Any]
SPACE = "default"
_PODS = f"/api/v1/namespaces/{SPACE}/pods"
_MAPS = f"/api/v1/namespaces/{SPACE}/configmaps"
_SECRETS = f"/api/v1/namespaces/{SPACE}/secrets"
_SERVICES = f"/api/v1/namespaces/{SPACE}/services"
_DEPLOYMENTS = f"/apis/apps/v1/namespaces/{SPACE}/deployments"
_JOBS = f"/apis/batch/v1/namespaces/{SPACE}/jobs"
_ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
GPU = "nvidia.com/gpu"
MADE = 201


@dataclass(frozen=True)
class Case:
    """``body`` is posted to ``path``, and then changed by the merge patch ``change`` if not None.

    ``code``: of the last answer; ``says``: words in its message, where it is refused.
    """

    name: str
    path: str
    body: Object
    code: int
    says: str = ""
    change: Object | None = None


@dataclass(frozen=True)
class Verdict:
    """The last answer: ``message`` is empty for what is accepted."""

    code: int
    reason: str = ""
    message: str = ""


def verdict(cluster: Cluster, case: Case) -> Verdict:
    """Ask; what was made is taken away again."""
    made: Object | None = None
    try:
        made = cluster.ask("POST", case.path, case.body)
        if case.change is None:
            return Verdict(MADE)
        path = f"{case.path}/{made['metadata']['name']}"
        cluster.ask("PATCH", path, case.change, content_type="application/merge-patch+json")
        return Verdict(200)
    except ClusterError as error:
        return Verdict(error.code, error.reason, error.message)
    finally:
        if made is not None:
            path = f"{case.path}/{made['metadata']['name']}"
            # With the pods that a Job has got meanwhile.
            how = {"gracePeriodSeconds": "0", "propagationPolicy": "Background"}
            cluster.ask("DELETE", path, query=how)


def _of(version: str, kind: str, name: str, labels: Mapping[str, Any] | None = None) -> Object:
    meta = {"name": name} | ({"labels": labels} if labels else {})
    return {"apiVersion": version, "kind": kind, "metadata": meta}


def _map(name: str = "c", labels: Mapping[str, Any] | None = None, **data: Any) -> Object:
    return _of("v1", "ConfigMap", name, labels) | {"data": data}


def _keyed(key: str, value: Any = "1") -> Object:
    return _of("v1", "ConfigMap", "c") | {"data": {key: value}}


def _pod(**resources: Mapping[str, Any]) -> Object:
    container = {"name": "main", "image": "x", "resources": resources}
    return _of("v1", "Pod", "p") | {"spec": {"containers": [container]}}


def _template(labels: Mapping[str, str], **spec: Any) -> Object:
    inner = {"containers": [{"name": "main", "image": "x"}], **spec}
    return {"metadata": {"labels": labels}, "spec": inner}


def _deployment(name: str = "d", labels: Mapping[str, str] | None = None) -> Object:
    spec = {"selector": {"matchLabels": {"a": "b"}}, "replicas": 0}
    template = _template({"a": "b"} | dict(labels or {}))
    return _of("apps/v1", "Deployment", name) | {"spec": spec | {"template": template}}


def _job(name: str = "j", policy: str = "Never") -> Object:
    template = _template({"a": "b"}, restartPolicy=policy)
    return _of("batch/v1", "Job", name) | {"spec": {"template": template}}


def _service(name: str) -> Object:
    return _of("v1", "Service", name) | {"spec": {"ports": [{"port": 80}]}}


def _secret(key: str, value: str) -> Object:
    return _of("v1", "Secret", "s") | {"data": {key: value}}


_LONG = "must be no more than {} characters"
_NAME = "RFC 1123 subdomain must consist of"
_LABEL = "a valid label must be an empty string or consist of"
_KEY = "a valid config key must consist of"

CASES = [
    Case("a name of 253", _MAPS, _map("n" * 253), MADE),
    Case("a name of 254", _MAPS, _map("n" * 254), 422, _LONG.format(253)),
    Case("a name in capitals", _MAPS, _map("Name"), 422, _NAME),
    Case("a name with two dots", _MAPS, _map("a..b"), 422, _NAME),
    Case("a name with a dot", _MAPS, _map("a.b"), MADE),
    Case("no name", _MAPS, {"apiVersion": "v1", "kind": "ConfigMap"}, 422, "name or generateName"),
    Case("a role with colons", _ROLES, _of(_ROLES[6:-13], "ClusterRole", "a:B_c"), MADE),
    Case("a role with a slash", _ROLES, _of(_ROLES[6:-13], "ClusterRole", "a/b"), 422, "'/'"),
    Case("a deployment's name of 64", _DEPLOYMENTS, _deployment("d" * 64), MADE),
    Case("a job's name of 63", _JOBS, _job("j" * 63), MADE),
    Case("a job's name of 64", _JOBS, _job("j" * 64), 422, _LONG.format(63)),
    Case("a service's name of 63", _SERVICES, _service("s" * 63), MADE),
    Case("a service's name of 64", _SERVICES, _service("s" * 64), 422, _LONG.format(63)),
    Case("a service that begins with a digit", _SERVICES, _service("1s"), 422, "DNS-1035 label"),
    Case(
        "a namespace of 64",
        "/api/v1/namespaces",
        _of("v1", "Namespace", "n" * 64),
        422,
        _LONG.format(63),
    ),
    Case(
        "a namespace with a dot",
        "/api/v1/namespaces",
        _of("v1", "Namespace", "a.b"),
        422,
        "RFC 1123 label must consist of",
    ),
    Case("a label of 63", _MAPS, _map(labels={"l": "v" * 63}), MADE),
    Case("a label of 64", _MAPS, _map(labels={"l": "v" * 64}), 422, _LONG.format(63)),
    Case("a label with a space", _MAPS, _map(labels={"l": "a b"}), 422, _LABEL),
    Case("a label that is empty", _MAPS, _map(labels={"l": ""}), MADE),
    Case("a label that is a number", _MAPS, _map(labels={"l": 1}), 400, ""),
    Case("a label's key with a space", _MAPS, _map(labels={"a b": "v"}), 422, "name part must"),
    Case("a label's key of 64", _MAPS, _map(labels={"k" * 64: "v"}), 422, _LONG.format(63)),
    Case(
        "a pod's label of 64",
        _DEPLOYMENTS,
        _deployment(labels={"l": "v" * 64}),
        422,
        "spec.template.labels",
    ),
    Case(
        "pods that the selector does not find",
        _DEPLOYMENTS,
        _of("apps/v1", "Deployment", "d")
        | {"spec": {"selector": {"matchLabels": {"z": "z"}}, "template": _template({})}},
        422,
        "`selector` does not match template `labels`",
    ),
    Case("a key of each sort", _MAPS, _keyed("a.B_c-1"), MADE),
    Case("a key with a space", _MAPS, _keyed("a b"), 422, _KEY),
    Case("a key of 254", _MAPS, _keyed("k" * 254), 422, _LONG.format(253)),
    Case("a key of two dots", _MAPS, _keyed(".."), 422, "must not be '..'"),
    Case("a value that is a number", _MAPS, _keyed("k", 1), 400, ""),
    Case("a secret's key with a space", _SECRETS, _secret("a b", "YQ=="), 422, _KEY),
    Case("a secret that is not base64", _SECRETS, _secret("k", "%"), 400, "illegal base64"),
    Case("one card", _PODS, _pod(limits={GPU: 1}), MADE),
    Case("a thousand thousandths of a card", _PODS, _pod(limits={GPU: "1000m"}), MADE),
    Case("half a card", _PODS, _pod(limits={GPU: "500m"}), 422, "must be an integer"),
    Case("half a card as a fraction", _PODS, _pod(limits={GPU: "0.5"}), 422, "must be an integer"),
    Case("a negative card", _PODS, _pod(limits={GPU: "-1"}), 422, "greater than or equal to 0"),
    Case("cards in words", _PODS, _pod(limits={GPU: "lots"}), 400, "quantities must match"),
    Case(
        "a resource of no one",
        _PODS,
        _pod(limits={"gpu": 1}),
        422,
        "must be a standard resource type or fully qualified",
    ),
    Case(
        "a card that is wished for alone",
        _PODS,
        _pod(requests={GPU: 1}),
        422,
        "Limit must be set for non overcommitable resources",
    ),
    Case(
        "more cards than one wishes for",
        _PODS,
        _pod(limits={GPU: 2}, requests={GPU: 1}),
        422,
        f"must be equal to {GPU} limit",
    ),
    Case("half a processor", _PODS, _pod(limits={"cpu": "500m"}), MADE),
    Case(
        "a job that is started for ever",
        _JOBS,
        _job(policy="Always"),
        422,
        "restartPolicy: Required value",
    ),
    Case(
        "a namespace that is not there",
        "/api/v1/namespaces/nowhere/configmaps",
        _map(),
        404,
        'namespaces "nowhere" not found',
    ),
    Case(
        "another namespace than the address's",
        _MAPS,
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "other"}},
        400,
        "does not match the namespace",
    ),
    Case("a group of no one", "/apis/nobody.example/v1/things", _map(), 404, "404 page not found"),
    Case("a version of no one", "/apis/apps/v99/deployments", _map(), 404, "requested resource"),
    Case(
        "a resource of no kind",
        f"/api/v1/namespaces/{SPACE}/things",
        _map(),
        404,
        "could not find the requested resource",
    ),
    Case("another kind than the address's", _MAPS, _of("v1", "Secret", "s"), 400, ""),
    Case(
        "a pod's pull secret, later",
        _PODS,
        _pod(),
        422,
        "pod updates may not change fields other than",
        {"spec": {"imagePullSecrets": [{"name": "regcred"}]}},
    ),
    Case(
        "a pod's image, later",
        _PODS,
        _pod(),
        200,
        change={"spec": {"containers": [{"name": "main", "image": "y"}]}},
    ),
    Case(
        "a job's template, later",
        _JOBS,
        _job(),
        422,
        "field is immutable",
        {"spec": {"template": {"spec": {"priorityClassName": "system-node-critical"}}}},
    ),
    Case(
        "a deployment's selector, later",
        _DEPLOYMENTS,
        _deployment(labels={"c": "d"}),
        422,
        "field is immutable",
        {"spec": {"selector": {"matchLabels": {"a": None, "c": "d"}}}},
    ),
    Case("a name, later", _MAPS, _map(), 400, "", {"metadata": {"name": "other"}}),
    Case(
        "a change of what changed meanwhile",
        _MAPS,
        _map(),
        409,
        "the object has been modified",
        {"metadata": {"resourceVersion": "1"}},
    ),
]


def states(cluster: Cluster) -> list[tuple[int, int]]:
    """(minReadySeconds, numberReady) of a DaemonSet after each of three writes that say both.

    A new one, its state, itself: what an address does not take is left out without a word.
    """
    path = _DEPLOYMENTS.replace("deployments", "daemonsets")
    body = _deployment() | {"kind": "DaemonSet"}
    body["spec"] = {k: v for k, v in body["spec"].items() if k != "replicas"}
    said = [{"spec": {"minReadySeconds": n}, "status": {"numberReady": n}} for n in (1, 2, 3)]
    body["spec"]["minReadySeconds"], body["status"] = 1, said[0]["status"]
    found = [cluster.ask("POST", path, body)]
    here = f"{path}/d"
    try:
        for address, change in ((f"{here}/status", said[1]), (here, said[2])):
            sent = "application/merge-patch+json"
            found.append(cluster.ask("PATCH", address, change, content_type=sent))
    finally:
        cluster.ask("DELETE", here)
    return [
        (one["spec"]["minReadySeconds"], (one.get("status") or {}).get("numberReady", 0))
        for one in found
    ]


#: What ``states`` is on a real server.
STATES = [(1, 0), (1, 2), (3, 2)]


def owners(cluster: Cluster) -> list[Any]:
    """Server-side apply by two managers: data after each, or the refusal; and what is no change."""

    def said(data: Mapping[str, str]) -> Object:
        item = _of("v1", "ConfigMap", "owners") | {"data": dict(data)}
        item["metadata"]["namespace"] = SPACE
        return item

    def ours(force: bool = False, **data: str) -> Object:
        return cluster.apply(said(data), force=force)

    def theirs(**data: str) -> Object:
        return cluster.apply(said(data), manager="theirs")

    found: list[Any] = []
    try:
        found.append(theirs(a="1", b="1")["data"])
        found.append(ours(b="1", c="1")["data"])
        try:
            ours(b="2", c="1")
        except ClusterError as error:
            found += [error.code, error.reason, error.message.rpartition("conflict with ")[2]]
        last = ours(force=True, b="2", c="1")
        found.append(last["data"])
        version = "resourceVersion"
        again = ours(b="2", c="1")
        found.append(again["metadata"][version] == last["metadata"][version])
        # What is not said any more goes, but for what others say as well.
        found.append(ours(c="1")["data"])
        found.append(theirs(a="1", b="3")["data"])
    finally:
        cluster.delete("v1", "ConfigMap", "owners", SPACE)
    return found


#: What ``owners`` is on a real server.
OWNERS = [
    {"a": "1", "b": "1"},
    {"a": "1", "b": "1", "c": "1"},
    *(409, "Conflict", '"theirs": .data.b'),
    {"a": "1", "b": "2", "c": "1"},
    True,
    {"a": "1", "c": "1"},
    {"a": "1", "b": "3", "c": "1"},
]
