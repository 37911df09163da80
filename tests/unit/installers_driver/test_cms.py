"""Our own CMS and our own RSA, read back by OpenSSL and compared with another implementation."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from fixtures.pki import Identity
from installers import asn1, cms, modsig, rsakey
from tests.unit.installers_driver import material

BODY = material.module({"name": "nvidia"}) + b"x" * 100_000


def _key(who: Identity) -> rsa.RSAPrivateKey:
    assert isinstance(who.key, rsa.RSAPrivateKey)
    return who.key


@pytest.mark.parametrize("bits", [2048, 3072])
def test_the_signature_is_another_implementations(bits: int) -> None:
    who = material.identity(bits)
    ours = rsakey.load(who.key_pem)
    assert ours.sign(BODY) == _key(who).sign(BODY, padding.PKCS1v15(), hashes.SHA256())
    assert ours.belongs_to(asn1.read_certificate(who.der))


def test_both_formats_of_a_key(ours: Identity) -> None:
    old = _key(ours).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    assert rsakey.load(old) == rsakey.load(ours.key_pem)


@pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 0xFF00, 2**158])
def test_openssl_and_our_parser_accept_the_cms(tmp_path: Path, serial: int) -> None:
    who = material.identity(serial=serial, name="Lange Namen sind lang " * 2)
    certificate = asn1.read_certificate(who.der)
    made = cms.detached(certificate, rsakey.load(who.key_pem).sign(BODY))
    seen = modsig.examine(modsig.attach(BODY, made), [certificate])
    assert (seen.signatures, seen.digest_ok) == (1, True)
    (tmp_path / "cms").write_bytes(made)
    (tmp_path / "body").write_bytes(BODY)
    (tmp_path / "cert.pem").write_bytes(who.pem)
    argv = ["openssl", "cms", "-verify", "-binary", "-noverify", "-inform", "DER", "-in", "cms"]
    argv += ["-content", "body", "-certfile", "cert.pem", "-out", "/dev/null"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (tmp_path / "body").write_bytes(BODY + b"!")
    assert subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False).returncode != 0


def test_what_is_no_usable_key(ours: Identity, stranger: Identity) -> None:
    locked = _key(ours).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    bad = [
        (b"", "0 private keys"),
        (ours.key_pem + stranger.key_pem, "2 private keys"),
        (locked, "encrypted"),
        (material.ec_identity().key_pem, "not RSA"),
        (ours.key_pem.replace(b"\n-----END", b"!\n-----END"), "damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged"),
    ]
    for pem, why in bad:
        with pytest.raises(rsakey.BadKey, match=why) as caught:
            rsakey.load(pem)
        assert ours.key_pem.decode().splitlines()[3] not in str(caught.value)
    assert not rsakey.load(stranger.key_pem).belongs_to(asn1.read_certificate(ours.der))


def test_a_faulty_key_signs_nothing(ours: Identity) -> None:
    good = rsakey.load(ours.key_pem)
    faulty = rsakey.PrivateKey(good.n, good.e, good.d + 2, good.p, good.q)
    with pytest.raises(rsakey.BadKey, match="do not belong together"):
        faulty.sign(BODY)
    assert str(good.d) not in repr(good)
    assert str(good.p) not in repr(good)
