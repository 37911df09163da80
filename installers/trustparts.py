"""Everything beside the system's store that decides whom programs trust on a node.

Settings ``jvm:<key store>``, ``bundle:<file>`` and ``node-ca`` have the fingerprints that are ours
as their value; ``ca-<tool>:<setting>`` have what the tool reads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Optional

from installers import asn1, bundles, jvmstores, pem
from installers.dialects import authorities, environment
from installers.dialects.base import Dialect, Wanted, prune, put
from installers.engine import Change, Problem
from installers.host import Host
from installers.journal import Log, recall, remember

# Ours alone, for programs that add certificates to their own instead of replacing them.
CA_FILE = "/etc/airlock/proxy-ca.pem"
_REEXEC = "ca-manager:reexec"
_MEMORY = "trust-parts"


class Parts:
    """The key stores, bundles and tools of one node, looked for once a run."""

    def __init__(self, host: Host, bundle: str) -> None:
        self.host = host
        self.want = Wanted(ca_bundle=bundle, ca_file=CA_FILE)
        self._stores: Optional[jvmstores.Stores] = None
        self._bundles: Optional[list[str]] = None
        self._dialects: Optional[list[Dialect]] = None

    @property
    def stores(self) -> jvmstores.Stores:
        """The JVMs' key stores; found anew when the OS store's hooks may have made one."""
        if self._stores is None:
            self._stores = jvmstores.Stores(self.host)
        return self._stores

    @property
    def bundles(self) -> list[str]:
        """Certificate files of conda and certifi."""
        if self._bundles is None:
            self._bundles = bundles.find(self.host)
        return self._bundles

    @property
    def dialects(self) -> list[Dialect]:
        """Tools with a setting of their own."""
        if self._dialects is None:
            self._dialects = authorities.dialects(self.host)
        return self._dialects

    def inspect(self, wanted: Sequence[str]) -> dict[str, Any]:
        """What is; ``wanted`` are the fingerprints (hex) that should be trusted, or none."""
        found: dict[str, Any] = {}
        for path in self.stores.paths:
            mine = set(self.stores.ours(path).values())
            _note(found, f"jvm:{path}", mine | (self.stores.trusted(path) & set(wanted)))
        for path in self.bundles:
            mine = bundles.ours(self.host, path)
            _note(found, f"bundle:{path}", mine | (bundles.trusted(self.host, path) & set(wanted)))
        _note(found, "node-ca", pem.fingerprints(self.host.read_bytes(CA_FILE) or b""))
        for dialect in self.dialects:
            text = self.host.read(dialect.path) or ""
            current = dialect.read(text) if wanted else dialect.ours(text)
            found.update({f"{dialect.name}:{key}": value for key, value in current.items()})
        if recall(self.host, _MEMORY).get("reexec") and self.host.is_running_system:
            found[_REEXEC] = "pending"
        return found

    def desired(self, wanted: Sequence[str]) -> dict[str, Any]:
        """What should be, in the same keys."""
        should: dict[str, Any] = {}
        if not wanted:
            return should
        places = [f"jvm:{path}" for path in self.stores.paths]
        for key in [*places, *(f"bundle:{path}" for path in self.bundles), "node-ca"]:
            _note(should, key, set(wanted))
        for dialect in self.dialects:
            for key, value in dialect.settings(self.want).items():
                should[f"{dialect.name}:{key}"] = value
        return should

    def apply(self, changes: list[Change], wanted: Sequence[asn1.Certificate], log: Log) -> None:
        """Make the changes that are ours; the certificates are the ones that were checked."""
        keys = {change.key for change in changes}
        # The hook of the OS store has run: what it did is not done again.
        for path in self.stores.paths:
            if f"jvm:{path}" in keys:
                with log.step("change a JVM's key store", path=path):
                    self.stores.make(path, wanted)
        for path in self.bundles:
            if f"bundle:{path}" in keys:
                with log.step("change a bundle", path=path):
                    bundles.make(self.host, path, wanted)
        if "node-ca" in keys and wanted:
            with log.step("write our authorities", path=CA_FILE):
                self.host.write(CA_FILE, b"".join(pem.encode(one) for one in wanted))
        tools = {key.partition(":")[0] for key in keys}
        for dialect in self.dialects:
            if dialect.name in tools:
                with log.step(f"write {dialect.name}", path=dialect.path):
                    self._write(dialect, bool(wanted))
        if not wanted:
            self._forget_file()
        self._reexec(log)

    def remove(self) -> None:
        """Take all of it back."""
        for dialect in self.dialects:
            self._write(dialect, False)
        for path in self.stores.paths:
            self.stores.make(path, [])
        for path in self.bundles:
            if bundles.ours(self.host, path):
                bundles.make(self.host, path, [])
        self._forget_file()
        self._reexec(None)

    def verify(self, wanted: Iterable[str]) -> list[Problem]:
        """Stores and bundles that do not trust what they should: read back, not remembered."""
        missing = set(wanted)
        remedy = "apply again; a package update may have replaced it"
        problems = [
            Problem(f"the key store {path} does not trust the proxy's CA", remedy)
            for path in self.stores.paths
            if missing - self.stores.trusted(path)
        ]
        return problems + [
            Problem(f"the bundle {path} does not have the proxy's CA", remedy)
            for path in self.bundles
            if missing - bundles.trusted(self.host, path)
        ]

    def _forget_file(self) -> None:
        self.host.remove(CA_FILE)
        prune(self.host, CA_FILE)

    def _write(self, dialect: Dialect, wanted: bool) -> None:
        if isinstance(dialect, authorities.SystemdManager) and self.host.is_running_system:
            # Remembered before the file is written: a kill in between must not lose it.
            remember(self.host, _MEMORY, {"reexec": True})
        put(self.host, dialect, dialect.settings(self.want) if wanted else {}, secret=False)

    def _reexec(self, log: Optional[Log]) -> None:
        if not (self.host.is_running_system and recall(self.host, _MEMORY).get("reexec")):
            return
        if log is None:
            environment.reexec(self.host)
        else:
            with log.step("re-execute the system manager"):
                environment.reexec(self.host)
        remember(self.host, _MEMORY, {})


def _note(found: dict[str, Any], key: str, fingerprints: set[str]) -> None:
    if fingerprints:
        found[key] = ",".join(sorted(fingerprints))
