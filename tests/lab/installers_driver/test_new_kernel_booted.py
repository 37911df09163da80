"""systemd itself starts the service that provides modules, at the mark of a kernel's package."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from installers import newkernel
from installers.host import Host
from tests.lab.deferred import container

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for systemd-nspawn"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
]
KERNEL = "6.12.0-1-cloud-amd64"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[container.Node]:
    """With our hooks and units on it, and no profile that the service could apply."""
    with container.booted(tmp_path, lambda root: newkernel.install(Host(root))) as made:
        yield made


def told(node: container.Node, text: str, wait: float = 60) -> str:
    """The service's journal once it says ``text``."""
    deadline = time.monotonic() + wait
    while text not in (said := node.run("journalctl", "-o", "cat", "-u", newkernel.SERVICE)):
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
    return said


def state(node: container.Node) -> str:
    return node.run("systemctl", "show", "-P", "ActiveState", newkernel.SERVICE)


def test_a_mark_starts_the_service_and_stays_until_the_kernel_has_modules(
    node: container.Node,
) -> None:
    assert (state(node), node.run("systemctl", "is-active", newkernel.PATH)) == (
        "inactive",
        "active",
    )
    mark = node.root / newkernel.MARKS.lstrip("/") / KERNEL
    # The kernel's package runs the hook in this way; its modules are there by then.
    (node.root / "usr/lib/modules" / KERNEL).mkdir(parents=True)
    node.run(newkernel.HOOKS[0], KERNEL, f"/boot/vmlinuz-{KERNEL}")
    told(node, f"new-kernel: {KERNEL} has no GPU modules: do not boot it")
    assert mark.exists()
    # systemd gives up on a path whose service fails again and again: loud, and no endless loop.
    deadline = time.monotonic() + 60
    while state(node) != "failed":
        assert time.monotonic() < deadline, state(node)
        time.sleep(0.2)
    # Its administrator takes that kernel off again, and starts the service anew.
    (node.root / "usr/lib/modules" / KERNEL).rmdir()
    node.run("systemctl", "reset-failed", newkernel.SERVICE, newkernel.PATH)
    node.run("systemctl", "start", newkernel.PATH)
    deadline = time.monotonic() + 60
    while mark.exists():
        assert time.monotonic() < deadline, node.run("journalctl", "-u", newkernel.SERVICE)
        time.sleep(0.2)
    assert state(node) in ("inactive", "activating")
