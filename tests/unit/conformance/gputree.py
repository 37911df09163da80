"""A node with two cards that are doubles, as a root directory that is lived in.

Its files are laid out as a driver, a toolkit, an environment and container runtimes leave them. The
node's own file (``airlock-node.pyz``) collects its facts there, in namespaces of its own with this
machine's /usr below it, and sabotages' shell runs there as it stands.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from fixtures.gpudouble import build

PYTHON = "/usr/bin/python3"
LIBRARIES = "local/lib"
ROOT = Path(__file__).parents[3]
ADDRESSES = ("0000:04:00.0", "0000:05:00.0")
EXPECT = {
    "gpu": 2,
    "container_runtime": "containerd",
    "frameworks": ["pytorch", "tensorflow", "jax", "cupy", "rapids"],
}
DOUBLE = f"""\
# Two cards without a fault.
driver={build.DRIVER}
cards=2
cuda=12040
memory_mb=40960
# A slow link, so that a copy takes long beside what a busy machine takes to wake up.
link_gen=1
link_width=4
link_width_now=4
host_to_device=0.88
device_to_host=0.88
"""
STATE = {
    "installers": {
        "driver": {"outcome": "ok", "provenance": {"driver": build.DRIVER}},
        "cuda": {
            "outcome": "ok",
            "provenance": {"cuda": "12.4.1", "cudnn": "9.1.0.70", "nccl": "2.21.5"},
        },
    }
}
#: As nvidia-ctk 1.16 writes it, shortened.
CDI = f"""\
---
cdiVersion: 0.5.0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  hooks:
  - args:
    - nvidia-cdi-hook
    hookName: createContainer
    path: /usr/local/bin/nvidia-ctk
  mounts:
  - containerPath: /usr/lib/x86_64-linux-gnu/libcuda.so.{build.DRIVER}
    hostPath: /usr/local/lib/libcuda.so.{build.DRIVER}
    options:
    - ro
devices:
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
  name: "0"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia1
  name: "1"
- containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
    - path: /dev/nvidia1
  name: all
kind: nvidia.com/gpu
"""
DOCKER = {
    "runtimes": {"nvidia": {"args": [], "path": "/usr/local/bin/nvidia-container-runtime"}},
    "features": {"buildkit": True},
}
CONTAINERD = """\
version = 2
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    enable_cdi = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nvidia.options]
        BinaryName = "/usr/local/bin/nvidia-container-runtime"
"""
CRIO = """\
[crio.runtime.runtimes.nvidia]
runtime_path = "/usr/local/bin/nvidia-container-runtime"
runtime_type = "oci"
"""
FILES = {
    "etc/airlock-gpu-double": DOUBLE,
    "etc/ld.so.conf": "/usr/local/lib\n",
    "etc/cdi/nvidia.yaml": CDI,
    "etc/docker/daemon.json": json.dumps(DOCKER, indent=1),
    "etc/containerd/config.toml": CONTAINERD,
    "etc/crio/crio.conf.d/99-nvidia.toml": CRIO,
    "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
    "var/lib/airlock/state.json": json.dumps(STATE),
    "var/lib/airlock/environments/all.json": json.dumps({"prefix": "/opt/airlock/envs/all"}),
    "proc/driver/nvidia/version": f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {build.DRIVER}"
    "  Tue Jun  4 00:00:00 UTC 2024\nGCC version:  gcc version 12.2.0\n",
    "run/nvidia-persistenced/nvidia-persistenced.pid": "77\n",
    "sys/bus/pci/drivers/nvidia/unbind": "",
    "dev/nvidiactl": "",
    "dev/nvidia-uvm": "",
    "dev/kmsg": "<6>Linux version 6.1.0\n",
}
PROGRAMS = ("nvidia-ctk", "nvidia-container-runtime", "dockerd", "containerd", "crio")
#: Runs as root of namespaces of its own, with the tree as $1 and then a command of the tree.
ENTER = """
set -e
tree=$1
shift
mount --bind /usr "$tree/usr"
mount --bind "$tree/local" "$tree/usr/local"
for name in null zero urandom; do mount --bind "/dev/$name" "$tree/dev/$name"; done
exec chroot "$tree" env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    HOME=/root LD_PRELOAD=/usr/local/lib/airlock-klog.so "$@"
"""


def why_not() -> str:
    """Why no tree can be lived in on this machine; empty where one can."""
    if not Path(PYTHON).exists() or build.compiler() is None:
        return f"needs {PYTHON} and a C compiler"
    done = subprocess.run([*namespaces(), "true"], capture_output=True, check=False)
    return "" if done.returncode == 0 else "needs mount namespaces"


def namespaces() -> list[str]:
    """What a command begins with that may mount, and whose mounts go with it."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["unshare", *user, "--mount", "--"]


