"""Nodes as directories: made by the real installers' code, broken by the real sabotages' shell.

A sabotage's shell runs here as it stands, but that absolute paths begin at the tree and what
needs a machine (mount, systemctl) does the nearest to it, or nothing.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fixtures.pki import Identity
from fixtures.signer import sign
from harness.checks import outcome_of
from harness.node import Node
from installers import modsig
from installers.config import from_attributes
from installers.dialects.base import wanted
from installers.proxy import dialects

RELEASE = os.uname().release
MODULES = f"lib/modules/{RELEASE}/updates/airlock"
DB = "sys/firmware/efi/efivars/db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"
_ABSOLUTE = re.compile(
    r"(?<![\w./$)}])/(etc|lib|root|run|sys|var|proc|usr|opt|home|srv|boot|tmp)(?=[/\s]|$)"
)
# A file that a sabotage mounts over another one is copied over it here.
_INSTEAD = {
    "mount": 'test "$1" = --bind && cp -rT "$2" "$3"',
    "systemctl": ":",
}
X509 = bytes.fromhex("a159c0a5e494a74a87b5ab155c2bf072")


def settings(root: Path, proxy: str) -> None:
    """Every file of every dialect, as the proxy installer writes it on a running node."""
    config = from_attributes({"http-proxy": proxy, "no-proxy": "origin-direct.test"})
    want = wanted(config.proxy, credentials=True)
    for dialect in dialects():
        path = root / dialect.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dialect.write("", dialect.settings(want)))


def module(root: Path, name: str, signer: Identity) -> None:
    """A signed kernel module with nothing in it but what it says about itself."""
    path = root / MODULES / f"{name}.ko"
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = (f"name={name.replace('-', '_')}", f"vermagic={RELEASE} SMP ", "version=1")
    body = _elf("\0".join(fields).encode() + b"\0", b"\x90" * 65536)
    path.write_bytes(modsig.attach(body, sign(signer, body)))


def _elf(modinfo: bytes, text: bytes) -> bytes:
    """An ELF64 file with .text and .modinfo, by elf(5)."""
    names = b"\0.text\0.modinfo\0.shstrtab\0"
    parts, rows, at = [], [(0, 0, 0, 0)], 64
    sections = ((b".text", 1, text), (b".modinfo", 1, modinfo), (b".shstrtab", 3, names))
    for name, kind, data in sections:
        parts.append(data)
        rows.append((names.index(name), kind, at, len(data)))
        at += len(data)
    ident = b"\x7fELF\x02\x01\x01" + bytes(9)
    counts = (64, 0, 0, 64, len(rows), len(rows) - 1)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 1, 62, 1, 0, 0, at, 0, *counts)
    table = b"".join(
        struct.pack("<IIQQQQIIQQ", name, kind, 0, 0, offset, size, 0, 0, 1, 0)
        for name, kind, offset, size in rows
    )
    return header + b"".join(parts) + table


def signature_database(root: Path, certificates: list[Identity]) -> None:
    """The firmware's db, one list for each certificate, as efivarfs shows it."""
    lists = b""
    for certificate in certificates:
        size = 16 + len(certificate.der)
        lists += X509 + struct.pack("<III", 28 + size, 0, size) + bytes(16) + certificate.der
    path = root / DB
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x27\0\0\0" + lists)
    (root / "run").mkdir(exist_ok=True)


def sabotage(root: Path, apply: str) -> None:
    """Run a sabotage's shell on the tree."""
    script = _ABSOLUTE.sub(rf"{root}/\1", apply)
    idle = "".join(f"{name}() {{ {instead}; }}\n" for name, instead in _INSTEAD.items())
    done = subprocess.run(
        ["/bin/sh", "-c", idle + script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, script + done.stderr


def outcome(check: Callable[..., None], node: Node) -> tuple[str, str]:
    """How a check ends on a node, and what it says."""
    try:
        check(node)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        said: Any = getattr(error, "msg", None) or error
        return outcome_of(error), str(said)
    return "pass", ""
