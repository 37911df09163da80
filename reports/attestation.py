"""What vouches for a report: an in-toto Test Result statement in a signed DSSE envelope.

Sources: in-toto Attestation Framework v1 (Statement), its predicate Test Result v0.1, and DSSE
v1.0.2 (envelope and pre-authentication encoding). Signatures are RSA, PKCS#1 v1.5 with SHA-256,
which every place that Airlock keeps keys in can make.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256

from reports.errors import ReportError
from reports.findings import Judgement
from reports.model import Cell, Run
from reports.read import REPORT_NAME

ATTESTATION_NAME = "attestation.json"
SIZE_LIMIT = 16 << 20
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://in-toto.io/attestation/test-result/v0.1"


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """A ResourceDescriptor: something by name and digest (algorithm -> lower-case hex)."""

    name: str = ""
    uri: str = ""
    digest: dict[str, str] = {}
    annotations: dict[str, Any] = {}


class Predicate(msgspec.Struct, frozen=True, rename="camel"):
    """The predicate. The tests are cells; ``result``: PASSED, WARNED (waived) or FAILED."""

    result: str
    configuration: list[Resource]
    passed_tests: list[str] = []
    warned_tests: list[str] = []
    failed_tests: list[str] = []


class Statement(msgspec.Struct, frozen=True):
    """Who the result is about: the report itself first, then the images."""

    type: str = msgspec.field(name="_type")
    subject: list[Resource]
    predicate_type: str = msgspec.field(name="predicateType")
    predicate: Predicate

    def names(self, sha256: str) -> bool:
        """Whether something with this digest is among the subjects."""
        return any(one.digest.get("sha256") == sha256 for one in self.subject)


class Signature(msgspec.Struct, frozen=True):
    """One signature of an envelope; ``keyid`` is a hint, here the certificate's SHA-256."""

    sig: str
    keyid: str = ""


class Envelope(msgspec.Struct, frozen=True, rename="camel"):
    """DSSE."""

    payload: str
    payload_type: str
    signatures: list[Signature]


def pae(kind: str, body: bytes) -> bytes:
    """The bytes that are signed: DSSE's pre-authentication encoding."""
    name = kind.encode()
    return b"DSSEv1 %d %s %d %s" % (len(name), name, len(body), body)


def statement(
    run: Run,
    judgement: Judgement,
    sha256: str,
    images: Iterable[Resource],
    policy: Resource | None = None,
) -> bytes:
    """The statement about a report, as JSON. ``sha256`` is the report file's."""
    finished = run.finished.isoformat() if run.finished else None
    report = Resource(REPORT_NAME, "", {"sha256": sha256}, {"run": run.id, "finished": finished})
    configuration = [Resource("matrix", f"file:{PurePath(run.matrix).name}")]
    if run.pyz_sha256:
        configuration.append(Resource("airlock-node.pyz", "", {"sha256": run.pyz_sha256}))
    if policy:
        configuration.append(policy)
    result = "FAILED"
    if judgement.verdict == "pass":
        result = "WARNED" if judgement.excused else "PASSED"
    marks: dict[str, list[str]] = {"fine": [], "excused": [], "fail": [], "error": []}
    for cell, mark in judgement.cells.items():
        marks[mark].append(cell)
    said = Statement(
        STATEMENT_TYPE,
        [report, *images],
        PREDICATE_TYPE,
        Predicate(
            result,
            configuration,
            passed_tests=marks["fine"],
            warned_tests=marks["excused"],
            failed_tests=[*marks["fail"], *marks["error"]],
        ),
    )
    return msgspec.json.encode(said)


def image_of(cell: Cell) -> Resource | None:
    """The image of a cell that ran, where it has a digest: its disk's, or else its base's."""
    disk = cell.provenance.subject.disk_sha256 if cell.provenance.subject else ""
    digest = disk or cell.image.digest.removeprefix("sha256:")
    if cell.verdict in ("refused", "not-run") or not digest:
        return None
    return Resource(cell.image.name, "", {"sha256": digest})


def seal(payload: bytes, signature: bytes, keyid: str) -> bytes:
    """The envelope as JSON. ``signature`` is raw, over :func:`pae`."""
    signed = Signature(base64.b64encode(signature).decode(), keyid)
    envelope = Envelope(base64.b64encode(payload).decode(), PAYLOAD_TYPE, [signed])
    return msgspec.json.encode(envelope) + b"\n"


def open_envelope(data: bytes, certificates: Sequence[bytes], name: str) -> Statement:
    """The statement of an envelope that one of ``certificates`` (DER) has signed.

    Raises :class:`ReportError`: not an envelope, not signed by any of them, another statement.
    """
    if len(data) > SIZE_LIMIT:
        raise ReportError(f"{name} has {len(data)} bytes; the limit is {SIZE_LIMIT}")
    try:
        envelope = msgspec.json.decode(data, type=Envelope)
        payload = _plain(envelope.payload)
        signatures = [_plain(one.sig) for one in envelope.signatures]
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error) as error:
        raise ReportError(f"{name} is not a DSSE envelope: {error}") from error
    signed = pae(envelope.payload_type, payload)
    keys = [_key(der, name) for der in certificates]
    if not any(_fits(key, signature, signed) for key in keys for signature in signatures):
        raise ReportError(
            f"{name} is not signed by a key that is trusted, or was edited",
            hint="name the signer's certificate with --trust; make a new one with `airlock attest`",
        )
    if envelope.payload_type != PAYLOAD_TYPE:
        raise ReportError(f"{name} holds {envelope.payload_type}, not an in-toto statement")
    try:
        found = msgspec.json.decode(payload, type=Statement)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ReportError(f"{name} holds no test result: {error}") from error
    if (found.type, found.predicate_type) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ReportError(f"{name} holds {found.predicate_type}, not a test result")
    return found


def _plain(text: str) -> bytes:
    """DSSE takes both alphabets of base64."""
    return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)


def _key(der: bytes, name: str) -> RSAPublicKey:
    key = x509.load_der_x509_certificate(der).public_key()
    if not isinstance(key, RSAPublicKey):
        raise ReportError(f"{name}: a certificate that is trusted has no RSA key")
    return key


def _fits(key: RSAPublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True
