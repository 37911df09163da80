"""A key behind another machine's ``airlock keys serve``, over TLS that both sides prove."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from harness.errors import InfraError, UsageError
from harness.signers.base import Backend
from installers import modsig
from installers.errors import NodeError
from installers.signing import Signer

_CONNECT = 15.0


class RemoteKey(Backend):
    """``remote:HOST:PORT?ca=FILE&identity=FILE``: our certificate and key are in ``identity``."""

    def __init__(self, host: str, port: int, ca: Path, identity: Path) -> None:
        where = f"remote:{host}:{port}"
        try:
            context = ssl.create_default_context(cafile=str(ca))
            context.load_cert_chain(str(identity))
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"{where}: {ca} or {identity}: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            plain = socket.create_connection((host, port), timeout=_CONNECT)
            secured = context.wrap_socket(plain, server_hostname=host)
            self._signer = Signer(where, connection=secured)
            certificate = self._signer.certificate()
        except OSError as error:
            raise InfraError(f"{where}: {error}") from error
        except NodeError as error:
            raise InfraError(f"{where}: {error.what}") from error
        super().__init__(where, certificate)

    def raw(self, data: bytes) -> bytes:
        """Signed there; taken out of the CMS that comes back."""
        try:
            cms, _ = self._signer.sign("module.ko", data)
            return modsig.read_cms(cms).signature
        except (NodeError, modsig.SignatureError) as error:
            raise InfraError(f"{self.where}: {error}") from error

    def close(self) -> None:
        """Hang up."""
        self._signer.__exit__(None, None, None)
