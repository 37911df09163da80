"""Keys are made once: an RSA key takes a tenth of a second."""

from __future__ import annotations

import pytest

from fixtures.pki import Identity
from tests.unit.installers_driver import material


@pytest.fixture(scope="session")
def ours() -> Identity:
    """The identity whose certificate nodes trust."""
    return material.identity(name="Ours")


@pytest.fixture(scope="session")
def stranger() -> Identity:
    """An identity that no node knows."""
    return material.identity(name="Stranger")
