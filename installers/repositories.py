"""Which package repositories a node wants, and what is pinned for each: data, made to fit the node.

``data/repositories.json`` ships the known ones. ``airlock-repositories-extra`` adds others in the
same shape, so that a site's own mirror, or a vendor's new key, needs no new release of ours.
"""

from __future__ import annotations

import difflib
import json
import platform
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import urlsplit

from installers.compat import load_data
from installers.errors import ConfigError, NodeError
from installers.host import Host

KEY, EXTRA, KEYSERVERS = "airlock-repositories", "airlock-repositories-extra", "airlock-keyservers"
SHAPE = "docs/keyrings.md shows the shape"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")
_FINGERPRINT = re.compile(r"[0-9A-F]{40}|[0-9A-F]{64}")
_PLACEHOLDER = re.compile(r"\{(\w*)\}")
# One word of a deb822 field or an ini value; blanks separate words where several are allowed.
_WORD = re.compile(r"[\x21-\x7e]+")
# machine → what Debian, rpm and NVIDIA call it
_MACHINES = {"x86_64": ("amd64", "x86_64", "x86_64"), "aarch64": ("arm64", "aarch64", "sbsa")}
_PLACEHOLDERS = {
    *("id", "version", "major", "compact", "codename"),
    *("arch", "rpm_arch", "nvidia_arch"),
}
_DEB, _RPM = ("uris", "suites", "components"), ("baseurl", "gpgcheck", "repo_gpgcheck")


@dataclass(frozen=True)
class System:
    """What a repository's text depends on, as its placeholders call it."""

    values: Mapping[str, str]

    @property
    def id(self) -> str:
        """``debian``, ``rocky``, ...; empty when the node does not say."""
        return self.values["id"]

    @property
    def version(self) -> str:
        """``12``, ``22.04``, ``9.4``."""
        return self.values["version"]

    def __str__(self) -> str:
        return f"{self.id} {self.version}".strip() or "this system"


@dataclass(frozen=True)
class PinnedKey:
    """A key by the fingerprint of its primary key, and the addresses that serve it, in order."""

    fingerprint: str
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Repository:
    """One repository on this node. ``kind``: ``deb``, ``rpm``, or ``keys`` (keyring alone).

    ``keyring`` and ``source`` (None for ``keys``) are node paths; ``fields`` what the source says.
    """

    name: str
    title: str
    kind: str
    keys: tuple[PinnedKey, ...]
    keyring: str
    source: Optional[str]
    fields: Mapping[str, str]

    @property
    def fingerprints(self) -> list[str]:
        """Of all its keys, sorted."""
        return sorted(key.fingerprint for key in self.keys)

    @property
    def text(self) -> str:
        """The content of ``source``: deb822 for apt, an ini section for dnf."""
        if self.kind == "rpm":
            lines = [f"{key}={value}" for key, value in self.fields.items()]
            return "\n".join([f"[airlock-{self.name}]", *lines, ""])
        return "".join(f"{key}: {value}\n" for key, value in self.fields.items())


def system_of(host: Host) -> System:
    """The node's names for the placeholders."""
    release = host.os_release()
    version = release.get("VERSION_ID", "")
    deb, rpm, nvidia = _MACHINES.get(platform.machine(), (platform.machine(),) * 3)
    return System(
        {
            "id": release.get("ID", ""),
            "version": version,
            "major": version.partition(".")[0],
            "compact": version.replace(".", ""),
            "codename": release.get("VERSION_CODENAME", ""),
            "arch": deb,
            "rpm_arch": rpm,
            "nvidia_arch": nvidia,
        }
    )


