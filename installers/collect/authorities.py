"""Whom programs trust besides the OS store: JVMs, conda, certifi, and what tools are told instead.

By fingerprint: a file that is named is worth what is in it. What a tool's own file says is read by
the translator that writes it (installers.dialects.authorities).
"""

# Hundreds of links are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH110, PTH115

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from typing import Any, Optional

from installers import asn1, bundles, keystore, pem
from installers.collect.certificates import ders, fingerprints
from installers.collect.reader import Reader
from installers.dialects import authorities
from installers.errors import NodeError
from installers.host import Host

# update-ca-certificates(8) takes over names that end in .crt, and no others.
ANCHORS = "/usr/local/share/ca-certificates"
TAKEN = ".crt"
DISTRIBUTION = "/usr/share/ca-certificates"
HASHED = "/etc/ssl/certs"
_LINK = re.compile(r"[0-9a-f]{8}\.\d+")
# Below each of these a folder is a Java runtime, or holds one. installers.jvm walks whole disks.
_JVMS = ("/usr/lib/jvm", "/usr/java", "/usr/local", "/opt", "/srv")
_IN_JVM = ("lib/security/cacerts", "jre/lib/security/cacerts")
_JAVA_STORES = ("/etc/ssl/certs/java/cacerts", "/etc/pki/java/cacerts")
#: File -> what in it switches verification off. curl's is judged by a request that must fail.
_OFF = {
    **dict.fromkeys(
        ("/etc/gitconfig", "/root/.gitconfig", "/root/.config/git/config"),
        r"^\s*sslverify\s*=\s*(?:false|no|off|0)\b",
    ),
    **dict.fromkeys(
        ("/etc/pip.conf", "/root/.pip/pip.conf", "/root/.config/pip/pip.conf"),
        r"^\s*trusted-host\s*=\s*\S",
    ),
    **dict.fromkeys(
        ("/etc/wgetrc", "/usr/local/etc/wgetrc", "/root/.wgetrc"),
        r"^\s*check_certificate\s*=\s*(?:off|no|quiet)\b",
    ),
    **dict.fromkeys(
        ("/usr/local/etc/npmrc", "/usr/etc/npmrc", "/etc/npmrc", "/root/.npmrc"),
        r"^\s*strict-ssl\s*=\s*false\b",
    ),
    **dict.fromkeys(
        ("/etc/environment", "/etc/airlock/proxy.env", "/etc/default/docker"),
        r"^\s*(?:export\s+)?(?:NODE_TLS_REJECT_UNAUTHORIZED=.?0|PYTHONHTTPSVERIFY=.?0"
        r"|GIT_SSL_NO_VERIFY=.?\w|CONDA_SSL_VERIFY=.?(?:false|no|0))",
    ),
}
#: Folder -> ending of its files, and what in one of those switches verification off.
_OFF_BELOW = {
    "/etc/apt/apt.conf.d": ("", r"Verify-(?:Peer|Host)\s+\"?(?:false|0|no)\b"),
    "/etc/conda/condarc.d": (".yml", r"^\s*ssl_verify\s*:\s*(?:false|no|off)\b"),
    "/etc/profile.d": (".sh", _OFF["/etc/environment"]),
}
_OFF_BY_TOOL = {"gcloud": r"^\s*disable_ssl_validation\s*=\s*true\b"}


def collect(reader: Reader, bundle: list[str]) -> dict[str, Any]:
    """``bundle``: fingerprints of the OS store. See the parts for what each fact is."""
    host = Host(reader.root)
    anchors = _anchors(reader, set(bundle))
    known = {one for anchor in anchors for one in anchor["fingerprints"]}
    settings = _settings(host)
    return {
        "anchors": anchors,
        "links": _links(reader, known),
        "private": _private(reader, bundle),
        "stores": _stores(reader, host),
        "settings": settings,
        "files": _named(reader, settings),
        "unverified": sorted({*_unverified(reader), *_gcloud_unverified(reader, settings)}),
    }


def _anchors(reader: Reader, bundle: set[str]) -> list[dict[str, Any]]:
    """Files of certificates that an administrator added: ``path``, their ``fingerprints``, whether
    the system's tool looks at such a name (``read``), and whether all are in the store (``taken``).
    """
    found = []
    for name in reader.names(ANCHORS):
        held = fingerprints(reader.data(f"{ANCHORS}/{name}") or b"")
        if held:
            path = f"{ANCHORS}/{name}"
            taken = set(held) <= bundle
            read = name.endswith(TAKEN)
            found.append({"path": path, "fingerprints": held, "read": read, "taken": taken})
    return found


