"""Why a machine never says that it is ready, as its serial console tells it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.lab.seed import FAILED
from harness.providers.base import NodeFailed

if TYPE_CHECKING:
    from harness.lab.vm import VirtualMachine

#: Seconds from the login prompt to a word of the agent: as a rule cloud-init starts it before.
PATIENCE = 240.0
_LOGIN = re.compile(r"^\S+ login: ?$", re.MULTILINE)


@dataclass(frozen=True)
class Reason:
    """``code`` is the cause in the report; ``said`` what the console then shows."""

    code: str
    said: re.Pattern[str]
    means: str
    hint: str


#: The first that fits counts. UEFI's words are edk2's (MdeModulePkg/Universal/BdsDxe), shim's and
#: GRUB's their own.
REASONS = (
    Reason(
        "boot.loader-not-trusted",
        re.compile(r"BdsDxe: failed to load .*(Access Denied|Security Violation)"),
        "the firmware refused the image's boot loader: nobody in its db has signed it",
        "the db holds Microsoft's certificates of 2011 and 2023 and the lab's; an image that is "
        "signed by its vendor alone (Amazon Linux 2023) boots in a scenario without Secure Boot",
    ),
    Reason(
        "boot.loader-not-trusted",
        re.compile(r"(Verification failed: .*Security|bad shim signature|Security Violation)"),
        "shim or GRUB refused what it was to start: it is not signed by whom they trust",
        "take an image whose kernel is signed by its vendor, as it came",
    ),
    Reason(
        "boot.no-loader",
        re.compile(r"BdsDxe: No bootable option or device was found"),
        "the firmware found nothing to boot on the disk",
        "take the vendor's UEFI image",
    ),
    Reason(
        "boot.grub-rescue",
        re.compile(r"^(grub rescue>|grub>) *$", re.MULTILINE),
        "GRUB found no configuration and waits for commands",
        "see that the image boots elsewhere by UEFI",
    ),
    Reason(
        "cloud-init.seed-failed",
        re.compile(re.escape(FAILED) + r"(?P<what>.*)"),
        "cloud-init ran, and the machine cannot run the lab's agent: {what}",
        "the node needs Python 3.9 or newer as /usr/bin/python3, systemd and tar",
    ),
    Reason(
        "cloud-init.other-source",
        re.compile(
            r"Cloud-init v\. .* finished at .*Datasource (?!DataSourceNoCloud)(?P<what>\S+)"
        ),
        "cloud-init ran, and took another source than the lab's seed: {what}",
        "NoCloud must be in the datasource_list of the image (/etc/cloud)",
    ),
)
_NOBODY = Reason(
    "cloud-init.silent",
    _LOGIN,
    "the machine booted to its login prompt and never looked at its seed: it has no cloud-init, "
    "or one that is switched off, or whose datasource_list lacks NoCloud",
    "take the vendor's cloud image; see /etc/cloud in it",
)


def reason(console: str) -> tuple[str, str, str] | None:
    """(code, what it means, how to mend it) where the console shows a known cause."""
    for each in REASONS:
        if match := each.said.search(console):
            return each.code, each.means.format(**match.groupdict()), each.hint
    return None


class Watch:
    """Called while a machine boots: raises where waiting is of no use any more.

    ``heard``: whether the agent has said anything, after which the console is no judge.
    """

    def __init__(
        self, running: VirtualMachine, heard: Callable[[], bool], patience: float = PATIENCE
    ) -> None:
        self._running, self._heard, self._patience = running, heard, patience
        self._prompt: float | None = None
        self._size = -1

    def __call__(self) -> None:
        """Raise :class:`NodeFailed` with the cause, or what check_booting raises."""
        self._running.check_booting()
        if self._heard():
            return
        console = self._running.machine.console
        size = console.stat().st_size if console.exists() else 0
        if size != self._size:
            self._size = size
            text = self._running.console_tail(400)
            if found := reason(text):
                raise self._failed(*found)
            if self._prompt is None and _LOGIN.search(text):
                self._prompt = time.monotonic()
        if self._prompt is not None and time.monotonic() - self._prompt > self._patience:
            raise self._failed(_NOBODY.code, _NOBODY.means, _NOBODY.hint)

    def _failed(self, code: str, means: str, hint: str) -> NodeFailed:
        tail = self._running.console_tail(4).replace("\n", " | ")
        return NodeFailed(f"{means}; serial console: {tail}", cause=code, hint=hint)
