"""A node that systemd boots: a release's own packages in systemd-nspawn, with doubles of Dataproc.

The agent, the daemons, the metadata server and nvidia-smi are doubles; systemd, the unit, the
drop-ins, the installed node file and everything it runs are real.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixtures import dataproc
from harness.catalog import load_catalog
from harness.lab import base
from harness.pack import pack
from harness.state import cache_dir

NM = dataproc.NODE_MANAGER
UNITS = dataproc.UNITS
METADATA = """import http.server, json
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        told = json.load(open("/etc/metadata.json"))
        body = json.dumps(told["attributes"] if "/instance/" in self.path else {})
        body = (told["id"] if self.path.endswith("/id") else body).encode()
        self.send_response(200)
        self.send_header("Metadata-Flavor", "Google")
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("169.254.169.254", 80), Answer).serve_forever()
"""
METADATA_UNIT = """[Unit]
Before=network-online.target google-dataproc-agent.service
[Service]
ExecStartPre=ip address add 169.254.169.254/32 dev lo
ExecStart=/usr/bin/python3 /usr/local/sbin/metadata-double
Restart=on-failure
"""


def nspawn(directory: Path) -> tuple[str, dict[str, str]]:
    """The program and its environment: installed, or its package unpacked into ``directory``."""
    installed = shutil.which("systemd-nspawn")
    if installed:
        return installed, {}
    subprocess.run(
        ["apt-get", "download", "-q", "systemd-container"],
        cwd=directory,
        check=True,
        capture_output=True,
    )
    (package,) = directory.glob("systemd-container_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(directory)], check=True)
    libraries = f"{directory}/usr/lib/x86_64-linux-gnu/systemd:/usr/lib/x86_64-linux-gnu/systemd"
    return f"{directory}/usr/bin/systemd-nspawn", {"LD_LIBRARY_PATH": libraries}


def unpacked(image: str, scratch: Path) -> Path:
    """A release's own root, without kernels and devices."""
    made = base.build(load_catalog().images[image], log=scratch / "log")
    root = scratch / "root"
    root.mkdir()
    left_out = ["--exclude=./dev/*", "--exclude=./boot/*", "--exclude=./usr/lib/modules/*"]
    subprocess.run(["tar", "-xpf", str(made.tar), "-C", str(root), *left_out], check=True)
    return root


@contextlib.contextmanager
def booted(program_in: Path, prepare: Callable[[Path], None]) -> Iterator[Node]:
    """A Debian 12 that is up, with our node file and nothing applied but what ``prepare`` does."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-boot-") as scratch:
        root = unpacked("debian-12", Path(scratch))
        furnish(root, pack(cache_dir("node")).path, [])
        prepare(root)
        (root / "etc/machine-id").write_text("")
        with Node(root, Path(scratch) / "node", nspawn(program_in)) as made:
            made.boot(agent=False)
            yield made


def furnish(root: Path, node_file: Path, gpus: list[dict[str, Any]]) -> None:
    """Make a release's root a Dataproc image with doubles, our program on it, nothing applied."""
    files = dataproc.files(gpus)
    files["usr/local/sbin/metadata-double"] = METADATA
    files[f"{UNITS}/metadata-double.service"] = METADATA_UNIT
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in dataproc.PROGRAMS else 0o644)
    link = root / UNITS / "multi-user.target.wants/metadata-double.service"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(f"/{UNITS}/metadata-double.service")
    target = root / "usr/lib/airlock/airlock-node.pyz"
    target.parent.mkdir(parents=True)
    shutil.copy(node_file, target)
    instance(root, "4711")
    # What takes boot time and plays no part here.
    for name in ("systemd-networkd-wait-online", "systemd-udevd", "ssh", "systemd-resolved"):
        with contextlib.suppress(FileExistsError):
            (root / UNITS / f"{name}.service").symlink_to("/dev/null")


def instance(root: Path, number: str, **attributes: str) -> None:
    """What the metadata server tells."""
    told = {"id": number, "attributes": {"dataproc-role": "Worker", **attributes}}
    (root / "etc/metadata.json").write_text(json.dumps(told))


@dataclass
class Node:
    """A copy of a root that can be booted several times; changes stay from boot to boot."""

    base: Path
    work: Path
    program: tuple[str, dict[str, str]]
    root: Path = field(init=False)
    _process: subprocess.Popen[bytes] | None = None
    _leader: str = ""

    def __enter__(self) -> Node:
        self.root = self.work / "root"
        for name in ("root", "upper", "inner"):
            (self.work / name).mkdir(parents=True)
        layers = f"lowerdir={self.base},upperdir={self.work}/upper,workdir={self.work}/inner"
        command = ["mount", "-t", "overlay", "overlay", "-o", layers, str(self.root)]
        subprocess.run(command, check=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        subprocess.run(["umount", str(self.root)], check=False)
        # The hierarchy that the node mounted is this machine's own.
        with contextlib.suppress(OSError):
            Path("/sys/fs/cgroup/devices/yarn").rmdir()

    def boot(self, wait: float = 240, *, agent: bool = True) -> None:
        """Boot until systemd has done every job, and the ``agent`` of a Dataproc image its work."""
        program, environment = self.program
        name = f"airlock-{os.getpid()}-{self.work.name[-20:]}".replace("_", "-")
        command = [program, "-q", "-D", str(self.root), "--boot", "--private-network"]
        command += ["--register=no", "--keep-unit", "-M", name, "--console=read-only"]
        command += ["--resolv-conf=off", "--timezone=off", "--link-journal=no"]
        log = (self.work / "console").open("ab")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", **environment},
            start_new_session=True,
        )
        deadline = time.monotonic() + wait
        while self.run("systemctl", "is-system-running") not in ("running", "degraded"):
            assert self._process.poll() is None, (self.work / "console").read_text()
            assert time.monotonic() < deadline, (
                self.run("systemctl", "list-jobs") + (self.work / "console").read_text()[-3000:]
            )
            time.sleep(0.1)
        # The agent is a sleep when it has done its work, whatever came of the NodeManager.
        while agent and not self.run("pgrep", "-x", "sleep"):
            assert time.monotonic() < deadline, self.run("systemctl", "list-jobs")
            time.sleep(0.1)

    def stop(self) -> None:
        """Power off, as hard as it must be."""
        if self._process is None:
            return
        if self._leader:
            subprocess.run(["kill", "-s", "RTMIN+4", self._leader], check=False)
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process, self._leader = None, ""

    def run(self, *argv: str) -> str:
        """Output of a program in the booted node; empty while there is none."""
        assert self._process is not None
        if not self._leader:
            command = ["ps", "-o", "pid=", "--ppid", str(self._process.pid)]
            said = subprocess.run(command, capture_output=True, text=True, check=False)
            self._leader = (said.stdout.split() or [""])[0]
        if not self._leader:
            return ""
        command = ["nsenter", "-t", self._leader, "-a", "timeout", "300", *argv]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.stdout and done.stderr:
            # nspawn's first child is not the one that becomes the node's init.
            self._leader = ""
        return done.stdout.strip()

    def started(self) -> list[str]:
        """What the NodeManager found, at each start."""
        path = self.root / dataproc.STARTS
        return path.read_text().split() if path.exists() else []

    def result(self) -> dict[str, Any]:
        """How the last configuration ended."""
        path = self.root / "var/lib/airlock/gpu-config-result.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found
