"""The lab's package repository as a customer's own: what its metadata says, and what must follow.

The key comes over HTTPS where the node trusts who serves it, which is behind a proxy that opens TLS
with a CA that the node was given. Elsewhere it is a file that was brought along.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fixtures import repository as ours
from fixtures.repository import Repository

if TYPE_CHECKING:
    from fixtures.origin import Origin
    from fixtures.pki import Authority
    from harness.cells import Cell

#: Where the key lies during a build.
KEY_FILE = "/run/airlock/repository.asc"


def wanted(cell: Cell) -> bool:
    """Whether the profile has the repository."""
    return "keyrings" in cell.profile.installers


def metadata(cell: Cell, authority: Authority, origin: Origin) -> dict[str, str]:
    """What a customer writes who has a repository of their own, its key pinned by fingerprint."""
    if not wanted(cell):
        return {}
    intercept = cell.scenario.intercept
    key = {
        "fingerprint": Repository(authority).fingerprint,
        "urls": [f"{origin.url}{ours.KEY}" if intercept else f"file://{KEY_FILE}"],
    }
    source = {"uris": _uris(cell, origin), "suites": ours.SUITE, "components": ours.COMPONENT}
    variant = {"os": ["debian", "ubuntu"], "keys": [key], "deb": source}
    return {
        "airlock-repositories": ours.NAME,
        "airlock-repositories-extra": json.dumps(
            {ours.NAME: {"title": ours.TITLE, "variants": [variant]}}, sort_keys=True
        ),
        "airlock-keyservers": f"{origin.url}/keys/by-fingerprint/{{fingerprint}}",
    }


def expected(cell: Cell, authority: Authority, origin: Origin) -> dict[str, Any] | None:
    """What holds on a good node; None without the repository."""
    if not wanted(cell):
        return None
    return {
        "keyring": f"/usr/share/keyrings/airlock-{ours.NAME}.gpg",
        "source": f"/etc/apt/sources.list.d/airlock-{ours.NAME}.sources",
        "uris": _uris(cell, origin),
        "fingerprints": [Repository(authority).fingerprint],
    }


def _uris(cell: Cell, origin: Origin) -> str:
    return f"{origin.url if cell.scenario.intercept else origin.http_url}{ours.ARCHIVE}"
