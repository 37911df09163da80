"""Our reading of signatures against the kernel's own sign-file and kmod's modinfo, unpacked."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.daemons import library_path, unpack_debs
from fixtures.errors import FixtureError
from fixtures.pki import Identity
from harness.state import cache_dir
from installers import asn1, elf, modsig
from installers.modsig import SignatureError
from tests.unit.installers_driver import material

pytestmark = pytest.mark.lab

FIELDS = {"vermagic": "6.1.0-56-cloud-amd64 SMP ", "name": "nvidia", "depends": "drm"}


def _unpacked(package: str) -> Path:
    try:
        return unpack_debs([package], cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"{package} cannot be had here: {error}")


def _run(root: Path, *argv: str) -> str:
    environment = {**os.environ, "LD_LIBRARY_PATH": library_path(root)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _numbers(name: str) -> list[int]:
    """The numbers in a package's name."""
    return [int(number) for number in re.findall(r"\d+", name)]


@pytest.fixture(scope="module")
def sign_file() -> tuple[Path, Path]:
    """(root, sign-file) of the newest kernel build package that apt offers."""
    if not shutil.which("apt-cache"):
        pytest.skip("needs apt")
    names = subprocess.run(
        ["apt-cache", "pkgnames", "linux-kbuild-"], capture_output=True, text=True, check=True
    ).stdout.split()
    known = sorted(names, key=_numbers)
    if not known:
        pytest.skip("apt offers no linux-kbuild package")
    root = _unpacked(known[-1])
    return root, next(root.glob("usr/lib/linux-kbuild-*/scripts/sign-file"))


@pytest.fixture(scope="module")
def who() -> Identity:
    return material.identity(name="Kernel tools")


@pytest.fixture
def module(tmp_path: Path, who: Identity) -> Path:
    """An unsigned module, with key and certificate beside it."""
    (tmp_path / "key.pem").write_bytes(who.key_pem)
    (tmp_path / "cert.pem").write_bytes(who.pem)
    (tmp_path / "nvidia.ko").write_bytes(material.module(FIELDS))
    return tmp_path / "nvidia.ko"


@pytest.mark.parametrize("digest", ["sha256", "sha512"])
def test_what_sign_file_makes_is_read_and_verified(
    sign_file: tuple[Path, Path], module: Path, who: Identity, digest: str
) -> None:
    root, program = sign_file
    certificate = asn1.read_certificate(who.der)
    key, cert = str(module.parent / "key.pem"), str(module.parent / "cert.pem")
    _run(root, str(program), digest, key, cert, str(module))
    seen = modsig.examine(module.read_bytes(), [certificate])
    assert (seen.signatures, seen.certificate, seen.digest_ok) == (1, certificate, True)
    assert seen.signer is not None
    assert (seen.signer.digest, seen.signer.attributes) == (digest, None)
    assert seen.body == material.module(FIELDS)
    # It signs what is signed already without a word; we count both.
    _run(root, str(program), digest, key, cert, str(module))
    assert modsig.examine(module.read_bytes(), [certificate]).signatures == 2
    with pytest.raises(SignatureError):
        modsig.attach(module.read_bytes(), b"cms")


def test_our_signature_is_that_of_sign_file(
    sign_file: tuple[Path, Path], module: Path, who: Identity
) -> None:
    root, program = sign_file
    key, cert = str(module.parent / "key.pem"), str(module.parent / "cert.pem")
    _run(root, str(program), "sha256", key, cert, str(module))
    theirs = modsig.read_cms(modsig.split(module.read_bytes()).signatures[0])
    ours = modsig.read_cms(material.sign(who, material.module(FIELDS)))
    assert ours == theirs


def test_modinfo_agrees(module: Path, who: Identity) -> None:
    root = _unpacked("kmod")
    signed = modsig.attach(module.read_bytes(), material.sign(who, module.read_bytes()))
    module.write_bytes(signed)
    # kmod goes by the name it is called by.
    kmod = next(path for path in [*root.glob("bin/kmod"), *root.glob("usr/bin/kmod")])
    alias = module.parent / "modinfo"
    alias.symlink_to(kmod)
    for field, value in FIELDS.items():
        assert _run(root, str(alias), "-F", field, str(module)).rstrip("\n") == value
        assert elf.modinfo(signed)[field] == [value]
    assert _run(root, str(alias), "-F", "signer", str(module)).strip() == "Kernel tools"
    serial = _run(root, str(alias), "-F", "sig_key", str(module)).strip().replace(":", "")
    seen = modsig.examine(signed, []).signer
    assert seen is not None
    assert int(serial, 16) == seen.serial
