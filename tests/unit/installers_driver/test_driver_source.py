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
PACKAGES = {
    ("nvidia-open-kernel-source", "535.261.03-1"): "",
    ("nvidia-open-kernel-source", "550.142-2~bpo12+1"): "",
    (HEADERS, "6.1.2-1"): "linux-headers-6.1.0-56-common, linux-compiler-gcc-12-x86",
    (HEADERS, "6.1.1-1"): "linux-headers-6.1.0-56-common, linux-compiler-gcc-12-x86",
    ("linux-headers-6.1.0-56-common", "6.1.2-1"): "",
    ("linux-headers-6.1.0-56-common", "6.1.1-1"): "",
    ("linux-compiler-gcc-12-x86", "6.1.2-1"): "gcc-12",
    ("gcc-12", "12.2.0-14"): "",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    stanzas = [_package(folder, *key, depends=depends) for key, depends in PACKAGES.items()]
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
