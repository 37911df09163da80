"""Asking a registry whether it has an image, and fetching charts from it (OCI distribution 1.1)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from harness.errors import InfraError, UsageError
from harness.k8s.references import DEFAULT_REGISTRY, Reference
from harness.k8s.web import Answer, Web, WebError, basic

Logins = Mapping[str, str]
"""host (or host/path) -> ``user:password``"""
_MANIFESTS = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_CHART_LAYER = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_CHART_BYTES = 100 << 20
_AT_ONCE = 8


class Asked(NamedTuple):
    """What a registry said of an image."""

    reference: Reference
    answer: Literal["there", "missing", "refused", "unknown"]
    why: str = ""


@dataclass
class Registry:
    """Speaks to registries with ``logins``; tokens are kept for as long as this lives."""

    web: Web
    logins: Logins = field(default_factory=dict)
    _tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    def have(self, references: Iterable[Reference]) -> list[Asked]:
        """Ask for each, several at once; the answers are in the references' order."""
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self.has, references))

    def has(self, reference: Reference) -> Asked:
        """HEAD of its manifest. ``unknown``: the registry could not be asked."""
        try:
            found = self._manifest("HEAD", reference)
        except (InfraError, UsageError) as error:
            return Asked(reference, "unknown", error.message)
        if found.status < 300:
            return Asked(reference, "there")
        if found.status == 404:
            return Asked(reference, "missing", "the registry does not have it")
        if found.status in (401, 403):
            return Asked(reference, "refused", f"HTTP {found.status}: no login, or not this one")
        return Asked(reference, "unknown", f"HTTP {found.status}")

    def chart(self, reference: Reference) -> bytes:
        """A chart's archive. WebError; UsageError for what is no chart or is not let in."""
        found = self._manifest("GET", reference)
        _let_in(found, reference.text)
        try:
            layers = json.loads(found.body)["layers"]
            layer = next(one for one in layers if one["mediaType"] == _CHART_LAYER)
            digest, size = str(layer["digest"]), int(layer["size"])
        except (ValueError, KeyError, TypeError, StopIteration) as error:
            raise UsageError(f"oci://{reference.text}: is no Helm chart") from error
        path = f"{reference.path}/blobs/{digest}"
        blob = self._ask("GET", reference, path, {}, min(size, _CHART_BYTES))
        _let_in(blob, reference.text)
        if f"sha256:{hashlib.sha256(blob.body).hexdigest()}" != digest:
            raise WebError(f"oci://{reference.text}: its content has not the digest {digest}")
        return blob.body

    def _manifest(self, method: str, reference: Reference) -> Answer:
        accept = {"Accept": ", ".join(_MANIFESTS)}
        path = f"{reference.path}/manifests/{reference.version}"
        return self._ask(method, reference, path, accept, 4 << 20)

    def _ask(
        self, method: str, reference: Reference, path: str, headers: dict[str, str], most: int
    ) -> Answer:
        """With a token that we have; else with one that the refusal says where to get."""
        host = reference.host
        url = f"https://{_api(host)}/v2/{_library(reference, path)}"
        key = (host, reference.path)
        token = self._tokens.get(key)
        found = self.web.ask(
            method, url, headers | ({"Authorization": token} if token else {}), most
        )
        if found.status != 401:
            return found
        token = self._token(found.headers.get("www-authenticate", ""), reference)
        if not token:
            return found
        self._tokens[key] = token
        return self.web.ask(method, url, headers | {"Authorization": token}, most)

    def _token(self, challenge: str, reference: Reference) -> str:
        """What to send, by the registry's challenge; empty if nothing can be."""
        scheme, _, rest = challenge.partition(" ")
        login = self._login(reference)
        if scheme.lower() == "basic":
            return basic(login) if login else ""
        if scheme.lower() != "bearer":
            return ""
        said = dict(_CHALLENGE.findall(rest))
        if not said.get("realm"):
            return ""
        scope = said.get("scope") or f"repository:{reference.path}:pull"
        query = {"scope": scope} | ({"service": said["service"]} if "service" in said else {})
        where = f"{said['realm']}?{urllib.parse.urlencode(query)}"
        found = self.web.ask("GET", where, {"Authorization": basic(login)} if login else {})
        if found.status != 200:
            return ""
        try:
            body = json.loads(found.body)
            return f"Bearer {body.get('token') or body['access_token']}"
        except (ValueError, KeyError, AttributeError) as error:
            raise WebError(f"{said['realm']}: its answer has no token") from error

    def _login(self, reference: Reference) -> str:
        """The login of the longest place that the image is below."""
        whole = f"{reference.host}/{reference.path}"
        fit = [place for place in self.logins if whole == place or whole.startswith(f"{place}/")]
        return self.logins[max(fit, key=len)] if fit else ""


def logins_of(text: str, where: str) -> dict[str, str]:
    """Logins of a Docker ``config.json``. UsageError if it is none."""
    try:
        entries: dict[str, Any] = json.loads(text).get("auths", {})
        found = {}
        for place, entry in entries.items():
            bare = (
                re.sub(r"^https?://", "", place).rstrip("/").removesuffix("/v1").removesuffix("/v2")
            )
            bare = DEFAULT_REGISTRY if bare == "index.docker.io" else bare
            if entry.get("auth"):
                found[bare] = base64.b64decode(entry["auth"]).decode()
            elif entry.get("username"):
                found[bare] = f"{entry['username']}:{entry.get('password', '')}"
    except (ValueError, AttributeError, TypeError) as error:
        raise UsageError(f"{where}: is no Docker config.json") from error
    return found


def _let_in(found: Answer, text: str) -> None:
    if found.status in (401, 403):
        raise UsageError(f"oci://{text}: HTTP {found.status}", hint="no login, or not this one")
    if found.status == 404:
        raise UsageError(
            f"oci://{text}: the registry does not have it", hint="is the version right?"
        )
    if found.status >= 300:
        raise WebError(f"oci://{text}: HTTP {found.status}", status=found.status)


def _api(host: str) -> str:
    return "registry-1.docker.io" if host == DEFAULT_REGISTRY else host


def _library(reference: Reference, path: str) -> str:
    short = reference.host == DEFAULT_REGISTRY and "/" not in reference.path
    return f"library/{path}" if short else path
