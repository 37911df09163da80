"""User data: the installer's own files, a script that sh runs, and what cloud-init says of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from installers import cli
from installers.collect.reader import Reader
from installers.collect.resolver import stub_listener
from installers.config import from_attributes
from installers.kubernetes import files
from installers.kubernetes.userdata import ACCESS, SCRIPT, render, script
from installers.kubernetes.wanted import cluster
from tests.unit.installers_kubernetes.conftest import ATTRIBUTES, CONFIG

PROXIED = {**ATTRIBUTES, "http-proxy": "bob:secret@proxy.example:3128"}


def made(system: str) -> str:
    wanted = cluster(PROXIED)
    assert wanted is not None
    return render(system, wanted, from_attributes(PROXIED))


@pytest.mark.parametrize("system", ACCESS)
def test_the_files_are_the_installers(system: str) -> None:
    text = made(system)
    assert text.startswith("#cloud-config\n")
    assert "secret" not in text
    data = yaml.safe_load(text)
    written = {one["path"]: one["content"] for one in data["write_files"]}
    wanted = cluster(PROXIED)
    assert wanted is not None
    for path, content in {**files.kernel(), **files.mirrors(wanted)}.items():
        assert written[path] == content
    assert "NO_PROXY=" in written["/etc/airlock/proxy.env"]
    assert "172.20.0.0/16,10.244.0.0/16\n" in written["/etc/airlock/proxy.env"]
    assert {one["permissions"] for one in data["write_files"] if one["path"] == SCRIPT} == {"0755"}
    assert data["runcmd"] == [["sh", SCRIPT]]
    assert ("apt" in data) == (system != "amazon-linux-2023")
    for unit in ACCESS[system]:
        assert unit in written[SCRIPT]


def sh(root: Path, text: str, servers: str = "nameserver 10.0.0.2\n") -> tuple[int, str]:
    """Run a script on a root: /etc and /run are below it, and systemctl writes its words down."""
    text = re.sub(r"(?<![.\w])/(etc/|run/systemd)", rf"{root}/\1", text)
    (root / "run/systemd/resolve").mkdir(parents=True, exist_ok=True)
    (root / "run/systemd/resolve/resolv.conf").write_text(servers)
    (root / "run/systemd/resolve/stub-resolv.conf").write_text("nameserver 127.0.0.53\n")
    programs = root / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("systemctl", "modprobe", "sysctl"):
        (programs / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{root}/said\n')
        (programs / name).chmod(0o755)
    (root / "script").write_text(text)
    done = subprocess.run(
        ["sh", str(root / "script")],
        env={"PATH": f"{programs}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def the_script(system: str = "ubuntu", **more: str) -> str:
    wanted = cluster({**ATTRIBUTES, **more})
    assert wanted is not None
    return script(system, wanted, "http://proxy.example:3128")


def test_the_script_does_what_the_installer_does(root: Path) -> None:
    for _ in range(2):
        assert sh(root, the_script()) == (0, "")
        assert str((root / "etc/resolv.conf").readlink()) == "../run/systemd/resolve/resolv.conf"
        assert stub_listener(Reader(str(root))) == "no"
        assert (root / files.RESOLVED_FILE[1:]).read_text() == files.RESOLVED_TEXT
        cri = tomllib.loads((root / "etc/containerd/config.toml").read_text())["plugins"]
        assert cri["io.containerd.grpc.v1.cri"]["registry"] == {
            "config_path": f"{root}/etc/containerd/certs.d"
        }
        assert cri["io.containerd.grpc.v1.cri"]["cni"] == {"bin_dir": "/opt/cni/bin"}
    said = (root / "said").read_text().splitlines()
    assert "modprobe -a overlay br_netfilter" in said
    assert "systemctl restart systemd-resolved" in said
    assert "systemctl try-restart containerd" in said
    assert "systemctl enable --now snap.amazon-ssm-agent.amazon-ssm-agent" in said
    assert said.index("systemctl daemon-reload") < said.index("systemctl try-restart kubelet")


@pytest.mark.parametrize(
    ("text", "plugin"),
    [
        (None, "io.containerd.grpc.v1.cri"),
        ("version = 2\n", "io.containerd.grpc.v1.cri"),
        ("version = 3\n", "io.containerd.cri.v1.images"),
        (CONFIG, "io.containerd.grpc.v1.cri"),
    ],
)
def test_any_configuration_of_containerd(root: Path, text: str | None, plugin: str) -> None:
    config = root / "etc/containerd/config.toml"
    config.unlink()
    if text is not None:
        config.write_text(text)
    assert sh(root, the_script())[0] == 0
    found = tomllib.loads(config.read_text())["plugins"][plugin]["registry"]
    assert found == {"config_path": f"{root}/etc/containerd/certs.d"}


@pytest.mark.parametrize(
    "text",
    [
        'disabled_plugins = ["cri"]\nversion = 2\n',
        "[plugins.cri]\n",
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."x"]\n',
    ],
)
def test_what_it_leaves_alone_it_names(root: Path, text: str) -> None:
    config = root / "etc/containerd/config.toml"
    config.write_text(text)
    code, said = sh(root, the_script())
    assert (code, config.read_text()) == (1, text)
    assert "cannot have a config_path" in said


def test_a_node_keeps_its_names(root: Path) -> None:
    """No servers upstream, or a file of somebody's that names the stub: nothing is switched off."""
    assert sh(root, the_script(), servers="# none\n")[0] == 0
    assert (root / "etc/resolv.conf").readlink().name == "stub-resolv.conf"
    (root / "etc/resolv.conf").unlink()
    (root / "etc/resolv.conf").write_text("nameserver 127.0.0.53\n")
    code, said = sh(root, the_script())
    assert (code, "names the stub" in said) == (1, True)
    assert not (root / files.RESOLVED_FILE[1:]).exists()


