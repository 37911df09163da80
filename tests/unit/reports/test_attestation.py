"""What vouches for a report, made by us and read by others: securesystemslib and openssl."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from securesystemslib.dsse import Envelope as TheirEnvelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey

from fixtures.pki import Identity, make_signer
from harness.signers.file import FileKey
from reports.attestation import PAYLOAD_TYPE, image_of, open_envelope, pae, seal, statement
from reports.errors import ReportError
from reports.gate import judge
from reports.model import Provenance, Report, Subject
from reports.summary import build_report
from tests.unit.reports.sample import good_report, make_cell, make_run, mixed_report, refused_cell

SHA = "5e" * 32
OURS, STRANGER = make_signer("Ours"), make_signer("Stranger")


def payload_of(report: Report) -> bytes:
    images = [image for cell in report.cells if (image := image_of(cell))]
    return statement(report.run, judge(report), SHA, images)


def sealed(tmp_path: Path, payload: bytes, signer: Identity = OURS) -> bytes:
    key = tmp_path / "key.pem"
    key.touch(0o600)
    key.write_bytes(signer.key_and_cert())
    return seal(payload, FileKey(key).raw(pae(PAYLOAD_TYPE, payload)), signer.sha256)


def theirs(signer: Identity) -> SSlibKey:
    public = x509.load_der_x509_certificate(signer.der).public_key()
    return SSlibKey.from_crypto(public, keyid=signer.sha256, scheme="rsa-pkcs1v15-sha256")


def test_the_encoding_is_that_of_the_standard() -> None:
    # The example of the DSSE specification.
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    for kind, body in (("", b""), ("é", b"\x00\xff"), (PAYLOAD_TYPE, b"{}" * 999)):
        assert pae(kind, body) == TheirEnvelope(body, kind, {}).pae()


def test_securesystemslib_verifies_our_envelope(tmp_path: Path) -> None:
    envelope = TheirEnvelope.from_dict(json.loads(sealed(tmp_path, payload_of(good_report()))))
    assert list(envelope.verify([theirs(OURS)], 1)) == [OURS.sha256]
    with pytest.raises(VerificationError):
        envelope.verify([theirs(STRANGER)], 1)
    envelope.payload = envelope.payload.replace(b"PASSED", b"WARNED")
    with pytest.raises(VerificationError):
        envelope.verify([theirs(OURS)], 1)


def test_openssl_verifies_our_signature(tmp_path: Path) -> None:
    data = json.loads(sealed(tmp_path, payload_of(good_report())))
    (tmp_path / "signed").write_bytes(pae(data["payloadType"], base64.b64decode(data["payload"])))
    (tmp_path / "sig").write_bytes(base64.b64decode(data["signatures"][0]["sig"]))
    (tmp_path / "cert.pem").write_bytes(OURS.pem)
    key = subprocess.run(
        ["openssl", "x509", "-in", "cert.pem", "-noout", "-pubkey"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    (tmp_path / "key").write_bytes(key.stdout)
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", "-verify", "key", "-signature", "sig", "signed"],
        cwd=tmp_path, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "Verified OK")


def test_we_verify_an_envelope_of_securesystemslib() -> None:
    """Signed by cryptography's RSA, put together by securesystemslib."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    private: Any = load_pem_private_key(OURS.key_pem, None)
    envelope = TheirEnvelope(payload_of(good_report()), PAYLOAD_TYPE, {})
    envelope.sign(CryptoSigner(private, theirs(OURS)))
    data = json.dumps(envelope.to_dict()).encode()
    assert open_envelope(data, [OURS.der], "theirs").names(SHA)


def test_the_statement_is_an_in_toto_test_result() -> None:
    disk = Provenance(subject=Subject(disk_sha256="d1" * 32))
    cells = [make_cell(), make_cell("debian-13+proxy-auth+gpu", provenance=disk), refused_cell()]
    report = build_report(make_run(), cells)
    said = json.loads(payload_of(report))
    assert said["_type"] == "https://in-toto.io/Statement/v1"
    assert said["predicateType"] == "https://in-toto.io/attestation/test-result/v0.1"
    assert said["subject"] == [
        {
            "name": "report.json",
            "digest": {"sha256": SHA},
            "annotations": {"run": report.run.id, "finished": "2025-11-21T09:42:31+00:00"},
        },
        {"name": "debian-12", "digest": {"sha256": "a1" * 32}},
        {"name": "debian-13", "digest": {"sha256": "d1" * 32}},
    ]
    assert said["predicate"] == {
        "result": "PASSED",
        "configuration": [
            {"name": "matrix", "uri": "file:default.toml"},
            {"name": "airlock-node.pyz", "digest": {"sha256": report.run.pyz_sha256}},
        ],
        "passedTests": [cell.id for cell in cells],
        "warnedTests": [],
        "failedTests": [],
    }


def test_a_failed_report_is_attested_as_failed(tmp_path: Path) -> None:
    report = mixed_report()
    found = open_envelope(sealed(tmp_path, payload_of(report)), [STRANGER.der, OURS.der], "x")
    assert found.predicate.result == "FAILED"
    assert found.predicate.failed_tests == [
        "debian-13+proxy-intercept+gpu", "debian-12+proxy-auth+gpu", "debian-13+proxy-auth+gpu",
    ]  # fmt: skip


def test_every_byte_counts(tmp_path: Path) -> None:
    """One bit of the payload or of the signature turned over: refused."""
    data = msgspec.json.decode(sealed(tmp_path, payload_of(good_report())))
    payload = base64.b64decode(data["payload"])
    signature = base64.b64decode(data["signatures"][0]["sig"])
    for at in range(0, len(payload), 37):
        turned = bytearray(payload)
        turned[at] ^= 1
        with pytest.raises(ReportError, match="was edited"):
            open_envelope(seal(bytes(turned), signature, ""), [OURS.der], "x")
    for at in range(0, len(signature), 17):
        turned = bytearray(signature)
        turned[at] ^= 1
        with pytest.raises(ReportError, match="was edited"):
            open_envelope(seal(payload, bytes(turned), ""), [OURS.der], "x")


def test_the_type_of_the_payload_is_signed_too(tmp_path: Path) -> None:
    data = msgspec.json.decode(sealed(tmp_path, payload_of(good_report())))
    data["payloadType"] = "text/plain"
    with pytest.raises(ReportError, match="was edited"):
        open_envelope(msgspec.json.encode(data), [OURS.der], "x")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is not a DSSE envelope"),
        (b"[]", "is not a DSSE envelope"),
        (b'{"payload": "a", "payloadType": "b", "signatures": []}', "is not a DSSE envelope"),
        (b'{"payload": "", "payloadType": "b", "signatures": []}', "not signed by a key"),
        (b'{"payload": "%", "payloadType": "b", "signatures": []}', "is not a DSSE envelope"),
        (b" " * (17 << 20), "the limit is"),
    ],
)
def test_what_is_no_envelope(data: bytes, says: str) -> None:
    with pytest.raises(ReportError, match=says):
        open_envelope(data, [OURS.der], "x")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"predicateType": "https://slsa.dev/provenance/v1"}, "not a test result"),
        ({"_type": "https://in-toto.io/Statement/v0.1"}, "not a test result"),
        ({"predicate": {"result": 3}}, "holds no test result"),
    ],
)
def test_another_statement_of_a_trusted_key(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    said = json.loads(payload_of(good_report())) | change
    with pytest.raises(ReportError, match=says):
        open_envelope(sealed(tmp_path, json.dumps(said).encode()), [OURS.der], "x")
