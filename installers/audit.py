"""``audit-modules``: is every module below a directory signed once, by the right certificate?

What the kernel would tell only on the first boot, for files at rest: exactly one signature, by
exactly one of the given certificates, over exactly these bytes. A build that printed "signed" and
then ran ``strip`` has lost the signature without any program complaining; the record that the
driver installer leaves beside its modules tells this apart from a module that never was signed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from installers import asn1, elf, modsig
from installers.asn1 import Certificate, DERError
from installers.exits import Exit
from installers.modsig import SignatureError

RECORD = "airlock-modules.json"  # {"modules": {"nvidia.ko": {"body_sha256": hex}}}

_REMEDY = {
    "unsigned": "sign it: the last step after strip and before compression",
    "stripped-after-sign": "sign again after strip: strip drops an appended signature",
    "doubly-signed": "sign the stripped module once: the kernel reads the last signature only",
    "foreign-signed": "sign with the certificate that the nodes trust",
    "tampered": "build and sign it anew: its bytes are not those that were signed",
    "unreadable": "look at the file: it cannot be judged",
}


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
    return sorted(
        path
        for path in directory.rglob("*")
        if path.name.endswith(modsig.SUFFIXES) and path.is_file() and not path.is_symlink()
    )


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
    findings = [found for path in modules for found in audit_module(path, certificates)]
    code = _judge(len(modules), findings)
    if args.json:
        rows = [dict(asdict(found), remedy=found.remedy) for found in findings]
        print(json.dumps({"modules": len(modules), "findings": rows, "exit": int(code)}))
        return code
    for found in findings:
        print(f"{found.path}: {found.kind}: {found.detail}; {found.remedy}")
    print(f"{len(modules)} modules, {len(findings)} findings")
    return code


def _judge(modules: int, findings: Sequence[Finding]) -> Exit:
    """PASS, FAIL, UNKNOWN when only unreadable files stand against it, NOTHING without modules."""
    if not modules:
        return Exit.NOTHING
    if any(found.kind != "unreadable" for found in findings):
        return Exit.FAIL
    return Exit.UNKNOWN if findings else Exit.PASS
