"""What containerd itself reads of a file that lies beside its own: asked of the real one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fixtures.daemons import unpack_debs
from harness.state import cache_dir
from installers import runtimes
from installers.host import Host

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for chroot"),
]
DROP_IN = """\
version = 2
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
  BinaryName = "/usr/bin/nvidia-container-runtime"
"""
MAIN = "/etc/containerd/config.toml"


def test_a_file_that_containerd_does_not_import_is_a_problem(tmp_path: Path) -> None:
    unpacked = unpack_debs(["containerd", "libc6"], cache_dir("daemons"))
    root = tmp_path / "root"
    shutil.copytree(unpacked, root, symlinks=True)
    host = Host(root)
    host.write("/etc/containerd/conf.d/99-nvidia.toml", DROP_IN)
    host.write(MAIN, "version = 2\n")
    # The file is there, as nvidia-ctk leaves it; and nobody reads it.
    assert runtimes.is_configured(host, "containerd")
    (problem,) = runtimes.verify(host, "containerd")
    assert "does not read" in problem.what
    host.write(MAIN, 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n')
    assert runtimes.verify(host, "containerd") == []
