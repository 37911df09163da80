"""Google's APIs as the closed network needs them: JSON in, JSON out.

Compute Engine is asked by ``harness.providers.gce_api``. Cloud DNS, Service Usage and Resource
Manager are three or four calls each: they are asked by REST, with the same credentials and the same
patience.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from harness.cloud import images
from harness.cloud.network import Resource, Site
from harness.errors import UsageError
from harness.providers.gce_api import ENDPOINT, Api, CloudError, NotThere
from harness.providers.gce_iap import Place
from harness.transports.lines import Watch

_DNS = "https://dns.googleapis.com"
_SERVICES = "https://serviceusage.googleapis.com"
_PROJECTS = "https://cloudresourcemanager.googleapis.com"
Json = dict[str, Any]


@dataclass(frozen=True)
class _Kind:
    """A collection of compute_v1: its client, its message, its field, and where it is."""

    client: str
    message: str
    field: str
    scope: str


_KINDS = {
    "networks": _Kind("Networks", "Network", "network", "global"),
    "subnetworks": _Kind("Subnetworks", "Subnetwork", "subnetwork", "region"),
    "firewalls": _Kind("Firewalls", "Firewall", "firewall", "global"),
    "routes": _Kind("Routes", "Route", "route", "global"),
    "routers": _Kind("Routers", "Router", "router", "region"),
    "instances": _Kind("Instances", "Instance", "instance", "zone"),
    "images": _Kind("Images", "Image", "image", "global"),
    "machineTypes": _Kind("MachineTypes", "MachineType", "machine_type", "zone"),
    "acceleratorTypes": _Kind("AcceleratorTypes", "AcceleratorType", "accelerator_type", "zone"),
}


_OF_DNS = ("managedZones", "rrsets")
#: An instance that is being made is one that runs, soon.
_ON_ITS_WAY = ("PROVISIONING", "STAGING")


class Google(Api):
    """The client of one project. Raises CloudError for what Google does not do, in its words."""

    # What harness.cloud.making needs

    def get(self, site: Site, resource: Resource) -> Json | None:
        """See ``harness.cloud.making.Api``."""
        if resource.kind in _OF_DNS:
            try:
                return self._rest("GET", _DNS, _dns_path(site, resource))
            except NotThere:
                return None
        found = self.thing(site, resource.kind, resource.name)
        if found and resource.kind == "instances" and found["status"] in _ON_ITS_WAY:
            found["status"] = "RUNNING"
        return found

    def put(self, site: Site, resource: Resource, request: str) -> None:
        """See ``harness.cloud.making.Api``."""
        body = dict(resource.body)
        if resource.kind in _OF_DNS:
            folder = _dns_path(site, resource).partition("/rrsets/")[0]
            path = f"{folder}/rrsets" if resource.within else folder.rpartition("/")[0]
            try:
                self._rest("POST", _DNS, path, body)
            except CloudError as error:
                # Cloud DNS knows no ids of requests: an answer that got lost looks like this.
                there = self.get(site, resource) or {}
                same = all(there.get(key) == value for key, value in body.items())
                if "alreadyExists" not in error.codes or not same:
                    raise
            return
        kind = _KINDS[resource.kind]
        message = getattr(self._library(), kind.message).from_json(json.dumps(body))
        self._do(
            f"making {resource.title}",
            kind,
            "Insert",
            {**_place(site, kind), f"{kind.field}_resource": message, "request_id": request},
        )

    def drop(self, site: Site, resource: Resource) -> None:
        """See ``harness.cloud.making.Api``."""
        with contextlib.suppress(NotThere):
            if resource.kind in _OF_DNS:
                self._rest("DELETE", _DNS, _dns_path(site, resource))
                return
            kind = _KINDS[resource.kind]
            where = {**_place(site, kind), kind.field: resource.name}
            where["request_id"] = str(uuid.uuid4())
            self._do(f"removing {resource.title}", kind, "Delete", where)

    def machines(self, site: Site) -> list[Json]:
        """See ``harness.cloud.making.Api``."""
        whole = [self._json(one) for one in self.ours("")]
        return [
            one
            for one in whole
            if any(_ends(card.get("network"), site) for card in one.get("networkInterfaces", []))
        ]

    def firewalls(self, site: Site) -> list[Json]:
        """See ``harness.cloud.making.Api``."""
        return [one for one in self.listed(site, "firewalls") if _ends(one["network"], site)]

    # What the questions and images need

    def thing(self, site: Site, collection: str, name: str) -> Json | None:
        """One resource as JSON; None if there is none."""
        kind = _KINDS[collection]
        where = {**_place(site, kind), kind.field: name}
        return self._get(f"{collection}/{name}", kind, "Get", where)

    def listed(self, site: Site, collection: str) -> list[Json]:
        """All of a collection where the site is, as JSON."""
        return self._listed(_place(site, _KINDS[collection]), collection)

    def _listed(self, where: Mapping[str, Any], collection: str) -> list[Json]:
        kind = _KINDS[collection]
        request = getattr(self._library(), f"List{kind.client}Request")(**where)
        what = f"listing {collection}"
        pages = self._ask(what, kind.client, "list", request)
        with self._errors(what):  # later pages are asked for while we iterate
            return [self._json(one) for one in pages]

    def image(self, text: str) -> images.Facts:
        """Which image a URL, a family or a Dataproc version means. UsageError: there is none."""
        reference = images.parse(text)
        if reference.version:
            only = f"labels.{images.DATAPROC_LABEL}={reference.label}"
            found = self._listed({"project": reference.project, "filter": only}, "images")
            return images.choose(found, reference)
        field = "family" if reference.family else "image"
        verb = "GetFromFamily" if reference.family else "Get"
        where = {"project": reference.project, field: reference.family or reference.name}
        answer = self._get(text, _KINDS["images"], verb, where)
        if answer is None:
            hint = f"gcloud compute images list --project {reference.project}"
            raise UsageError(f"there is no image {text}, or it may not be seen", hint=hint)
        return images.facts(answer)

    def make_image(self, body: Mapping[str, Any], check: Watch = lambda: None) -> images.Facts:
        """Make an image in the project; what the API says of it then."""
        name = str(body["name"])
        message = self._library().Image.from_json(json.dumps(dict(body)))
        where = {"project": self.project, "image_resource": message}
        where["request_id"] = str(uuid.uuid4())
        # Tens of gigabytes are read; a machine is there in a minute.
        seconds = 3 * self.pace.operation
        self._do(f"making image {name}", _KINDS["images"], "Insert", where, check, seconds)
        return self.image(f"projects/{self.project}/global/images/{name}")

    def remove_image(self, name: str) -> bool:
        """Remove an image of the project; False if there was none."""
        where = {"project": self.project, "image": name, "request_id": str(uuid.uuid4())}
        try:
            self._do(f"removing image {name}", _KINDS["images"], "Delete", where)
        except NotThere:
            return False
        return True

    def relabel_image(self, name: str, labels: Mapping[str, str]) -> None:
        """Give an image of the project these labels and no others."""
        kind = _KINDS["images"]
        found = self._get(f"image {name}", kind, "Get", {"project": self.project, "image": name})
        if found is None:
            raise NotThere(f"there is no image {name} any more")
        wanted = {"labels": dict(labels), "labelFingerprint": found["labelFingerprint"]}
        message = self._library().GlobalSetLabelsRequest.from_json(json.dumps(wanted))
        where = {"project": self.project, "resource": name}
        where["global_set_labels_request_resource"] = message
        self._do(f"labelling image {name}", kind, "SetLabels", where)

    def own_images(self, filter_: str) -> list[Json]:
        """The images of the project that a filter matches."""
        return self._listed({"project": self.project, "filter": filter_}, "images")

    def stop(self, place: Place, check: Watch = lambda: None) -> None:
        """Shut an instance down and see it stopped; its disks stay."""
        where = {"project": place.project, "zone": place.zone, "instance": place.name}
        where["request_id"] = str(uuid.uuid4())
        self._do(f"stopping {place.name}", _KINDS["instances"], "Stop", where, check)

    def effective(self, site: Site) -> Json:
        """Firewall rules that hold in the network, and policies above it."""
        where = {"project": site.project, "network": site.name}
        kind = _KINDS["networks"]
        what = f"the rules of {site.name}"
        return self._get(what, kind, "GetEffectiveFirewalls", where) or {}

    def quotas(self, site: Site) -> tuple[list[Json], list[Json]]:
        """(the region's, the project's)."""
        region = _Kind("Regions", "Region", "region", "global")
        project = _Kind("Projects", "Project", "project", "global")
        where = {"project": site.project}
        one = self._get(site.region, region, "Get", {**where, "region": site.region})
        other = self._get(site.project, project, "Get", where)
        if one is None or other is None:
            what = site.region if one is None else f"project {site.project}"
            raise UsageError(f"there is no {what}", hint="look at --project and --zone")
        return one.get("quotas", []), other.get("quotas", [])

    def attributes(self, site: Site, machine: str, namespace: str) -> dict[str, str]:
        """Guest attributes of one namespace; empty where there are none yet."""
        where = {"project": site.project, "zone": site.zone, "instance": machine}
        kind = _KINDS["instances"]
        found = self._get(
            f"guest attributes of {machine}",
            kind,
            "GetGuestAttributes",
            {**where, "query_path": f"{namespace}/"},
        )
        items = (found or {}).get("queryValue", {}).get("items", [])
        return {one["key"]: one["value"] for one in items}

    def service(self, project: str, name: str) -> Json:
        """Whether an API is switched on, as Service Usage says it."""
        return self._rest("GET", _SERVICES, f"/v1/projects/{project}/services/{name}")

    def granted(self, project: str, asked: Sequence[str]) -> set[str]:
        """Which of these permissions the caller has. 100 at a time is what the API takes."""
        found: set[str] = set()
        for start in range(0, len(asked), 100):
            body = {"permissions": list(asked[start : start + 100])}
            path = f"/v1/projects/{project}:testIamPermissions"
            found |= set(self._rest("POST", _PROJECTS, path, body).get("permissions", []))
        return found

    # Below

    def _json(self, message: Any) -> Json:
        from google.protobuf import json_format

        found: Json = json_format.MessageToDict(type(message).pb(message))
        return found

    def _get(self, what: str, kind: _Kind, verb: str, where: Mapping[str, Any]) -> Json | None:
        request = getattr(self._library(), f"{verb}{kind.message}Request")(**where)
        try:
            return self._json(self._ask(f"asking for {what}", kind.client, _snake(verb), request))
        except NotThere:
            return None

    def _do(
        self,
        what: str,
        kind: _Kind,
        verb: str,
        where: Mapping[str, Any],
        check: Watch = lambda: None,
        seconds: float = 0.0,
    ) -> None:
        """A change, and its operation until it has ended; ``seconds``: another limit for it."""
        request = getattr(self._library(), f"{verb}{kind.message}Request")(**where)
        begun = self._ask(what, kind.client, f"{_snake(verb)}_unary", request, check)
        self._wait(begun, what, seconds or self.pace.operation, check)

    def _rest(self, method: str, host: str, path: str, body: Json | None = None) -> Json:
        """A request to an API that has no client here. Raises as ``_ask``."""

        def call(*, request: Any, retry: Any, timeout: float) -> Json:
            del request, retry
            from google.api_core import exceptions

            answer = self._session().request(method, base + path, json=body, timeout=timeout)
            if answer.status_code >= 400:
                raise exceptions.from_http_response(answer)  # type: ignore[no-untyped-call]
            found: Json = answer.json() if answer.content else {}
            return found

        given = os.environ.get(ENDPOINT, "").rstrip("/")
        # A double is all of Google; a private endpoint of Compute Engine is that alone.
        base = given if given.startswith("http://") else host
        with self._lock:
            self._clients["rest"] = SimpleNamespace(call=call)
        found: Json = self._ask(f"{method} {path}", "rest", "call", None)
        return found

    def _session(self) -> Any:
        from google.auth.transport.requests import AuthorizedSession

        credentials = self._how()["credentials"]
        return AuthorizedSession(credentials)  # type: ignore[no-untyped-call]


def _place(site: Site, kind: _Kind) -> dict[str, Any]:
    where = {"project": site.project}
    if kind.scope != "global":
        where[kind.scope] = site.region if kind.scope == "region" else site.zone
    return where


def _dns_path(site: Site, resource: Resource) -> str:
    zone = f"/dns/v1/projects/{site.project}/managedZones/{resource.within or resource.name}"
    return f"{zone}/rrsets/{resource.name}" if resource.within else zone


def _snake(verb: str) -> str:
    return re.sub(r"(?<!^)([A-Z])", r"_\1", verb).lower()


def _ends(link: object, site: Site) -> bool:
    return str(link).endswith("/" + site.network)
