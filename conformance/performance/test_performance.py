"""Speeds that a healthy card has; a ratio, since cards and slots differ."""

from __future__ import annotations

from conformance.cards import Card, answering, name_of, nvml, on_bus
from harness.checks import check, fact, fail, gpu, not_verified
from harness.node import Node

#: Bytes a second of one PCIe lane by generation, after its coding (PCI Express Base Specification).
LANE = {1: 0.25e9, 2: 0.5e9, 3: 0.985e9, 4: 1.969e9, 5: 3.938e9, 6: 7.563e9}
#: The least share of it: copies from memory that does not move have 0.8 and more on machines
#: without faults, and a virtual machine's memory may be far from the card.
LEAST = 0.6
REMEDY = (
    "Look at 'nvidia-smi -q -d PERFORMANCE,CLOCK', at who else copies, and at the slot: a riser or "
    "a link that fell back halves it; on a virtual machine see its NUMA placement."
)


@check(
    id="performance.pcie-link",
    severity="major",
    title="Every card has all lanes of its link",
    remedy="Power the machine off and seat the card again; on a cloud's machine choose another "
    "one. 'lspci -vv' shows LnkCap beside LnkSta.",
    requires=gpu,
    depends=["driver.nvml", "driver.answers"],
    source="nvmlDeviceGetCurrPcieLinkWidth and MaxPcieLinkWidth; generations rest when idle",
)
def test_pcie_link(node: Node) -> None:
    """The generation falls when a card rests; lanes do not."""
    narrow, told = [], 0
    for card in answering(node):
        link = card["link"]
        told += link is not None
        if link and link["width"] < link["max_width"]:
            narrow.append(f"{name_of(card)}: {link['width']} of {link['max_width']} lanes")
    if narrow:
        fail(f"{len(narrow)} links are too narrow: {narrow[0]}", narrow)
    if not told:
        not_verified("no card says anything of its link")


@check(
    id="performance.to-host",
    severity="major",
    title="Copies from a card to the host are as fast as its link lets expect",
    remedy=REMEDY,
    requires=gpu,
    depends=["performance.pcie-link", "cuda.kernel"],
    source="cuMemcpyDtoH of 64 MiB of pinned memory, the best of six, by the link's figure",
)
def test_to_host(node: Node) -> None:
    """Results come back this way."""
    fast_enough(node, "to_host")


@check(
    id="performance.to-device",
    severity="major",
    title="Copies from the host to a card are as fast as its link lets expect",
    remedy=REMEDY,
    requires=gpu,
    depends=["performance.pcie-link", "cuda.kernel"],
    source="cuMemcpyHtoD of 64 MiB of pinned memory, the best of six, by the link's figure",
)
def test_to_device(node: Node) -> None:
    """Data goes in this way."""
    fast_enough(node, "to_device")


def fast_enough(node: Node, way: str) -> None:
    """Fails where a card has less than LEAST of what its link could carry."""
    on_bus(node)
    links = {card["address"]: card for card in answering(node) if card["link"]}
    slow, told = [], []
    for card in fact(node, "cards.compute")["cards"]:
        known = links.get(card["address"])
        if not card[way] or not known:
            continue
        most = figure(known)
        line = f"{name_of(card)}: {card[way] / 1e9:.1f} of {most / 1e9:.1f} GB/s"
        told.append(line)
        if card[way] < LEAST * most:
            slow.append(f"{line}, {LEAST:.0%} are expected")
    if slow:
        fail(f"{len(slow)} cards copy slowly: {slow[0]}", slow)
    if not told:
        nvml(node)
        not_verified("no copy could be timed; see cuda.kernel")


def figure(card: Card) -> float:
    """Bytes a second that the card's link can carry one way."""
    link = card["link"]
    return LANE.get(link["max_gen"], LANE[1]) * int(link["max_width"])
