"""The ledger on Google Cloud: squid's log, fetched from the proxy's machine through IAP."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixtures.accesslog import read_rows
from harness.cloud import proxyvm
from harness.cloud.network import Site
from harness.cloud.upkeep import key_path
from harness.errors import InfraError, UsageError
from harness.providers.gce_api import Api
from harness.providers.gce_iap import IapTransport, Place, own_key, state_of
from harness.state import cache_dir
from harness.transports.base import RemoteError, Transport, TransportError

#: Bytes that fit well into one answer of a machine.
BLOCK = 256 << 10
#: Gets into the proxy's machine; another for a stand-in.
Connect = Callable[[Api, Site], Transport]
# One block of the log, or of its lines that hold a word. A pipe gives what it has: see fullblock.
_READ = """\
[ -r "$1" ] || { echo "$1: cannot be read" >&2; exit 1; }
grep -aF -e "$2" -- "$1" | dd bs="$3" skip="$4" count=1 status=none iflag=fullblock
"""


def connect(api: Api, site: Site) -> Transport:
    """As the network's own key allows. UsageError where that key is not."""
    from harness import pack

    if trouble := unreadable(site):
        raise UsageError(trouble, hint="its key is on the machine where `airlock gce up` ran")
    place = Place(site.project, site.zone, site.proxy_name)
    keys = api.host_keys(site.zone, site.proxy_name)
    if not keys:
        raise InfraError(f"{place.text} has not published its host keys", hint="try again soon")
    return IapTransport(
        place,
        pack.pack(cache_dir("node-file")).path,
        own_key(key_path(site)),
        keys=keys,
        user=proxyvm.USER,
        become=("sudo", "-n"),
        state=lambda: state_of(api, place),
    )


def unreadable(site: Site) -> str:
    """Why the log cannot be fetched from here, as far as this machine knows; empty: it can."""
    return "" if key_path(site).is_file() else f"{site.proxy_name}: no key of it is here"


class ProxyLog:
    """The log of a network's proxy. Thread-safe; the connection is kept until ``close``."""

    def __init__(self, api: Api, site: Site, connect: Connect = connect) -> None:
        """``connect``: another way in, for a stand-in."""
        self._api, self._site, self._connect = api, site, connect
        self._lock = threading.Lock()
        self._transport: Transport | None = None

    def rows(self, *, client: str = "", since: float = 0.0) -> list[dict[str, Any]]:
        """Requests as of ``Squid.rows``, oldest first. Raises as ``fetch``.

        ``client``: of one address; ``since``: begun then or later, unix seconds of the proxy's
        clock, which is Google's: an address may have been another node's before.
        """
        with tempfile.TemporaryDirectory(prefix="airlock-ledger-") as folder:
            path = self.fetch(Path(folder) / "access.jsonl", client=client)
            return [
                row
                for row in read_rows(path)
                if row["start"] >= since and client in ("", row["client"])
            ]

    def fetch(self, into: Path, *, client: str = "") -> Path:
        """The log as it is now (of one address only), in a file. InfraError: it cannot be read."""
        with self._lock:
            kept = self._transport is not None
            try:
                return self._fetch(into, client)
            except RemoteError:
                raise
            except TransportError:
                # A connection that nobody used for a while may be gone; a new one that fails fails.
                self._hang_up()
                if not kept:
                    raise
                return self._fetch(into, client)

    def close(self) -> None:
        """Hang up; a later question connects again."""
        with self._lock:
            self._hang_up()

    def _fetch(self, into: Path, client: str) -> Path:
        if self._transport is None:
            self._transport = self._connect(self._api, self._site)
        # As squid writes it (``fixtures.squidconf``); every line has a brace.
        word = f'"client":"{client}"' if client else "{"
        with into.open("wb") as out:
            for nth in itertools.count():
                words = [proxyvm.ACCESS_LOG, word, str(BLOCK), str(nth)]
                ran = self._transport.run(["sh", "-c", _READ, "sh", *words], timeout=120)
                if ran.code:
                    said = ran.err.decode(errors="replace").strip()
                    raise InfraError(f"{self._site.proxy_name}: {said or 'its log is unreadable'}")
                out.write(ran.out)
                if len(ran.out) < BLOCK:
                    return into
        raise AssertionError("a log has an end")

    def _hang_up(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            with contextlib.suppress(Exception):
                transport.close()
