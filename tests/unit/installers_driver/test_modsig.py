"""Signatures are read and verified as openssl does it; damage is found, every time."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.pki import Identity
from installers import asn1, modsig
from installers.modsig import MAGIC, SignatureError
from tests.unit.installers_driver import material

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
# What must not end in the magic string, or it would be a signature.
bodies = st.binary(max_size=200).filter(lambda data: not data.endswith(MAGIC))


@given(bodies, st.lists(st.binary(min_size=1, max_size=40), max_size=4))
def test_split_finds_every_signature_the_last_first(body: bytes, signatures: list[bytes]) -> None:
    data = body
    for cms in signatures:
        # attach() refuses a second signature; scripts/sign-file does not.
        data += modsig.attach(b"", cms)
    parts = modsig.split(data)
    assert parts.body == body
    assert parts.signatures == signatures[::-1]


@given(bodies, st.binary(min_size=1, max_size=40))
def test_attach_is_the_inverse_and_refuses_a_second(body: bytes, cms: bytes) -> None:
    signed = modsig.attach(body, cms)
    assert modsig.split(signed) == modsig.Split(body, [cms])
    with pytest.raises(SignatureError, match="signed already"):
        modsig.attach(signed, cms)


@pytest.mark.parametrize(
    "data",
    [
        MAGIC,
        b"x" * 12 + MAGIC,
        bytes([0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1]) + MAGIC,  # PGP, of old
        b"module" + bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0]) + MAGIC,
        b"module" + bytes([0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 7]) + MAGIC,
        b"module" + bytes([0, 0, 2, 0, 0, 0, 0, 0, 255, 255, 255, 255]) + MAGIC,
    ],
)
def test_a_damaged_trailer_is_named(data: bytes) -> None:
    with pytest.raises(SignatureError, match="trailer"):
        modsig.split(data)


@pytest.mark.parametrize("digest", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
@pytest.mark.parametrize("attributes", [False, True])
def test_verifies_what_cryptography_signed(
    ours: Identity, stranger: Identity, digest: hashes.HashAlgorithm, attributes: bool
) -> None:
    options = material.DETACHED if attributes else material.KERNEL_STYLE
    signer = modsig.read_cms(material.sign(ours, b"module", options, digest))
    certificate = asn1.read_certificate(ours.der)
    assert signer.digest == digest.name
    assert (signer.attributes is not None) is attributes
    assert (signer.issuer_cn, signer.serial) == ("Ours", certificate.serial)
    assert signer.made_by(certificate)
    assert not signer.made_by(asn1.read_certificate(stranger.der))
    assert modsig.verify(b"module", signer, certificate)
    assert not modsig.verify(b"modulE", signer, certificate)
    assert not modsig.verify(b"module", signer, asn1.read_certificate(stranger.der))


@pytest.mark.parametrize("bits", [3072, 4096])
def test_key_sizes(bits: int) -> None:
    who = material.identity(bits)
    signer = modsig.read_cms(material.sign(who, b"module"))
    assert modsig.verify(b"module", signer, asn1.read_certificate(who.der))


@settings(max_examples=80)
@given(st.data())
def test_no_flipped_bit_goes_unseen(ours: Identity, data: st.DataObject) -> None:
    certificate = asn1.read_certificate(ours.der)
    signed = bytearray(
        modsig.attach(b"the module's bytes", material.sign(ours, b"the module's bytes"))
    )
    at = data.draw(st.integers(0, len(signed) - 1))
    signed[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        seen = modsig.examine(bytes(signed), [certificate])
    except SignatureError:
        return
    # What is not covered by the signature is the CMS around it: the same value in a different
    # wrapping is as good. It must still be the same module, by the same signer.
    assert seen.digest_ok is not True or seen.body == b"the module's bytes"


@settings(max_examples=100)
@given(st.data())
def test_a_damaged_cms_never_raises_anything_else(ours: Identity, data: st.DataObject) -> None:
    damaged = bytearray(material.sign(ours, b"module", material.DETACHED))
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(SignatureError):
        modsig.read_cms(bytes(damaged))


def test_content_inside_and_other_bytes_are_refused(ours: Identity) -> None:
    with pytest.raises(SignatureError, match="detached"):
        modsig.read_cms(material.sign(ours, b"module", material.KERNEL_STYLE[1:]))
    with pytest.raises(SignatureError, match="CMS"):
        modsig.read_cms(b"not DER at all")


def test_examine(ours: Identity, stranger: Identity) -> None:
    certificate = asn1.read_certificate(ours.der)
    body = material.module({"name": "nvidia"})
    unsigned = modsig.examine(body, [certificate])
    assert (unsigned.signatures, unsigned.signer, unsigned.digest_ok) == (0, None, None)
    good = modsig.examine(modsig.attach(body, material.sign(ours, body)), [certificate])
    assert (good.signatures, good.certificate, good.digest_ok) == (1, certificate, True)
    foreign = modsig.examine(modsig.attach(body, material.sign(stranger, body)), [certificate])
    assert (foreign.signatures, foreign.certificate, foreign.digest_ok) == (1, None, None)
    # Signed twice: the outer signature covers the inner one, and only it is looked at.
    once = modsig.attach(body, material.sign(stranger, body))
    twice = once + modsig.attach(b"", material.sign(ours, once))
    stacked = modsig.examine(twice, [certificate])
    assert (stacked.body, stacked.signatures, stacked.digest_ok) == (body, 2, True)


def test_keys_that_modules_are_not_signed_with() -> None:
    who = material.ec_identity()
    signer = modsig.read_cms(material.sign(who, b"module"))
    with pytest.raises(SignatureError, match="type ec"):
        modsig.verify(b"module", signer, asn1.read_certificate(who.der))


def test_compressed_modules(tmp_path: Path) -> None:
    body = material.module({"name": "nvidia"})
    for suffix, packed in (("", body), (".xz", lzma.compress(body)), (".gz", gzip.compress(body))):
        path = tmp_path / f"nvidia.ko{suffix}"
        path.write_bytes(packed)
        assert modsig.read_module(path) == body
        if suffix:
            path.write_bytes(packed[:-9])
            with pytest.raises(SignatureError, match="damaged"):
                modsig.read_module(path)


def test_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = material.module({"name": "nvidia"})
    path = tmp_path / "nvidia.ko"
    path.write_bytes(body)
    if shutil.which("zstd"):
        subprocess.run(["zstd", "-q", str(path)], check=True)
        assert modsig.read_module(tmp_path / "nvidia.ko.zst") == body
        (tmp_path / "nvidia.ko.zst").write_bytes(b"\x28\xb5\x2f\xfdnonsense")
        with pytest.raises(SignatureError, match="damaged"):
            modsig.read_module(tmp_path / "nvidia.ko.zst")
    (tmp_path / "nvidia.ko.zst").write_bytes(b"")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(modsig.Undecodable, match="install the package zstd"):
        modsig.read_module(tmp_path / "nvidia.ko.zst")


def _openssl(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["openssl", *arguments], cwd=directory, capture_output=True, text=True, check=False
    )


@needs_openssl
@pytest.mark.parametrize("options", [material.KERNEL_STYLE, material.DETACHED])
def test_openssl_agrees_on_what_we_attach(
    ours: Identity, tmp_path: Path, options: tuple[object, ...]
) -> None:
    body = material.module({"name": "nvidia"})
    signed = modsig.attach(body, material.sign(ours, body, options))  # type: ignore[arg-type]
    parts = modsig.split(signed)
    (tmp_path / "cms").write_bytes(parts.signatures[0])
    (tmp_path / "cert").write_bytes(ours.pem)
    check = ["cms", "-verify", "-binary", "-noverify", "-inform", "DER", "-in", "cms"]
    check += ["-certfile", "cert", "-content", "body", "-out", "out"]
    for content, accepted in ((parts.body, True), (parts.body[:-1], False)):
        (tmp_path / "body").write_bytes(content)
        assert (_openssl(tmp_path, *check).returncode == 0) is accepted


@needs_openssl
@pytest.mark.parametrize("extra", [["-noattr"], []])
@pytest.mark.parametrize("by_key", [["-keyid"], []])
def test_reads_what_openssl_signed(
    ours: Identity, tmp_path: Path, extra: list[str], by_key: list[str]
) -> None:
    (tmp_path / "key").write_bytes(ours.key_pem)
    (tmp_path / "cert").write_bytes(ours.pem)
    (tmp_path / "body").write_bytes(b"module")
    command = ["cms", "-sign", "-binary", "-nocerts", "-md", "sha256", "-outform", "DER"]
    command += [*extra, *by_key, "-signer", "cert", "-inkey", "key", "-in", "body", "-out", "cms"]
    made = _openssl(tmp_path, *command)
    assert made.returncode == 0, made.stderr
    signer = modsig.read_cms((tmp_path / "cms").read_bytes())
    certificate = asn1.read_certificate(ours.der)
    assert (signer.ski is not None) is bool(by_key)
    assert (signer.attributes is None) is bool(extra)
    assert signer.made_by(certificate)
    assert modsig.verify(b"module", signer, certificate)
    assert not modsig.verify(b"module.", signer, certificate)
