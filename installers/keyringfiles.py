"""The files of keyrings and sources on a node: what is there, and how it becomes what is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from installers import aptentries, openpgp
from installers.host import Host
from installers.repositories import Repository, System

SOURCES = (("/etc/apt/sources.list.d", "airlock-*.sources"), ("/etc/yum.repos.d", "airlock-*.repo"))
RINGS = (("/usr/share/keyrings", "airlock-*.gpg"), ("/etc/pki/rpm-gpg", "RPM-GPG-KEY-airlock-*"))
MODE = 0o644
_ON, _OFF = "on", "off"


def ours(host: Host, places: Sequence[tuple[str, str]]) -> list[str]:
    """Files of ours that are there, by their names."""
    return [path for directory, pattern in places for path in host.glob(directory, pattern)]


def inspect(host: Host, wanted: list[Repository], system: System) -> dict[str, Any]:
    """``keyring:<path>``, ``source:<path>`` and ``rival:<file>:<repository>``: what is there."""
    found: dict[str, Any] = {}
    for path in sorted(ours(host, RINGS)):
        found[f"keyring:{path}"] = ring(host, path)
    texts = {repository.source: repository for repository in wanted}
    for path in sorted(ours(host, SOURCES)):
        text = host.read(path) or ""
        known = texts.get(path)
        found[f"source:{path}"] = dict(known.fields) if known and known.text == text else text
    names = {repository.name for repository in wanted}
    for path in _files(host, wanted):
        text = host.read(path) or ""
        for repository in wanted:
            if rivals(text, path, repository, system):
                found[f"rival:{path}:{repository.name}"] = _ON
        for name in aptentries.switched_off(text):
            if name not in names:
                found[f"rival:{path}:{name}"] = _OFF
    return found


def desired(wanted: list[Repository]) -> dict[str, Any]:
    """The same keys, as they should be; a rival has no place in it."""
    should: dict[str, Any] = {}
    for repository in wanted:
        should[f"keyring:{repository.keyring}"] = wanted_ring(repository)
        if repository.source is not None:
            should[f"source:{repository.source}"] = dict(repository.fields)
    return should


def ring(host: Host, path: str) -> dict[str, Any]:
    """``{"mode", "keys"}`` of a keyring file, ``keys`` a text when it is none; empty if absent."""
    data = host.read_bytes(path)
    if data is None:
        return {}
    mode = f"{host.path(path).stat().st_mode & 0o7777:04o}"
    try:
        keys = sorted(certificate.fingerprint for certificate in openpgp.read(data))
    except openpgp.OpenPGPError as error:
        return {"mode": mode, "keys": str(error)}
    return {"mode": mode, "keys": keys}


def wanted_ring(repository: Repository) -> dict[str, Any]:
    """What ``ring`` should say of a repository's keyring."""
    return {"mode": f"{MODE:04o}", "keys": repository.fingerprints}


def write_sources(host: Host, wanted: list[Repository], system: System) -> None:
    """Sources and rivals as wanted; at no moment does apt see two sources that contradict."""
    paths = {repository.source for repository in wanted}
    for path in ours(host, SOURCES):
        if path not in paths:
            host.remove(path)
    names = {repository.name for repository in wanted}
    for path in _files(host, wanted):
        old = host.read(path) or ""
        text = old
        for name in aptentries.switched_off(text):
            if name not in names:
                text = aptentries.switch_on(text, name)
        for repository in wanted:
            entries = rivals(text, path, repository, system)
            text = aptentries.switch_off(text, entries, repository.name)
        if text != old:
            host.write(path, text, mode=host.path(path).stat().st_mode & 0o7777)
    for repository in wanted:
        if repository.source is not None:
            host.write(repository.source, repository.text)


def remove_rings(host: Host, wanted: list[Repository]) -> None:
    """Keyrings that no source of ours names any more; after the sources are gone."""
    paths = {repository.keyring for repository in wanted}
    for path in ours(host, RINGS):
        if path not in paths:
            host.remove(path)


def rivals(text: str, path: str, repository: Repository, system: System) -> list[aptentries.Entry]:
    """Active entries of another file for this repository."""
    mine = places(repository, system)
    return aptentries.rivals(text, path, mine, system.values["arch"]) if mine else []


def mixed(host: Host, wanted: list[Repository], system: System) -> list[tuple[str, str]]:
    """``(file, repository)`` where one entry names a repository together with others."""
    return [
        (path, repository.name)
        for path in _files(host, wanted)
        for repository in wanted
        for entry in rivals(host.read(path) or "", path, repository, system)
        if not entry.places <= places(repository, system)
    ]


def places(repository: Repository, system: System) -> frozenset[tuple[str, str]]:
    """What an apt source of this repository is known by; empty for dnf's."""
    if repository.kind != "deb":
        return frozenset()
    fields = repository.fields
    return aptentries.places(fields["URIs"], fields["Suites"], system.values["arch"])


def _files(host: Host, wanted: list[Repository]) -> list[str]:
    mine = [*ours(host, SOURCES), *(repository.source or "" for repository in wanted)]
    return aptentries.files(host, mine)
