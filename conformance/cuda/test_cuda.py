"""The toolkit, what it compiles, and the libraries that go with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.cards import absent, asked, name_of, numbers, nvml, on_bus, release
from harness.checks import check, cuda, fact, fail, gpu, not_verified
from harness.node import Node

INSTALL = "Give the installer cuda the version, or install the packages of one CUDA release."


def wanted(node: Node) -> str | None:
    """The CUDA version that somebody asked for."""
    found = node.expect.get("cuda") or asked(node, "cuda", "cuda")
    return str(found) if found else None


def toolkit(node: Node) -> Mapping[str, Any]:
    """The one that people get. Not verified where there is none, or it does not say its release."""
    found: list[Mapping[str, Any]] = fact(node, "cards.toolkits")
    if not found or not found[0]["release"]:
        not_verified("there is no nvcc that says its release; see cuda.nvcc")
    return found[0]


@check(
    id="cuda.nvcc",
    severity="major",
    title="nvcc is of the release that was asked for",
    remedy=INSTALL + " /usr/local/cuda has to point at it.",
    requires=cuda,
    source="nvcc --version",
)
def test_nvcc(node: Node) -> None:
    """The first that is found is the one that people get."""
    found = fact(node, "cards.toolkits")
    asked_for = wanted(node)
    if not found:
        absent(node, "nvcc", asked_for)
    seen = [f"{one['path']}: {one['said']}" for one in found]
    first = found[0]
    if not first["release"]:
        fail(f"{first['path']} does not say its release: {first['said']}", seen)
    if asked_for and numbers(first["release"]) != numbers(asked_for)[:2]:
        fail(f"{first['path']} is of {first['release']}; {asked_for} was asked for", seen)


@check(
    id="cuda.kernel",
    severity="blocker",
    title="A kernel that this node compiles computes on every card what the CPU computes",
    remedy="Read what nvcc or the driver says: an unsupported architecture is a toolkit that is "
    "older than the card; wrong numbers are the card's, and it has to be replaced.",
    requires=gpu,
    depends=["driver.loaded", "driver.version-match", "driver.answers", "cuda.nvcc"],
    source="cuda.h: cuModuleLoadData, cuLaunchKernel; the CPU's answer to the same",
)
def test_kernel(node: Node) -> None:
    """65,536 whole numbers: one right answer, whatever the card."""
    on_bus(node)
    compute, compiled = fact(node, "cards.compute"), fact(node, "cards.compiled")
    if compute.get("error"):
        if not compute["cards"] and not fact(node, "gpu.libraries").get("libcuda.so.1"):
            absent(node, "libcuda.so.1", node.expect.get("gpu"))
        fail(f"CUDA does not begin: {compute['error']}")
    wrong = []
    for card in compute["cards"]:
        said = card["error"] or card["kernel"]
        if said == "not compiled":
            if not fact(node, "cards.toolkits"):
                absent(node, "nvcc", wanted(node))
            why = compiled.get(card["architecture"])
            if not why:
                not_verified("NVML did not say what to compile for; see driver.nvml")
            said = f"nvcc does not compile for sm_{card['architecture']}: {why}"
        if said:
            wrong.append(f"{name_of(card)}: {said}")
    if not compute["cards"]:
        fail("CUDA sees no card")
    if wrong:
        fail(f"{len(wrong)} of {len(compute['cards'])} cards: {wrong[0]}", wrong)


@check(
    id="cuda.every-card",
    severity="blocker",
    title="CUDA sees every card",
    remedy="Look for CUDA_VISIBLE_DEVICES in /etc/environment, for cards in exclusive mode, and "
    "for a fabric manager that does not run: without it cards with NVSwitch stay away.",
    requires=gpu,
    depends=["driver.answers", "cuda.kernel"],
    source="cuda.h: cuDeviceGetCount, beside the PCI bus",
)
def test_every_card(node: Node) -> None:
    """A card that is divided is seen by its first slice only."""
    cards = on_bus(node)
    compute = fact(node, "cards.compute")
    if compute.get("error"):
        not_verified(f"CUDA does not begin: {compute['error']}; see cuda.kernel")
    if any(card.get("mig") and card["mig"][0] for card in nvml(node)["cards"]):
        not_verified("cards are divided: CUDA shows a process one slice")
    seen = [name_of(card) for card in compute["cards"]]
    if len(seen) < len(cards):
        fail(f"CUDA sees {len(seen)} of {len(cards)} cards", seen)


@check(
    id="cuda.driver-pair",
    severity="blocker",
    title="The driver is new enough for the toolkit",
    remedy="Install a driver of at least the toolkit's CUDA release, or an older toolkit; "
    "docs/driver.md has the table.",
    requires=gpu,
    depends=["driver.nvml"],
    source="CUDA Compatibility: within one major release any driver of it will do",
)
def test_driver_pair(node: Node) -> None:
    """The driver's number is the newest CUDA that it runs."""
    most = nvml(node).get("cuda")
    if not most:
        not_verified("NVML does not say which CUDA the driver runs")
    has = toolkit(node)["release"]
    if numbers(has)[0] > most // 1000:
        fail(f"the driver runs CUDA up to {release(most)}, and the toolkit is {has}")


@check(
    id="cuda.cudnn",
    severity="major",
    title="cuDNN loads, in the release that was asked for, and was built for this CUDA",
    remedy=INSTALL + " 'ldconfig -p | grep cudnn' shows what programs get.",
    requires=cuda,
    source="cudnnGetVersion and cudnnGetCudartVersion of cudnn.h",
)
def test_cudnn(node: Node) -> None:
    """Loaded by its name, as a framework does it."""
    found = fact(node, "cards.libraries.cudnn")
    asked_for = asked(node, "cuda", "cudnn")
    if found["error"]:
        if asked_for:
            fail(f"cuDNN does not load: {found['error']}")
        absent(node, found["name"], False)
    version = found["version"]
    parts = (version // 10000, version % 10000 // 100) if version >= 90000 else ()
    parts = parts or (version // 1000, version % 1000 // 100)
    said = ".".join(map(str, parts))
    if asked_for and parts != numbers(asked_for)[:2]:
        fail(f"cuDNN is {said}; {asked_for} was asked for")
    built, has = found["cuda"], toolkit(node)["release"]
    if built // 1000 != numbers(has)[0]:
        fail(f"cuDNN {said} was built for CUDA {release(built)}, and the toolkit is {has}")


@check(
    id="cuda.nccl",
    severity="major",
    title="NCCL loads, in the release that was asked for",
    remedy=INSTALL + " 'ldconfig -p | grep nccl' shows what programs get.",
    requires=cuda,
    source="ncclGetVersion of nccl.h",
)
def test_nccl(node: Node) -> None:
    """22105 is 2.21.5."""
    found = fact(node, "cards.libraries.nccl")
    asked_for = asked(node, "cuda", "nccl")
    if found["error"]:
        if asked_for:
            fail(f"NCCL does not load: {found['error']}")
        absent(node, found["name"], False)
    version = found["version"]
    parts = (version // 10000, version % 10000 // 100, version % 100)
    if asked_for and parts != numbers(asked_for)[:3]:
        fail(f"NCCL is {'.'.join(map(str, parts))}; {asked_for} was asked for")
