"""The key store of every JVM: our authorities in it, nothing of others changed.

A store is changed as a copy, and the copy takes its place at once. What it was before is kept, so
that taking ours out again gives the same bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Optional

from installers import asn1, jvm, keystore, pem
from installers.errors import CommandError, NodeError
from installers.host import RUN_DIR, Host, run_directory
from installers.journal import STATE_DIR

PREFIX = "airlock-"
# The well-known password of every cacerts; no secret.
_PASSWORD = "changeit"  # noqa: S105
_COPY = f"{RUN_DIR}/cacerts"
_ANCHOR = f"{RUN_DIR}/anchor.pem"
#: keytool lives for half a second: the optimising compiler takes as long again and never pays.
QUICK = (
    "-J-XX:+IgnoreUnrecognizedVMOptions",
    "-J-XX:TieredStopAtLevel=1",
)
# The hook of ca-certificates-java names its entries after the files of the OS store.
_OURS = re.compile(rf"(?:debian:)?{PREFIX}[0-9a-f]+(?:\.(?:pem|crt))?", re.IGNORECASE)


class Stores:
    """All key stores of a node, found once."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._tools: dict[str, Optional[str]] = {}
        # By the hash of the store: keytool takes a second.
        self._known: dict[str, dict[str, str]] = {}
        for runtime in jvm.find(host):
            known = self._tools.get(runtime.cacerts)
            self._tools[runtime.cacerts] = known or runtime.keytool

    @property
    def paths(self) -> list[str]:
        """Node paths of the stores, links resolved: two JVMs may share one."""
        return sorted(self._tools)

    def ours(self, path: str) -> dict[str, str]:
        """Alias → SHA-256 of the entries that we, or a hook on our behalf, brought."""
        return {
            alias: sha256 for alias, sha256 in self._read(path).items() if _OURS.fullmatch(alias)
        }

    def trusted(self, path: str) -> set[str]:
        """SHA-256 of everything that the store trusts."""
        return set(self._read(path).values())

    def make(self, path: str, wanted: Iterable[asn1.Certificate]) -> None:
        """Let the store trust exactly these of ours. Adds what is missing by fingerprint only.

        Raises NodeError when no keytool can do it.
        """
        certificates = {certificate.sha256: certificate for certificate in wanted}
        entries = self._read(path)
        extra = [a for a, sha256 in self.ours(path).items() if sha256 not in certificates]
        kept = {sha256 for alias, sha256 in entries.items() if alias not in extra}
        missing = [c for sha256, c in certificates.items() if sha256 not in kept]
        if not extra and not missing:
            return
        data = self.host.read_bytes(path) or b""
        backup = _backup(path)
        if not self.ours(path):
            self.host.write(backup, data, mode=0o600)
        mode = self.host.path(path).stat().st_mode & 0o7777
        self.host.write(path, self._edited(path, data, extra, missing), mode=mode)
        if not certificates:
            self._restore(path, mode)

    def without(self, path: str, data: bytes, alias: str) -> bytes:
        """The bytes of a store, which is at ``path`` or was, without one alias; NodeError."""
        entries = keystore.certificates(data)
        gone = entries is not None and alias not in entries
        return data if gone else self._edited(path, data, [alias], [])

    def _restore(self, path: str, mode: int) -> None:
        """The bytes of before, if nobody else has changed the store since."""
        before = self.host.read_bytes(_backup(path))
        if before is not None:
            known = keystore.certificates(before)
            if known is not None and _fingerprints(known) == self._read(path):
                self.host.write(path, before, mode=mode)
            self.host.remove(_backup(path))

    def _edited(
        self, path: str, data: bytes, extra: list[str], missing: list[asn1.Certificate]
    ) -> bytes:
        run_directory(self.host)
        self.host.write(_COPY, data, mode=0o600)
        try:
            for alias in extra:
                self._keytool(path, "-delete", "-alias", alias)
            for certificate in missing:
                self.host.write(_ANCHOR, pem.encode(certificate))
                alias = f"{PREFIX}{certificate.sha256[:16]}"
                self._keytool(path, "-importcert", "-noprompt", "-alias", alias, "-file", _ANCHOR)
            return self.host.read_bytes(_COPY) or b""
        finally:
            self.host.remove(_COPY)
            self.host.remove(_ANCHOR)

    def _read(self, path: str) -> dict[str, str]:
        """Alias → SHA-256 of a store; by keytool where its password is needed."""
        data = self.host.read_bytes(path) or b""
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self._known:
            found = keystore.certificates(data)
            self._known[digest] = (
                self._listed(path, data) if found is None else _fingerprints(found)
            )
        return self._known[digest]

    def _listed(self, path: str, data: bytes) -> dict[str, str]:
        run_directory(self.host)
        self.host.write(_COPY, data, mode=0o600)
        try:
            said = self._keytool(path, "-list", "-rfc")
        finally:
            self.host.remove(_COPY)
        entries: dict[str, str] = {}
        for part in re.split(r"^Alias name: ", said, flags=re.MULTILINE)[1:]:
            for sha256 in pem.fingerprints(part.encode()):
                entries[part.splitlines()[0].strip()] = sha256
        return entries

    def _keytool(self, path: str, *args: str) -> str:
        tool = self._tools.get(path) or self.host.find_program("keytool")
        if tool is None:
            raise NodeError(
                "no keytool on this node", where=path, remedy="install a JDK's or JRE's"
            )
        argv = [tool, *QUICK, "-J-Duser.language=en", *args]
        argv += ["-keystore", _COPY, "-storepass", _PASSWORD]
        try:
            return self.host.run(argv, timeout=120).out
        except CommandError as error:
            raise NodeError(
                f"keytool cannot change this key store: {error.what}",
                where=path,
                remedy="give the store its well-known password, or import the CA by hand",
            ) from None


def _fingerprints(entries: dict[str, bytes]) -> dict[str, str]:
    return {alias: hashlib.sha256(der).hexdigest() for alias, der in entries.items()}


def _backup(path: str) -> str:
    return f"{STATE_DIR}/jvm/{hashlib.sha256(path.encode()).hexdigest()[:16]}"
