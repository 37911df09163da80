"""Virtual machines on this computer: the build stage, then a Secure Boot machine that shows it.

Needs no root, no cloud account and no KVM.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import subprocess
import threading
import traceback
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cached import budget, evict
from harness.errors import AirlockError, InfraError
from harness.lab import firmware
from harness.lab.namespace import host_env
from harness.providers.base import Job, Needs, Refusal
from harness.refusals import known_refusal
from harness.requirements import Offer
from harness.space import MIB, free, memory_available
from harness.state import cache_dir, keys_dir, state_dir

if TYPE_CHECKING:
    from fixtures.origin import Origin
    from fixtures.pki import Authority
    from harness.cells import Cell
    from harness.lab.node import QemuNode

_TOOLS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mkfs.ext4", "mformat", "mcopy", "socat")


#: Programs whose version may change what a cell shows; all answer --version.
_VERSIONED = ("qemu-system-x86_64", "mmdebstrap", "mkfs.ext4", "socat")


@cache
def _version(tool: str) -> str:
    option = {"mkfs.ext4": "-V", "socat": "-V"}.get(tool, "--version")
    ran = subprocess.run([tool, option], capture_output=True, env=host_env(), check=False)
    return (ran.stdout or ran.stderr).decode(errors="replace")[:400]


class Qemu:
    """The provider ``qemu``. One per run; what the cells share is made on first use."""

    name = "qemu"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._authority: Authority | None = None
        self._origin: Origin | None = None
        self._room_made = False
        budget()  # what is wrong with it is told before anything is made

    def reasons_not(self, cell: Cell) -> list[str]:
        """What this machine lacks, by its files; whether KVM works is tried in ``up``."""
        from harness.lab.namespace import PATH

        missing = [tool for tool in _TOOLS if shutil.which(tool, path=PATH) is None]
        reasons = [f"{', '.join(missing)} not installed (airlock doctor --fix)"] if missing else []
        if cell.scenario.secure_boot:
            try:
                firmware.find()
            except InfraError as e:
                reasons.append(str(e))
        return reasons

    def offers(self) -> Offer:
        """Builds run natively, so only this machine's own processor; no GPU is passed through."""
        features = {"ledger", "fork", "console"}
        with contextlib.suppress(InfraError):
            firmware.find()
            features.add("secure-boot")
        return Offer(
            frozenset(features),
            frozenset({platform.machine()} & {"x86_64"}) or frozenset({"nothing"}),
            free(state_dir()) // MIB,
            memory_available(),
        )

    def inputs(self, cell: Cell) -> dict[str, Any] | None:
        """Base image, keys, node file, and the versions of the host's programs."""
        from fixtures import daemons
        from fixtures.pki import Authority
        from harness import pack
        from harness.lab import base, kvm

        found = base.find(cell.image)
        if found is None:
            return None
        authority = Authority(keys_dir())
        code = firmware.find().code.stat()
        squid = daemons.squid(state_dir() / "daemons") if cell.scenario.proxied else None
        return {
            "base": found.digest,
            "node_file": pack.pack(cache_dir("node-file")).sha256,
            "ca": authority.proxy.sha256,
            "certificate": authority.module.sha256,
            "accelerator": kvm.accelerator(),
            "firmware": [code.st_size, code.st_mtime_ns],
            "squid": squid.version if squid else "",
            "tools": {tool: _version(tool) for tool in _VERSIONED},
        }

    def refusal(self, cell: Cell) -> Refusal | None:
        """Refused by what is known of the image's kernel, before anything is fetched or built."""
        return known_refusal(cell)

    def needs(self, cell: Cell) -> Needs:
        return Needs(memory_mb=cell.image.memory_mb)

    def minutes(self, cell: Cell) -> float:
        """Measured on two quiet cores without KVM: base 1, build 4, boot and checks 1.5."""
        from harness.lab import base

        boots = 2 if cell.scenario.boot.again else 1
        return 1.5 * boots + (0.0 if base.find(cell.image) else 5.0)

    def shared(self, fresh: bool) -> tuple[Authority, Origin]:
        """Keys and origin of the lab; made on first use, kept between runs unless ``fresh``."""
        from fixtures.origin import Origin
        from fixtures.pki import Authority
        from fixtures.repository import Repository

        with self._lock:
            if self._authority is None or self._origin is None:
                self._authority = Authority(keys_dir(), fresh=fresh)
                files = Repository(self._authority).files
                origin = Origin(self._authority, files, settled=True)
                self._origin = self._stack.enter_context(origin)
            return self._authority, self._origin

    def up(self, job: Job) -> QemuNode:
        """Base image, build stage, boot. Whoever raises leaves nothing behind."""
        return self._make(job, lambda node: node.start())

    def resume(self, job: Job, source: Path) -> QemuNode:
        """A node that was saved (``airlock node save``), as it was. See ``up``."""
        from harness.lab import saved

        return self._make(job, lambda node: node.resume(saved.load(source, job.scratch)))

    def _make_room(self, job: Job) -> None:
        """Let go, once a run, what the cache has too much of; whoever makes nothing evicts nothing.

        What this run has used is safe, and so is what it will use: see harness.cached.
        """
        with self._lock:
            if not self._room_made:
                self._room_made = True
                for line in evict():
                    job.say("cache", f"let go, not used for long: {line}")

    def _make(self, job: Job, make: Callable[[QemuNode], None]) -> QemuNode:
        from harness.lab.node import QemuNode

        self._make_room(job)
        node = QemuNode(job, *self.shared(job.options.fresh))
        try:
            make(node)
        except BaseException as e:
            node.keep_evidence(job.capsule)
            node.down()
            if isinstance(e, AirlockError) or not isinstance(e, Exception):
                raise
            (job.capsule / "traceback.log").write_text(traceback.format_exc())
            raise InfraError(str(e) or type(e).__name__, hint=getattr(e, "hint", "")) from e
        return node

    def close(self) -> None:
        self._stack.close()
