"""The weaker choice: a signing key from Secret Manager, in this node's memory while it signs.

Whoever is root on such a node, or has its service account, has the key that every node trusts. It
stays possible because images are built that way today. The key is read over HTTPS by a fixed
version, checked against its CRC32C and its certificate, and never written anywhere.
"""

from __future__ import annotations

import base64
import binascii
from typing import Optional
from urllib.parse import quote

from installers import asn1, cms, rsakey, secretmanager
from installers.asn1 import Certificate, DERError
from installers.config import Config, NodeKey
from installers.errors import NodeError
from installers.signing import SigningError


class NodeSigner:
    """Signs on this node; use it as a context manager, the key is gone at its end.

    Raises SigningError when a secret cannot be had or read, or when key and certificate do not
    belong together. No text of it holds anything of the key.
    """

    def __init__(self, config: Config, key: NodeKey) -> None:
        self._config = config
        try:
            public = _access(config, key, key.public)
            private = _access(config, key, key.private)
        except NodeError as error:
            raise SigningError(error.what, where=error.where, remedy=error.remedy) from None
        self._certificate = _certificate(public, key.public)
        try:
            self._key: Optional[rsakey.PrivateKey] = rsakey.load(private)
        except rsakey.BadKey as error:
            raise SigningError(str(error), where=f"private_secret_name {key.private}") from None
        if not self._key.belongs_to(self._certificate):
            raise SigningError(
                "the private key is not that of the certificate",
                where=f"private_secret_name {key.private}, public_secret_name {key.public}",
                remedy="name a key and its own certificate; both come from airlock keys create",
            )

    def __enter__(self) -> NodeSigner:
        return self

    def __exit__(self, *_: object) -> None:
        self._key = None

    def certificate(self) -> Certificate:
        """The certificate in ``public_secret_name``."""
        return self._certificate

    def sign(self, name: str, module: bytes) -> tuple[bytes, str]:
        """(detached CMS in DER, fingerprint of the certificate) for one stripped module."""
        if self._key is None:
            raise SigningError(f"{name}: the key has been given up")
        try:
            signature = self._key.sign(module)
        except rsakey.BadKey as error:
            raise SigningError(str(error), where=name) from None
        return cms.detached(self._certificate, signature), self._certificate.sha256


def _certificate(content: bytes, name: str) -> Certificate:
    """Base64 of DER as today's secrets hold it, or DER or PEM itself."""
    try:
        if content[:1] != b"\x30" and b"-----BEGIN" not in content:
            content = base64.b64decode(b"".join(content.split()), validate=True)
        return asn1.load_certificate(content)
    except (DERError, binascii.Error) as error:
        raise SigningError(
            f"does not hold a certificate: {error}", where=f"public_secret_name {name}"
        ) from None


def _access(config: Config, key: NodeKey, secret: str) -> bytes:
    """The content of one version of a secret."""
    name = f"projects/{quote(key.project)}/secrets/{quote(secret, safe='')}/versions/{key.version}"
    return secretmanager.read(name, config)
