"""Bodies that the tests of the double send."""

from __future__ import annotations

from typing import Any

import requests

PROJECT = "airlock-test"
ZONE = "europe-west4-a"
DEBIAN = "projects/debian-cloud/global/images/family/debian-12"


def instance(name: str, **more: Any) -> dict[str, Any]:
    """The smallest body of an instance."""
    return {
        "name": name,
        "machineType": f"zones/{ZONE}/machineTypes/e2-medium",
        "disks": [
            {"boot": True, "autoDelete": True, "initializeParams": {"sourceImage": DEBIAN}},
        ],
        "networkInterfaces": [{"network": "global/networks/default"}],
        **more,
    }


class Api:
    """Plain requests to a double, below its project."""

    def __init__(self, url: str) -> None:
        self._base = f"{url}/compute/v1/projects/{PROJECT}/"
        self._session = requests.Session()

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, Any]:
        """Status and JSON."""
        answer = self._session.request(method, self._base + path, json=body, params=query)
        return answer.status_code, answer.json()

    def insert(self, body: dict[str, Any], zone: str = ZONE, **query: str) -> tuple[int, Any]:
        """Insert an instance."""
        return self.ask("POST", f"zones/{zone}/instances", body, **query)

    def reason(self, method: str, path: str, body: Any = None, **query: str) -> tuple[int, str]:
        """Status and reason of an error."""
        status, answer = self.ask(method, path, body, **query)
        return status, answer["error"]["errors"][0]["reason"]
