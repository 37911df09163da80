"""A key in a PEM file of its owner's, with its certificate."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UsageError
from harness.signers.base import Backend, certificate_of
from installers import rsakey


class FileKey(Backend):
    """``file:PATH[?certificate=PATH]``: the key, and its certificate there or beside it."""

    def __init__(self, path: Path, certificate: Path | None = None) -> None:
        where = f"file:{path}"
        data = read_private(path)
        try:
            self._key = rsakey.load(data)
        except rsakey.BadKey as error:
            raise UsageError(f"{where}: {error}") from None
        held = data
        if certificate is not None:
            try:
                held = certificate.read_bytes()
            except OSError as error:
                raise UsageError(f"{certificate}: {error.strerror}") from error
        super().__init__(where, certificate_of(held, str(certificate or path)))

    def raw(self, data: bytes) -> bytes:
        """Signed in this process."""
        try:
            return self._key.sign(data)
        except rsakey.BadKey as error:
            raise UsageError(f"{self.where}: {error}") from None


def read_private(path: Path) -> bytes:
    """A file that only its owner may read. UsageError: not there, or open to others."""
    try:
        if path.stat().st_mode & 0o077:
            raise UsageError(f"{path} can be read by others", hint=f"chmod 600 {path}")
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
