"""The real apt among packages that need one another in exact versions, as NVIDIA's and Debian's do.

Their newest version is what apt tries for whatever is not named: another one has to be spelled out.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from installers import aptpackages, fabric, kernels
from installers.config import Config
from installers.cuda import Cuda
from installers.engine import Engine
from installers.errors import ConfigError
from installers.host import Host
from tests.unit.installers_driver.test_cuda import _package, _state, private_root

pytestmark = [
    pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt"),
    pytest.mark.skipif(os.geteuid() != 0, reason="dpkg installs as root only"),
]
KERNEL = "6.1.0-56-cloud-amd64"
VERSIONS = ("550.142", "570.211.01", "580.95.05")
UNIT = f"/lib/systemd/system/{fabric.UNIT}"
PACKAGES = [
    ("cuda-toolkit-12-4", "12.4.1-1", "cuda-cudart-12-4 (>= 12.4.127)"),
    ("cuda-cudart-12-4", "12.4.127-1", ""),
    ("somebody-elses", "1.0-1", "cuda-cudart-12-4"),
    *(("nvidia-smi", f"{v}-1", f"libnvidia-ml1 (= {v}-1)") for v in VERSIONS),
    *(("libcuda1", f"{v}-1", f"libnvidia-ptx1 (= {v}-1), libc-any | libc-other") for v in VERSIONS),
    *(("libnvidia-ml1", f"{v}-1", "") for v in VERSIONS),
    *(("libnvidia-ptx1", f"{v}-1", f"libnvidia-ml1 (= {v}-1)") for v in VERSIONS),
    *(("nvidia-driver-cuda", f"{v}-1", f"libnvidia-ml1 (= {v}-1)") for v in VERSIONS),
    ("libc-any", "1-1", ""),
    ("nvidia-fabricmanager", "580.95.05-1", ""),
]
USER_SPACE = {"gpu-driver-provider": "OS"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    stanzas = []
    for name, version, depends in PACKAGES:
        files = {UNIT: "[Service]\n"} if name.startswith(fabric.PACKAGE) else {}
        stanzas.append(_package(folder, name, version, depends=depends, files=files))
    (folder / "Packages").write_text("\n".join(stanzas))
    return folder


@pytest.fixture
def host(tmp_path: Path, repository: Path) -> Host:
    host = private_root(tmp_path, repository)
    host.write(f"/lib/modules/{KERNEL}/modules.builtin", "")
    return host


def _modules(host: Host, version: str) -> None:
    """What the installer of the driver leaves behind."""
    record = json.dumps({"schema": 1, "driver": version})
    host.write(f"{kernels.module_directory(KERNEL)}/airlock-modules.json", record)


def _apply(host: Host, *, image: bool = False, **attributes: str) -> tuple[int, list[str]]:
    raw = {key.replace("_", "-"): value for key, value in attributes.items()}
    summary = Engine(host, [Cuda(Config(raw=raw, image_build=image))]).apply()
    return int(summary.exit), [p.what for p in summary.installers[0].problems]


def test_to_a_newer_driver_and_back(host: Host) -> None:
    """550, 570, 550: the holds follow, and so does what only fits one version."""
    for version in ("550.142", "570.211.01", "550.142"):
        _modules(host, version)
        assert _apply(host, gpu_driver_provider="OS") == (0, [])
        found = {name: v for name, v in _state(host).items() if "nvidia" in name or "cuda" in name}
        assert found == dict.fromkeys(
            ("nvidia-smi", "libcuda1", "libnvidia-ml1", "libnvidia-ptx1"), f"{version}-1"
        )
        assert aptpackages.held(host) == {"nvidia-smi", "libcuda1"}
        # Nobody asked for these two: apt must not think so.
        automatic = set(host.run(["apt-mark", "showauto"]).out.split())
        assert automatic >= {"libnvidia-ml1", "libnvidia-ptx1"}
    Cuda(Config(raw=dict(USER_SPACE))).remove(host)
    assert (_state(host), aptpackages.held(host)) == ({}, set())


def test_what_came_along_goes_too_unless_somebody_needs_it(host: Host) -> None:
    asked = {"cuda-version": "12.4", "cudnn-version": "none", "nccl-version": "none"}
    config = Config(raw={**asked, "airlock-accept-licences": "cuda"})
    assert Engine(host, [Cuda(config)]).apply().exit == 0
    assert set(_state(host)) == {"cuda-toolkit-12-4", "cuda-cudart-12-4"}
    Cuda(config).remove(host)
    assert _state(host) == {}

    assert Engine(host, [Cuda(config)]).apply().exit == 0
    host.apt("update")
    host.apt("install", "somebody-elses")
    Cuda(config).remove(host)
    assert set(_state(host)) == {"somebody-elses", "cuda-cudart-12-4"}


def test_the_user_space_of_nvidias_repository(host: Host) -> None:
    _modules(host, "570.211.01")
    source = "nvidia-repository"
    found = _apply(host, airlock_driver_source=source, airlock_driver_user_space="true")
    assert found == (0, [])
    there = _state(host)
    assert (there["nvidia-driver-cuda"], there["libcuda1"]) == ("570.211.01-1", "570.211.01-1")
    assert "nvidia-smi" not in there


def test_the_fabric_manager_is_installed_and_enabled(host: Host) -> None:
    """On an image the key says that the nodes need it; its package has lost its branch with 580."""
    assert fabric.package("570.211.01") == "nvidia-fabricmanager-570"
    version, package = "580.95.05", "nvidia-fabricmanager"
    _modules(host, version)
    assert _apply(host, image=True) == (0, [])
    assert _state(host) == {}
    assert _apply(host, image=True, airlock_fabric_manager="true") == (0, [])
    assert _state(host) == {package: f"{version}-1"}
    assert aptpackages.held(host) == {package}
    link = f"/etc/systemd/system/multi-user.target.wants/{fabric.UNIT}"
    assert host.readlink(link) == UNIT
    host.remove(link)
    one = Cuda(Config(raw={fabric.KEY: "true"}, image_build=True))
    assert one.inspect(host)[fabric.SETTING] == "disabled"
    assert _apply(host, image=True, airlock_fabric_manager="true") == (0, [])
    # No longer wanted: package, hold and link are gone.
    assert _apply(host, image=True) == (0, [])
    assert (_state(host), aptpackages.held(host), host.readlink(link)) == ({}, set(), None)


def test_whether_a_fabric_manager_is_wanted(host: Host) -> None:
    for name, value in (("vendor", "0x10de"), ("device", "0x22a3"), ("class", "0x068000")):
        host.write(f"/sys/bus/pci/devices/0000:00:05.0/{name}", f"{value}\n")

    def desired(image: bool, **attributes: str) -> list[str]:
        raw = {key.replace("_", "-"): value for key, value in attributes.items()}
        return sorted(Cuda(Config(raw=raw, image_build=image)).desired(host))

    # The distribution's driver has no version before it is installed: it is wanted all the same.
    service = f"service {fabric.UNIT}"
    assert desired(False) == ["package nvidia-fabricmanager", service]
    assert desired(True) == []
    assert desired(False, gpu_driver_provider="NONE") == []
    assert desired(False, airlock_fabric_manager="false") == []
    assert desired(False, gpu_driver_version="550.142") == [
        "package nvidia-fabricmanager-550",
        service,
    ]
    code, said = _apply(host)
    assert code == 1
    assert "no kernel modules are installed" in said[0]
    with pytest.raises(ConfigError, match="neither true nor false"):
        Cuda(Config(raw={fabric.KEY: "nvswitch"}))
