"""A cluster's API: the official client's way in (kubeconfig, proxy, TLS), plain objects beyond.

Every verb here can be repeated (GET, DELETE, server-side apply), so what a busy API server or a
broken connection leaves undone is tried again, with jitter, until ``patience`` has passed.
"""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from harness.errors import UsageError
from harness.k8s.errors import ClusterError, NotAllowed
from harness.k8s.retry import Patience, retry_after

Object = dict[str, Any]
#: Who our fields belong to, in every object's managedFields.
MANAGER = "airlock"
_SECONDS = 30.0
_BUSY = (429, 500, 502, 503, 504)
_PAGE = 500


class Resource(NamedTuple):
    """Where a kind is served: ``path`` without the name, by discovery."""

    api_version: str
    plural: str
    namespaced: bool

    def path(self, namespace: str, name: str = "") -> str:
        """The address of one object, or of all."""
        start = "/apis" if "/" in self.api_version else "/api"
        within = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        end = f"/{urllib.parse.quote(name)}" if name else ""
        return f"{start}/{self.api_version}{within}/{self.plural}{end}"


class Cluster:
    """One cluster, as the user of one context. Context manager; closes its connections.

    ``kubeconfig``: None for ``KUBECONFIG``, ``~/.kube/config`` or the pod's own account.
    ``namespace``: what the context says, else ``default``. All methods raise ClusterError (exit 3)
    when the cluster cannot be asked, NotAllowed (exit 2) where its user may not.
    """

    def __init__(
        self, kubeconfig: Path | None = None, context: str = "", patience: Patience | None = None
    ) -> None:
        self._api, self.namespace = _open(kubeconfig, context)
        self._pool = self._api.rest_client.pool_manager
        self.host: str = self._api.configuration.host
        self.patience = patience or Patience()
        self._resources: dict[str, list[Object]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._pool.clear()

    def version(self) -> tuple[int, int]:
        """The server's (major, minor)."""
        found = self.ask("GET", "/version")
        # Managed services say "31+".
        return int(found["major"].rstrip("+")), int(found["minor"].rstrip("+"))

    def resource(self, api_version: str, kind: str) -> Resource | None:
        """Where ``kind`` is served; None where the cluster does not know it (no such CRD yet)."""
        if api_version not in self._resources:
            start = "/apis" if "/" in api_version else "/api"
            try:
                found = self.ask("GET", f"{start}/{api_version}")
            except ClusterError as error:
                if error.code != 404:
                    raise
                return None
            self._resources[api_version] = found["resources"]
        for row in self._resources[api_version]:
            if row["kind"] == kind and "/" not in row["name"]:
                return Resource(api_version, row["name"], row["namespaced"])
        # A definition may have come since.
        del self._resources[api_version]
        return None

    def get(self, api_version: str, kind: str, name: str, namespace: str = "") -> Object | None:
        """One object; None if it, or its kind, is not there."""
        resource = self.resource(api_version, kind)
        if resource is None:
            return None
        try:
            return self.ask("GET", resource.path(namespace, name))
        except ClusterError as error:
            if error.code == 404:
                return None
            raise

    def list(
        self,
        api_version: str,
        kind: str,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
    ) -> list[Object]:
        """All objects of a kind (``namespace`` empty: everywhere), page by page; [] for no kind."""
        resource = self.resource(api_version, kind)
        if resource is None:
            return []
        query = {"limit": str(_PAGE)}
        query |= {"labelSelector": labels} if labels else {}
        query |= {"fieldSelector": fields} if fields else {}
        found: list[Object] = []
        while True:
            page = self.ask("GET", resource.path(namespace), query=query)
            # Items of a list do not say what they are.
            found += [{"apiVersion": api_version, "kind": kind} | item for item in page["items"]]
            more = page["metadata"].get("continue")
            if not more:
                return found
            query["continue"] = more

    def apply(self, item: Object, *, force: bool = False, manager: str = MANAGER) -> Object:
        """Server-side apply: the fields of ``manager`` are as in ``item``, those of others stay.

        ``force`` takes fields over that another manager has set; without it that is a ClusterError
        of code 409 that names the manager.
        """
        meta = item["metadata"]
        resource = self._served(item)
        query = {"fieldManager": manager, "force": str(force).lower()}
        path = resource.path(meta.get("namespace", ""), meta["name"])
        return self.ask("PATCH", path, item, query, "application/apply-patch+yaml")

    def merge(
        self, api_version: str, kind: str, name: str, change: Object, namespace: str = ""
    ) -> Object:
        """A merge patch (RFC 7386): None takes a field away."""
        resource = self._served({"apiVersion": api_version, "kind": kind})
        query = {"fieldManager": MANAGER}
        sent = "application/merge-patch+json"
        return self.ask("PATCH", resource.path(namespace, name), change, query, sent)

    def delete(self, api_version: str, kind: str, name: str, namespace: str = "") -> bool:
        """Delete it and, in the background, what it owns; False if it was not there."""
        resource = self.resource(api_version, kind)
        if resource is None:
            return False
        try:
            options = {"apiVersion": "v1", "kind": "DeleteOptions"}
            options["propagationPolicy"] = "Background"
            self.ask("DELETE", resource.path(namespace, name), options)
        except ClusterError as error:
            if error.code == 404:
                return False
            raise
        return True

    def log(self, pod: str, namespace: str, *, container: str = "", lines: int = 500) -> str:
        """The end of a container's log."""
        query = {"tailLines": str(lines)} | ({"container": container} if container else {})
        path = Resource("v1", "pods", True).path(namespace, pod)
        return self._answer("GET", f"{path}/log", None, query, "").decode(errors="replace")

    def allowed(self, verb: str, resource: str, namespace: str = "") -> bool:
        """Whether our user may; ``resource`` is ``daemonsets.apps`` or ``pods/log``."""
        name, _, sub = resource.partition("/")
        plural, _, group = name.partition(".")
        at = {"verb": verb, "resource": plural, "group": group, "namespace": namespace}
        at |= {"subresource": sub} if sub else {}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": at},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self.ask("POST", path, review)["status"]["allowed"])

    def watch(
        self, api_version: str, kind: str, namespace: str = "", *, fields: str = "", seconds: float
    ) -> Iterator[tuple[str, Object]]:
        """(ADDED, MODIFIED or DELETED; object), those that are there first, for ``seconds``.

        Ends without an error when the time is over. A watch that broke is begun anew, so that an
        object may come twice.
        """
        resource = self._served({"apiVersion": api_version, "kind": kind})
        query = {"watch": "true", "timeoutSeconds": str(max(1, int(seconds)))}
        query |= {"fieldSelector": fields} if fields else {}
        for line in self._lines(resource.path(namespace), query, seconds):
            event = json.loads(line)
            if event["type"] == "ERROR":
                found = event["object"]
                raise _refused(int(found.get("code", 0)), found, f"watching {kind}", self.host)
            if event["type"] != "BOOKMARK":
                yield event["type"], event["object"]

    def ask(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request that may be repeated; its answer as JSON."""
        data = self._answer(method, path, body, query or {}, content_type)
        try:
            found = json.loads(data)
        except ValueError as error:
            raise ClusterError(f"{self.host}{path}: the answer is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise ClusterError(f"{self.host}{path}: the answer is no object")
        return found

    def _served(self, item: Object) -> Resource:
        resource = self.resource(item["apiVersion"], item["kind"])
        if resource is None:
            raise ClusterError(
                f"{self.host} does not know {item['kind']} of {item['apiVersion']}",
                code=404,
                hint="its CustomResourceDefinition must be there first",
            )
        return resource

    def _answer(
        self,
        method: str,
        path: str,
        body: Object | None,
        query: Mapping[str, str],
        content_type: str,
    ) -> bytes:
        import urllib3

        url = self.host + path + (f"?{urllib.parse.urlencode(query)}" if query else "")
        what = f"{method} {path}"
        data = None if body is None else json.dumps(body).encode()
        for attempt in self.patience.attempts():
            try:
                found = self._pool.request(
                    method,
                    url,
                    body=data,
                    headers=self._headers(content_type if data else ""),
                    timeout=_SECONDS,
                    retries=False,
                    redirect=False,
                )
            except urllib3.exceptions.HTTPError as error:
                attempt.failed(_unreachable(self.host, error), retry=_passing(error))
                continue
            if found.status < 400:
                return bytes(found.data)
            refusal = _refused(found.status, _document(found.data), what, self.host)
            wait = retry_after(found.headers.get("Retry-After"))
            attempt.failed(refusal, retry=found.status in _BUSY, wait=wait)
        raise AssertionError("attempts end with a return or an error")

    def _lines(self, path: str, query: Mapping[str, str], seconds: float) -> Iterator[bytes]:
        import urllib3

        url = f"{self.host}{path}?{urllib.parse.urlencode(query)}"
        for attempt in self.patience.attempts():
            try:
                found = self._pool.request(
                    "GET",
                    url,
                    headers=self._headers(""),
                    timeout=urllib3.Timeout(connect=_SECONDS, read=seconds + _SECONDS),
                    retries=False,
                    preload_content=False,
                )
                if found.status >= 400:
                    document = _document(found.read())
                    refusal = _refused(found.status, document, f"watching {path}", self.host)
                    attempt.failed(refusal, retry=found.status in _BUSY)
                    continue
                rest = b""
                for piece in found.stream(1 << 16):
                    *lines, rest = (rest + piece).split(b"\n")
                    yield from (line for line in lines if line)
                return
            except urllib3.exceptions.HTTPError as error:
                attempt.failed(_unreachable(self.host, error), retry=_passing(error))

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": MANAGER}
        if content_type:
            headers["Content-Type"] = content_type
        # Asked for each request: tokens of cloud providers last minutes.
        token = self._api.configuration.auth_settings().get("BearerToken")
        if token:
            headers["Authorization"] = token["value"]
        return headers


def _open(kubeconfig: Path | None, context: str) -> tuple[Any, str]:
    import kubernetes.client
    import kubernetes.config

    # Typed by halves; we take from it a pool of connections and a header.
    client: Any = kubernetes.client
    config: Any = kubernetes.config
    where = str(kubeconfig or "the kubeconfig")
    try:
        file = str(kubeconfig) if kubeconfig else None
        settings = client.Configuration()
        try:
            config.load_kube_config(file, context or None, settings, persist_config=False)
            contexts, active = config.list_kube_config_contexts(file)
            active = next((one for one in contexts if one["name"] == context), active)
            namespace = active["context"].get("namespace") or "default"
        except config.ConfigException:
            if kubeconfig or context:
                raise
            config.load_incluster_config(settings)
            account = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
            namespace = account.read_text().strip()
    except config.ConfigException as error:
        raise UsageError(f"{where}: {error}", hint="see kubectl config view") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"{where}: is no kubeconfig: {error}") from error
    except Exception as error:
        # The YAML parser's own family, which is imported by the client only.
        if type(error).__module__.startswith("yaml"):
            text = " ".join(str(error).split())
            raise UsageError(f"{where}: is no kubeconfig: {text}") from error
        raise
    return client.ApiClient(settings), namespace


def _document(data: bytes) -> Object:
    try:
        found = json.loads(data)
    except ValueError:
        return {"message": data[:200].decode(errors="replace").strip()}
    return found if isinstance(found, dict) else {}


def _refused(code: int, status: Object, what: str, host: str) -> ClusterError | NotAllowed:
    message = str(status.get("message") or f"HTTP {code}")
    if code == 401:
        return NotAllowed(
            f"{host} does not know who we are: {message}",
            hint="the token or certificate of the kubeconfig has expired, or is of another cluster",
        )
    if code == 403:
        return NotAllowed(f"{host}: {message}", hint="give this user the right, or use another")
    return ClusterError(f"{host}: {what}: {message}", code=code, reason=str(status.get("reason")))


def _unreachable(host: str, error: Exception) -> ClusterError:
    text = str(error)
    hint = "is the cluster up, and does the way to it need a proxy?"
    if "CERTIFICATE_VERIFY_FAILED" in text:
        hint = "certificate-authority-data of the kubeconfig is of another cluster"
    return ClusterError(f"{host} cannot be asked: {text}", hint=hint)


def _passing(error: Exception) -> bool:
    """Whether it may be otherwise soon; a certificate stays what it is."""
    return "CERTIFICATE_VERIFY_FAILED" not in str(error)
