"""``audit-modules``: is every module below a directory signed once, by the right certificate?

What the kernel would tell only on the first boot, for files at rest: exactly one signature, by
exactly one of the given certificates, over exactly these bytes. A build that printed "signed" and
then ran ``strip`` has lost the signature without any program complaining; the record that the
driver installer leaves beside its modules tells this apart from a module that never was signed.

In an installed system's ``lib/modules`` the distribution's own modules are signed by its own key:
they are compared with the package database and counted apart. NVIDIA's modules and those that no
package owns are judged strictly, as everything in any other directory is.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import multiprocessing
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from installers import asn1, elf, modsig, owned
from installers.asn1 import Certificate, DERError
from installers.exits import Exit
from installers.modsig import SignatureError
from installers.owned import Owned

RECORD = "airlock-modules.json"  # {"modules": {"nvidia.ko": {"body_sha256": hex}}}

_REMEDY = {
    "unsigned": "sign it: the last step after strip and before compression",
    "stripped-after-sign": "sign again after strip: strip drops an appended signature",
    "doubly-signed": "sign the stripped module once: the kernel reads the last signature only",
    "foreign-signed": "sign with the certificate that the nodes trust",
    "tampered": "build and sign it anew: its bytes are not those that were signed",
    "unreadable": "look at the file: it cannot be judged",
    "changed": "reinstall its package: the file is not the one that the package brought",
}
# As Debian, Ubuntu and NVIDIA name them; nvidiafb and nvidia-wmi-ec-backlight are the kernel's own.
_NVIDIA = re.compile(
    r"nvidia([-_](current|tesla|\d+|uvm|modeset|drm|peermem|fs|vgpu|vfio))*\.ko(\.\w+)?"
)
# Below this many modules another process costs more than it saves.
_ALONE = 256
_CHUNK = 32


@dataclass(frozen=True)
class Finding:
    """One thing wrong with one module; ``kind`` is a key of the remedies."""

    path: str
    kind: str
    detail: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDY[self.kind]


def find_modules(directory: Path) -> list[Path]:
    """Every kernel module below a directory, compressed or not, sorted; links are not followed."""
    found = []
    for folder, _, names in os.walk(directory):
        paths = [Path(folder, name) for name in names if name.endswith(modsig.SUFFIXES)]
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    return sorted(found)


def is_nvidia(path: Path) -> bool:
    """Whether this is one of the GPU driver's modules, whoever packaged it."""
    return _NVIDIA.fullmatch(path.name) is not None


def audit_distribution(path: Path, system: Owned) -> list[Finding]:
    """Whether a package's module is still what the package brought."""
    try:
        same = system.unchanged(path)
    except OSError as wrong:
        return [Finding(str(path), "unreadable", str(wrong))]
    if same is None:
        return [Finding(str(path), "unreadable", "its package states no hash for it")]
    return [] if same else [Finding(str(path), "changed", "its package has another hash for it")]


def _audit_one(
    path: Path, certificates: Sequence[Certificate], system: Optional[Owned]
) -> tuple[str, list[Finding]]:
    """(class, findings): the class is ``strict`` or ``distribution``."""
    if system is not None and not is_nvidia(path) and system.owns(path):
        return "distribution", audit_distribution(path, system)
    return "strict", audit_module(path, certificates)


def audit_all(
    paths: Sequence[Path], certificates: Sequence[Certificate], system: Optional[Owned] = None
) -> list[tuple[str, list[Finding]]]:
    """(class, findings) of each module, in order; on every core when there are many."""
    one = functools.partial(_audit_one, certificates=certificates, system=system)
    cores = len(os.sched_getaffinity(0))
    if len(paths) < _ALONE or cores == 1:
        return [one(path) for path in paths]
    # fork: the node file is a zip archive, which a fresh interpreter would have to read again.
    with multiprocessing.get_context("fork").Pool(min(cores, 8)) as pool:
        return pool.map(one, paths, _CHUNK)


