"""What stays of a node when it is gone: consoles, journal, captures, the proxy's log."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import AirlockError

if TYPE_CHECKING:
    from harness.lab.frozen import Frozen
    from harness.lab.surroundings import AnyProxy
    from harness.lab.vm import VirtualMachine
    from harness.transports.agent import AgentTransport

_OF_THE_MACHINE = ("console.log", "card.pcap", "qemu.log")
_OF_ITS_BOOT = ("boot-console.log", "boot.pcap", "boot-requests.json")


def keep(
    capsule: Path,
    transport: AgentTransport | None,
    vm: VirtualMachine | None,
    rest: Frozen | None,
    proxy: AnyProxy | None,
) -> None:
    """Copy into ``capsule`` what there is. A node that was never heard is not asked."""
    if transport is not None and transport.heard:
        with contextlib.suppress(AirlockError, OSError):
            # Merged: a fork has another machine id than its journal began under.
            journal = transport.run(["journalctl", "--merge", "--no-pager"], timeout=60)
            (capsule / "journal.txt").write_bytes(journal.out)
    if vm is not None:
        for name in _OF_THE_MACHINE:
            with contextlib.suppress(FileNotFoundError):
                shutil.copy(vm.machine.directory / name, capsule)
    if rest is not None:
        for name in _OF_ITS_BOOT:
            shutil.copy(rest.directory / name, capsule / name)
    if proxy is not None:
        rows = proxy.rows()
        (capsule / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