def _links(reader: Reader, known: set[str]) -> dict[str, Any]:
    """``hashed``: fingerprint -> names of links by which OpenSSL finds it in a folder; of anchors
    only. ``dangling``: links that lead nowhere.
    """
    folder = reader.path(HASHED)
    hashed: dict[str, list[str]] = {one: [] for one in sorted(known)}
    dangling = []
    for name in reader.names(HASHED):
        if not _LINK.fullmatch(name):
            continue
        if not os.path.exists(reader.path(f"{HASHED}/{name}")):
            dangling.append(name)
            continue
        # A link by hash leads to a link by name, and that one to the certificate. The
        # distribution's own are not asked for: a hundred files need not be read.
        second = f"{folder}/{_readlink(f'{folder}/{name}')}"
        if not _readlink(second).startswith(DISTRIBUTION):
            for one in fingerprints(reader.data(f"{HASHED}/{name}") or b""):
                if one in hashed:
                    hashed[one].append(name)
    return {"hashed": hashed, "dangling": dangling}


def _readlink(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _private(reader: Reader, bundle: list[str]) -> Optional[list[dict[str, Any]]]:
    """Certificates of the store that no distribution brought: ``sha256``, ``name``, ``ends`` (Unix
    seconds), and ``why`` it is none that should be trusted (its time aside), or empty.

    None where the distribution's own are not kept as files.
    """
    theirs: set[str] = set()
    for folder in (DISTRIBUTION, *(f"{DISTRIBUTION}/{n}" for n in reader.names(DISTRIBUTION))):
        for name in reader.names(folder):
            if name.endswith(TAKEN):
                theirs.update(fingerprints(reader.data(f"{folder}/{name}") or b""))
    if not theirs:
        reader.miss("trust.private", f"{DISTRIBUTION} holds no certificate")
        return None
    wanted = {one for one in bundle if one not in theirs}
    if not wanted:
        return []
    found = []
    for der in ders(_bundle(reader)):
        sha256 = hashlib.sha256(der).hexdigest()
        if sha256 in wanted:
            wanted.remove(sha256)
            found.append({"sha256": sha256, **_described(der)})
    return found


def _bundle(reader: Reader) -> bytes:
    return reader.data(f"{HASHED}/ca-certificates.crt") or b""


def _described(der: bytes) -> dict[str, Any]:
    try:
        one = asn1.read_certificate(der)
    except asn1.DERError as error:
        return {"name": None, "ends": None, "why": f"is no certificate: {error}"}
    # Whether it is in its time is another question, and the clock's.
    why = pem.refusal(one, one.not_before)
    return {
        "name": pem.name(one),
        "ends": one.not_after.timestamp(),
        "why": why[0] if why else "",
    }


def _stores(reader: Reader, host: Host) -> list[dict[str, Any]]:
    """Files of certificates that programs bring along: ``path``, ``kind`` (java or bundle) and the
    ``fingerprints`` in it, None for a Java store that only its password opens.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in _java_stores(reader):
        data = reader.data(path)
        if data is not None:
            real = os.path.realpath(reader.path(path))
            held = keystore.certificates(data)
            prints = None if held is None else sorted(map(_sha256, held.values()))
            found.setdefault(real, {"path": path, "kind": "java", "fingerprints": prints})
    for path in bundles.find(host):
        prints = fingerprints(reader.data(path) or b"")
        found.setdefault(path, {"path": path, "kind": "bundle", "fingerprints": prints})
    return sorted(found.values(), key=lambda store: str(store["path"]))


def _sha256(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def _java_stores(reader: Reader) -> Iterable[str]:
    yield from _JAVA_STORES
    for top in _JVMS:
        for name in reader.names(top):
            yield from (f"{top}/{name}/{inside}" for inside in _IN_JVM)


def _settings(host: Host) -> dict[str, dict[str, str]]:
    """Tool -> setting -> the file that it is told to trust."""
    found = {}
    for dialect in authorities.dialects(host):
        try:
            said = dialect.read(host.read(dialect.path) or "")
        except NodeError:
            continue
        found[dialect.name.partition("-")[2]] = said
    return found


def _named(reader: Reader, settings: dict[str, dict[str, str]]) -> dict[str, Optional[list[str]]]:
    """Each file that a setting names -> fingerprints in it; None where it cannot be read."""
    paths = {path for said in settings.values() for path in said.values() if path[:1] == "/"}
    found: dict[str, Optional[list[str]]] = {}
    for path in sorted(paths):
        data = reader.data(path)
        found[path] = None if data is None else fingerprints(data)
    return found


def _unverified(reader: Reader) -> Iterable[str]:
    """``path: line`` of each setting that lets a program take any certificate."""
    for path, pattern in _OFF.items():
        yield from _hits(reader, path, pattern)
    for folder, (ending, pattern) in _OFF_BELOW.items():
        for name in reader.names(folder):
            if name.endswith(ending):
                yield from _hits(reader, f"{folder}/{name}", pattern)


def _gcloud_unverified(reader: Reader, settings: dict[str, dict[str, str]]) -> Iterable[str]:
    for name in settings:
        tool, _, root = name.partition(" ")
        if tool in _OFF_BY_TOOL:
            yield from _hits(reader, f"{root}/properties", _OFF_BY_TOOL[tool])


def _hits(reader: Reader, path: str, pattern: str) -> Iterable[str]:
    text = reader.text(path)
    if text is None:
        return
    for match in re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE):
        yield f"{path}: {match.group().strip()}"
