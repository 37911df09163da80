"""The driver's source and the kernel's headers, exact or refused: asked of the real apt."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from installers import debian
from installers.build import DriverBuildError
from installers.choice import Choice
from installers.config import Config
from installers.errors import NodeError
from installers.host import Host
from tests.unit.installers_driver.test_cuda import _package, private_root

pytestmark = [
    pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt"),
    pytest.mark.skipif(os.geteuid() != 0, reason="dpkg installs as root only"),
]
KERNEL = "6.1.0-56-cloud-amd64"
HEADERS = f"linux-headers-{KERNEL}"
DKMS = "nvidia-kernel-open-dkms"
PACKAGES = {
    ("nvidia-kernel-source", "535.261.03-1"): "",
    (DKMS, "570.211.01-1"): "",
    (DKMS, "580.95.05-1"): "",
    ("nvidia-open-kernel-source", "535.261.03-1"): "",
    ("nvidia-open-kernel-source", "550.142-2~bpo12+1"): "",
    (HEADERS, "6.1.2-1"): "linux-headers-6.1.0-56-common, linux-compiler-gcc-12-x86",
    (HEADERS, "6.1.1-1"): "linux-headers-6.1.0-56-common, linux-compiler-gcc-12-x86",
    ("linux-headers-6.1.0-56-common", "6.1.2-1"): "",
    ("linux-headers-6.1.0-56-common", "6.1.1-1"): "",
    ("linux-compiler-gcc-12-x86", "6.1.2-1"): "gcc-12",
    ("gcc-12", "12.2.0-14"): "",
}


def _files(name: str, version: str) -> dict[str, str]:
    """The source as NVIDIA's packages for DKMS have it: not in an archive."""
    tree = f"/usr/src/nvidia-{debian.upstream_version(version)}"
    files = {f"{tree}/{file}": version for file in ("Kbuild", "Makefile", "nvidia/nvidia.Kbuild")}
    return files if name == DKMS else {}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    stanzas = [
        _package(folder, name, version, depends=depends, files=_files(name, version))
        for (name, version), depends in PACKAGES.items()
    ]
    (folder / "Packages").write_text("\n".join(stanzas))
    return folder


@pytest.fixture
def host(tmp_path: Path, repository: Path) -> Host:
    host = private_root(tmp_path, repository)
    host.write(f"/lib/modules/{KERNEL}/modules.builtin", "")
    host.apt("update")
    return host


def _source(host: Host, **attributes: str) -> debian.Package:
    raw = {key.replace("_", "-"): value for key, value in attributes.items()}
    return Choice(Config(raw=raw, image_build=True)).source(host)


def test_the_candidate_or_the_version_that_was_asked_for(host: Host) -> None:
    assert debian.upstream_version(_source(host).version) == "550.142"
    asked = _source(host, gpu_driver_version="535.261.03")
    assert asked.version == "535.261.03-1"
    assert len(asked.sha256) == 64


def test_never_another_version(host: Host) -> None:
    with pytest.raises(NodeError) as caught:
        _source(host, gpu_driver_version="560.35.03")
    assert "has no driver 560.35.03, only 550.142, 535.261.03" in str(caught.value)


def test_what_the_distribution_has_must_go_with_cuda_and_gpus(host: Host) -> None:
    assert _source(host, cuda_version="12.4", airlock_gpu="t4").version.startswith("550")
    with pytest.raises(NodeError, match=r"CUDA 13\.0\.2 needs driver 580\.65\.06"):
        _source(host, cuda_version="13.0")
    with pytest.raises(NodeError, match="blackwell"):
        _source(host, airlock_gpu="b200")


def test_nvidias_repository(host: Host, tmp_path: Path) -> None:
    """Its packages for DKMS are unpacked and never installed: building and signing are ours."""
    asked = {"airlock_driver_source": "nvidia-repository"}
    assert _source(host, **asked).pin == f"{DKMS}=580.95.05-1"
    older = _source(host, **asked, gpu_driver_version="570.211.01")
    assert older.pin == f"{DKMS}=570.211.01-1"
    with pytest.raises(NodeError, match=r"NVIDIA's repository has no driver 550\.142, only 580"):
        _source(host, **asked, gpu_driver_version="550.142")
    with pytest.raises(NodeError, match="nvidia-kernel-dkms") as caught:
        _source(host, **asked, airlock_gpu="p4")
    assert "airlock-repositories=cuda" in caught.value.remedy

    raw = {"airlock-driver-source": "nvidia-repository"}
    choice = Choice(Config(raw=raw, image_build=True))
    assert [refusal.code for refusal in choice.refuse(host)] == ["gpu.licence"]
    accepted = {**raw, "airlock-accept-licences": "nvidia-driver"}
    assert Choice(Config(raw=accepted, image_build=True)).refuse(host) == []
    # The real root: apt-get download is run in the directory itself.
    work = str(tmp_path / "work")
    outside = Host("/")
    outside.env = host.env
    tree = choice.fetch(outside, older, work)
    assert outside.read(f"{tree}/Kbuild") == "570.211.01-1"
    assert "nvidia-570.211.01" in tree


def test_old_cards_get_the_distributions_proprietary_modules(host: Host) -> None:
    """The open ones load on a V100, and drive nothing."""
    assert _source(host, airlock_gpu="v100").pin == "nvidia-kernel-source=535.261.03-1"
    assert _source(host, airlock_gpu="t4").name == "nvidia-open-kernel-source"


def test_another_source_or_flavour_is_a_change(host: Host) -> None:
    def choice(**attributes: str) -> Choice:
        raw = {key.replace("_", "-"): value for key, value in attributes.items()}
        return Choice(Config(raw=raw, image_build=True))

    usual = choice()
    record = {"driver": "535.261.03", "wishes": usual.wishes(host)}
    assert usual.fits(host, record)
    for other in (
        choice(airlock_gpu="v100"),
        choice(airlock_driver_source="nvidia-repository"),
        choice(gpu_driver_version="550.142"),
    ):
        assert not other.fits(host, record)
        assert not usual.fits(host, {"driver": "550.142", "wishes": {"source": "runfile"}})


def test_headers_of_exactly_this_kernel(host: Host) -> None:
    resolved = debian.resolve(host, KERNEL, _source(host))
    assert [package.pin for package in resolved.headers] == [
        f"{HEADERS}=6.1.2-1",
        "linux-headers-6.1.0-56-common=6.1.2-1",
        "linux-compiler-gcc-12-x86=6.1.2-1",
    ]
    assert (resolved.driver, resolved.compiler.pin) == ("550.142", "gcc-12=12.2.0-14")
    with pytest.raises(DriverBuildError, match=r"linux-headers-6\.1\.0-99-cloud-amd64") as caught:
        debian.resolve(host, "6.1.0-99-cloud-amd64", _source(host))
    assert caught.value.cause == "headers-missing"
