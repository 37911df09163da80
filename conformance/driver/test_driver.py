"""The driver has every card, and its parts are of one release."""

from __future__ import annotations

from conformance.cards import absent, answering, asked, name_of, nvml, on_bus
from harness.checks import Requirement, check, fact, fail, gpu, not_verified
from harness.node import Node

RELOAD = (
    "Unload the modules (nvidia_drm, nvidia_modeset, nvidia_uvm, nvidia) or reboot, so that the "
    "kernel takes the installed driver."
)
chosen = Requirement(
    "driver-chosen",
    "a driver that our installer chose",
    lambda node: (
        ""
        if asked(node, "driver", "driver")
        else "does not apply: needs a driver that our installer chose"
    ),
)


@check(
    id="driver.present",
    severity="blocker",
    title="Every NVIDIA card is on the PCI bus",
    remedy="Attach the cards to the machine, or choose a machine type with GPUs; then 'lspci -d "
    "10de:'. A card that was there before may have fallen off the bus: power the machine off.",
    requires=gpu,
    source="/sys/bus/pci/devices: vendor 10de, class 03; PCI Code and ID Assignment Specification",
)
def test_present(node: Node) -> None:
    """As many as the lab knows of; on a machine of others one is enough to be looked at."""
    found = fact(node, "gpu.cards")
    wanted = node.expect.get("gpu")
    if not found and not wanted:
        not_verified("there is no NVIDIA card on the PCI bus")
    seen = [f"{card['address']} {card['device']}" for card in found]
    if len(found) < int(wanted or 1):
        fail(f"{len(found)} NVIDIA cards are on the PCI bus, {int(wanted or 1)} are expected", seen)


@check(
    id="driver.loaded",
    severity="blocker",
    title="The kernel has loaded the NVIDIA driver",
    remedy="Try 'modprobe nvidia', and read 'dmesg' after it: a key that is refused, a module of "
    "another kernel and a card that the driver does not know all say so there.",
    requires=gpu,
    depends=["driver.present"],
    source="/proc/driver/nvidia/version; NVIDIA's README, Procfs Interface",
)
def test_loaded(node: Node) -> None:
    """The driver makes that file when it has begun."""
    found = on_bus(node)
    if not fact(node, "gpu").get("module"):
        fail(f"{len(found)} cards are there, and the NVIDIA driver is not loaded")


@check(
    id="driver.bound",
    severity="blocker",
    title="Every card belongs to the NVIDIA driver",
    remedy="Blacklist the other driver in modprobe.d, rebuild the initramfs and reboot; a card "
    "that nobody holds is one that NVIDIA's driver refused: 'dmesg | grep NVRM' says why.",
    requires=gpu,
    depends=["driver.loaded"],
    source="/sys/bus/pci/devices/*/driver; NVIDIA's README, Interaction with the Nouveau Driver",
)
def test_bound(node: Node) -> None:
    """nouveau and vfio-pci hold on to what they have."""
    wrong = [
        f"{card['address']} is held by {card['driver'] or 'nobody'}"
        for card in on_bus(node)
        if card["driver"] != "nvidia"
    ]
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="driver.version-match",
    severity="blocker",
    title="The loaded module, NVML and libcuda are of one release",
    remedy="A half finished upgrade: install one release of the driver's packages. " + RELOAD,
    requires=gpu,
    depends=["driver.loaded"],
    source="NVRM: API mismatch; nvml.h: NVML_ERROR_LIB_RM_VERSION_MISMATCH",
)
def test_version_match(node: Node) -> None:
    """By the files that are loaded, and by what NVML says of itself."""
    on_bus(node)
    module = fact(node, "gpu").get("module")
    if not module:
        not_verified("the driver is not loaded; see driver.loaded")
    seen = {f"module: {module}": module}
    for found in fact(node, "gpu.libraries").values():
        if found:
            seen[f"{found['path']}: {found['version']}"] = found["version"]
    said = fact(node, "cards.nvml")
    if said.get("version"):
        seen[f"NVML says of itself: {said['version']}"] = said["version"]
    if len(seen) == 1:
        not_verified("neither NVML nor libcuda is there to be compared with the module")
    others = sorted({str(version) for version in seen.values() if version != module})
    if others:
        fail(f"the module is {module}, and the libraries are {', '.join(others)}", seen)


@check(
    id="driver.release",
    severity="major",
    title="The driver that runs is the one that was chosen",
    remedy=RELOAD + " 'airlock plan' says which driver was chosen, and why.",
    requires=[gpu, chosen],
    depends=["driver.loaded"],
    source="the installer's own record, beside /proc/driver/nvidia/version",
)
def test_release(node: Node) -> None:
    """A driver that was installed while another one ran waits for a reboot."""
    on_bus(node)
    module = fact(node, "gpu").get("module")
    if not module:
        not_verified("the driver is not loaded; see driver.loaded")
    wanted = asked(node, "driver", "driver")
    if module != wanted:
        fail(f"the driver that runs is {module}; {wanted} was chosen and installed")


