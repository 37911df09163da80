"""Virtual machines on this computer: the build stage, then a Secure Boot machine that shows it.

Needs no root, no cloud account and no KVM.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import AirlockError, InfraError
from harness.providers.base import Job, Needs, Refusal
from harness.refusals import known_refusal
from harness.state import keys_dir

if TYPE_CHECKING:
    from fixtures.origin import Origin
    from fixtures.pki import Authority
    from harness.cells import Cell
    from harness.lab.node import QemuNode

_TOOLS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mkfs.ext4", "mformat", "mcopy", "socat")


class Qemu:
    """The provider ``qemu``. One per run; what the cells share is made on first use."""

    name = "qemu"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._authority: Authority | None = None
        self._origin: Origin | None = None

    def reasons_not(self, cell: Cell) -> list[str]:
        """What this machine lacks, by its files; whether KVM works is tried in ``up``."""
        from harness.lab.namespace import PATH

        missing = [tool for tool in _TOOLS if shutil.which(tool, path=PATH) is None]
        reasons = [f"{', '.join(missing)} not installed (airlock doctor --fix)"] if missing else []
        if cell.scenario.secure_boot:
            from harness.lab import firmware

            try:
                firmware.find()
            except InfraError as e:
                reasons.append(str(e))
        return reasons

    def refusal(self, cell: Cell) -> Refusal | None:
        """Refused by what is known of the image's kernel, before anything is fetched or built."""
        return known_refusal(cell)

    def needs(self, cell: Cell) -> Needs:
        return Needs(memory_mb=cell.image.memory_mb)

    def minutes(self, cell: Cell) -> float:
        """Measured on two quiet cores without KVM: base 1, build 4, boot and checks 1.5."""
        from harness.lab import base

        return 1.5 + (0.0 if base.find(cell.image) else 5.0)

    def shared(self, fresh: bool) -> tuple[Authority, Origin]:
        """Keys and origin of the lab; made on first use, kept between runs unless ``fresh``."""
        from fixtures.origin import Origin
        from fixtures.pki import Authority

        with self._lock:
            if self._authority is None or self._origin is None:
                self._authority = Authority(keys_dir(), fresh=fresh)
                self._origin = self._stack.enter_context(Origin(self._authority))
            return self._authority, self._origin

    def up(self, job: Job) -> QemuNode:
        """Base image, build stage, boot. Whoever raises leaves nothing behind."""
        return self._make(job, lambda node: node.start())

    def resume(self, job: Job, source: Path) -> QemuNode:
        """A node that was saved (``airlock node save``), as it was. See ``up``."""
        from harness.lab import saved

        return self._make(job, lambda node: node.resume(saved.load(source, job.scratch)))

    def _make(self, job: Job, make: Callable[[QemuNode], None]) -> QemuNode:
        from harness.lab.node import QemuNode

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
