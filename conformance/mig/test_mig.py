"""Cards that are divided into slices."""

from __future__ import annotations

from conformance.cards import Card, answering, name_of
from harness.checks import Requirement, check, fact, fail, gpu
from harness.node import Node

REMEDY = "Make the slices with 'nvidia-smi mig -cgi PROFILE,... -C', or have the installer deferred"


def _undivided(node: Node) -> str:
    """Known only where NVML has answered; else the check says itself that it has not."""
    cards = ((node.facts.get("cards") or {}).get("nvml") or {}).get("cards") or []
    whole = cards and all(card.get("mig") is None and not card.get("code") for card in cards)
    return "does not apply: no card of this node can be divided" if whole else ""


divisible = Requirement("mig", "a card that can be divided", _undivided)


def divided(node: Node) -> list[Card]:
    """The cards whose MIG mode is on; perhaps none."""
    return [card for card in answering(node) if card["mig"] and card["mig"][0]]


@check(
    id="mig.mode",
    severity="major",
    title="No card waits for a reset to be divided or to be whole",
    remedy="Reset the card ('nvidia-smi -r -i N') while nobody uses it, or reboot.",
    requires=[gpu, divisible],
    depends=["driver.nvml", "driver.answers"],
    source="nvmlDeviceGetMigMode: the current mode and the pending one",
)
def test_mode(node: Node) -> None:
    """A change of the mode takes a reset, and nvidia-smi says so once."""
    wrong = [
        f"{name_of(card)} is {_words(card['mig'][0])} and will be {_words(card['mig'][1])}"
        for card in answering(node)
        if card["mig"] and card["mig"][0] != card["mig"][1]
    ]
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="mig.slices",
    severity="blocker",
    title="A card that is divided has slices",
    remedy=REMEDY + " do it at boot: slices are gone after a reset.",
    requires=[gpu, divisible],
    depends=["mig.mode"],
    source="MIG User Guide: without an instance, CUDA has no device on the card",
)
def test_slices(node: Node) -> None:
    """The mode alone leaves a card that nobody can use."""
    empty = [name_of(card) for card in divided(node) if not card["slices"]]
    if empty:
        fail(f"{len(empty)} cards are divided into nothing: {empty[0]}", empty)


@check(
    id="mig.device-nodes",
    severity="major",
    title="Every slice has its files in /dev/nvidia-caps",
    remedy="Run 'nvidia-modprobe -f' for each file of /proc/driver/nvidia/capabilities, or start "
    "nvidia-persistenced after the slices are made: containers need these files.",
    requires=[gpu, divisible],
    depends=["mig.slices"],
    source="MIG User Guide, Device Nodes and Capabilities",
)
def test_device_nodes(node: Node) -> None:
    """The driver names a minor for each access; a file with it must be there."""
    divided(node)
    there = set(fact(node, "gpu.nodes"))
    wanted = [f"/dev/nvidia-caps/nvidia-cap{minor}" for minor in fact(node, "gpu.capabilities")]
    gone = [path for path in wanted if path not in there]
    if gone:
        fail(f"{len(gone)} of {len(wanted)} files are not there: {gone[0]}", gone)


def _words(on: bool) -> str:
    return "divided" if on else "whole"
