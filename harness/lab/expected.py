"""What the lab knows of a node before anybody has asked it: what its checks may expect."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.lab import addresses as at
from harness.lab import environment, packages, tools
from harness.lab.build import STORE
from harness.lab.surroundings import OBJECT_URL
from harness.state import cache_dir

if TYPE_CHECKING:
    from fixtures.origin import Origin
    from fixtures.pki import Authority
    from fixtures.scenarios import Scenario
    from harness.cells import Cell


def expected(
    cell: Cell, authority: Authority, origin: Origin, built: Mapping[str, Any]
) -> dict[str, Any]:
    """What holds on a good node of this cell. ``built``: its image's manifest."""
    scenario = cell.scenario
    driver = "driver" in cell.profile.parts
    ca = authority.root_ca(scenario.trust)
    return {
        "ca_sha256": ca.sha256 if scenario.intercept else None,
        # Google's double shows a certificate that stands for public ones.
        "trusted_besides": [authority.origin.sha256] if scenario.google.direct else [],
        "cert_sha256": authority.module.sha256 if driver else None,
        "cert_cn": authority.module.common_name,
        "boot_kernel": built["kernel"],
        "image_built": dt.datetime.fromisoformat(built["built"]).timestamp(),
        "proxy_url_redacted": f"http://{at.PROXY}:{at.PROXY_PORT}" if scenario.proxied else None,
        "origin_url": origin.url,
        "origin_http_url": origin.http_url,
        "restarted": scenario.boot.again,
        "secure_boot": scenario.secure_boot,
        "intercept": scenario.intercept,
        # All others of ours set up what is there, or fetch what the manager of packages does not.
        "fetches_packages": driver,
        "auth": scenario.auth == "basic",
        "gpu": False,
        "foreign": cell.profile.foreign is not None,
        "foreign_proxy": bool(cell.profile.foreign) and "proxy" not in cell.profile.installers,
        "deferred": "deferred" in cell.profile.installers,
        # The cards, the agent and the NodeManager of such a node are the lab's.
        "doubles": ["deferred"] if "deferred" in cell.profile.installers else [],
        "refuses": scenario.proxied,
        "ports": list(scenario.needs.ports),
        "glibc": scenario.needs.glibc or None,
        "proxy_tools": list(tools.NAMES) if scenario.proxied and cell.profile.tools else None,
        "environments": environment.expected(cell, authority, cache_dir(STORE)),
        "repository": packages.expected(cell, authority, origin),
        "google_url": OBJECT_URL if scenario.google.direct else None,
    }


def canaries(scenario: Scenario, authority: Authority, password: str) -> dict[str, bytes]:
    """Name -> bytes that must be nowhere in the image."""
    # One line of a key: it is the same in every form the key can be copied in.
    found = {
        "module signing key": authority.module.key_and_cert().splitlines()[2],
        "proxy CA key": authority.proxy.key_and_cert().splitlines()[1],
    }
    if scenario.auth == "basic":
        found["proxy password"] = password.encode()
    return found