def audit_module(path: Path, certificates: Sequence[Certificate]) -> list[Finding]:
    """What is wrong with one module file; an empty list when nothing is."""

    def finding(kind: str, detail: str) -> Finding:
        return Finding(str(path), kind, detail)

    try:
        data = modsig.read_module(path)
        examined = modsig.examine(data, certificates)
        appended = len(examined.body) - elf.extent(examined.body)
    except modsig.Undecodable as wrong:
        return [finding("unreadable", str(wrong))]
    except (SignatureError, elf.ELFError) as wrong:
        return [finding("tampered", str(wrong))]
    except OSError as wrong:
        return [finding("unreadable", str(wrong))]
    if examined.signer is None:
        return [_without_signature(path, examined.body, appended)]
    found = []
    if examined.signatures > 1:
        found.append(finding("doubly-signed", f"{examined.signatures} signatures are appended"))
    if examined.certificate is None:
        who = f"issuer {examined.signer.issuer_cn!r}, serial {examined.signer.serial}"
        if examined.signer.ski is not None:
            who = f"key identifier {examined.signer.ski.hex()}"
        found.append(finding("foreign-signed", f"signed by {who}"))
    elif examined.digest_ok is None:
        kind = examined.certificate.key_type
        found.append(finding("unreadable", f"cannot verify with a key of type {kind}"))
    elif not examined.digest_ok:
        found.append(finding("tampered", "the signature does not fit the module's bytes"))
    return found


def _without_signature(path: Path, body: bytes, appended: int) -> Finding:
    """Why this module has no signature: never signed, cut off, or lost to ``strip``."""
    if appended > 0:
        return Finding(str(path), "tampered", f"{appended} bytes that are no signature follow it")
    recorded = _recorded_digest(path)
    if recorded is not None:
        same = recorded == hashlib.sha256(body).hexdigest()
        how = "its signature was cut off" if same else "it was rewritten after it was signed"
        return Finding(str(path), "stripped-after-sign", how)
    return Finding(str(path), "unsigned", "no signature is appended")


def _recorded_digest(path: Path) -> Optional[str]:
    """The sha256 of what was signed, from the installer's record beside the module."""
    name = path.name.split(".ko")[0] + ".ko"
    try:
        record = json.loads((path.parent / RECORD).read_bytes())
        return str(record["modules"][name]["body_sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def main(argv: Sequence[str]) -> int:
    """The verb ``audit-modules DIR --cert FILE [--cert FILE] [--json]``; returns an exit code."""
    parser = argparse.ArgumentParser(prog="audit-modules", description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path, metavar="DIR")
    parser.add_argument("--cert", type=Path, action="append", required=True, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    args = parser.parse_args(argv)
    try:
        certificates = [asn1.load_certificate(path.read_bytes()) for path in args.cert]
    except (OSError, DERError) as wrong:
        print(f"audit-modules: certificate: {wrong}", file=sys.stderr)
        return Exit.USAGE
    if not args.directory.is_dir():
        print(f"audit-modules: {args.directory} is not a directory", file=sys.stderr)
        return Exit.USAGE
    modules = find_modules(args.directory)
    judged = audit_all(modules, certificates, owned.system_of(args.directory))
    apart = sum(kind == "distribution" for kind, _ in judged)
    findings = [(kind, found) for kind, all_found in judged for found in all_found]
    code = _judge(len(modules), [found for _, found in findings])
    if args.json:
        rows = [
            dict(asdict(found), remedy=found.remedy, **{"class": kind}) for kind, found in findings
        ]
        counts = {"modules": len(modules), "distribution": apart}
        print(json.dumps({**counts, "findings": rows, "exit": int(code)}))
        return code
    for _, found in findings:
        print(f"{found.path}: {found.kind}: {found.detail}; {found.remedy}")
    also = f", {apart} of them the distribution's" if apart else ""
    print(f"{len(modules)} modules{also}, {len(findings)} findings")
    return code


def _judge(modules: int, findings: Sequence[Finding]) -> Exit:
    """PASS, FAIL, UNKNOWN when only unreadable files stand against it, NOTHING without modules."""
    if not modules:
        return Exit.NOTHING
    if any(found.kind != "unreadable" for found in findings):
        return Exit.FAIL
    return Exit.UNKNOWN if findings else Exit.PASS
