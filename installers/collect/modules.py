"""Kernel modules that are not the distribution's: every nvidia module, every one without an owner.

Which package owns a file is read from dpkg's lists (/var/lib/dpkg/info/*.list) or asked of rpm.
"""

# Thousands of files are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH116, PTH119

from __future__ import annotations

import hashlib
import os
import re
import threading
from pathlib import Path
from typing import Any, Optional

from installers import elf, modsig
from installers.asn1 import Certificate, DERError, load_certificate
from installers.collect import packages
from installers.collect.reader import Reader

TREE = "/lib/modules"
DPKG_INFO = "/var/lib/dpkg/info"
# Packages that can own a module: reading all lists would cost more than the rest of the facts.
OWNERS = re.compile(r"^linux-|nvidia|modules|dkms|kmod|driver")
OWNED = re.compile(rb"^(?:/usr)?(/lib/modules/\S+\.ko(?:\.\w+)?)$", re.M)
# Where the driver installer leaves the certificate it signed with (installers.driver.CERTIFICATE,
# which is not imported: it brings the whole engine along, and the agent starts early in the boot).
CERTIFICATE = "/usr/lib/airlock/signing-cert.der"

Digests = dict[str, Any]


class DigestCache:
    """Remembers what reading a module's bytes told, for as long as the file is the same one.

    90 MB of modules take seconds to hash in an emulated machine. The key holds everything that
    changes with the file (inode, size, mtime, ctime) and the certificates it was verified with,
    so that no value is ever older than the file.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Digests] = {}
        # Held while hashing: a second reader waits for the answer instead of working it out too.
        self._lock = threading.Lock()

    def get(self, path: str, certificates: list[Certificate]) -> Digests:
        """What ``_examine`` says of this file; raises OSError."""
        stat = os.stat(path)
        identity = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        key = (*identity, *(certificate.sha256 for certificate in certificates))
        with self._lock:
            if key not in self._known:
                self._known[key] = _examine(Path(path), certificates)
            return self._known[key]


def _examine(path: Path, certificates: list[Certificate]) -> Digests:
    """The parts of a module's entry that need its bytes; ``error`` where they cannot be read."""
    try:
        data = modsig.read_module(path)
        examined = modsig.examine(data, certificates)
        info = elf.modinfo(examined.body)
    except (modsig.SignatureError, elf.ELFError) as error:
        return {"error": str(error)}
    signer, certificate = examined.signer, examined.certificate
    return {
        "name": info.get("name", [path.name.split(".ko")[0]])[0],
        "vermagic": info.get("vermagic", [None])[0],
        "version": info.get("version", [None])[0],
        "signatures": examined.signatures,
        "signer": None
        if signer is None
        else {
            "issuer_cn": signer.issuer_cn,
            "serial": None if signer.serial is None else str(signer.serial),
            "key_id": None if signer.ski is None else signer.ski.hex(),
        },
        "cert_sha256": None if certificate is None else certificate.sha256,
        "digest_ok": examined.digest_ok,
        "hash": None if signer is None else signer.digest,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def installed_certificate(reader: Reader) -> Optional[Certificate]:
    """The signing certificate our driver installer left on the node, None where it left none."""
    data = reader.data(CERTIFICATE)
    if data is None:
        return None
    try:
        return load_certificate(data)
    except DERError as error:
        reader.miss("signing", f"{CERTIFICATE}: {error}")
        return None


def _dpkg_owners(reader: Reader) -> dict[str, str]:
    """Module path without /usr -> the package that owns it."""
    owners: dict[str, str] = {}
    for name in reader.names(DPKG_INFO):
        if not name.endswith(".list") or not OWNERS.search(name):
            continue
        package = name[: -len(".list")].split(":")[0]
        for owned in OWNED.findall(reader.data(f"{DPKG_INFO}/{name}") or b""):
            owners[owned.decode("utf-8", "replace")] = package
    return owners


def _rpm_owners(reader: Reader, paths: list[str]) -> dict[str, str]:
    """As ``_dpkg_owners``, of these paths only: rpm answers one line for each."""
    if not paths:
        return {}
    argv = ["rpm", "--root", reader.root, "-qf", "--qf", "%{NAME}\n", *paths]
    lines = (reader.command(argv, "modules.owner", timeout=30) or "").splitlines()
    # "file X is not owned by any package" is the line of a stranger.
    pairs = zip(paths, lines)  # noqa: B905 - strict needs Python 3.10
    return {path: line for path, line in pairs if " " not in line}


def _walk(folder: str, into: list[str]) -> None:
    """Paths of every module below a folder; links are not followed."""
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:
        return
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            _walk(entry.path, into)
        elif entry.name.endswith(modsig.SUFFIXES) and entry.is_file(follow_symlinks=False):
            into.append(entry.path)


def _chosen(reader: Reader, found: list[str]) -> dict[str, Optional[str]]:
    """Path on the node -> owner, of the modules that are reported."""
    kind = packages.manager(reader)
    nvidia = [path for path in found if os.path.basename(path).startswith("nvidia")]
    if kind == "dpkg":
        owners = _dpkg_owners(reader)
        chosen = [path for path in found if path in nvidia or path not in owners]
    else:
        owners = _rpm_owners(reader, nvidia) if kind == "rpm" else {}
        chosen = nvidia
        reader.miss("modules.unowned", "which modules no package owns is known with dpkg only")
    return {path: owners.get(path) for path in sorted(chosen)}


def collect(
    reader: Reader, certificates: list[Certificate], cache: DigestCache
) -> list[dict[str, Any]]:
    """Every nvidia module and every module no package owns, of every installed kernel.

    ``digest_ok`` is None where the module is unsigned or its signer is none of ``certificates``.
    ``sha256`` is of the uncompressed file; ``hash`` names the digest the signature uses.
    """
    base = reader.path(TREE)
    walked: list[str] = []
    _walk(base, walked)
    found = []
    for path, owner in _chosen(reader, [TREE + path[len(base) :] for path in walked]).items():
        real = base + path[len(TREE) :]
        name = os.path.basename(path)
        entry: dict[str, Any] = {
            "path": path,
            "kernel": path[len(TREE) + 1 :].split("/", 1)[0],
            "name": name.split(".ko")[0].replace("-", "_"),
            "vermagic": None,
            "version": None,
            "size": None,
            "compressed": name.split(".ko.", 1)[1] if ".ko." in name else None,
            "signatures": None,
            "signer": None,
            "cert_sha256": None,
            "digest_ok": None,
            "hash": None,
            "sha256": None,
            "owner": owner,
        }
        try:
            entry["size"] = os.stat(real).st_size
            digests = cache.get(real, certificates)
        except OSError as error:
            digests = {"error": str(error)}
        if "error" in digests:
            reader.miss(f"modules.{path}", digests["error"])
        else:
            entry.update(digests)
        found.append(entry)
    return found


def loaded(reader: Reader) -> list[str]:
    """Names in /proc/modules, sorted."""
    if not reader.need_live("loaded_modules"):
        return []
    text = reader.text("/proc/modules", "loaded_modules") or ""
    return sorted(line.split(" ", 1)[0] for line in text.splitlines())
