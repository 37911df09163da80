"""Each framework of each environment multiplies a matrix on every card; the CPU knows the product.

Only what is there is tried: frameworks that a profile asked for, or that an environment has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.cards import absent, answering, on_bus
from harness.checks import Requirement, check, fact, fail, frameworks, not_verified
from harness.node import Node

Answer = Mapping[str, Any]
NAMES = {
    "pytorch": "PyTorch",
    "tensorflow": "TensorFlow",
    "jax": "JAX",
    "cupy": "CuPy",
    "rapids": "RAPIDS cuDF",
}
REMEDY = (
    "Run the environment's python by hand. 'No GPU' with a driver that works is a build for the "
    "CPU, or for a newer CUDA than the driver runs; take the lock's own with 'airlock env build'."
)
DEPENDS = ("driver.loaded", "driver.version-match", "driver.answers", "cuda.kernel")


def asked_for(framework: str) -> Requirement:
    """Does not apply where the lab knows what was asked for, and this was not."""

    def why_not(node: Node) -> str:
        known = node.expect.get("frameworks")
        missing = known is not None and framework not in known
        return f"does not apply: this profile has no {NAMES[framework]}" if missing else ""

    return Requirement(framework, f"a profile with {NAMES[framework]}", why_not)


def answers(node: Node, framework: str | None = None) -> list[Answer]:
    """What was tried, of one framework or of all; never empty."""
    found: list[Answer] = fact(node, "cards.frameworks")
    wanted = node.expect.get("frameworks") or ()
    if framework:
        found = [answer for answer in found if answer["framework"] == framework]
        if not found:
            absent(node, f"an environment with {NAMES[framework]}", framework in wanted)
    if not found:
        not_verified("no environment of this node has a framework")
    return found


def where(answer: Answer) -> str:
    """The environment and the framework, for people."""
    name = f"{NAMES[answer['framework']]} {answer.get('version') or ''}".strip()
    return f"{answer['environment']}: {name}"


def computes(node: Node, framework: str) -> None:
    """Fails where one environment's framework does not, or computes something else."""
    on_bus(node)
    wrong = []
    for answer in answers(node, framework):
        bad = [one["said"] for one in answer["results"] if not one["right"]]
        said = answer["error"] or "; ".join(bad)
        if not said and not answer["results"]:
            built = answer.get("cuda")
            said = f"it sees no GPU (built for CUDA {built or 'of no release that it names'})"
        if said:
            wrong.append(f"{where(answer)}: {said}")
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="frameworks.pytorch",
    severity="blocker",
    title="PyTorch computes on every card what the CPU computes",
    remedy=REMEDY,
    requires=[frameworks, asked_for("pytorch")],
    depends=DEPENDS,
    source="torch.cuda; whole numbers, of which every precision gives the same product",
)
def test_pytorch(node: Node) -> None:
    """A product of matrices."""
    computes(node, "pytorch")


@check(
    id="frameworks.tensorflow",
    severity="blocker",
    title="TensorFlow computes on every card what the CPU computes",
    remedy=REMEDY,
    requires=[frameworks, asked_for("tensorflow")],
    depends=DEPENDS,
    source="tf.config.list_physical_devices; whole numbers, exact in every precision",
)
def test_tensorflow(node: Node) -> None:
    """A product of matrices."""
    computes(node, "tensorflow")


@check(
    id="frameworks.jax",
    severity="blocker",
    title="JAX computes on every card what the CPU computes",
    remedy=REMEDY,
    requires=[frameworks, asked_for("jax")],
    depends=DEPENDS,
    source="jax.devices('gpu'); whole numbers, exact in every precision",
)
def test_jax(node: Node) -> None:
    """A product of matrices."""
    computes(node, "jax")


@check(
    id="frameworks.cupy",
    severity="blocker",
    title="CuPy computes on every card what the CPU computes",
    remedy=REMEDY,
    requires=[frameworks, asked_for("cupy")],
    depends=DEPENDS,
    source="cupy.cuda.runtime; whole numbers, exact in every precision",
)
def test_cupy(node: Node) -> None:
    """A product of matrices, by cuBLAS."""
    computes(node, "cupy")


@check(
    id="frameworks.rapids",
    severity="blocker",
    title="RAPIDS cuDF adds up on a card what the CPU adds up",
    remedy=REMEDY,
    requires=[frameworks, asked_for("rapids")],
    depends=DEPENDS,
    source="cudf.Series.groupby().sum()",
)
def test_rapids(node: Node) -> None:
    """Sums by group."""
    computes(node, "rapids")


@check(
    id="frameworks.every-card",
    severity="major",
    title="Every framework sees every card that CUDA sees",
    remedy="Look for CUDA_VISIBLE_DEVICES, also in the environment's activation scripts, and for "
    "cards that are older than the framework's build.",
    requires=frameworks,
    depends=["cuda.every-card", *(f"frameworks.{name}" for name in NAMES)],
    source="each framework's own count, beside cuDeviceGetCount",
)
def test_every_card(node: Node) -> None:
    """cuDF has one card a process: that of its caller."""
    on_bus(node)
    seen = len(fact(node, "cards.compute")["cards"])
    tried = [one for one in answers(node) if one["framework"] != "rapids" and not one["error"]]
    if not seen or not tried:
        not_verified("neither CUDA nor a framework says which cards it sees")
    few = [f"{where(one)} sees {one['cards']} of {seen}" for one in tried if one["cards"] < seen]
    if few:
        fail(few[0], few)


#: The least share of a card's memory that a framework can have, or has used.
SHARES = {"pytorch": 0.9, "cupy": 0.9, "jax": 0.5, "tensorflow": 0.0}


@check(
    id="frameworks.memory",
    severity="major",
    title="Every framework has the cards' memory",
    remedy="See who else holds memory ('nvidia-smi'), and whether XLA_PYTHON_CLIENT_MEM_FRACTION "
    "or a limit of the framework is set for the whole machine.",
    requires=frameworks,
    depends=["driver.nvml", *(f"frameworks.{name}" for name in NAMES)],
    source="mem_get_info, memory_stats and get_memory_info, beside nvmlDeviceGetMemoryInfo",
)
def test_memory(node: Node) -> None:
    """TensorFlow says what it used; nothing is what it uses on a CPU."""
    cards = answering(node)
    if any(card["mig"] and card["mig"][0] for card in cards):
        not_verified("cards are divided: a framework has the memory of its slice")
    sizes = [card["memory"]["total"] for card in cards if card["memory"]]
    if not sizes:
        not_verified("NVML does not say how much memory a card has")
    least = min(sizes)
    told, small = 0, []
    for answer in answers(node):
        share = SHARES.get(answer["framework"])
        for one in answer["results"] if share is not None else ():
            if one["memory"] is None:
                continue
            told += 1
            if one["memory"] <= share * least:
                has, of = one["memory"] >> 20, least >> 20
                small.append(f"{where(answer)}: {has} of {of} MiB")
    if small:
        fail(f"too little memory: {small[0]}", small)
    if not told:
        not_verified("no framework says how much memory it has")