def make(root: Path, node_file: Path) -> None:
    """The good node. OSError or FixtureError where it cannot be made here."""
    for name, text in FILES.items():
        _write(root / name, text)
    for name in ("usr", "tmp", "root", "proc", "sys"):
        (root / name).mkdir(exist_ok=True, parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    for name in ("null", "zero", "urandom"):
        _write(root / "dev" / name, "")
    for number, address in enumerate(ADDRESSES):
        place = root / "sys/bus/pci/devices" / address
        for name, text in (("vendor", "0x10de"), ("device", "0x20b0"), ("class", "0x030200")):
            _write(place / name, f"{text}\n")
        (place / "config").write_bytes(bytes.fromhex("de10b020") + bytes(60))
        (place / "driver").symlink_to("../../drivers/nvidia")
        information = f"Model: \t NVIDIA A100-SXM4-40GB\nDevice Minor: \t {number}\n"
        _write(root / f"proc/driver/nvidia/gpus/{address}/information", information)
        _write(root / f"dev/nvidia{number}", "")
    local = root / "local"
    build.libraries(root / LIBRARIES)
    build.programs(root / LIBRARIES, local / "bin")
    for name in PROGRAMS:
        _write(local / "bin" / name, "#!/bin/sh\n")
        (local / "bin" / name).chmod(0o755)
    _write(root / LIBRARIES / "libnvidia-container.so.1", "")
    build.toolkit(local / f"cuda-{build.TOOLKIT}")
    (local / "cuda").symlink_to(f"cuda-{build.TOOLKIT}")
    build.environment(root / "opt/airlock/envs/all", str(Path(PYTHON).resolve()))
    shutil.copy(node_file, root / "airlock-node.pyz")
    enter(root, "/sbin/ldconfig")


def enter(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command on the node. AssertionError with its last words where it fails."""
    done = subprocess.run(
        [*namespaces(), "sh", "-c", ENTER, "sh", str(root), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-1000:]}{done.stderr[-2000:]}"
    return done


def many(good: Path, folder: Path, work: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Break and look at many trees in one process; see ``gpuinside``."""
    spec, out = folder / "spec.json", folder / "out.json"
    spec.write_text(json.dumps(work))
    inside = [sys.executable, "-m", "tests.unit.conformance.gpuinside", str(spec), str(out)]
    done = subprocess.run(
        [*namespaces(), *inside],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "LD_PRELOAD": str(good / LIBRARIES / "airlock-klog.so")},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert not done.stderr, done.stderr[-2000:]
    found: dict[str, dict[str, Any]] = json.loads(out.read_text())
    return found


#: As the verb ``facts --cards``, with other limits.
TELL = """
import json, sys
sys.path.insert(0, "/airlock-node.pyz")
from installers.collect.cards import Trial
from installers.facts import Collector
collector = Collector()
collector.cards = Trial(ask=float(sys.argv[1])).collect()
print(json.dumps(collector.collect()))
"""


def facts(root: Path, ask: float | None = None) -> dict[str, Any]:
    """What the node's own program tells, the cards tried; ``ask``: seconds for each question."""
    words = ["/airlock-node.pyz", "facts", "--cards", "--json"]
    done = enter(root, PYTHON, *(words if ask is None else ["-c", TELL, str(ask)]))
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
