"""Keys and manifests: what an entry was made from, what it holds, who vouches for it.

A manifest is stored in an envelope with its signature: a detached CMS (RSA, PKCS#1 v1.5, SHA-2)
over PREFIX and the manifest's canonical JSON. That is the structure that modules are signed with,
so the node verifies it with what it has (no library), and the signing socket makes it: no key that
signs ever lies on a node. The prefix keeps the two uses apart: no kernel takes a text for a module,
and no signature of a module fits a manifest.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

from installers import asn1, modsig
from installers.cache.store import TamperedError
from installers.modsig import SignatureError

SCHEMA = 1
PREFIX = b"airlock cache manifest 1\n"
#: ``bytes to be signed -> (CMS in DER, certificate in DER)``.
Sign = Callable[[bytes], "tuple[bytes, bytes]"]
_SHA256 = re.compile(r"[0-9a-f]{64}")
# A plain file name: nothing that leads out of a directory, nothing hidden.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,199}")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,63}")
_MINIMUM_BITS = 2048
_DIGESTS = frozenset({"sha256", "sha384", "sha512"})


def canonical(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no blanks, ASCII. ValueError for what JSON has no word for."""
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode()


def key_of(inputs: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of the inputs as canonical JSON."""
    return hashlib.sha256(canonical(inputs)).hexdigest()


@dataclass(frozen=True)
class Content:
    """One file of an entry: its hash and its size in bytes."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Manifest:
    """An entry. ``kind`` names what it is; ``details`` is its provenance, as its builder noted it.

    ``key`` follows from kind and inputs, so a manifest cannot be moved to another key.
    """

    kind: str
    inputs: dict[str, Any]
    files: dict[str, Content]
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Under which the entry is found."""
        return key_of({"kind": self.kind, "inputs": self.inputs})

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(content.size for content in self.files.values())

    def document(self) -> dict[str, Any]:
        """The manifest as JSON-able data."""
        files = {n: {"sha256": c.sha256, "size": c.size} for n, c in self.files.items()}
        return {
            "schema": SCHEMA,
            "kind": self.kind,
            "inputs": self.inputs,
            "files": files,
            "details": self.details,
        }

    def signed_bytes(self) -> bytes:
        """What a signature covers."""
        return PREFIX + canonical(self.document())


@dataclass(frozen=True)
class Trust:
    """Whose manifests are believed: SHA-256 fingerprints of certificates, lower-case hex."""

    pins: frozenset[str] = frozenset()

    def against(self, manifest: Manifest, signature: Any) -> Optional[str]:
        """Why the signature is not to be believed; None when it is."""
        if signature is None:
            return "the manifest is not signed"
        if not isinstance(signature, dict) or set(signature) != {"certificate", "cms"}:
            return "the signature has another shape"
        try:
            der, cms = (_bytes(signature[name]) for name in ("certificate", "cms"))
            fingerprint = hashlib.sha256(der).hexdigest()
            if fingerprint not in self.pins:
                return f"the manifest is signed by {fingerprint}, whom this node does not trust"
            certificate = asn1.read_certificate(der)
            signer = modsig.read_cms(cms)
            if signer.digest not in _DIGESTS or signer.attributes is not None:
                return "the signature is of a form that is not accepted"
            if (certificate.key_bits or 0) < _MINIMUM_BITS:
                return f"the signer's key has {certificate.key_bits} bits"
            if not modsig.verify(manifest.signed_bytes(), signer, certificate):
                return "the signature does not fit the manifest"
        except (binascii.Error, asn1.DERError, SignatureError) as wrong:
            return f"the signature cannot be read: {wrong}"
        return None


def encode(manifest: Manifest, sign: Optional[Sign] = None) -> bytes:
    """The envelope, signed if there is somebody to sign it."""
    signature = None
    if sign is not None:
        cms, der = sign(manifest.signed_bytes())
        signature = {
            "certificate": base64.b64encode(der).decode(),
            "cms": base64.b64encode(cms).decode(),
        }
    envelope = {"manifest": manifest.document(), "signature": signature}
    return json.dumps(envelope, indent=1, sort_keys=True).encode() + b"\n"


def decode(data: bytes, key: str) -> tuple[Manifest, Any]:
    """The manifest of ``key`` and its signature, not verified yet. Raises TamperedError."""
    try:
        envelope = json.loads(data)
        document, signature = envelope["manifest"], envelope["signature"]
        if set(document) != {"schema", "kind", "inputs", "files", "details"}:
            raise TamperedError("the manifest has another shape")
        if document["schema"] != SCHEMA:
            raise TamperedError(f"the manifest has schema {document['schema']!r}, not {SCHEMA}")
        files = {name: _content(name, facts) for name, facts in document["files"].items()}
        kind, inputs, details = document["kind"], document["inputs"], document["details"]
        if not (isinstance(inputs, dict) and isinstance(details, dict) and files):
            raise TamperedError("the manifest has another shape, or no files")
        if not isinstance(kind, str) or not _KIND.fullmatch(kind):
            raise TamperedError("the manifest's kind is not a word")
        manifest = Manifest(kind, inputs, files, details)
        if manifest.key != key:
            raise TamperedError("the manifest belongs to other inputs")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as wrong:
        raise TamperedError(f"the manifest cannot be read: {wrong!r}") from wrong
    return manifest, signature


def fingerprint(signature: Any) -> str:
    """Whom a signature names, not verified; "" when it cannot be read."""
    try:
        return hashlib.sha256(_bytes(signature["certificate"])).hexdigest()
    except (binascii.Error, KeyError, TypeError):
        return ""


def check_name(name: str) -> str:
    """``name`` when it is a plain file name; ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is not a plain file name")
    return name


def _content(name: str, facts: Any) -> Content:
    size, sha256 = facts["size"], facts["sha256"]
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ValueError(f"the size of {name!r} is not a number of bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"the hash of {name!r} is none")
    check_name(name)
    return Content(sha256, size)


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise binascii.Error("not a text")
    return base64.b64decode(text, validate=True)
