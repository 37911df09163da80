"""The DER reader agrees with cryptography on certificates, and refuses what is not DER."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.pki import Identity, make_ca
from installers import asn1
from installers.asn1 import DERError
from tests.unit.installers_driver import material


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@settings(max_examples=15)
@given(
    name=st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=16),
    serial=st.integers(1, 2**159 - 1),
    start=st.integers(-27000, -1),
    end=st.integers(1, 60000),
    ca=st.sampled_from([None, False, True]),
)
def test_reads_what_cryptography_wrote(
    key: rsa.RSAPrivateKey, name: str, serial: int, start: int, end: int, ca: bool | None
) -> None:
    made = material.certificate(key, name=name, serial=serial, days=(start, end), ca=ca)
    read = asn1.read_certificate(made.public_bytes(serialization.Encoding.DER))
    assert read.subject_cn == read.issuer_cn == name
    assert read.self_issued
    assert read.serial == serial
    assert read.not_before == made.not_valid_before_utc
    assert read.not_after == made.not_valid_after_utc
    assert (read.rsa_n, read.rsa_e) == (key.public_key().public_numbers().n, 65537)
    assert (read.key_type, read.key_bits) == ("rsa", 2048)
    assert read.is_ca is ca
    assert read.extended_key_usage == frozenset({asn1.EKU_CODE_SIGNING})
    assert read.signature_algorithm == "sha256WithRSAEncryption"
    assert read.tbs == made.tbs_certificate_bytes
    assert read.sha256 == made.fingerprint(made.signature_hash_algorithm).hex()  # type: ignore[arg-type]


def test_reads_a_ca_with_an_elliptic_key() -> None:
    ca = make_ca("Lab proxy CA")
    read = asn1.read_certificate(ca.der)
    assert (read.key_type, read.key_bits, read.ec_curve) == ("ec", 256, "secp256r1")
    assert read.rsa_n is None
    assert read.is_ca is True
    assert read.key_usage is not None
    assert "keyCertSign" in read.key_usage
    assert read.signature_algorithm == "ecdsa-with-SHA256"


def test_absent_extensions_are_none(key: rsa.RSAPrivateKey) -> None:
    made = material.certificate(key, purposes=None, ca=None)
    read = asn1.read_certificate(made.public_bytes(serialization.Encoding.DER))
    assert read.is_ca is None
    assert read.extended_key_usage is None
    assert read.key_usage is None


def test_knows_when_a_certificate_is_valid(ours: Identity) -> None:
    read = asn1.read_certificate(ours.der)
    now = dt.datetime.now(dt.UTC)
    assert not read.expired(now)
    assert read.expired(now + dt.timedelta(days=400))
    assert read.expired(now - dt.timedelta(days=400))


def test_reads_pem_bundles_and_one_certificate(ours: Identity, stranger: Identity) -> None:
    bundle = b"# ours\r\n" + ours.pem.replace(b"\n", b"\r\n") + b"\n" + stranger.pem
    assert [c.sha256 for c in asn1.read_pem(bundle)] == [ours.sha256, stranger.sha256]
    assert asn1.load_certificate(ours.der) == asn1.load_certificate(ours.pem)
    with pytest.raises(DERError, match="found 2"):
        asn1.load_certificate(bundle)
    with pytest.raises(DERError, match="found 0"):
        asn1.load_certificate(b"no certificate here")
    with pytest.raises(DERError, match="base64"):
        asn1.read_pem(b"-----BEGIN CERTIFICATE-----\n***\n-----END CERTIFICATE-----")


def test_private_keys_are_not_certificates(ours: Identity) -> None:
    assert asn1.read_pem(ours.key_pem) == []


@settings(max_examples=60)
@given(st.data())
def test_every_cut_is_refused(ours: Identity, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(ours.der) - 1))
    with pytest.raises(DERError):
        asn1.read_certificate(ours.der[:end])


@settings(max_examples=150)
@given(st.data())
def test_damage_never_raises_anything_else(ours: Identity, data: st.DataObject) -> None:
    damaged = bytearray(ours.der)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DERError):
        asn1.read_certificate(bytes(damaged))


@given(st.binary(max_size=64))
def test_random_bytes_never_raise_anything_else(data: bytes) -> None:
    with contextlib.suppress(DERError):
        asn1.read_certificate(data)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param("", id="nothing"),
        pytest.param("0481010a", id="a long length that fits the short form"),
        pytest.param("04820001aa", id="a length with a leading zero"),
        pytest.param("30800000", id="an indefinite length"),
        pytest.param("050000", id="bytes after the element"),
        pytest.param("1f8101", id="a tag above 30"),
        pytest.param("0405aa", id="a value that is cut off"),
    ],
)
def test_what_is_not_der(data: str) -> None:
    with pytest.raises(DERError):
        asn1.parse(bytes.fromhex(data))


@pytest.mark.parametrize("data", ["02020001", "0202ff80", "0200"])
def test_integers_in_their_shortest_form_only(data: str) -> None:
    with pytest.raises(DERError):
        asn1.parse(bytes.fromhex(data)).integer()


@given(st.integers(-(2**200), 2**200))
def test_integers(value: int) -> None:
    size = value.bit_length() // 8 + 1
    body = value.to_bytes(size, "big", signed=True)
    while len(body) > 1 and body[0] in (0, 255) and (body[0] ^ body[1]) < 128:
        body = body[1:]
    assert asn1.parse(bytes([2, len(body)]) + body).integer() == value


def test_purposes_by_oid() -> None:
    read = asn1.read_certificate(material.identity(purposes=[ExtendedKeyUsageOID.SERVER_AUTH]).der)
    assert read.extended_key_usage == frozenset({"1.3.6.1.5.5.7.3.1"})
