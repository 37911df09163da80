"""CUDA by the real apt and dpkg, from a repository of ours, into a root of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from installers import aptpackages, kernels, runtimes
from installers.config import Config
from installers.cuda import Cuda
from installers.engine import Engine, diff
from installers.errors import ConfigError, NodeError
from installers.host import Host

pytestmark = [
    pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt"),
    pytest.mark.skipif(os.geteuid() != 0, reason="dpkg installs as root only"),
]
PACKAGES = (
    *(("cuda-toolkit-12-4", "12.4.1-1"), ("cuda-toolkit-12-4", "12.4.0-1")),
    *(("libcudnn9-cuda-12", "9.1.0.70-1"), ("libcudnn9-cuda-12", "9.6.0.74-1")),
    *(("libnccl2", "2.23.4-1+cuda12.4"), ("libnccl2", "2.23.4-1+cuda12.6")),
    *(("libnccl-dev", "2.23.4-1+cuda12.4"), ("libnccl-dev", "2.23.4-1+cuda12.6")),
    *(("nvidia-smi", "535.261.03-1~deb12u1"), ("libcuda1", "535.261.03-1~deb12u1")),
    *(("nvidia-smi", "550.142-1"), ("libcuda1", "550.142-1")),
)
ASKED = {"cuda-version": "12.4", "airlock-accept-licences": "cuda cudnn"}


def _package(
    folder: Path,
    name: str,
    version: str,
    *,
    depends: str = "",
    files: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Build a package with the real dpkg-deb; its paragraph for the index."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\n"
    control += "Maintainer: Nobody <nobody@example.invalid>\nDescription: a double\n"
    control += f"Depends: {depends}\n" if depends else ""
    (tree / "DEBIAN/control").write_text(control)
    if name.startswith("cuda-toolkit"):
        nvcc = tree / "usr/local/cuda-12.4/bin/nvcc"
        nvcc.parent.mkdir(parents=True)
        nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.131'\n")
        nvcc.chmod(0o755)
    for path, text in files.items():
        inside = tree / path.lstrip("/")
        inside.parent.mkdir(parents=True, exist_ok=True)
        inside.write_text(text)
    file = folder / f"{name}_{version}_all.deb"
    subprocess.run(["dpkg-deb", "-Znone", "-b", tree, file], check=True, capture_output=True)
    shutil.rmtree(tree)
    data = file.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return f"{control}Filename: ./{file.name}\nSize: {len(data)}\nSHA256: {digest}\n"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    stanzas = [_package(folder, name, version) for name, version in PACKAGES]
    (folder / "Packages").write_text("\n".join(stanzas))
    return folder


class _Root(Host):
    """A root for apt and dpkg without anything in it to chroot into.

    The real programs run outside and are told where to work: their own options, nothing replaced.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._inside = self.root

    def run(self, argv, **options):  # type: ignore[no-untyped-def]
        program = self._inside / argv[0].lstrip("/")
        words = [str(program), *argv[1:]] if argv[0].startswith("/usr/local") else list(argv)
        if words[0] == "dpkg":
            words[1:1] = [f"--root={self._inside}"]
        outside = Host("/")
        outside.env = self.env
        return outside.run(words, **options)


@pytest.fixture
def host(tmp_path: Path, repository: Path) -> Host:
    return private_root(tmp_path, repository)


