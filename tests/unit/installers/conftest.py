"""Fixtures of the installers' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.installers.tools import Recorder


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A proxy that answers everything."""
    proxy = Recorder()
    yield proxy
    proxy.listener.close()


@pytest.fixture
def challenger() -> Iterator[Recorder]:
    """A proxy that wants a password first."""
    proxy = Recorder(challenge=True)
    yield proxy
    proxy.listener.close()
