"""Kernel modules that are not the distribution's: every nvidia module, every one without an owner.

Which package owns a file is read from dpkg's lists (/var/lib/dpkg/info/*.list) or asked of rpm.
"""

# Thousands of files are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH116, PTH119, PTH123

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any, Optional

from installers import elf, modsig
from installers.asn1 import Certificate, DERError, load_certificate
from installers.collect import packages
from installers.collect.reader import Reader
from installers.collect.remember import Remembered

TREE = "/lib/modules"
DPKG_INFO = "/var/lib/dpkg/info"
# Packages that can own a module: reading all lists would cost more than the rest of the facts.
OWNERS = re.compile(r"^linux-|nvidia|modules|dkms|kmod|driver")
OWNED = re.compile(rb"^(?:/usr)?(/lib/modules/\S+\.ko(?:\.\w+)?)$", re.M)
# Where the driver installer leaves the certificate it signed with (installers.driver.CERTIFICATE,
# which is not imported: it brings the whole engine along, and the agent starts early in the boot).
CERTIFICATE = "/usr/lib/airlock/signing-cert.der"

Digests = dict[str, Any]


class Seen:
    """What a resident agent remembers of modules between two looks; see Remembered.

    90 MB of modules take seconds to hash in an emulated machine, and a kernel's tree has hundreds
    of folders and a thousand files that never change.
    """

    def __init__(self) -> None:
        self.folders: Remembered[tuple[list[str], list[str]]] = Remembered()
        self.lists: Remembered[frozenset[str]] = Remembered()
        self._digests: Remembered[Digests] = Remembered()

    def digests(self, path: str, certificates: list[Certificate]) -> Digests:
        """What the bytes of a module tell; raises OSError."""
        also = tuple(certificate.sha256 for certificate in certificates)
        return self._digests.get(path, lambda path: _examine(Path(path), certificates), also)


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
        **_hashes(data, len(examined.body)),
    }


def _hashes(data: bytes, body: int) -> dict[str, str]:
    """Of the file without compression, and of what was signed: one pass over the bytes."""
    view = memoryview(data)
    digest = hashlib.sha256(view[:body])
    unsigned = digest.hexdigest()
    digest.update(view[body:])
    return {"sha256": digest.hexdigest(), "body_sha256": unsigned}


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


def _read_list(path: str) -> frozenset[str]:
    """The modules that one of dpkg's lists names, without /usr."""
    with open(path, "rb") as file:
        return frozenset(name.decode("utf-8", "replace") for name in OWNED.findall(file.read()))


def _dpkg_owners(reader: Reader, paths: list[str], seen: Seen) -> dict[str, str]:
    """Which of these module paths a package owns, and which package."""
    owners: dict[str, str] = {}
    wanted = set(paths)
    folder = reader.path(DPKG_INFO)
    for name in reader.names(DPKG_INFO):
        if name.endswith(".list") and OWNERS.search(name):
            owned = seen.lists.get(f"{folder}/{name}", _read_list)
            if owned:
                package = name[: -len(".list")].split(":")[0]
                owners.update(dict.fromkeys(wanted & owned, package))
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


def _list(folder: str) -> tuple[list[str], list[str]]:
    """(folders, modules) in a folder, as names; links count as neither."""
    folders, found = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(modsig.SUFFIXES):
                if entry.is_file(follow_symlinks=False):
                    found.append(entry.name)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
    return folders, found


def walk(folder: str, seen: Seen, into: list[str]) -> None:
    """Adds the path of every module below a folder, as it lies on this machine."""
    try:
        folders, found = seen.folders.get(folder, _list)
    except OSError:
        return
    into += [f"{folder}/{name}" for name in found]
    for name in folders:
        walk(f"{folder}/{name}", seen, into)


def _chosen(reader: Reader, found: list[str], seen: Seen) -> dict[str, Optional[str]]:
    """Path on the node -> owner, of the modules that are reported."""
    kind = packages.manager(reader)
    nvidia = [path for path in found if os.path.basename(path).startswith("nvidia")]
    if kind == "dpkg":
        owners = _dpkg_owners(reader, found, seen)
        chosen = {*nvidia, *(path for path in found if path not in owners)}
    else:
        owners = _rpm_owners(reader, nvidia) if kind == "rpm" else {}
        chosen = set(nvidia)
        reader.miss("modules.unowned", "which modules no package owns is known with dpkg only")
    return {path: owners.get(path) for path in sorted(chosen)}


def collect(reader: Reader, certificates: list[Certificate], seen: Seen) -> list[dict[str, Any]]:
    """Every nvidia module and every module no package owns, of every installed kernel.

    ``digest_ok`` is None where the module is unsigned or its signer is none of ``certificates``.
    ``sha256`` is of the uncompressed file; ``hash`` names the digest the signature uses.
    """
    base = reader.path(TREE)
    walked: list[str] = []
    walk(base, seen, walked)
    found = []
    for path, owner in _chosen(reader, [TREE + path[len(base) :] for path in walked], seen).items():
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
            digests = seen.digests(real, certificates)
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
