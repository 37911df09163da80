"""A Dataproc node as a directory, and a host that runs the node's programs without being in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fixtures import smi
from installers.config import from_attributes
from installers.deferred.installer import Deferred
from installers.engine import Engine, Summary
from installers.host import Host, Result

YARN_ID = 998
WORKER = {"dataproc-role": "Worker"}
MASTER = {"dataproc-role": "Master"}
L4: dict[str, Any] = {"name": "NVIDIA L4", "mig": None}
A100: dict[str, Any] = {"name": "NVIDIA A100-SXM4-40GB", "mig": False}
FILES = {
    "etc/hadoop/conf/yarn-site.xml": """<?xml version="1.0" ?>
<configuration>
  <!-- of Dataproc's agent -->
  <property>
    <name>yarn.nodemanager.local-dirs</name>
    <value>/hadoop/yarn/nm-local-dir</value>
  </property>
</configuration>
""",
    "etc/hadoop/conf/capacity-scheduler.xml": "<configuration>\n  <property>\n    <name>"
    "yarn.scheduler.capacity.resource-calculator</name>\n    <value>org.apache.hadoop.yarn.util."
    "resource.DefaultResourceCalculator</value>\n  </property>\n</configuration>\n",
    "etc/hadoop/conf/container-executor.cfg": "yarn.nodemanager.linux-container-executor.group="
    "hadoop\nbanned.users=hdfs\nmin.user.id=1000\n",
    "etc/spark/conf/spark-defaults.conf": "spark.master yarn\n",
    "etc/passwd": f"root:x:0:0::/root:/bin/sh\nyarn:x:{YARN_ID}:{YARN_ID}::/:/bin/false\n",
    "etc/group": f"root:x:0:\nvideo:x:44:\nrender:x:106:\nyarn:x:{YARN_ID}:\n",
    "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "proc/cpuinfo": "processor\t: 0\n" * 16,
    "proc/meminfo": "MemTotal:       61643088 kB\n",
    "proc/cgroups": "#subsys_name\thierarchy\tnum_cgroups\tenabled\ndevices\t5\t1\t1\n",
    "proc/devices": "Character devices:\n195 nvidia\n508 nvidia-caps\n",
    "proc/sys/kernel/random/boot_id": "b00\n",
    "sys/class/dmi/id/product_uuid": "1111-2222\n",
    "sys/fs/cgroup/devices/tasks": "",
    "hadoop/yarn/nm-local-dir/x": "",
}


class TreeHost(Host):
    """Programs of the tree run here: nvidia-smi (the double), and scripts of ours."""

    def run(self, argv: Sequence[str], **options: Any) -> Result:
        """See Host. The tree has no libc to change root into."""
        words = list(argv)
        if words[0] == "setpriv":
            words = words[words.index("--") + 1 :]
        if words[0] == "usermod":
            words[1:1] = ["--prefix", str(self.root)]
        if words[0] == "chown":
            words = ["chown", "-R", f"{YARN_ID}:{YARN_ID}", str(self.path(words[-1]))]
        if words[0] == "mount":
            words = ["touch", f"{self.path(words[-1])}/tasks"]
        if words[0].startswith("/"):
            words[0] = str(self.path(words[0]))
        path = f"{self.root}/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        state = f"{self.root}/etc/nvidia-smi-double.json"
        here = Host("/")
        return here.run(words, **{**options, "env": {"PATH": path, "NVIDIA_SMI_DOUBLE": state}})


def make(root: Path, gpus: list[dict[str, Any]] | None) -> TreeHost:
    """A node with these cards; None: without nvidia-smi."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if gpus is not None:
        cards(root, gpus)
        (root / "usr/bin").mkdir(parents=True)
        shutil.copy(str(smi.__file__), root / "usr/bin/nvidia-smi")
        (root / "usr/bin/nvidia-smi").chmod(0o755)
    return TreeHost(root)


def cards(root: Path, gpus: list[dict[str, Any]], fails: int = 0) -> None:
    """Put other cards in."""
    state = json.dumps({"gpus": gpus, "fails": fails})
    (root / "etc/nvidia-smi-double.json").write_text(state)


def run(host: Host, verb: str = "apply", attributes: dict[str, str] | None = None) -> Summary:
    """A verb of the engine with the deferred installer alone."""
    config = from_attributes(WORKER if attributes is None else attributes, "metadata.json")
    summary: Summary = getattr(Engine(host, [Deferred(config)]), verb)()
    return summary


def contents(root: Path) -> dict[str, bytes]:
    """Every file of /etc and /usr, and where links lead."""
    found = {}
    for path in sorted([*(root / "etc").rglob("*"), *(root / "usr").rglob("*")]):
        if path.is_file() and path.name != "nvidia-smi-double.json":
            name = str(path.relative_to(root))
            found[name] = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
    return found
