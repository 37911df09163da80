"""Keys are made once: an RSA key takes a tenth of a second."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fixtures.pki import Authority, Identity
from fixtures.signer import SignerServer
from tests.unit.installers_driver import material


@pytest.fixture(scope="session")
def ours() -> Identity:
    """The identity whose certificate nodes trust."""
    return material.identity(name="Ours")


@pytest.fixture(scope="session")
def stranger() -> Identity:
    """An identity that no node knows."""
    return material.identity(name="Stranger")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SignerServer]:
    """A signer with keys of its own."""
    directory = tmp_path_factory.mktemp("s")
    with SignerServer(Authority(directory / "pki"), directory / "sock") as server:
        yield server
