from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.unit.installers_keyrings.workshop import KeyServer, Smith, key_server, smithy


@dataclass(frozen=True)
class Keys:
    """Fingerprints by what is special about the key, and the files they are exported to."""

    smith: Smith
    good: str
    other: str
    stranger: str
    expired: str
    weak: str
    revoked: str

    @functools.cached_property
    def everything(self) -> bytes:
        """Every key, exported once: hypothesis wants it hundreds of times."""
        return self.smith.export()

    def file(self, *fingerprints: str, armored: bool = True) -> bytes:
        return self.smith.export(*fingerprints, armored=armored)


@pytest.fixture(scope="session")
def smith() -> Iterator[Smith]:
    if shutil.which("gpg") is None:
        pytest.skip("gpg is not installed")
    with smithy() as made:
        yield made


@pytest.fixture(scope="session")
def keys(smith: Smith) -> Keys:
    found = Keys(
        smith,
        good=smith.key("good"),
        other=smith.key("other", algorithm="ed25519"),
        stranger=smith.key("stranger"),
        expired=smith.key("expired", algorithm="ed25519", expires="1y"),
        weak=smith.key("weak", options=("--cert-digest-algo", "SHA1")),
        revoked=smith.key("revoked", algorithm="ed25519"),
    )
    smith.revoke(found.revoked)
    return found


@pytest.fixture
def server() -> Iterator[KeyServer]:
    with key_server() as running:
        yield running
