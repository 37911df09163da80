"""The node file, packed once for the tests of the channel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.pack import pack
from harness.transports.local import LocalTransport


@pytest.fixture(scope="session")
def node_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``airlock-node.pyz`` of this source tree."""
    return pack(tmp_path_factory.mktemp("node-file")).path


@pytest.fixture
def local(node_file: Path) -> Iterator[LocalTransport]:
    """This machine, through a real agent."""
    transport = LocalTransport(node_file)
    yield transport
    transport.close()