@check(
    id="driver.device-nodes",
    severity="major",
    title="Every card has its files in /dev",
    remedy="Run 'nvidia-modprobe -c 0 -u', and enable nvidia-persistenced, which makes them at "
    "each boot; a udev rule of a container's image may remove them.",
    requires=gpu,
    depends=["driver.loaded"],
    source="NVIDIA's README: How and when are the NVIDIA device files created?",
)
def test_device_nodes(node: Node) -> None:
    """One for the driver, one for unified memory, one a card."""
    cards = on_bus(node)
    if not fact(node, "gpu").get("module"):
        not_verified("the driver is not loaded; see driver.loaded")
    there = set(fact(node, "gpu.nodes"))
    wanted = ["/dev/nvidiactl", "/dev/nvidia-uvm"]
    wanted += [f"/dev/nvidia{card['minor']}" for card in cards if card["minor"] is not None]
    gone = [path for path in wanted if path not in there]
    if gone:
        fail(f"{len(gone)} device files are not there: {', '.join(gone)}", sorted(there))


@check(
    id="driver.persistence",
    severity="minor",
    title="The driver stays initialised when nobody uses a card",
    remedy="Enable nvidia-persistenced.service: without it each first program waits for the "
    "card's start, and counters of errors are lost.",
    requires=gpu,
    depends=["driver.nvml"],
    source="NVIDIA's Driver Persistence guide; nvmlDeviceGetPersistenceMode",
)
def test_persistence(node: Node) -> None:
    """The daemon's way or the older mode of the card itself."""
    off = [name_of(card) for card in answering(node) if card["persistence"] is False]
    if off and not fact(node, "gpu").get("persistenced"):
        fail(f"{len(off)} cards are not persistent, and nvidia-persistenced does not run", off)


@check(
    id="driver.nvidia-smi",
    severity="blocker",
    title="nvidia-smi ends well and lists every card",
    remedy="Its exit code says where to look: 9 the module is not loaded, 12 libnvidia-ml is not "
    "found, 18 it is of another release, 15 a card has to be reset or the machine powered off, "
    "14 the card has to be replaced, 8 its power is not connected.",
    requires=gpu,
    depends=["driver.loaded", "driver.version-match", "driver.answers"],
    source="nvidia-smi's manual, RETURN VALUE",
)
def test_nvidia_smi(node: Node) -> None:
    """By its exit code; what it prints is for people."""
    cards = on_bus(node)
    found = fact(node, "cards").get("nvidia_smi")
    if not found:
        absent(node, "nvidia-smi", node.expect.get("gpu"))
    if found["error"]:
        fail(f"nvidia-smi {found['error']}", found["said"])
    if found["code"]:
        meaning = found["meaning"] or "no meaning of this code is known"
        fail(f"nvidia-smi exited {found['code']}: {meaning}", found["said"])
    if len(found["cards"]) < len(cards):
        fail(f"nvidia-smi lists {len(found['cards'])} of {len(cards)} cards", found["said"])


@check(
    id="driver.nvml",
    severity="blocker",
    title="NVML begins, and sees every card on the bus",
    remedy="Its error says where to look: the driver is not loaded, the library is of another "
    "release than the module, or the process may not open /dev/nvidiactl.",
    requires=gpu,
    depends=["driver.loaded", "driver.version-match"],
    source="nvml.h: nvmlInit_v2, nvmlReturn_t",
)
def test_nvml(node: Node) -> None:
    """What every tool of NVIDIA's stands on."""
    cards = on_bus(node)
    found = fact(node, "cards.nvml")
    if found.get("code") == 12:
        absent(node, "libnvidia-ml.so.1", node.expect.get("gpu"))
    if found.get("error"):
        fail(f"NVML does not begin: {found['error']}")
    if len(found["cards"]) < len(cards):
        fail(f"NVML sees {len(found['cards'])} of {len(cards)} cards")


@check(
    id="driver.answers",
    severity="blocker",
    title="Every card answers",
    remedy="Take the node out of service and power the machine off and on: a reboot alone does "
    "not bring a card back to the bus. Happens it again, the card or its slot is broken.",
    requires=gpu,
    depends=["driver.nvml"],
    source="nvml.h: NVML_ERROR_GPU_IS_LOST; a PCI read of a lost device gives ones",
)
def test_answers(node: Node) -> None:
    """By the bus itself, and by NVML where it begins."""
    cards = on_bus(node)
    gone = [
        f"{card['address']} is not on the bus any more" for card in cards if card["on_bus"] is False
    ]
    if not gone:
        gone = [
            f"{name_of(card)}: {', '.join(sorted(set(card['errors'].values())))}"
            for card in nvml(node)["cards"]
            if card.get("code") or "handle" in card["errors"]
        ]
    if gone:
        fail(f"{len(gone)} cards do not answer: {gone[0]}", gone)
