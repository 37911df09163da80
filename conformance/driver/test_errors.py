"""What the cards and the kernel say of errors."""

from __future__ import annotations

import re

from conformance.cards import answering, name_of, on_bus
from harness.checks import Requirement, check, fact, fail, gpu
from harness.node import Node

XID = re.compile(r"NVRM: Xid \((PCI:[0-9a-fA-F:.]+)\): (\d+)(.*)")
#: NVIDIA's catalogue of Xids: those that a program can cause by itself.
OF_PROGRAMS = frozenset({13, 31, 43, 45, 68, 69})
MEANINGS = {
    48: "an ECC error of two bits",
    61: "the card's microcontroller stopped",
    62: "the card's microcontroller halted",
    63: "memory was retired or remapped",
    64: "memory could not be retired or remapped",
    74: "NVLink",
    79: "the card has fallen off the bus",
    92: "many ECC errors of one bit",
    94: "an ECC error that was contained",
    95: "an ECC error that was not contained",
    119: "the card's own processor (GSP) did not answer",
    120: "the card's own processor (GSP) failed",
    169: "this flavour of the driver does not know the card",
}


def _without_ecc(node: Node) -> str:
    """Known only where NVML has answered; else the check says itself that it has not."""
    cards = ((node.facts.get("cards") or {}).get("nvml") or {}).get("cards") or []
    none = cards and all(card.get("ecc") is None and not card.get("code") for card in cards)
    return "does not apply: no card of this node has ECC" if none else ""


ecc = Requirement("ecc", "a card with ECC", _without_ecc)


@check(
    id="driver.xid",
    severity="blocker",
    title="The kernel log holds no Xid of the hardware or the driver",
    remedy="Look the number up in NVIDIA's catalogue of Xids: 79 and 95 take a power cycle, 48, "
    "63 and 64 a reset and perhaps another card, 119 and 120 another driver.",
    requires=gpu,
    source="NVIDIA's XID Errors guide; lines 'NVRM: Xid (PCI:...): N' in the kernel log",
)
def test_xid(node: Node) -> None:
    """A program's own fault is not the node's."""
    flags = fact(node, "kernel_log_flags")
    on_bus(node)
    found = [
        (number, where, match.group(0))
        for flag in flags
        if (match := XID.search(flag["line"]))
        for number, where in [(int(match.group(2)), match.group(1))]
        if number not in OF_PROGRAMS
    ]
    if found:
        number, where, _ = found[0]
        meaning = MEANINGS.get(number, "see NVIDIA's catalogue")
        fail(f"Xid {number} of {where}: {meaning}", [line for *_, line in found])


@check(
    id="driver.ecc",
    severity="blocker",
    title="No card has lost or may lose data in its memory",
    remedy="Reset the card ('nvidia-smi -r') or reboot, so that rows are remapped; a card whose "
    "remapping failed has to be replaced.",
    requires=[gpu, ecc],
    depends=["driver.nvml", "driver.answers"],
    source="nvml.h: nvmlDeviceGetTotalEccErrors, nvmlDeviceGetRemappedRows; GPU memory error "
    "management",
)
def test_ecc(node: Node) -> None:
    """Uncorrected errors since the driver began, rows that wait, a mode that waits."""
    wrong = []
    for card in answering(node):
        if card["uncorrected"]:
            wrong.append(f"{name_of(card)}: {card['uncorrected']} uncorrected ECC errors")
        *_, pending, failed = card["remapped"] or (0, 0)
        if failed:
            wrong.append(f"{name_of(card)}: a row could not be remapped")
        if pending or card["retired_pending"]:
            wrong.append(f"{name_of(card)}: memory waits for a reset to be remapped")
        if card["ecc"] and card["ecc"][0] != card["ecc"][1]:
            wrong.append(f"{name_of(card)}: ECC changes at the next reset")
    if wrong:
        fail(wrong[0], wrong)
