"""Containers get the cards: the toolkit, CDI, and what each runtime was told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from conformance.cards import absent, on_bus
from harness.checks import Requirement, check, containers, fact, fail, gpu, not_verified
from harness.node import Node

CONFIGURE = "Run 'nvidia-ctk runtime configure --runtime={}' and restart it."
GENERATE = "Run 'nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml'"


def wanted(node: Node) -> str | None:
    """The runtime that the profile asked for."""
    found = node.expect.get("container_runtime")
    return str(found) if found else None


def installed(runtime: str) -> Requirement:
    """Does not apply to a node without this runtime, unless it was asked for."""

    def why_not(node: Node) -> str:
        known = (node.facts.get("containers") or {}).get("runtimes") or {}
        there = runtime not in known or known[runtime].get("path")
        return "" if there or wanted(node) == runtime else f"does not apply: needs {runtime}"

    return Requirement(runtime, runtime, why_not)


@check(
    id="containers.toolkit",
    severity="major",
    title="NVIDIA's container toolkit is whole",
    remedy="Install nvidia-container-toolkit and libnvidia-container1 of one release.",
    requires=containers,
    source="the programs and the library that nvidia-container-toolkit installs",
)
def test_toolkit(node: Node) -> None:
    """The tool that configures, the runtime that the others call, the library below it."""
    programs = fact(node, "containers.programs")
    needed = {name: programs.get(name) for name in ("nvidia-ctk", "nvidia-container-runtime")}
    needed["libnvidia-container.so.1"] = fact(node, "containers").get("library")
    gone = [name for name, path in needed.items() if not path]
    if len(gone) == len(needed):
        absent(node, "NVIDIA's container toolkit", wanted(node))
    if gone:
        fail(f"the container toolkit is not whole: {', '.join(gone)} is not there")


def specifications(node: Node) -> list[Mapping[str, Any]]:
    """The specifications of NVIDIA's cards; never empty. Needed where a runtime reads them."""
    found: list[Mapping[str, Any]] = fact(node, "containers.cdi")
    if not found:
        runtimes = fact(node, "containers.runtimes").values()
        reads = any(runtime["path"] and runtime["cdi"] for runtime in runtimes)
        absent(node, "a CDI specification of nvidia.com/gpu", wanted(node) or reads)
    return found


@check(
    id="containers.cdi-spec",
    severity="major",
    title="A CDI specification names every card",
    remedy=GENERATE + ", and enable nvidia-cdi-refresh.service, which does it at each boot.",
    requires=gpu,
    depends=["driver.loaded"],
    source="Container Device Interface: /etc/cdi and /var/run/cdi, kind nvidia.com/gpu",
)
def test_cdi_spec(node: Node) -> None:
    """By number, by UUID, or all at once: as many as there are cards or slices."""
    cards = on_bus(node)
    found = specifications(node)
    torn = [f"{spec['path']}: {spec['why']}" for spec in found if spec["why"]]
    if torn:
        fail(f"a CDI specification cannot be read: {torn[0]}", torn)
    names = {name for spec in found for name in spec["devices"]} - {"all"}
    if len(names) < len(cards):
        seen = [f"{spec['path']}: {', '.join(spec['devices'])}" for spec in found]
        fail(f"the CDI specification names {len(names)} of {len(cards)} cards", seen)


@check(
    id="containers.cdi-current",
    severity="blocker",
    title="What the CDI specification names is there, and of the driver that runs",
    remedy=GENERATE + " again: it was made for another driver, and containers do not start.",
    requires=gpu,
    depends=["containers.cdi-spec", "driver.loaded"],
    source="Container Device Interface: a mount whose hostPath is not there fails the container",
)
def test_cdi_current(node: Node) -> None:
    """A driver's upgrade leaves the old names of its libraries behind."""
    on_bus(node)
    found = specifications(node)
    gone = [f"{spec['path']}: {path}" for spec in found for path in spec["missing"]]
    if gone:
        fail(f"{len(gone)} files that CDI names are not there: {gone[0]}", gone)
    module = fact(node, "gpu").get("module")
    old = [
        f"{spec['path']} is of driver {release}, and {module} runs"
        for spec in found
        for release in spec["releases"]
        if module and release != module
    ]
    if old:
        fail(old[0], old)


def configured(node: Node, name: str) -> None:
    """Fails where a runtime that is there cannot start a container with cards."""
    found = fact(node, "containers.runtimes")[name]
    if not found["path"]:
        absent(node, name, wanted(node) == name)
    if found["why"]:
        fail(f"the settings of {name} cannot be read: {found['why']}")
    ours = {key: path for key, path in found["runtimes"].items() if key.startswith("nvidia")}
    broken = sorted({path for path in ours.values() if path in found["missing"]})
    seen = [f"{key}: {path}" for key, path in found["runtimes"].items()] + found["files"]
    if broken:
        fail(f"{name} starts {broken[0]}, which is not there", seen)
    if not ours and not found["cdi"]:
        if not wanted(node) and not any(fact(node, "containers.programs").values()):
            not_verified(f"{name} is here, and nothing says that it shall have GPUs")
        fail(f"{name} knows neither the runtime nvidia nor CDI", seen)


@check(
    id="containers.docker",
    severity="major",
    title="Docker can give cards to containers",
    remedy=CONFIGURE.format("docker"),
    requires=[containers, installed("docker")],
    depends=["containers.toolkit"],
    source="dockerd(8): runtimes and features.cdi in daemon.json",
)
def test_docker(node: Node) -> None:
    """Through a runtime of its own, or through CDI."""
    configured(node, "docker")


@check(
    id="containers.containerd",
    severity="major",
    title="containerd can give cards to containers",
    remedy=CONFIGURE.format("containerd"),
    requires=[containers, installed("containerd")],
    depends=["containers.toolkit"],
    source="containerd's config.toml, the CRI plugin's runtimes and enable_cdi",
)
def test_containerd(node: Node) -> None:
    """'no runtime for "nvidia" is configured' is what a pod says without."""
    configured(node, "containerd")


@check(
    id="containers.crio",
    severity="major",
    title="CRI-O can give cards to containers",
    remedy=CONFIGURE.format("crio"),
    requires=[containers, installed("crio")],
    depends=["containers.toolkit"],
    source="crio.conf(5): crio.runtime.runtimes",
)
def test_crio(node: Node) -> None:
    """It reads CDI without being told, where no runtime is named."""
    configured(node, "crio")
