"""Signing NVIDIA's modules, and the audit of a distribution's number of modules."""

from __future__ import annotations

import lzma
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.record import Measurement, against, timed
from fixtures.pki import Authority
from fixtures.signer import SignerServer, sign
from installers import asn1, audit, modsig
from installers.signed import attach
from installers.signing import Signer
from tests.unit.installers_driver import material

# Stripped open modules of 550, rounded up, in KiB (nvidia, uvm, modeset, drm, peermem, fs).
_SIZES = (12_000, 2_200, 1_800, 180, 20, 400)
_MODULES = 4000
# The mean of Debian 12's 6.1 cloud kernel's modules, and of what they compress to.
_MEAN = 48 << 10
_ROUNDS = 3


def _module(size: int, seed: int) -> bytes:
    """An ELF file of about ``size`` bytes that compresses as code does (2.5 to 1)."""
    noise = os.urandom(size // 3)
    text = (noise + noise[: size // 3] + bytes(size // 3))[:size]
    return material.module({"name": f"m{seed}", "filler": text.hex()[:size]})


def bench_module_signing() -> Measurement:
    """Six modules of NVIDIA's sizes, through the socket, each read back: at most a second."""
    bodies = [_module(kib << 10, n) for n, kib in enumerate(_SIZES)]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        place = Path(folder)
        with SignerServer(Authority(place / "pki"), place / "sock") as server:

            def once() -> None:
                with Signer(str(server.path)) as signer:
                    certificate = signer.certificate()
                    for number, body in enumerate(bodies):
                        cms, _ = signer.sign(f"m{number}.ko", body)
                        attach("m.ko", body, cms, certificate)

            ours = [timed(once) for _ in range(_ROUNDS)]
    total = sum(len(body) for body in bodies) >> 20
    return against(
        "module_signing", ours, [1.0], "limit", "s", [f"6 modules, {total} MiB, sign and verify"]
    )


def _audit(suffix: str, limit: float) -> Measurement:
    """4,000 signed modules with this suffix, by the node's own verb."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        place = Path(folder)
        authority = Authority(place / "pki")
        (place / "modules").mkdir()
        made = []
        for seed in range(20):
            body = _module(_MEAN, seed)
            made.append(modsig.attach(body, sign(authority.module, body)))
        packed = [_pack(data, suffix) for data in made]
        for number in range(_MODULES):
            (place / f"modules/m{number}{suffix}").write_bytes(packed[number % len(packed)])
        certificate = asn1.read_certificate(authority.module.der)

        def once() -> None:
            judged = audit.audit_all(audit.find_modules(place / "modules"), [certificate])
            if len(judged) != _MODULES or any(found for _, found in judged):
                sys.exit("the audit is wrong")

        ours = [timed(once) for _ in range(_ROUNDS)]
    name = f"audit_{suffix.rpartition('.')[2]}"
    return against(name, ours, [limit], "limit", "s", [f"{_MODULES} modules of 48 KiB"])


def _pack(data: bytes, suffix: str) -> bytes:
    if suffix == ".ko.xz":
        return lzma.compress(data, check=lzma.CHECK_CRC32)
    if suffix == ".ko.zst":
        done = subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True)
        return done.stdout
    return data


def bench_audit() -> Measurement:
    """Uncompressed: at most 3 s."""
    return _audit(".ko", 3.0)


def bench_audit_xz() -> Measurement:
    """xz: at most 15 s."""
    return _audit(".ko.xz", 15.0)


def bench_audit_zst() -> Measurement:
    """zstd, by the node's program: at most 15 s."""
    return _audit(".ko.zst", 15.0)
