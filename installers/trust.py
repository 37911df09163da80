"""The proxy's CA in the operating system's trust store, checked before and read back after."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import urlsplit

from installers import aptsources, asn1, fetching, pem, pemsource, strict
from installers.config import Config
from installers.engine import Change, Contract, Installer, Problem, Refusal
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Log, recall, remember
from installers.trustparts import Parts

_PREFIX = "airlock-"


@dataclass(frozen=True)
class Store:
    """One family's store: where anchors go, what rebuilds it, the resulting bundle."""

    anchors: str
    command: tuple[str, ...]
    bundle: str
    package: str


DEBIAN = Store(
    "/usr/local/share/ca-certificates",
    # --fresh also drops the links of anchors that are gone.
    ("update-ca-certificates", "--fresh"),
    "/etc/ssl/certs/ca-certificates.crt",
    "ca-certificates",
)
REDHAT = Store(
    "/etc/pki/ca-trust/source/anchors",
    ("update-ca-trust", "extract"),
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "ca-certificates",
)


def store_of(host: Host) -> Optional[Store]:
    """The store of this node's family, None for a family we do not know."""
    release = host.os_release()
    family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if family & {"debian", "ubuntu"}:
        return DEBIAN
    if family & {"rhel", "fedora", "centos", "rocky", "almalinux"}:
        return REDHAT
    return None


