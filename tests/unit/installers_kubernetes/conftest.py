"""A root of a node, small: what others wrote there that the installer has to do with."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.installers_engine.root import MEMORY

CONFIG = """version = 2  # of the file
imports = ["/etc/containerd/conf.d/*.toml"]

[plugins]

[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"

[plugins.'io.containerd.grpc.v1.cri'.registry]
  config_path = ""  # none yet

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/opt/cni/bin"
"""
KUBELET = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 110"
FILES = {
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\n',
    "usr/lib/systemd/system/systemd-resolved.service": "[Service]\n",
    "etc/containerd/config.toml": CONFIG,
    "var/lib/kubelet/config.yaml": KUBELET,
    "etc/kubernetes/kubelet/config.json": json.dumps({"kind": "KubeletConfiguration"}),
}
LINKS = {
    "etc/resolv.conf": "../run/systemd/resolve/stub-resolv.conf",
    "etc/systemd/system/sysinit.target.wants/systemd-resolved.service": (
        "/usr/lib/systemd/system/systemd-resolved.service"
    ),
}
ATTRIBUTES = {
    "airlock-kubernetes": "true",
    "airlock-registry-mirrors": "nvcr.io=https://registry.corp.example/nvcr, "
    "*=https://registry.corp.example:8443",
    "airlock-service-cidr": "172.20.0.0/16",
    "airlock-pod-cidr": "10.244.0.0/16",
}


def furnish(root: Path) -> Path:
    """Make the root."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name, target in LINKS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    (root / "var/lib/kubelet/config.yaml").chmod(0o600)
    (root / "dev").mkdir()
    if os.geteuid() == 0:
        os.mknod(root / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    (root / "run").mkdir()
    return root


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield furnish(Path(folder) / "root")


@pytest.fixture
def metadata(tmp_path: Path) -> Path:
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps({"instance": {"attributes": ATTRIBUTES}}))
    return path
