"""Killed, or without power, at every step of the journal: the next run makes it right.

Right is: the same tree as after a run that nobody interrupted (contents, modes, owners, links),
nothing left over, ``verify`` clean, and ``remove`` gives back every byte that was there before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.unit.installers_engine import crash
from tests.unit.installers_engine.conftest import Prepared
from tests.unit.installers_engine.root import copy, needs_chroot
from tests.unit.installers_engine.rounds import Order

REPOSITORY = Path(__file__).parents[3]
SHARES = 2


def rounds(order: Order) -> list[dict[str, Any]]:
    """The rounds of an order, in a process of their own."""
    Path(order.work).mkdir(exist_ok=True)
    file = Path(order.work) / "order.json"
    file.write_text(json.dumps(asdict(order)))
    argv = [sys.executable, "-m", "tests.unit.installers_engine.rounds", str(file)]
    # This machine's own authorities are many, and each run of the command line would read them.
    few = f"{order.prepared}/etc/ssl/certs/ca-certificates.crt"
    done = subprocess.run(
        argv,
        cwd=REPOSITORY,
        env={**os.environ, "SSL_CERT_FILE": few},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def wrong(found: list[dict[str, Any]]) -> list[str]:
    """What is not as it should be, one line a round."""
    return [
        f"{one['point']}: { ({key: value for key, value in one.items() if value}) }"
        for one in found
        if one["apply"] or one["verify"] or one["remove"] or one["wrong"] or one["not_undone"]
    ]


# The middle way between the two others takes as long as they do.
EVERY_WAY = [
    pytest.param(way, marks=[pytest.mark.slow] if way == "torn" else []) for way in crash.WAYS
]


@needs_chroot
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("way", EVERY_WAY)
def test_every_step_of_proxy_trust_and_keyrings(
    memory: Path, prepared: Prepared, way: str, share: int
) -> None:
    order = Order(
        prepared=str(prepared.root),
        work=str(memory / f"{way}-{share}"),
        metadata=str(prepared.metadata),
        only="proxy,archives,trust,keyrings",
        way=way,
        share=share,
        shares=SHARES,
    )
    whole, *died = rounds(order)
    assert not wrong([whole])
    assert {one["died"] for one in died} == {-9}
    assert len(died) * SHARES > 80, "every step of every installer"
    assert not wrong(died)


@needs_chroot
def test_every_step_of_the_seal(memory: Path, prepared: Prepared) -> None:
    """What it throws away cannot come back, so nothing is removed again."""
    folder = memory / "seal"
    root = folder / "root"
    folder.mkdir()
    copy(prepared.root, root)
    for path in ("etc/ssh/ssh_host_rsa_key", "var/log/apt/term.log", "var/cache/apt/pkgcache.bin"):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text("of the builder\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    metadata = folder / "metadata.json"
    given = {"invocation-type": "custom-images"}
    metadata.write_text(json.dumps({"instance": {"attributes": given}}))
    order = Order(str(root), str(folder / "work"), str(metadata), "seal", "lost", undo=False)
    whole, *died = rounds(order)
    assert not wrong([whole])
    assert len(died) > 8
    assert not wrong(died)
