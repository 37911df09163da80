"""apt's sources of suites that mirrors have dropped, sent to the archive that has them.

Without ``airlock-archive-mirror`` nothing is written, and the plan names what should be. What has
moved is in :mod:`installers.archived`, how a file changes in :mod:`installers.archivetext`.
"""

from __future__ import annotations

from typing import Any, Optional
from urllib.parse import urlsplit

from installers import aptentries, aptsources, archived, archivetext, keyringfiles, readback
from installers.aptentries import Source
from installers.config import Config
from installers.engine import Change, Contract, Installer, Problem, Refusal
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Log


class Archives(Installer):
    """Settings ``archive:<file>:<suite>`` with the addresses that the suite is taken from."""

    name = "archives"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.mirror = archived.mirror(config.raw)
        archived.distribution("", config.raw)  # what is written wrongly is said on every system
        if self.mirror is not None and config.apt_https:
            # The trust installer would make it https, and each would undo the other's work.
            self.mirror = aptsources.secured(self.mirror)

    def refuse(self, host: Host) -> list[Refusal]:
        try:
            self._files(host)
        except NodeError as error:
            return [Refusal("archives.marks", f"{error.where}: {error.what}", error.remedy)]
        return []

    def inspect(self, host: Host) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path, text, wanted in self._files(host):
            named = self._followed(host, text, path)
            if self.mirror is not None and text != wanted:
                named += self._moved(host, text, path)
            here = _settings(path, named)
            if text != wanted and here == _settings(path, self._followed(host, wanted, path)):
                here[f"archive:{path}"] = "not as it was written"
            found.update(here)
        return found

    def desired(self, host: Host) -> dict[str, Any]:
        should: dict[str, Any] = {}
        for path, _, wanted in self._files(host):
            should.update(_settings(path, self._followed(host, wanted, path)))
        return should

    def contract(self, host: Host) -> Contract:
        contract = Contract()
        known = self._distribution(host)
        if known is None and self.mirror is not None:
            name = host.os_release().get("ID", "this system")
            contract.notes.append(f"{archived.MIRROR}: no archive of {name} is known")
        if known is None or self.refuse(host):
            return contract
        for path, text, wanted in self._files(host):
            bare = archivetext.restore(text, path)
            moved = self._moved(host, bare, path)
            if self._followed(host, wanted, path):
                # apt asks it whenever somebody installs anything.
                contract.hosts = [urlsplit(self.mirror or "").netloc]
                contract.disk = {"/etc/apt": 1 << 16}
            if self.mirror is None:
                contract.notes += [
                    f"{path}: {suite} is in no mirror any more; {archived.MIRROR} names an archive"
                    for suite in dict.fromkeys(suite for suite, _ in moved)
                ]
            contract.notes += [
                f"{path}: {suite} of {archivetext.without_credentials(uri)} is left as it is: "
                f"nothing says that it is {known.name}'s own"
                for source in aptentries.sources(bare, path)
                for suite in source.suites
                for uri in source.uris
                if suite in known.suites() and (suite, uri) not in moved
            ]
        return contract

    def apply(
        self,
        host: Host,
        changes: list[Change],  # noqa: ARG002 - a file is rewritten whole, or not
        log: Log,
    ) -> None:
        files = [(path, wanted) for path, text, wanted in self._files(host) if text != wanted]
        with log.step("rewrite the sources", paths=[path for path, _ in files]):
            for path, wanted in files:
                _write(host, path, wanted)

    def verify(self, host: Host) -> list[Problem]:
        taken = {
            (uri, path)
            for path, _, wanted in self._files(host)
            for _, uri in self._followed(host, wanted, path)
        }
        return readback.apt(host, sorted(taken)) if taken else []

    def remove(self, host: Host) -> None:
        for path, text, _ in self._files(host):
            bare = archivetext.restore(text, path)
            if text != bare:
                _write(host, path, bare)

    def _files(self, host: Host) -> list[tuple[str, str, str]]:
        """(path, text, what it should be) of every file with sources of others."""
        found = []
        known = self._distribution(host)
        for path in aptentries.files(host, keyringfiles.ours(host, keyringfiles.SOURCES)):
            text = host.read(path) or ""
            bare = archivetext.restore(text, path)
            wanted = bare
            if known is not None and self.mirror is not None:
                wanted = archivetext.rewrite(bare, path, self._where(known, self.mirror))
            found.append((path, text, wanted))
        return found

    def _distribution(self, host: Host) -> Optional[archived.Distribution]:
        return archived.distribution(host.os_release().get("ID", ""), self.config.raw)

    def _moved(self, host: Host, text: str, path: str) -> list[tuple[str, str]]:
        """Every (suite, URI) in a file that has moved and was not followed yet."""
        known = self._distribution(host)
        return [
            (suite, uri)
            for source in aptentries.sources(text, path)
            for suite in source.suites
            for uri in source.uris
            if known is not None and known.find(source, uri, suite) is not None
        ]

    def _followed(self, host: Host, text: str, path: str) -> list[tuple[str, str]]:
        """Every (suite, URI) that we send to the archive; suites that were split off stay away."""
        known = self._distribution(host)
        named = archivetext.ours(text, path)
        return [one for one in named if known is None or one[0] in known.suites()]

    @staticmethod
    def _where(known: archived.Distribution, mirror: str) -> archivetext.Where:
        def where(source: Source, uri: str, suite: str) -> Optional[str]:
            moved = known.find(source, uri, suite)
            if moved is None:
                return None
            return "" if moved.to is None else f"{mirror}/{moved.to}"

        return where


def _settings(path: str, named: list[tuple[str, str]]) -> dict[str, Any]:
    uris: dict[str, set[str]] = {}
    for suite, uri in named:
        uris.setdefault(suite, set()).add(archivetext.without_credentials(uri))
    return {f"archive:{path}:{suite}": " ".join(sorted(those)) for suite, those in uris.items()}


def _write(host: Host, path: str, text: str) -> None:
    host.write(path, text, mode=host.path(path).stat().st_mode & 0o7777)
