"""Keyrings and sources of package repositories, each bound to keys that are pinned beforehand.

For every repository of ``airlock-repositories``: all its keys are found and checked, and only then
anything is written. apt gets a plain OpenPGP file (never gpg's keybox) and a deb822 source with
``Signed-By``; dnf an armored file, the same keys in rpm's database, and a ``.repo``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from installers import armor, keypolicy, keyringfiles, keysource, openpgp, readback
from installers.config import Config
from installers.engine import Change, Contract, Installer, Problem, Refusal
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Log, recall, remember
from installers.repositories import EXTRA, Catalog, Repository, system_of

# Keys in there vouch for every repository; only a person knows which of them may go.
_OLD_RINGS = ("/etc/apt", "trusted.gpg"), ("/etc/apt/trusted.gpg.d", "*")
_DISTRIBUTIONS = ("debian-archive-", "ubuntu-keyring-", "raspbian-archive-")
_SOON = 60 * 86400


class Keyrings(Installer):
    """Settings ``keyring:``, ``source:`` and ``rival:`` with a path, ``rpm-key:`` with a key."""

    name = "keyrings"

    def __init__(self, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(config)
        self.catalog = Catalog(config.raw)
        self.clock = clock
        self._found: dict[str, keysource.Found] = {}

    def refuse(self, host: Host) -> list[Refusal]:
        system = system_of(host)
        refusals = []
        for name in self.catalog.wanted:
            if self.catalog.find(name, system) is None:
                refusals.append(
                    Refusal(
                        "keyrings.os",
                        f"no {name} repository is known for {system}",
                        f"there is one for {', '.join(self.catalog.systems(name))}; "
                        f"or define yours in {EXTRA}",
                    )
                )
        for path, name in keyringfiles.mixed(host, self._repositories(host), system):
            refusals.append(
                Refusal(
                    "keyrings.source",
                    f"{path} names {name} and others in one entry",
                    "give each an entry of its own, so that one can be switched off",
                )
            )
        return refusals

    def inspect(self, host: Host) -> dict[str, Any]:
        found = keyringfiles.inspect(host, self._repositories(host), system_of(host))
        if readback.has_rpm(host):
            for key in sorted({*self._rpm_keys(host), *self._imported(host)}):
                if readback.rpm_has(host, key):
                    found[f"rpm-key:{key}"] = "imported"
        return found

    def desired(self, host: Host) -> dict[str, Any]:
        should = keyringfiles.desired(self._repositories(host))
        if readback.has_rpm(host):
            should.update({f"rpm-key:{key}": "imported" for key in self._rpm_keys(host)})
        return should

    def contract(self, host: Host) -> Contract:
        contract = Contract()
        source = self._source(host)
        for repository in self._repositories(host):
            contract.keys += [f"{repository.name}: {key}" for key in repository.fingerprints]
            contract.disk = {"/usr/share/keyrings": 1 << 16, keysource.CACHE: 1 << 16}
            fine = not self._ring_problem(host, repository)
            for key in repository.keys:
                at_hand = source.cached(key.fingerprint)
                if fine or (at_hand is not None and not at_hand.why_not):
                    continue
                remote = [a for a in source.addresses(key) if a.startswith("https:")]
                contract.hosts += [urlsplit(address).netloc for address in remote]
                contract.bytes = (contract.bytes or 0) + keysource.LIMIT * len(remote)
            contract.notes += self._notes(host, repository)
        contract.hosts = list(dict.fromkeys(contract.hosts))
        if contract.keys:
            contract.notes += _trusted_for_all(host)
        return contract

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        repositories = self._repositories(host)
        touched = {change.key for change in changes}
        stale = [r for r in repositories if self._ring_problem(host, r)]
        if stale:
            with log.step("find the keys", repositories=[r.name for r in stale]):
                self._obtain(host, stale, log)
            with log.step("write the keyrings", paths=[r.keyring for r in stale]):
                for repository in stale:
                    self._write_ring(host, repository)
        with log.step("write the sources"):
            keyringfiles.write_sources(host, repositories, system_of(host))
            keyringfiles.remove_rings(host, repositories)
        if any(key.startswith("rpm-key:") for key in touched):
            with log.step("keep rpm's keys"):
                self._keep_rpm_keys(host, repositories)

    def verify(self, host: Host) -> list[Problem]:
        problems: list[Problem] = []
        repositories = self._repositories(host)
        for repository in repositories:
            problem = self._ring_problem(host, repository)
            if problem:
                remedy = f"ask {repository.title} for a renewed key; pin a new one in {EXTRA}"
                problems.append(Problem(f"{repository.keyring}: {problem}", remedy))
            else:
                problems += readback.gpg(host, repository.keyring, repository.fingerprints)
        taken = [
            (uri, repository.source)
            for repository in repositories
            if repository.kind == "deb" and repository.source is not None
            for uri in repository.fields["URIs"].split()
        ]
        return problems + (readback.apt(host, taken) if taken else [])

    def remove(self, host: Host) -> None:
        keyringfiles.write_sources(host, [], system_of(host))
        for key in self._imported(host):
            readback.rpm_forget(host, key)
        keyringfiles.remove_rings(host, [])
        keysource.forget(host)
        remember(host, self.name, {})

    def provenance(self, host: Host) -> dict[str, Any]:
        known: dict[str, Any] = {}
        for repository in self._repositories(host):
            keys = []
            for judgement in self._judgements(host, repository):
                found = self._found.get(judgement.fingerprint)
                keys.append(
                    {
                        "fingerprint": judgement.fingerprint,
                        "user_id": judgement.user_id,
                        "created": keypolicy.day(judgement.created),
                        "expires": keypolicy.day(judgement.expires),
                        "self_signature": judgement.hash,
                        "self_signature_checked": judgement.checked,
                        "found_at": found.source if found else None,
                    }
                )
            known[repository.name] = {"keyring": repository.keyring, "keys": keys}
        return {"repositories": known} if known else {}

    def _repositories(self, host: Host) -> list[Repository]:
        system = system_of(host)
        found = (self.catalog.find(name, system) for name in self.catalog.wanted)
        return [repository for repository in found if repository is not None]

    def _source(self, host: Host) -> keysource.KeySource:
        objection = partial(readback.objection, host, now=self.clock())
        return keysource.KeySource(host, self.catalog.keyservers, objection, self.clock())

    def _obtain(self, host: Host, repositories: list[Repository], log: Log) -> None:
        """All keys of all repositories, or an error before anything is written."""
        source = self._source(host)
        source.say = log
        for repository in repositories:
            found = [source.obtain(key) for key in repository.keys]
            against = [f"{one.judgement.fingerprint} {one.why_not}" for one in found if one.why_not]
            if len(against) == len(found):
                raise NodeError(
                    f"no key of it can be used: {'; '.join(against)}",
                    where=repository.name,
                    remedy=f"ask {repository.title} for a renewed key; pin a new one in {EXTRA}",
                )
            self._found.update({one.certificate.fingerprint: one for one in found})
        for one in self._found.values():
            source.keep(one)

    def _write_ring(self, host: Host, repository: Repository) -> None:
        found = [self._found[fingerprint] for fingerprint in repository.fingerprints]
        packets = [keypolicy.minimal(one.certificate) for one in found]
        # rpm reads one key from each armored block; apt wants all of them in one binary file.
        parts = [armor.armor(one) for one in packets] if repository.kind == "rpm" else packets
        host.write(repository.keyring, b"".join(parts), mode=keyringfiles.MODE)

    def _ring_problem(self, host: Host, repository: Repository) -> str:
        """Why the keyring is not what it must be, empty if it is."""
        if keyringfiles.ring(host, repository.keyring) != keyringfiles.wanted_ring(repository):
            return "does not hold exactly the pinned keys"
        against = [
            readback.objection(host, judgement, now=self.clock())
            for judgement in self._judgements(host, repository)
        ]
        return f"no key of it can be used: it {against[0]}" if all(against) else ""

    def _judgements(self, host: Host, repository: Repository) -> list[keypolicy.Judgement]:
        try:
            found = openpgp.read(host.read_bytes(repository.keyring) or b"")
        except openpgp.OpenPGPError:
            return []
        return [keypolicy.judge(certificate, self.clock()) for certificate in found]

    def _notes(self, host: Host, repository: Repository) -> list[str]:
        """What is known of keys that are on the node already."""
        notes = []
        for judgement in self._judgements(host, repository):
            key = f"{repository.name}: key {judgement.fingerprint}"
            against = readback.objection(host, judgement, now=self.clock())
            if against:
                notes.append(f"{key} {against}")
            elif judgement.expires is not None and judgement.expires < self.clock() + _SOON:
                notes.append(f"{key} expires on {keypolicy.day(judgement.expires)}")
            if judgement.weak:
                notes.append(
                    f"{key} is bound by {judgement.hash.upper()} alone: apt with sqv refuses it "
                    f"since {keypolicy.SHA1_REFUSED_SINCE}, rpm under RHEL 9's policy too"
                )
            if not judgement.checked:
                notes.append(f"{key}: only its users can check its own signatures")
        return notes

    def _rpm_keys(self, host: Host) -> list[str]:
        return [k for r in self._repositories(host) if r.kind == "rpm" for k in r.fingerprints]

    def _imported(self, host: Host) -> list[str]:
        """Keys that we put into rpm's database, and nobody else before us."""
        imported: list[str] = recall(host, self.name).get("imported", [])
        return imported

    def _keep_rpm_keys(self, host: Host, repositories: list[Repository]) -> None:
        wanted = self._rpm_keys(host)
        missing = [key for key in wanted if not readback.rpm_has(host, key)]
        # Remembered first: a kill between the two must not lose the way back.
        imported = sorted({*self._imported(host), *missing})
        remember(host, self.name, {"imported": imported})
        for repository in repositories:
            if repository.kind == "rpm" and set(missing) & set(repository.fingerprints):
                readback.rpm_import(host, repository.keyring)
        for key in imported:
            if key not in wanted:
                readback.rpm_forget(host, key)
        kept = [key for key in imported if key in wanted]
        remember(host, self.name, {"imported": kept} if kept else {})


def _trusted_for_all(host: Host) -> list[str]:
    """Keys that apt believes for any repository, which this installer reports and leaves alone."""
    notes = []
    for directory, pattern in _OLD_RINGS:
        for path in host.glob(directory, pattern):
            held = keyringfiles.ring(host, path).get("keys")
            if held and not path.rpartition("/")[2].startswith(_DISTRIBUTIONS):
                what = f"{len(held)} keys" if isinstance(held, list) else held
                notes.append(f"{path} ({what}) vouches for every repository: use Signed-By")
    return notes