class Catalog:
    """All repositories that may be named, those of the metadata included. Raises ConfigError."""

    def __init__(self, raw: Mapping[str, str]) -> None:
        shipped = load_data("repositories.json")
        self._entries: dict[str, Any] = {**shipped["repositories"], **_extra(raw.get(EXTRA))}
        self.keyservers = _keyservers(raw.get(KEYSERVERS)) or list(shipped["keyservers"])
        for name, entry in self._entries.items():
            _check(name, entry)
        self.wanted = self._names(raw.get(KEY) or "")

    def find(self, name: str, system: System) -> Optional[Repository]:
        """The repository as this node needs it, None when there is none for its system."""
        entry = self._entries[name]
        for variant in entry["variants"]:
            versions = variant.get("versions")
            version_fits = versions is None or {system.version, system.values["major"]} & set(
                versions
            )
            if system.id in variant["os"] and version_fits:
                return _repository(name, entry["title"], variant, system)
        return None

    def systems(self, name: str) -> list[str]:
        """Where there is one, for people: ``debian 12``, ``rocky``."""
        return [
            " ".join([system, *([version] if version else [])])
            for variant in self._entries[name]["variants"]
            for system in variant["os"]
            for version in variant.get("versions", [""])
        ]

    def _names(self, text: str) -> list[str]:
        names = [name for name in re.split(r"[,\s]+", text) if name]
        for name in names:
            if name not in self._entries:
                near = difflib.get_close_matches(name, self._entries, 1)
                raise ConfigError(
                    f"no repository {name!r} is known",
                    where=KEY,
                    remedy=f"did you mean {near[0]}?"
                    if near
                    else f"choose from {', '.join(self._entries)}, or define it in {EXTRA}",
                )
        return list(dict.fromkeys(names))


def _repository(name: str, title: str, variant: Mapping[str, Any], system: System) -> Repository:
    def value(match: re.Match[str]) -> str:
        if not system.values[match[1]]:
            raise NodeError(
                f"this system does not say its {match[1]}, which {name} needs",
                where="/etc/os-release",
                remedy="use a release of the system, not an unfinished one",
            )
        return system.values[match[1]]

    def fill(text: str) -> str:
        return _PLACEHOLDER.sub(value, text)

    keys = tuple(
        PinnedKey(key["fingerprint"], tuple(fill(url) for url in key.get("urls", ())))
        for key in variant["keys"]
    )
    if "rpm" in variant:
        given = variant["rpm"]
        keyring = f"/etc/pki/rpm-gpg/RPM-GPG-KEY-airlock-{name}"
        fields = {
            "name": title,
            "baseurl": fill(given["baseurl"]),
            "enabled": "1",
            "gpgcheck": str(int(given.get("gpgcheck", True))),
            "repo_gpgcheck": str(int(given.get("repo_gpgcheck", False))),
            "gpgkey": f"file://{keyring}",
            # dnf would pass over a repository whose signature is wrong, and say so in a line.
            "skip_if_unavailable": "0",
        }
        source = f"/etc/yum.repos.d/airlock-{name}.repo"
        return Repository(name, title, "rpm", keys, keyring, source, fields)
    keyring = f"/usr/share/keyrings/airlock-{name}.gpg"
    if "deb" not in variant:
        return Repository(name, title, "keys", keys, keyring, None, {})
    given = variant["deb"]
    fields = {"Types": "deb", "URIs": fill(given["uris"]), "Suites": fill(given["suites"])}
    if given.get("components"):
        fields["Components"] = fill(given["components"])
    fields["Architectures"] = system.values["arch"]
    fields["Signed-By"] = keyring
    source = f"/etc/apt/sources.list.d/airlock-{name}.sources"
    return Repository(name, title, "deb", keys, keyring, source, fields)


def _extra(text: Optional[str]) -> dict[str, Any]:
    if not text or not text.strip():
        return {}
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"is not JSON: {error}", where=EXTRA, remedy=SHAPE) from None
    if not isinstance(entries, dict):
        raise ConfigError("is not a JSON object", where=EXTRA, remedy=SHAPE)
    return entries


def _keyservers(text: Optional[str]) -> list[str]:
    urls = [url for url in re.split(r"[,\s]+", text or "") if url]
    for url in urls:
        _check_address(url, KEYSERVERS, ("https",), ["fingerprint"])
        if "{fingerprint}" not in url:
            raise ConfigError(f"{url} has no {{fingerprint}} in it", where=KEYSERVERS, remedy=SHAPE)
    return urls


