"""The ledger on Google Cloud: squid's log, fetched from the proxy's machine through IAP."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixtures.accesslog import read_rows
from harness.cloud import proxyvm
from harness.cloud.api import Google
from harness.cloud.network import Site
from harness.cloud.upkeep import key_path
from harness.errors import InfraError, UsageError
from harness.providers.gce_iap import IapTransport, Place, own_key, state_of
from harness.state import cache_dir
from harness.transports.base import Transport

#: Bytes that fit well into one answer of a machine.
BLOCK = 256 << 10
#: Gets into the proxy's machine; another for a stand-in.
Connect = Callable[[Google, Site], Transport]


def connect(api: Google, site: Site) -> Transport:
    """As the network's own key allows. UsageError where that key is not."""
    from harness import pack

    key = key_path(site)
    if not key.is_file():
        hint = "its key is on the machine where `airlock gce up` ran"
        raise UsageError(f"{site.proxy_name}: no key of it is here", hint=hint)
    place = Place(site.project, site.zone, site.proxy_name)
    keys = api.host_keys(site.zone, site.proxy_name)
    if not keys:
        raise InfraError(f"{place.text} has not published its host keys", hint="try again soon")
    return IapTransport(
        place,
        pack.pack(cache_dir("node-file")).path,
        own_key(key),
        keys=keys,
        user=proxyvm.USER,
        become=("sudo", "-n"),
        state=lambda: state_of(api, place),
    )


def fetch(api: Google, site: Site, into: Path, connect: Connect = connect) -> Path:
    """The whole log as it is now, in a file. InfraError where it cannot be read."""
    with contextlib.closing(connect(api, site)) as transport, into.open("wb") as out:
        for nth in itertools.count():
            block = [f"bs={BLOCK}", f"skip={nth}", "count=1", "status=none"]
            ran = transport.run(["dd", f"if={proxyvm.ACCESS_LOG}", *block], timeout=120)
            if ran.code:
                said = ran.err.decode(errors="replace").strip()
                raise InfraError(f"{site.proxy_name}: {said or 'its log cannot be read'}")
            out.write(ran.out)
            if len(ran.out) < BLOCK:
                return into
    raise AssertionError("a log has an end")


def rows(
    api: Google, site: Site, *, client: str = "", since: float = 0.0, connect: Connect = connect
) -> list[dict[str, Any]]:
    """Requests as of ``Squid.rows``. ``client``: of one address; ``since``: begun then (unix)."""
    with tempfile.TemporaryDirectory(prefix="airlock-ledger-") as folder:
        path = fetch(api, site, Path(folder) / "access.jsonl", connect)
        return [
            row
            for row in read_rows(path)
            if row["start"] >= since and client in ("", row["client"])
        ]
