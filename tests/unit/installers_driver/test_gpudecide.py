"""One decision about driver, modules and CUDA, which says why; the impossible is refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from installers import gpudecide, gpus, gputable, nvidiaurls
from installers.choice import Choice
from installers.compat import numbers
from installers.config import Config
from installers.errors import ConfigError
from installers.gpudecide import Decision
from installers.host import Host

P4, P100, V100, T4, A100, L4, H100, B200 = (
    *(0x1BB3, 0x15F8, 0x1DB1, 0x1EB8),
    *(0x20B2, 0x27B8, 0x2330, 0x2901),
)
RUNFILE = {"airlock-driver-source": "runfile"}


def _decide(*cards: int, image: str | None = None, **attributes: str) -> Decision:
    given = {key.replace("_", "-"): value for key, value in attributes.items()}
    system: dict[str, Any] = {"os_id": "debian", "os_version": "12", "kernel": "6.1.0-56"}
    if image is not None:
        given["cuda-version"] = "default"
    asked = gpudecide.read({**RUNFILE, **given})
    return gpudecide.decide(asked, present=cards, image=image, **system)


def _codes(made: Decision) -> list[str]:
    assert all(refusal.reason and refusal.remedy for refusal in made.refusals)
    return [refusal.code for refusal in made.refusals]


@pytest.mark.parametrize(
    ("device", "name"),
    [
        (P4, "pascal"),
        (P100, "pascal"),
        (V100, "volta"),
        (T4, "turing"),
        (A100, "ampere"),
        (0x20B5, "ampere"),
        (0x20F3, "ampere"),
        (L4, "ada"),
        (H100, "hopper"),
        (B200, "blackwell"),
        (0x2B85, "blackwell"),
    ],
)
def test_generations_by_number(device: int, name: str) -> None:
    kind = gpus.architecture(device)
    assert kind is not None
    assert kind.name == name


def test_ranges_do_not_overlap() -> None:
    rows = sorted(
        (int(low, 16), int(high, 16))
        for row in gpus.table()["architectures"]
        for low, high in row["ids"]
    )
    assert all(low <= high for low, high in rows)
    assert all(one[1] < two[0] for one, two in itertools.pairwise(rows))


@pytest.mark.parametrize(
    ("device", "flavour"), [(P4, "proprietary"), (V100, "proprietary"), (T4, "open"), (L4, "open")]
)
def test_B24_flavour_by_number_and_not_by_text(device: int, flavour: str) -> None:
    """As text, an L4's 10168 sorts below Turing's 7680."""
    made = _decide(device, cuda_version="12.4")
    assert (made.flavour, _codes(made)) == (flavour, [])


def test_blackwell_takes_open_modules_and_a_new_driver() -> None:
    made = _decide(B200, cuda_version="12.8")
    assert (made.flavour, made.driver, _codes(made)) == ("open", "570.211.01", [])
    refused = _decide(B200, cuda_version="12.4", airlock_driver_flavour="proprietary")
    assert _codes(refused) == ["gpu.card-flavour", "gpu.card-cuda"]
    assert numbers(refused.driver or "") >= (570,)


def test_B27_pairs_that_cannot_be() -> None:
    """CUDA 13 with 550, as a public recipe pairs them."""
    made = _decide(T4, cuda_version="13.1.1", gpu_driver_version="550.142")
    assert _codes(made) == ["gpu.cuda-driver"]
    assert "needs driver 580.65.06" in made.refusals[0].reason


def test_old_cards_and_new_branches() -> None:
    assert _codes(_decide(P100, gpu_driver_version="590.48.01")) == ["gpu.card-driver"]
    assert _codes(_decide(V100, cuda_version="13.0")) == ["gpu.card-cuda"]
    # The image's default gives way to what the card can do.
    made = _decide(V100, image="2.3")
    assert (_codes(made), made.cuda) == ([], "12.6.3")
    assert numbers(made.driver or "")[0] <= 580
    assert _codes(_decide(T4, A100, image="2.2")) == []


def test_the_default_of_an_image(tmp_path: Path) -> None:
    for image, cuda in gpus.table()["images"].items():
        system = "10" if image in ("1.5", "2.0") else "12"
        asked = gpudecide.read({**RUNFILE, "cuda-version": "default"})
        made = gpudecide.decide(
            asked, os_id="debian", os_version=system, kernel=None, present=[T4], image=image
        )
        assert (made.cuda, _codes(made)) == (cuda, [])
    assert _decide(T4).cuda is None
    for image, says in (("9.9", "image 9.9 is in no row"), ("", "no Dataproc image")):
        (refusal,) = _decide(T4, image=image).refusals
        assert (refusal.code, says in refusal.reason) == ("gpu.image", True)
    host = Host(tmp_path)
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    one = Choice(Config(raw={**RUNFILE, "cuda-version": "default"}))
    assert one.decide(host).cuda is None
    host.write("/etc/environment", 'DATAPROC_IMAGE_VERSION="2.2.57-debian12"\n')
    assert one.decide(host).cuda == "12.6.3"


def test_B25_two_and_three_parts() -> None:
    for version in ("550.142", "550.54.15", "470.256.02", "565.77"):
        made = _decide(T4, gpu_driver_version=version)
        assert (made.driver, made.branch) == (version, version.split(".")[0])
    for wrong in ("550", "550.x", "latest", "1.2.3.4"):
        with pytest.raises(ConfigError, match="gpu-driver-version"):
            _decide(T4, gpu_driver_version=wrong)


def test_one_precedence() -> None:
    url = nvidiaurls.cuda("12.4.1")
    made = _decide(T4, cuda_url=url)
    assert (made.cuda, made.driver, made.source) == ("12.4.1", "550.54.15", "runfile")
    made = _decide(
        T4, cuda_url=url, cuda_version="12.6", gpu_driver_url=nvidiaurls.driver("565.77")
    )
    assert (made.cuda, made.driver) == ("12.6.3", "565.77")
    assert any("cuda-version, which overrides cuda-url (12.4.1)" in why for why in made.reasons)
    assert any("gpu-driver-url, which overrides cuda-url (550.54.15)" in w for w in made.reasons)
    made = _decide(
        T4, cuda_url=url, gpu_driver_url=nvidiaurls.driver("565.77"), gpu_driver_version="560.35.03"
    )
    assert made.driver == "560.35.03"


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"cuda-version": "twelve"}, "cuda-version"),
        ({"cuda-url": "https://host/file.run"}, "cuda-url: names no CUDA version"),
        ({"gpu-driver-url": "https://host/file"}, "gpu-driver-url: names no driver version"),
        ({"airlock-driver-flavour": "closed"}, "not one of auto, open, proprietary"),
        ({"airlock-driver-source": "usb"}, "not one of distribution"),
        ({"gpu-driver-provider": "AMD"}, "not one of NVIDIA, OS, NONE"),
        ({"airlock-gpu": "voodoo"}, "'voodoo' is no GPU"),
        ({"airlock-accept-licences": "all"}, "all is not one of"),
        ({"cudnn-version": "9"}, "cudnn-version"),
    ],
)
def test_values_without_meaning(attributes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        gpudecide.read(attributes)


def test_B45_unknown_versions_are_named() -> None:
    made = _decide(T4, cuda_version="12.7")
    assert _codes(made) == ["gpu.cuda-unknown"]
    assert "12.6" in made.refusals[0].remedy
    # A runfile and no driver of its own in the old scripts' tables, where it died too.
    made = _decide(T4, cuda_version="11.0", cudnn_version="8.0.4")
    assert (made.cuda, made.driver) == ("11.0.3", "450.80.02")


def test_licences_are_never_accepted_silently() -> None:
    wanted = {"cuda": "12.4.1", "cudnn": "9.1.0.70", "nvidia-driver": None}
    for accepted, left in (("", 2), ("cuda", 1), ("cudnn", 1), ("cuda, cudnn", 0)):
        asked = gpudecide.read({"airlock-accept-licences": accepted})
        refusals = gpudecide.unaccepted(asked, wanted)
        assert [refusal.code for refusal in refusals] == ["gpu.licence"] * left


def test_the_distributions_driver_is_checked_when_it_is_known() -> None:
    asked = gpudecide.read({"cuda-version": "12.4"})
    system: dict[str, Any] = {"os_id": "debian", "os_version": "12", "kernel": "6.1.0-56"}
    made = gpudecide.decide(asked, present=[T4], **system)
    assert (made.driver, made.source, _codes(made)) == (None, "distribution", [])
    for driver, codes in (("535.261.03", []), ("510.108.03", ["gpu.cuda-driver", "gpu.system"])):
        known = gpudecide.with_driver(asked, driver)
        made = gpudecide.decide(known, present=[T4], **system)
        assert (made.driver, _codes(made)) == (driver, codes)


def test_libraries_as_asked_or_refused() -> None:
    made = _decide(T4, cuda_version="12.4", cudnn_version="9.5.1.17")
    assert (made.cudnn, made.nccl) == ("9.5.1.17", "2.23.4")
    assert _codes(_decide(T4, cudnn_version="9.5.1.17")) == ["gpu.library"]


def test_B26_systems_machines_and_kernels() -> None:
    asked = gpudecide.read({**RUNFILE, "cuda-version": "12.4"})

    def on(os_id: str, version: str, kernel: str = "6.1.0", machine: str = "x86_64") -> Decision:
        return gpudecide.decide(
            asked, os_id=os_id, os_version=version, kernel=kernel, machine=machine, present=[T4]
        )

    assert _codes(on("ubuntu", "18.04")) == ["gpu.system", "gpu.system"]
    assert _codes(on("debian", "13")) == ["gpu.system"]
    assert _codes(on("ubuntu", "24.04")) == ["gpu.system"]
    assert _codes(on("rocky", "9.4")) == []
    assert _codes(on("debian", "12", machine="aarch64")) == ["gpu.machine"]
    assert "gpu.kernel" in _codes(on("debian", "12", kernel="4.9.0"))
    assert any("nobody has built" in text for text in on("debian", "12", "6.6.1").unknown)
    assert any("no row" in text for text in on("suse", "15").unknown)


def test_cards_that_exclude_each_other() -> None:
    assert "gpu.mixed-cards" in _codes(_decide(P4, B200, gpu_driver_version="575.64.05"))


def test_every_row_is_whole() -> None:
    table = gpus.table()
    for minor, row in table["cuda"].items():
        assert row["runfiles"], minor
        assert row["newest"] in row["runfiles"]
        assert numbers(row["driver"] or "999") >= numbers(row["minimum_driver"]), minor
        assert _codes(_decide(cuda_version=minor)) in ([], ["gpu.system"], ["gpu.system"] * 2)
    assert sum(len(row["runfiles"]) for row in table["cuda"].values()) == 40


def test_golden_addresses() -> None:
    developer = "https://developer.download.nvidia.com/compute"
    golden = {
        nvidiaurls.driver("550.142"): "https://us.download.nvidia.com/XFree86/Linux-x86_64/"
        "550.142/NVIDIA-Linux-x86_64-550.142.run",
        nvidiaurls.cuda("12.4.1"): f"{developer}/cuda/12.4.1/local_installers/"
        "cuda_12.4.1_550.54.15_linux.run",
        nvidiaurls.cuda("10.0.130"): f"{developer}/cuda/10.0.130/local_installers/"
        "cuda_10.0.130_410.48_linux.run",
        nvidiaurls.cudnn("7.6.4", "10.1.234"): f"{developer}/redist/cudnn/v7.6.4/"
        "cudnn-10.1-linux-x64-v7.6.4.tgz",
        nvidiaurls.cudnn("8.3.1.22", "11.5.2"): f"{developer}/redist/cudnn/v8.3.1/"
        "local_installers/11.5/cudnn-linux-x86_64-8.3.1.22_cuda11.5-archive.tar.xz",
        nvidiaurls.cudnn("8.9.7.29", "11.7.1"): f"{developer}/redist/cudnn/v8.9.7/"
        "local_installers/11.7/cudnn-linux-x86_64-8.9.7.29_cuda11-archive.tar.xz",
        nvidiaurls.cudnn("9.6.0.74", "12.6.3"): f"{developer}/cudnn/redist/cudnn/linux-x86_64/"
        "cudnn-linux-x86_64-9.6.0.74_cuda12-archive.tar.xz",
        nvidiaurls.nccl("2.23.4"): "https://github.com/NVIDIA/nccl/archive/refs/tags/"
        "v2.23.4-1.tar.gz",
        nvidiaurls.open_modules("550.142"): "https://github.com/NVIDIA/open-gpu-kernel-modules/"
        "archive/refs/tags/550.142.tar.gz",
    }
    assert all(made == written for made, written in golden.items())
    for row in gpus.table()["cuda"].values():
        for full, tag in row["runfiles"].items():
            assert nvidiaurls.cuda(full).endswith(
                f"/{full}/local_installers/cuda_{full}_{tag}_linux.run"
            )


def test_nccl_is_built_for_blackwell() -> None:
    assert "-gencode=arch=compute_120,code=sm_120" in nvidiaurls.gencode("12.8.1")
    assert "-gencode=arch=compute_70,code=sm_70" in nvidiaurls.gencode("12.8.1")
    assert not any("_70" in word for word in nvidiaurls.gencode("13.0.2"))
    assert not any("_90" in word for word in nvidiaurls.gencode("11.8.0"))


def test_cards_of_a_machine_and_of_the_metadata(tmp_path: Path) -> None:
    host = Host(tmp_path)
    for number, (vendor, device, kind) in enumerate(
        [
            ("0x10de", "0x27b8", "0x030200"),
            ("0x10de", "0x22bd", "0x040300"),
            ("0x10de", "0x22a3", "0x068000"),
            ("0x1af4", "0x1041", "0x020000"),
            ("nonsense", "", ""),
        ]
    ):
        for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
            host.write(f"/sys/bus/pci/devices/0000:00:0{number}.0/{name}", f"{value}\n")
    assert gpus.present(host) == [L4]
    assert gpus.switches(host) == 1
    assert gpus.parse("nvidia-l4, 10de:2330 nvidia-tesla-t4", "k") == [L4, H100, T4]
    made = _decide(L4, airlock_gpu="p4")
    assert "pascal" in made.reasons[0]


def test_the_page_is_the_table() -> None:
    page = Path(__file__).parents[3] / "docs/gpu-table.md"
    assert page.read_text() == gputable.page()
