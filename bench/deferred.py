"""First-boot configuration on a copy of this machine that is an image of a Dataproc node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.record import Measurement, against, command, timed
from fixtures import dataproc
from fixtures.metadata import MetadataServer
from fixtures.overlay import OVERLAY
from harness.pack import pack
from installers import units
from installers.deferred import stamp, unit

_ROUNDS = 5
_LIMIT = 2.0
_WORKER = {"dataproc-role": "Worker"}
_IMAGE = {**_WORKER, "invocation-type": "custom-images"}
# In a network namespace of its own, so that whoever fetches anything fails.
_SCRIPT = OVERLAY + 'ip link set lo up\nexec "$PYTHON" -m bench.deferred "$ROOT" "$NODE"\n'


def bench_first_boot() -> Measurement:
    """Wall seconds of the unit's command on a node with one GPU, where no network is."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        node_file = pack(Path(folder)).path
        for number in range(_ROUNDS):
            work = Path(folder) / str(number)
            work.mkdir()
            environment = {
                **os.environ,
                "WORK": str(work),
                "PYTHON": sys.executable,
                "NODE": str(node_file),
            }
            argv = ["unshare", "--mount", "--net", "sh", "-c", _SCRIPT]
            seconds.append(float(command(argv, env=environment).stdout))
    return against(
        "first_boot",
        seconds,
        [_LIMIT],
        "limit",
        "s",
        [
            f"chroot COPY-OF-THIS-MACHINE python3 {units.NODE_FILE} {unit.VERB}; "
            "0 bytes fetched: its network namespace holds a metadata server and nothing else"
        ],
    )


def _measure(root: Path, node_file: Path) -> float:
    """Make the image, then configure the node that it becomes."""
    files = dataproc.files([dataproc.L4])
    files["etc/hadoop/conf/container-executor.cfg"] = "banned.users=hdfs\nmin.user.id=1000\n"
    # A copy has no /sys; this is a hierarchy of version 1, as Dataproc's images mount it.
    files["sys/fs/cgroup/devices/tasks"] = ""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in dataproc.PROGRAMS else 0o644)
    installed = root / units.NODE_FILE.lstrip("/")
    installed.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(node_file, installed)
    if not _in(root, "getent", "passwd", "yarn").stdout:
        _in(root, "useradd", "-r", "-U", "yarn", check=True)
    image = Path(os.environ["WORK"]) / "metadata.json"
    image.write_text(json.dumps({"instance": {"attributes": _IMAGE}}))
    built = ["apply", "--only", "deferred", "--root", str(root), "--metadata", str(image)]
    command(["/usr/bin/python3", str(node_file), *built])
    with MetadataServer(_WORKER).serve() as server:
        verb = [unit.VERB, "--metadata", f"http://127.0.0.1:{server.port}"]
        argv = ["chroot", str(root), "/usr/bin/python3", units.NODE_FILE, *verb]
        seconds = timed(lambda: command(argv))
    result = json.loads((root / stamp.RESULT.lstrip("/")).read_text())
    if result["outcome"] != "configured" or result["attempts"] != 1:
        sys.exit(f"the configuration ended with {result}")
    interfaces = Path("/proc/net/dev").read_text().count(":")
    if interfaces != 1:
        sys.exit(f"the namespace has {interfaces} network interfaces, not the loopback alone")
    return seconds


def _in(root: Path, *argv: str, check: bool = False) -> subprocess.CompletedProcess[Any]:
    return subprocess.run(["chroot", str(root), *argv], capture_output=True, check=check)


if __name__ == "__main__":
    print(_measure(Path(sys.argv[1]), Path(sys.argv[2])))
