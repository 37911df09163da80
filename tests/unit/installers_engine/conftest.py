"""Keys and servers are those of the keyrings' tests."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.installers.test_trust import fresh
from tests.unit.installers_engine.root import MEMORY, prepare
from tests.unit.installers_keyrings.conftest import Keys, keys, smith
from tests.unit.installers_keyrings.workshop import KeyServer, acme, attributes, key_server

__all__ = ["keys", "smith"]


@dataclass(frozen=True)
class Prepared:
    """A root that nobody applied to yet, and the metadata of a node with everything."""

    root: Path
    metadata: Path
    server: KeyServer


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A directory in memory."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


@pytest.fixture(scope="module")
def prepared(memory: Path, keys: Keys) -> Iterator[Prepared]:
    folder = memory / "prepared"
    root = folder / "root"
    root.mkdir(parents=True)
    prepare(root, [fresh("A public authority"), fresh("Another one")])
    with key_server() as server:
        ca = server.give("/ca.pem", server.ca.pem)
        url = server.give("/key.asc", keys.file(keys.good))
        given = {
            **attributes(acme((keys.good, [url])), []),
            "http-proxy": "http://bob:p%40x@10.0.2.100:3128",
            "no-proxy": "corp.example, .lab.example",
            "http-proxy-pem-uri": f"{ca}#sha256={hashlib.sha256(server.ca.pem).hexdigest()}",
            "airlock-apt-https": "true",
            "airlock-archive-mirror": "http://archive.test/old",
        }
        metadata = folder / "metadata.json"
        metadata.write_text(json.dumps({"instance": {"attributes": given}}))
        yield Prepared(root, metadata, server)