def test_amazon_linux_tells_dnf(root: Path) -> None:
    (root / "etc/dnf").mkdir()
    (root / "etc/dnf/dnf.conf").write_text("[main]\n")
    for _ in range(2):
        sh(root, the_script("amazon-linux-2023"))
    assert (root / "etc/dnf/dnf.conf").read_text() == "[main]\nproxy=http://proxy.example:3128\n"


def test_the_verb(metadata: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["user-data", "--os=debian", f"--metadata={metadata}"]) == 0
    assert capsys.readouterr().out.startswith("#cloud-config\n")
    metadata.write_text(json.dumps({"instance": {"attributes": {}}}))
    assert cli.main(["user-data", "--os=debian", f"--metadata={metadata}"]) == 2
    assert "airlock-kubernetes is not true" in capsys.readouterr().err


PACKAGES = (
    *("cloud-init", "python3-configobj", "python3-six", "python3-jsonpatch", "python3-jsonschema"),
    *("python3-json-pointer", "python3-oauthlib", "python3-yaml", "python3-pyrsistent"),
    *("python3-attr", "python3-jinja2", "python3-markupsafe", "python3-requests"),
    *("python3-netifaces", "python3-urllib3", "python3-idna", "python3-chardet"),
    "python3-certifi",
)


@pytest.fixture(scope="module")
def cloud_init(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Debian's own cloud-init, unpacked: a function that asks it for its schema's verdict."""
    if not shutil.which("apt-get") or not Path("/usr/bin/python3").exists():
        pytest.skip("needs apt-get and the distribution's Python")
    folder = tmp_path_factory.mktemp("cloud-init")
    done = subprocess.run(
        ["apt-get", "download", "-q", *PACKAGES], cwd=folder, capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("no mirror of Debian's packages can be reached")
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(folder / "root")], check=True)

    def verdict(text: str) -> tuple[int, str]:
        (folder / "user-data").write_text(text)
        said = subprocess.run(
            ["/usr/bin/python3", "-m", "cloudinit.cmd.main", "schema", "-c", "user-data"],
            cwd=folder,
            env={"PYTHONPATH": str(folder / "root/usr/lib/python3/dist-packages")},
            capture_output=True,
            text=True,
            check=False,
        )
        return said.returncode, said.stdout + said.stderr

    return verdict


@pytest.mark.slow
@pytest.mark.parametrize("system", ACCESS)
def test_cloud_init_takes_it(cloud_init: Any, system: str) -> None:
    code, said = cloud_init(made(system))
    assert (code, "Valid cloud-config" in said) == (0, True), said
    code, said = cloud_init(made(system).replace("runcmd:", "runcmd: 3\nnothing:"))
    assert code == 1, "a schema that takes everything proves nothing"
