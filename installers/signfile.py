"""``sign-modules``: sign module files in place, compressed or not, as the driver's own are signed.

For what the driver installer did not build: a module of somebody else's, or one that DKMS has just
compiled for a later kernel. The file is replaced as a whole and read back, or left as it was.
"""

from __future__ import annotations

import argparse
import gzip
import lzma
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from installers import audit, elf, metadata, modsig
from installers.asn1 import Certificate
from installers.config import METADATA_SERVER, from_attributes
from installers.errors import NodeError
from installers.exits import Exit
from installers.host import Host
from installers.modsig import SignatureError
from installers.signed import Signing, attach

Sign = Callable[[str, bytes], tuple[bytes, str]]
# What the kernel's own build does (scripts/Makefile.modinst): its decoder knows CRC32 only.
_XZ = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 1 << 20}]


def compress(data: bytes, suffix: str) -> bytes:
    """A module's bytes as a file with this suffix (.ko, .xz, .gz, .zst) holds them.

    Raises modsig.Undecodable when there is no ``zstd`` program, SignatureError when it fails.
    """
    if suffix == ".xz":
        return lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=_XZ)
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    if suffix != ".zst":
        return data
    zstd = shutil.which("zstd")
    if zstd is None:
        raise modsig.Undecodable("needs the program zstd; install the package zstd")
    packed = subprocess.run([zstd, "-qc"], input=data, capture_output=True, check=False)
    if packed.returncode:
        raise SignatureError(f"zstd: {packed.stderr.decode(errors='replace').strip()}")
    return packed.stdout


def sign_file(path: Path, sign: Sign, certificate: Certificate) -> bool:
    """Sign one file; False when it carries this certificate's good signature already.

    ``sign``: (name, bytes) to (CMS, fingerprint), as a signer's own. Raises NodeError: not a
    module, signed by somebody else, no program to unpack it with.
    """
    where = str(path)
    try:
        data = modsig.read_module(path)
        seen = modsig.examine(data, [certificate])
        if seen.signatures == 1 and seen.digest_ok:
            return False
        if seen.signatures:
            raise NodeError(
                "is signed already, and not once by this signer",
                where=where,
                remedy="build it anew: a second signature would hide the first",
            )
        if elf.extent(data) != len(data):
            raise NodeError("has bytes behind its end that are no signature", where=where)
        cms, _ = sign(path.name.split(".ko")[0] + ".ko", data)
        packed = compress(attach(path.name, data, cms, certificate), path.suffix)
    except (OSError, SignatureError, elf.ELFError) as error:
        raise NodeError(str(error), where=where) from error
    Host(path.parent.resolve()).write(f"/{path.name}", packed, mode=path.stat().st_mode & 0o777)
    problems = audit.audit_module(path, [certificate])
    if problems:
        raise NodeError(f"was signed, and reads back as {problems[0].kind}", where=where)
    return True


def main(argv: Sequence[str]) -> int:
    """The verb ``sign-modules FILE... [--kernel RELEASE] [--metadata FILE.json|URL]``.

    The signer is the node's own, as the metadata names it. Prints a line a file.
    """
    parser = argparse.ArgumentParser(prog="sign-modules", description=__doc__.split("\n")[0])
    parser.add_argument("file", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--kernel", default="", metavar="RELEASE", help="what they are built for")
    parser.add_argument("--metadata", default=METADATA_SERVER, metavar="FILE.json|URL")
    args = parser.parse_args(argv)
    config = from_attributes(
        metadata.load(args.metadata, patience=metadata.PATIENCE), args.metadata
    )
    signing = Signing(config)
    refusals = signing.problems(Host("/"), args.kernel)
    if refusals or not signing.signs:
        why = refusals[0].reason if refusals else "this node installs its modules unsigned"
        print(f"sign-modules: {why}", file=sys.stderr)
        return Exit.FAIL
    with signing.open() as signer:
        for path in args.file:
            changed = sign_file(path, signer.sign, signing.certificate())
            print(f"{path}: {'signed' if changed else 'was signed already'}")
    return Exit.PASS
