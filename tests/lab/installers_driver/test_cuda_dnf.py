"""CUDA by the real dnf and rpm, from a repository of ours, into a root of its own."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.daemons import library_path, unpack_debs
from harness.state import cache_dir
from installers import dnfpackages
from installers.config import Config
from installers.cuda import Cuda
from installers.engine import Engine
from installers.errors import CommandError
from installers.host import Host, Result

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="rpm installs as root only"),
]
_SKIP = re.compile(r"python3(\.\d+)?(-minimal)?|libpython.*|.*perl.*|dbus.*|systemd.*|libsystemd.*")
PACKAGES = (
    *(("cuda-toolkit-12-4", "12.4.1", "1"), ("cuda-toolkit-12-4", "12.4.0", "1")),
    *(("libcudnn9-cuda-12", "9.1.0.70", "1"), ("libcudnn9-cuda-12", "9.6.0.74", "1")),
    *(("libnccl", "2.23.4", "1+cuda12.4"), ("libnccl", "2.23.4", "1+cuda12.6")),
    *(("libnccl-devel", "2.23.4", "1+cuda12.4"), ("libnccl-devel", "2.23.4", "1+cuda12.6")),
)
SPEC = """\
Name: {name}
Version: {version}
Release: {release}
Summary: a double
License: none
BuildArch: noarch
AutoReqProv: no
%description
A double.
%install
mkdir -p %{{buildroot}}/usr/share/{name}
{more}
%files
/usr/share/{name}
{files}
"""
NVCC = """\
mkdir -p %{buildroot}/usr/local/cuda-12.4/bin
printf '#!/bin/sh\\necho "release 12.4, V12.4.131"\\n' > %{buildroot}/usr/local/cuda-12.4/bin/nvcc
chmod 755 %{buildroot}/usr/local/cuda-12.4/bin/nvcc
"""
ASKED = {"cuda-version": "12.4", "airlock-accept-licences": "cuda cudnn"}


@pytest.fixture(scope="module")
def tools() -> tuple[Path, dict[str, str]]:
    """(root of the unpacked programs, environment to run them in)"""
    names = ["dnf", "dnf-plugins-core", "createrepo-c", "rpm"]
    root = unpack_debs(names, cache_dir("daemons"), skip=_SKIP)
    return root, {
        "PATH": f"{root}/usr/bin:/usr/bin:/bin",
        "LD_LIBRARY_PATH": library_path(root),
        "PYTHONPATH": f"{root}/usr/lib/python3/dist-packages",
        "RPM_CONFIGDIR": f"{root}/usr/lib/rpm",
        "LC_ALL": "C.UTF-8",
    }


@pytest.fixture(scope="module")
def repository(
    tools: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Packages by the real rpmbuild, metadata by the real createrepo_c."""
    root, environment = tools
    folder = tmp_path_factory.mktemp("rpms")
    for name, version, release in PACKAGES:
        cuda = name.startswith("cuda-toolkit")
        more, files = (NVCC, "/usr/local/cuda-12.4") if cuda else ("", "")
        spec = folder / f"{name}.spec"
        fields = {"name": name, "version": version, "release": release}
        spec.write_text(SPEC.format(**fields, more=more, files=files))
        words = [f"{root}/usr/bin/rpmbuild", "-bb", "--quiet", "--define", f"_topdir {folder}/top"]
        words += ["--define", f"_rpmdir {folder}/repo", "--define", "__os_install_post %{nil}"]
        subprocess.run(
            [*words, str(spec)], env=environment, check=True, capture_output=True, text=True
        )
    subprocess.run(
        [f"{root}/usr/bin/createrepo_c", "-q", f"{folder}/repo"], env=environment, check=True
    )
    return folder / "repo"


