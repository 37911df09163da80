"""Reading the cards out of a node's facts; shared by the areas that need a GPU.

A card that is not there is one check's finding (``driver.present``), and all others are then not
verified. A part that nobody asked for may be missing: that is not verified either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from harness.checks import fact, fail, not_verified
from harness.node import Node

Card = Mapping[str, Any]


def on_bus(node: Node) -> list[Card]:
    """The node's cards by PCI; never empty."""
    found: list[Card] = fact(node, "gpu.cards")
    if not found:
        not_verified("there is no NVIDIA card on the PCI bus; see driver.present")
    return found


def nvml(node: Node) -> Mapping[str, Any]:
    """What NVML says, of a node with cards where it begins."""
    on_bus(node)
    found: Mapping[str, Any] = fact(node, "cards.nvml")
    if found.get("error"):
        not_verified(f"NVML does not begin: {found['error']}; see driver.nvml")
    return found


def answering(node: Node) -> list[Card]:
    """NVML's cards; one that is lost answers nothing. Not verified where none does."""
    found = [card for card in nvml(node)["cards"] if "handle" not in card["errors"]]
    if not found:
        not_verified("no card answers NVML; see driver.answers")
    return found


def name_of(card: Card) -> str:
    """A card for people: by its address, which is the same for the kernel and for NVML."""
    return str(card.get("address") or f"card {card.get('index')}")


def asked(node: Node, installer: str, key: str) -> str | None:
    """What an installer of ours decided on, when it was applied; None where none was."""
    for outcome in node.facts.get("installers") or ():
        if outcome.get("name") == installer:
            value = (outcome.get("provenance") or {}).get(key)
            return str(value) if value else None
    return None


def absent(node: Node, what: str, wanted: object) -> NoReturn:
    """End the check: something is not there. ``wanted`` says whether anybody asked for it."""
    if wanted:
        fail(f"{what} is not there")
    on_bus(node)
    not_verified(f"{what} is not there, and nothing says that it was asked for")


def release(number: int) -> str:
    """CUDA's way of writing 12.4 as 12040."""
    return f"{number // 1000}.{number % 1000 // 10}"


def numbers(version: str) -> tuple[int, ...]:
    """A dotted version, for comparisons."""
    return tuple(int(part) for part in version.split(".") if part.isdigit())
