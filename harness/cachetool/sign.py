"""Who vouches for what is put into a store: a key that ``--key`` names, or the signing socket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.errors import UsageError
from harness.signers.spec import open_key
from installers import cms
from installers.cache.manifest import Sign
from installers.cache.settings import socket_signer


@contextlib.contextmanager
def signer(spec: str | None, socket: str | None) -> Iterator[Sign | None]:
    """Signs manifests with the key of ``spec`` (harness.signers.spec), or by a socket; or nobody.

    Raises UsageError for a key that is named wrongly or no good, InfraError for one whose place
    does not answer, now or when something is to be signed.
    """
    if spec is not None and socket:
        raise UsageError("--key and --signer exclude each other")
    if socket:
        yield socket_signer(socket)
    elif spec is None:
        yield None
    else:
        with open_key(spec) as key:

            def sign(data: bytes) -> tuple[bytes, bytes]:
                return cms.detached(key.certificate, key.backend.raw(data)), key.der

            yield sign