def private_root(tmp_path: Path, repository: Path) -> Host:
    """A Debian 12 below ``tmp_path`` as far as apt and dpkg are concerned."""
    root = tmp_path / "root"
    for name in (
        *("etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d"),
        *("etc/apt/sources.list.d", "var/lib/apt/lists/partial", "var/lib/dpkg/info"),
        *("var/lib/dpkg/updates", "var/cache/apt/archives/partial", "var/log/apt", "usr/bin"),
    ):
        (root / name).mkdir(parents=True)
    (root / "var/lib/dpkg/status").write_text("")
    (root / "usr/bin/apt-get").write_text("#!/bin/sh\n")
    (root / "usr/bin/apt-get").chmod(0o755)
    (root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{repository} ./\n")
    (tmp_path / "apt.conf").write_text(
        f'Dir "{root}/";\nDir::Bin::Methods "/usr/lib/apt/methods";\n'
        f'Dir::State::status "{root}/var/lib/dpkg/status";\nAPT::Sandbox::User "root";\n'
        f'DPkg::Options {{ "--root={root}"; "--force-script-chrootless"; }};\n'
        f'Dir::Bin::dpkg "/usr/bin/dpkg";\n'
    )
    host = _Root(root)
    host.env = {
        "APT_CONFIG": str(tmp_path / "apt.conf"),
        "DPKG_ADMINDIR": str(root / "var/lib/dpkg"),
    }
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
    return host


def _apply(host: Host, **attributes: str) -> tuple[int, list[str]]:
    config = Config(raw=dict(attributes))
    summary = Engine(host, [Cuda(config)]).apply()
    outcome = summary.installers[0]
    said = [problem.what for problem in outcome.problems]
    return int(summary.exit), said + [refusal.code for refusal in outcome.refusals]


def _state(host: Host) -> dict[str, str]:
    said = host.run(["dpkg-query", "-W", "-f", "${Package} ${Version}\n"]).out
    return dict(line.split() for line in said.splitlines())


def test_installed_held_changed_and_released(host: Host) -> None:
    assert _apply(host, **ASKED) == (0, [])
    assert _state(host) == {
        "cuda-toolkit-12-4": "12.4.1-1",
        "libcudnn9-cuda-12": "9.1.0.70-1",
        "libnccl2": "2.23.4-1+cuda12.4",
        "libnccl-dev": "2.23.4-1+cuda12.4",
    }
    assert aptpackages.held(host) == set(_state(host))
    one = Cuda(Config(raw=dict(ASKED)))
    assert diff(one.inspect(host), one.desired(host)) == []
    assert one.provenance(host)["cuda"] == "12.4.1"

    # Another cuDNN, an older toolkit, no NCCL: exactly that, and the holds follow.
    changed = {**ASKED, "cuda-version": "12.4.0", "cudnn-version": "9.6.0.74"}
    assert _apply(host, **changed, **{"nccl-version": "none"}) == (0, [])
    assert _state(host) == {"cuda-toolkit-12-4": "12.4.0-1", "libcudnn9-cuda-12": "9.6.0.74-1"}
    assert aptpackages.held(host) == set(_state(host))

    # Somebody's own hold is neither broken nor released.
    host.run(["apt-mark", "unhold", "libcudnn9-cuda-12"])
    Cuda(Config(raw=dict(changed))).remove(host)
    assert (_state(host), aptpackages.held(host)) == ({}, set())


def test_somebody_elses_hold(host: Host) -> None:
    host.apt("update")
    host.apt("install", "libnccl2=2.23.4-1+cuda12.6")
    host.run(["apt-mark", "hold", "libnccl2"])
    code, said = _apply(host, **ASKED)
    assert code == 1
    assert "libnccl2: held by somebody else" in said[0]
    assert _state(host) == {"libnccl2": "2.23.4-1+cuda12.6"}
    host.run(["apt-mark", "unhold", "libnccl2"])
    assert _apply(host, **ASKED) == (0, [])
    Cuda(Config(raw=dict(ASKED))).remove(host)
    # It was there before us, in whatever version.
    assert set(_state(host)) == {"libnccl2"}


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"cudnn-version": "9.5.1.17"}, "libcudnn9-cuda-12 9.5.1.17: apt has only 9.6.0.74-1"),
        ({"nccl-version": "2.22.3"}, "libnccl2 2.22.3 for cuda12.4: apt has only"),
        ({"cuda-version": "12.5"}, "cuda-toolkit-12-5 12.5.1: apt has no such package"),
    ],
)
def test_B28_never_another_version(host: Host, attributes: dict[str, str], says: str) -> None:
    code, said = _apply(host, **{**ASKED, **attributes})
    assert code == 1
    assert says in said[0]
    assert _state(host) == {}


def test_refused_before_anything_is_fetched(host: Host) -> None:
    assert _apply(host, **{"cuda-version": "12.4"}) == (1, ["gpu.licence"] * 2)
    assert _apply(host, **{**ASKED, "gpu-driver-version": "510.108.03"}) == (
        1,
        ["gpu.cuda-driver", "gpu.system"],
    )
    host.write("/proc/meminfo", "MemTotal:   524288 kB\n")
    assert _apply(host, **ASKED) == (1, ["cuda.memory"])
    host.remove("/usr/bin/apt-get")
    assert _apply(host, **ASKED) == (1, ["cuda.system"])
    assert not list(host.path("/var/lib/apt/lists").glob("*Packages*"))


def test_nothing_was_asked(host: Host) -> None:
    assert _apply(host) == (0, [])
    assert Cuda(Config()).contract(host).bytes == 0


def test_disk_is_counted_per_path(host: Host) -> None:
    contract = Cuda(Config(raw=dict(ASKED))).contract(host)
    assert contract.disk["/usr"] > contract.disk["/var/cache/apt"] > 1 << 30


def test_runtimes(host: Host) -> None:
    with pytest.raises(ConfigError, match="container-runtime"):
        Cuda(Config(raw={"container-runtime": "podman"}))
    word = "nvidia-container-runtime"
    for runtime, path in [(name, path) for name, paths in runtimes.FILES.items() for path in paths]:
        one = Cuda(Config(raw={"container-runtime": runtime}))
        assert [c.key for c in diff(one.inspect(host), one.desired(host))] == [f"runtime {runtime}"]
        if path.endswith(".json"):
            host.write(path, f'{{"runtimes": {{"nvidia": {{"path": "{word}"}}}}}}')
        else:
            host.write(path, f'# BinaryName = "{word}"\n')
            assert diff(one.inspect(host), one.desired(host)) != []
            host.write(path, f'BinaryName = "/usr/bin/{word}"\n')
        assert diff(one.inspect(host), one.desired(host)) == []
        host.remove(path)
    host.write("/etc/docker/daemon.json", "{")
    with pytest.raises(NodeError, match="is not JSON"):
        Cuda(Config(raw={"container-runtime": "docker"})).inspect(host)


def test_the_user_space_is_of_the_modules_version(host: Host) -> None:
    """Whatever is newest in the archive: another version cannot talk to the modules."""
    asked = {"gpu-driver-provider": "OS"}
    code, said = _apply(host, **asked)
    assert code == 1
    assert "no kernel modules are installed" in said[0]
    kernel = "6.1.0-56-cloud-amd64"
    host.write(f"/lib/modules/{kernel}/modules.builtin", "")
    record = json.dumps({"schema": 1, "driver": "535.261.03"})
    host.write(f"{kernels.module_directory(kernel)}/airlock-modules.json", record)
    assert _apply(host, **asked) == (0, [])
    version = "535.261.03-1~deb12u1"
    assert _state(host) == {"nvidia-smi": version, "libcuda1": version}
    assert aptpackages.held(host) == {"nvidia-smi", "libcuda1"}
    with pytest.raises(ConfigError, match="airlock-driver-user-space"):
        Cuda(Config(raw={"airlock-driver-user-space": "perhaps"}))