class _Root(Host):
    """A root for dnf and rpm with nothing in it to chroot into: they work on it from outside."""

    def __init__(self, root: Path, tools: tuple[Path, dict[str, str]]) -> None:
        super().__init__(root)
        self._tools, environment = tools
        self._outside = Host("/")
        self._outside.env = environment

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        words = list(argv)
        if words[0] == "dnf":
            own = [f"--installroot={self.root}", "--releasever=9", "--forcearch=x86_64"]
            own += [f"--config={self.root}/etc/dnf/dnf.conf"]
            own += [f"--setopt=reposdir={self.root}/etc/yum.repos.d"]
            words = ["/usr/bin/python3", f"{self._tools}/usr/bin/dnf-3", *own, *words[1:]]
        elif words[0] == "rpm":
            words = [f"{self._tools}/usr/bin/rpm", f"--root={self.root}", *words[1:]]
        elif words[0].startswith("/usr/local"):
            words[0] = f"{self.root}{words[0]}"
        return self._outside.run(words, **options)


@pytest.fixture
def host(tmp_path: Path, tools: tuple[Path, dict[str, str]], repository: Path) -> Host:
    host = _Root(tmp_path / "root", tools)
    plugins = f"{tools[0]}/usr/lib/python3/dist-packages/dnf-plugins"
    host.write(
        "/etc/dnf/dnf.conf",
        f"[main]\ngpgcheck=0\nplugins=1\npluginpath={plugins}\n"
        f"pluginconfpath={host.root}/etc/dnf/plugins\ninstall_weak_deps=0\n",
    )
    locks = "/etc/dnf/plugins/versionlock.list"
    host.write(
        "/etc/dnf/plugins/versionlock.conf", f"[main]\nenabled=1\nlocklist={host.root}{locks}\n"
    )
    host.write(locks, "")
    host.write("/etc/yum.repos.d/ours.repo", f"[ours]\nname=ours\nbaseurl=file://{repository}\n")
    host.write("/usr/bin/dnf", "#!/bin/sh\n", mode=0o755)
    host.write("/etc/os-release", 'ID=rocky\nVERSION_ID="9.4"\nPRETTY_NAME="Rocky Linux 9.4"\n')
    return host


def _apply(host: Host, **attributes: str) -> tuple[int, list[str]]:
    summary = Engine(host, [Cuda(Config(raw=dict(attributes)))]).apply()
    outcome = summary.installers[0]
    said = [problem.what for problem in outcome.problems]
    return int(summary.exit), said + [refusal.code for refusal in outcome.refusals]


def _state(host: Host) -> dict[str, str]:
    said = host.run(["rpm", "-qa", "--qf", "%{NAME} %{VERSION}-%{RELEASE}\n"]).out
    return dict(line.split() for line in said.splitlines())


def test_installed_locked_changed_and_released(host: Host) -> None:
    assert _apply(host, **ASKED) == (0, [])
    assert _state(host) == {
        "cuda-toolkit-12-4": "12.4.1-1",
        "libcudnn9-cuda-12": "9.1.0.70-1",
        "libnccl": "2.23.4-1+cuda12.4",
        "libnccl-devel": "2.23.4-1+cuda12.4",
    }
    assert dnfpackages.held(host) == set(_state(host))
    with pytest.raises(CommandError):
        host.run(["dnf", "-y", "-q", "install", "libcudnn9-cuda-12-9.6.0.74"])
    changed = {**ASKED, "cuda-version": "12.4.0", "cudnn-version": "9.6.0.74"}
    assert _apply(host, **changed, **{"nccl-version": "none"}) == (0, [])
    assert _state(host) == {"cuda-toolkit-12-4": "12.4.0-1", "libcudnn9-cuda-12": "9.6.0.74-1"}
    assert dnfpackages.held(host) == set(_state(host))
    code, said = _apply(host, **{**changed, "cudnn-version": "9.5.1.17"})
    assert code == 1
    assert "libcudnn9-cuda-12 9.5.1.17: dnf has only 9.1.0.70-1, 9.6.0.74-1" in said[0]
    Cuda(Config(raw=dict(changed))).remove(host)
    assert (_state(host), dnfpackages.held(host)) == ({}, set())


def test_what_it_contacts(host: Host) -> None:
    host.write(
        "/etc/yum.repos.d/more.repo",
        "[a]\nbaseurl=https://a.invalid/x http://b.invalid/%releasever\n"
        "[b]\nenabled=0\nbaseurl=https://no.invalid/\n[c]\nmetalink=https://c.invalid/m?x=1\n",
    )
    assert dnfpackages.hosts(host) == ["a.invalid", "b.invalid", "c.invalid"]
