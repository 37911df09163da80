"""A node that today's scripts left half done, and an apply that dies at every step of the journal.

The tree after the next apply is that of a run that nobody interrupted, and ``remove`` gives back
every byte of what the scripts had written, below what the later installers had written over it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.installers_adopt.left import CA, LEFT, RAPIDS, Content, put
from tests.unit.installers_engine.conftest import Prepared, memory, prepared
from tests.unit.installers_engine.root import copy, needs_chroot, run_in
from tests.unit.installers_engine.rounds import Order
from tests.unit.installers_engine.test_every_step import rounds, wrong
from tests.unit.installers_keyrings.conftest import keys, smith

__all__ = ["keys", "memory", "prepared", "smith"]

#: Files that the later installers write too, and some that were cut off.
SHARED: dict[str, Content] = {
    **LEFT["environment"],
    **LEFT["boto-proxy"],
    **LEFT["dnf-proxy"],
    "/etc/apt/apt.conf.d/99proxy": 'Acquire::http::Proxy "http://10.11.0.2',
    "/etc/systemd/system.conf.d/10-default-env.conf": '[Manager]\nDefaultEnvironment="http_pro',
    **LEFT["ca-file"],
    **LEFT["profile"],
    **LEFT["proxy-unit"],
    **LEFT["source-without-key"],
    **LEFT["stamps"],
    **LEFT["pip-cache"],
    **LEFT["conda-packages"],
    "/etc/spark/conf/spark-defaults.conf": RAPIDS[:120],
}


# One share in so many: each installer's own steps are in their own tests.
SHARES = 16


def order(prepared: Prepared, memory: Path, name: str, only: str, shares: int = 1) -> Order:
    """The rounds of a root that the scripts left half done."""
    root = memory / name / "root"
    root.parent.mkdir()
    copy(prepared.root, root)
    put(root, SHARED)
    bundle = root / "opt/conda/ssl/cacert.pem"
    bundle.write_text(bundle.read_text() + CA)
    run_in(root, "update-ca-certificates", "--fresh")
    work = str(memory / f"{name}-work")
    return Order(str(root), work, str(prepared.metadata), only, "lost", shares // 2, shares)


@needs_chroot
@pytest.mark.parametrize("shares", [SHARES, pytest.param(1, marks=pytest.mark.slow)])
def test_every_step_of_a_run_on_a_node_of_todays_scripts(
    memory: Path, prepared: Prepared, shares: int
) -> None:
    only = "adopt,proxy,trust,keyrings"
    whole, *died = rounds(order(prepared, memory, f"all-{shares}", only, shares))
    assert not wrong([whole])
    assert len(died) * shares > 100
    assert not wrong(died)


@needs_chroot
def test_every_step_of_taking_over(memory: Path, prepared: Prepared) -> None:
    """Without the others in the run only what belongs to none of them is taken."""
    whole, *died = rounds(order(prepared, memory, "alone", "adopt"))
    assert not wrong([whole])
    assert {one["died"] for one in died} == {-9}
    assert len(died) > 8
    assert not wrong(died)