class Trust(Installer):
    """Settings ``ca:<sha256>`` (the anchor's path) and ``apt-source:<file>`` (http or https).

    What programs have beside the system's store is in :mod:`installers.trustparts`.
    """

    name = "trust"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.source = pemsource.parse(config.pem_uri) if config.pem_uri else None
        self._content: Optional[bytes] = None
        self._parts: Optional[Parts] = None

    def refuse(self, host: Host) -> list[Refusal]:
        if self.source is None:
            return []
        if store_of(host) is None:
            release = host.os_release().get("PRETTY_NAME", "this system")
            return [
                Refusal(
                    "trust.os",
                    f"the trust store of {release} is not known",
                    "use Debian, Ubuntu or a member of the RHEL family",
                )
            ]
        if not self.source.is_remote:
            try:
                return self._too_lax(host)
            except NodeError as error:
                return [Refusal("trust.pem", f"{error.where}: {error.what}", error.remedy)]
        return []

    def _too_lax(self, host: Host) -> list[Refusal]:
        """Authorities that an interpreter of this node will not accept."""
        pythons = strict.pythons(host)
        return [
            Refusal(
                "trust.strict",
                f"{pem.name(one)}: {', '.join(strict.violations(one))}; {pythons[0]} refuses it",
                "make the CA anew with the extensions of RFC 5280",
            )
            for one in self._authorities(host)
            if pythons and strict.violations(one)
        ]

    def inspect(self, host: Host) -> dict[str, Any]:
        found: dict[str, Any] = {}
        store = store_of(host)
        if store is not None:
            bundle = pem.fingerprints(host.read_bytes(store.bundle) or b"")
            for path in host.glob(store.anchors, f"{_PREFIX}*.crt"):
                known = pem.fingerprints(host.read_bytes(path) or b"")
                sha256 = next(iter(known), path)
                trusted = len(known) == 1 and sha256 in bundle
                found[f"ca:{sha256}"] = path if trusted else f"{path}, not in the bundle"
            found.update(self._beside(host, store).inspect(self._wanted(host)))
        for path in self._source_files(host):
            plain = aptsources.plain_mirrors(host.read(path) or "", path)
            found[f"apt-source:{path}"] = "http" if plain else "https"
        return found

    def desired(self, host: Host) -> dict[str, Any]:
        should: dict[str, Any] = {}
        store = store_of(host)
        if self.source is not None and store is not None:
            for sha256 in self._wanted(host):
                should[f"ca:{sha256}"] = _anchor(store, sha256)
            should.update(self._beside(host, store).desired(self._wanted(host)))
        if self.config.apt_https:
            should.update({f"apt-source:{path}": "https" for path in self._source_files(host)})
        return should

    def contract(self, host: Host) -> Contract:
        contract = Contract()
        if self.source is not None:
            contract.disk = {"/etc/ssl": 1 << 20}
            if self.source.is_remote:
                contract.bytes = fetching.LIMIT
                contract.hosts = [urlsplit(pemsource.address(self.source, self.config)).netloc]
            store = store_of(host)
            if store is not None and host.find_program(store.command[0]) is None:
                contract.bytes = None
                contract.notes.append(f"{store.package} will be installed by the package manager")
            if not self.source.is_remote and not self.refuse(host):
                for certificate in self._authorities(host):
                    contract.notes += pem.notes(certificate)
        if self.config.apt_https:
            for path in self._source_files(host):
                if aptsources.left_alone(host.read(path) or "", path):
                    contract.notes.append(f"{path}: sources with a port or credentials stay http")
        return contract

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        store = store_of(host)
        if store is not None and any(change.key.startswith("ca:") for change in changes):
            self._ensure_program(host, store, log)
            self._write_anchors(host, store, log)
            with log.step("rebuild the store", bundle=store.bundle):
                self._rebuild(host, store)
        beside = [c for c in changes if not c.key.startswith(("ca:", "apt-source:"))]
        if store is not None and beside:
            self._beside(host, store).apply(beside, self._authorities(host), log)
        rewritten = [c for c in changes if c.key.startswith("apt-source:")]
        if rewritten:
            with log.step("rewrite the apt sources"):
                for change in rewritten:
                    self._rewrite(host, change)

    def verify(self, host: Host) -> list[Problem]:
        store = store_of(host)
        problems: list[Problem] = []
        if store is None:
            return problems
        for path in host.glob(store.anchors, f"{_PREFIX}*.crt"):
            try:
                pem.authorities(host.read_bytes(path) or b"", pem.utc_now())
            except NodeError as error:
                problems.append(Problem(f"{path}: {error.what}", error.remedy))
        return problems + self._beside(host, store).verify(self._wanted(host))

    def remove(self, host: Host) -> None:
        store = store_of(host)
        if store is not None:
            ours = host.glob(store.anchors, f"{_PREFIX}*.crt")
            for path in ours:
                host.remove(path)
            if ours:
                self._rebuild(host, store)
            # Behind the hooks, which may have left entries of ours in a JVM's store.
            self._beside(host, store).remove()
        for path in self._remembered_sources(host):
            self._rewrite(host, Change(f"apt-source:{path}", "https", None))
        remember(host, self.name, {})

    def provenance(self, host: Host) -> dict[str, Any]:
        store = store_of(host)
        if store is None:
            return {}
        return {
            "bundle": store.bundle,
            "authorities": sorted(k[3:] for k in self.inspect(host) if k.startswith("ca:")),
            "apt_sources": recall(host, self.name).get("apt", {}),
        }

    def _beside(self, host: Host, store: Store) -> Parts:
        if self._parts is None:
            self._parts = Parts(host, store.bundle)
        return self._parts

    def _authorities(self, host: Host) -> list[asn1.Certificate]:
        """Fetched once a run: what was checked is what is installed."""
        if self.source is None:
            return []
        if self._content is None:
            self._content = pemsource.read(self.source, host, self.config)
        return pem.authorities(self._content, pem.utc_now())

    def _wanted(self, host: Host) -> list[str]:
        """Fingerprints that should be trusted, without the network where that is possible."""
        memory = recall(host, self.name)
        known: list[str] = memory.get("fingerprints", [])
        if self.source is not None and self.source.is_remote and self._content is None:
            if self.source.pin is not None and memory.get("content") == self.source.pin:
                return known
            if host.offline:
                same = memory.get("location") == self.source.location
                return known if same and known else [f"to be read from {self.source.location}"]
        return [certificate.sha256 for certificate in self._authorities(host)]

    def _rebuild(self, host: Host, store: Store) -> None:
        host.run(store.command, timeout=300)
        host.sync(store.bundle)

    def _ensure_program(self, host: Host, store: Store, log: Log) -> None:
        if host.find_program(store.command[0]) is not None:
            return
        with log.step("install the trust store's program", package=store.package):
            if store is DEBIAN:
                host.apt("update", timeout=900)
                host.apt("install", "--no-install-recommends", store.package, timeout=900)
            else:
                host.run(["dnf", "-y", "-q", "install", store.package], timeout=900)
            host.sync("/usr")

    def _write_anchors(self, host: Host, store: Store, log: Log) -> None:
        wanted = {_anchor(store, c.sha256): c for c in self._authorities(host)}
        with log.step("write the anchors", certificates=sorted(wanted)):
            for path in host.glob(store.anchors, f"{_PREFIX}*.crt"):
                if path not in wanted:
                    host.remove(path)
            for path, certificate in wanted.items():
                host.write(path, pem.encode(certificate))
        memory = recall(host, self.name)
        memory.pop("fingerprints", None)
        if self.source is not None and self._content is not None:
            memory["location"] = self.source.location
            memory["content"] = hashlib.sha256(self._content).hexdigest()
            memory["fingerprints"] = [c.sha256 for c in wanted.values()]
        remember(host, self.name, memory)

    def _remembered_sources(self, host: Host) -> list[str]:
        return list(recall(host, self.name).get("apt", {}))

    def _source_files(self, host: Host) -> list[str]:
        """Files to look at: all of them, or (to go back) those that we rewrote."""
        return aptsources.files(host) if self.config.apt_https else self._remembered_sources(host)

    def _rewrite(self, host: Host, change: Change) -> None:
        path = change.key.partition(":")[2]
        text = host.read(path)
        memory = recall(host, self.name)
        rewritten: dict[str, list[str]] = memory.setdefault("apt", {})
        if text is not None:
            mode = host.path(path).stat().st_mode & 0o7777
            if change.after == "https":
                plain = aptsources.plain_mirrors(text, path)
                rewritten[path] = sorted({*rewritten.get(path, []), *plain})
                # Remembered first: a kill between the two must not lose the way back.
                remember(host, self.name, memory)
                host.write(path, aptsources.to_https(text, path), mode=mode)
                return
            host.write(path, aptsources.to_http(text, path, rewritten.get(path, [])), mode=mode)
        rewritten.pop(path, None)
        if not rewritten:
            memory.pop("apt")
        remember(host, self.name, memory)


def _anchor(store: Store, sha256: str) -> str:
    return f"{store.anchors}/{_PREFIX}{sha256[:16]}.crt"
