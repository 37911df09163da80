"""Who vouches for what is put into a store: a key in a file, or the signing socket."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from harness.errors import UsageError
from installers.cache.manifest import Sign
from installers.cache.settings import socket_signer

_OPTIONS = (
    pkcs7.PKCS7Options.DetachedSignature,
    pkcs7.PKCS7Options.NoAttributes,
    pkcs7.PKCS7Options.NoCerts,
    pkcs7.PKCS7Options.Binary,
)
_BITS = 2048


def signer(key: Path | None, socket: str | None) -> Sign | None:
    """Signs manifests with the key and certificate in a PEM file, or by a socket; None: nobody.

    Raises UsageError for a file that does not hold an RSA key and its certificate.
    """
    if key is not None and socket:
        raise UsageError("--key and --signer exclude each other")
    if socket:
        return socket_signer(socket)
    return _from_file(key) if key is not None else None


def _from_file(path: Path) -> Sign:
    try:
        data = path.read_bytes()
        key = serialization.load_pem_private_key(data, None)
        certificate = x509.load_pem_x509_certificate(data)
    except OSError as error:
        raise UsageError(f"--key {path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"--key {path} does not hold a private key and its certificate",
            hint="put both into one PEM file, without a passphrase, mode 0600",
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < _BITS:
        raise UsageError(f"--key {path} is not an RSA key of {_BITS} bits or more")
    if key.public_key() != certificate.public_key():
        raise UsageError(f"--key {path}: key and certificate do not belong together")
    if path.stat().st_mode & 0o077:
        raise UsageError(f"--key {path} can be read by others", hint=f"chmod 600 {path}")
    private, der = key, certificate.public_bytes(serialization.Encoding.DER)

    def sign(data: bytes) -> tuple[bytes, bytes]:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(data)
        builder = builder.add_signer(certificate, private, hashes.SHA256())
        return builder.sign(serialization.Encoding.DER, list(_OPTIONS)), der

    return sign
