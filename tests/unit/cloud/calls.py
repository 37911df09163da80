"""Which method of which API a request of the double was."""

from __future__ import annotations

import re
from typing import Any

from fixtures.gce import Compute

_VERBS = {"GET": "get", "POST": "insert", "DELETE": "delete"}
_PLACE = r"/compute/v1/projects/[^/]+/(global|zones/[^/]+|regions/[^/]+)"


def changing(double: Compute) -> list[dict[str, Any]]:
    """Requests that change something, without those that wait."""
    return [
        row
        for row in double.requests
        if row["method"] != "GET" and not row["path"].endswith(("/wait", ":testIamPermissions"))
    ]


def methods(double: Compute) -> set[str]:
    """The methods that were called."""
    return {method(row["method"], row["path"]) for row in double.requests}


def method(verb: str, path: str) -> str:
    """The name that the API's reference has for a request."""
    if path.endswith(":testIamPermissions"):
        return "cloudresourcemanager.projects.testIamPermissions"
    if re.fullmatch(r"/v1/projects/[^/]+/services/[^/]+", path):
        return "serviceusage.services.get"
    if path.startswith("/dns/"):
        collection = "resourceRecordSets" if "/rrsets" in path else "managedZones"
        return f"dns.{collection}.{_VERBS[verb].replace('insert', 'create')}"
    if found := re.fullmatch(r"/compute/v1/projects/[^/]+/aggregated/(\w+)", path):
        return f"{found[1]}.aggregatedList"
    if found := re.fullmatch(rf"{_PLACE}/operations/[^/]+/wait", path):
        return f"{found[1].split('/')[0].removesuffix('s')}Operations.wait"
    if re.fullmatch(r"/compute/v1/projects/[^/]+/global/images/family/[^/]+", path):
        return "images.getFromFamily"
    if found := re.fullmatch(rf"{_PLACE}/(\w+)(/[^/]+)?(?:/(\w+))?", path):
        action = {"serialPort": "getSerialPortOutput"}.get(found[4] or "", found[4])
        listed = verb == "GET" and not found[3]
        return f"{found[2]}.{action or ('list' if listed else _VERBS[verb])}"
    if re.fullmatch(r"/compute/v1/projects/[^/]+/regions/[^/]+", path):
        return "regions.get"
    assert re.fullmatch(r"/compute/v1/projects/[^/]+", path), path
    return "projects.get"