def _check(name: str, entry: Any) -> None:
    """Everything that could make a file of ours mean something else, or trust too much."""
    where = f"{EXTRA} {name}" if isinstance(name, str) else EXTRA
    if not _NAME.fullmatch(name):
        raise ConfigError("is not a name: a-z, 0-9 and -", where=where, remedy=SHAPE)
    entry = _object(entry, where, {"title", "variants"}, {"title", "variants"})
    _text(entry["title"], where)
    variants = entry["variants"]
    if not isinstance(variants, list) or not variants:
        raise ConfigError("variants is not a list", where=where, remedy=SHAPE)
    for variant in variants:
        allowed = {"os", "versions", "keys", "deb", "rpm"}
        variant = _object(variant, where, allowed, {"os", "keys"})
        for field in ("os", "versions"):
            _texts(variant.get(field, ["any"]), f"{where} {field}")
        _check_keys(variant["keys"], where)
        if "deb" in variant and "rpm" in variant:
            raise ConfigError("is either deb or rpm", where=where, remedy=SHAPE)
        if "deb" in variant:
            deb = _object(variant["deb"], where, set(_DEB), {"uris", "suites"})
            for value in deb.values():
                _text(value, where, known=True)
            for uri in deb["uris"].split():
                _check_address(uri, where, ("http", "https", "file"))
        if "rpm" in variant:
            _check_rpm(_object(variant["rpm"], where, set(_RPM), {"baseurl"}), where)


def _check_rpm(rpm: dict[str, Any], where: str) -> None:
    checks = [rpm.get("gpgcheck", True), rpm.get("repo_gpgcheck", False)]
    if not all(isinstance(check, bool) for check in checks):
        raise ConfigError("gpgcheck and repo_gpgcheck are true or false", where=where, remedy=SHAPE)
    if not any(checks):
        raise ConfigError("nothing would be verified: set gpgcheck or repo_gpgcheck", where=where)
    _text(rpm["baseurl"], where, known=True)
    for address in rpm["baseurl"].split():
        _check_address(address, where, ("http", "https", "file"))


def _check_keys(keys: Any, where: str) -> None:
    if not isinstance(keys, list) or not keys:
        raise ConfigError("keys is not a list of pinned keys", where=where, remedy=SHAPE)
    for key in keys:
        key = _object(key, where, {"fingerprint", "urls", "cited"}, {"fingerprint"})
        fingerprint = key["fingerprint"]
        if not isinstance(fingerprint, str) or not _FINGERPRINT.fullmatch(fingerprint):
            raise ConfigError(
                f"{fingerprint!r} is not a fingerprint",
                where=where,
                remedy="write all 40 (or 64) upper-case hex digits; a short key id can be forged",
            )
        _texts(key.get("urls", ["-"]) or ["-"], f"{where} urls")
        for url in key.get("urls", []):
            _check_address(url, where, ("https", "file"))


def _check_address(
    url: str, where: str, schemes: tuple[str, ...], more: Collection[str] = ()
) -> None:
    _text(url, where)
    unknown = set(_PLACEHOLDER.findall(url)) - _PLACEHOLDERS - set(more)
    try:
        parts = urlsplit(url)
        named = bool(parts.path) if parts.scheme == "file" else bool(parts.hostname)
    except ValueError:
        raise ConfigError(f"{url} is not an address", where=where) from None
    if unknown:
        raise ConfigError(f"{url} has an unknown {{{sorted(unknown)[0]}}}", where=where)
    if parts.scheme not in schemes:
        raise ConfigError(f"{url} does not begin with {' or '.join(schemes)}", where=where)
    if not named or "@" in parts.netloc:
        raise ConfigError(f"{url} is not an address without credentials", where=where)


def _object(value: Any, where: str, allowed: set[str], needed: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("is not a JSON object", where=where, remedy=SHAPE)
    for key in [*sorted(needed - set(value)), *sorted(set(value) - allowed)]:
        what = "lacks" if key in needed else "does not know"
        raise ConfigError(f"{what} {key!r}", where=where, remedy=SHAPE)
    return value


def _texts(values: Any, where: str) -> None:
    if not isinstance(values, list) or not values:
        raise ConfigError("is not a list of texts", where=where, remedy=SHAPE)
    for value in values:
        _text(value, where)


def _text(value: Any, where: str, *, known: bool = False) -> None:
    """A text of one line; with ``known`` its placeholders must be ours."""
    if not isinstance(value, str) or not all(_WORD.fullmatch(word) for word in value.split(" ")):
        raise ConfigError(f"{value!r} is not a text of one line", where=where, remedy=SHAPE)
    unknown = set(_PLACEHOLDER.findall(value)) - _PLACEHOLDERS if known else set()
    if unknown:
        raise ConfigError(f"{value!r} has an unknown {{{sorted(unknown)[0]}}}", where=where)
