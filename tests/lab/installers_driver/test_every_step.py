"""The driver killed, or without power, at every step of its journal: the next run makes it right.

Its modules come from the cache: they are signed by the real socket, installed, and found by the
real depmod and modinfo. What is interrupted while it builds is in the tests of the build.
"""

from __future__ import annotations

import json
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import daemons
from fixtures.errors import FixtureError
from fixtures.pki import Authority
from fixtures.signer import SignerServer
from harness.state import cache_dir
from installers.cache import settings
from installers.config import from_attributes
from installers.host import Host
from tests.unit.installers.test_trust import fresh
from tests.unit.installers_cache import test_settings
from tests.unit.installers_engine import crash
from tests.unit.installers_engine.root import (
    KERNEL,
    MEMORY,
    add_program,
    needs_chroot,
    prepare,
    run_in,
)
from tests.unit.installers_engine.rounds import Order
from tests.unit.installers_engine.test_every_step import rounds, wrong

pytestmark = [
    pytest.mark.lab,
    needs_chroot,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the libraries' place is x86-64's"),
]


@pytest.fixture(scope="module")
def prepared() -> Iterator[Path]:
    """A root with a kernel, and the tools of Debian's kmod."""
    try:
        kmod = daemons.unpack_debs(["kmod"], cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"kmod cannot be had here: {error}")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root = Path(folder) / "root"
        root.mkdir()
        prepare(root, [fresh("A public authority"), fresh("Another one")])
        libraries = daemons.library_path(kmod)
        # One program, which goes by the name it is called by.
        [program] = [path for path in (kmod / "bin/kmod", kmod / "usr/bin/kmod") if path.exists()]
        for name in ("depmod", "modinfo"):
            add_program(root, name, str(program), libraries)
        run_in(root, "depmod", "-a", KERNEL)
        yield root


@pytest.mark.parametrize("way", crash.WAYS)
def test_every_step_of_the_driver(prepared: Path, way: str) -> None:
    assert test_settings.KERNEL == KERNEL
    folder = prepared.with_name(way)
    folder.mkdir()
    with SignerServer(Authority(folder / "pki"), folder / "sock") as signer:
        given = {
            "airlock-cache": f"file://{folder}/cache",
            "airlock-offline": "true",
            "airlock-signer": str(signer.path),
            "airlock-secure-boot": "off",
        }
        metadata = folder / "metadata.json"
        metadata.write_text(json.dumps({"instance": {"attributes": given}}))
        with settings.parse(from_attributes(given)).open(print) as cache:
            test_settings.fill(cache, Host(prepared))
        work = str(folder / "work")
        whole, *died = rounds(Order(str(prepared), work, str(metadata), "driver", way))
    assert not wrong([whole])
    assert {one["died"] for one in died} == {-9}
    assert len(died) > 8
    assert not wrong(died)
