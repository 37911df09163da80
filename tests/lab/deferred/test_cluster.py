"""A real ResourceManager, NodeManager and Spark job on what the deferred step wrote.

Doubles: the cards (nvidia-smi), the native container-executor, which nobody publishes, and the
directory that stands for the devices hierarchy. So what this shows of GPUs is simulated; what it
shows of configuration is Hadoop's and Spark's own judgement.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.lab.deferred import hadoop

ROOT = Path(__file__).parents[3]
pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for mounts"),
    pytest.mark.skipif(not shutil.which("curl"), reason="needs curl"),
]
LOG4J = """rootLogger.level=info
rootLogger.appenderRef.c.ref=c
appender.c.type=Console
appender.c.name=c
appender.c.layout.type=PatternLayout
appender.c.layout.pattern=%p %c{1}: %m%n%ex
"""
NM = "yarn.nodemanager"
LCE = f"{NM}.linux-container-executor"
# What Dataproc's agent and a cluster of this size bring; nothing of GPUs.
SITE = {
    f"{NM}.local-dirs": "/hadoop/yarn/nm-local-dir",
    f"{NM}.log-dirs": "/hadoop/yarn/logs",
    f"{NM}.pmem-check-enabled": "false",
    f"{NM}.vmem-check-enabled": "false",
    f"{NM}.disk-health-checker.max-disk-utilization-per-disk-percentage": "99.9",
    # The double changes no user, so there is but this one.
    f"{LCE}.nonsecure-mode.local-user": "root",
    f"{LCE}.nonsecure-mode.limit-users": "false",
    "yarn.resourcemanager.hostname": "127.0.0.1",
}
SCHEDULER = {
    "yarn.scheduler.capacity.root.queues": "default",
    "yarn.scheduler.capacity.root.default.capacity": "100",
    "yarn.scheduler.capacity.maximum-am-resource-percent": "0.9",
}
# Case → what is done to a copy of the good directory, and what the NodeManager must say.
BROKEN = {
    "cards-silent": (
        """echo '{"gpus": [], "fails": 9}' >/etc/nvidia-smi-double.json""",
        "Failed to execute GPU device detection script",
    ),
    "devices-without-minor": (
        "sed -i 's#>auto<#>0,1<#' /tmp/$name/yarn-site.xml",
        "Illegal format of individual GPU device: 0",
    ),
    "unclosed": (
        "sed -i 's#</configuration>##' /tmp/$name/yarn-site.xml",
        "Unexpected EOF; was expecting a close tag for element <configuration>",
    ),
    "type-unknown": (
        "sed -i 's#yarn.io/gpu#nvidia.com/gpu#' /tmp/$name/resource-types.xml "
        "/tmp/$name/yarn-site.xml",
        "nvidia.com/gpu",
    ),
}


def xml(values: Mapping[str, str]) -> str:
    """A file as others write it."""
    rows = "".join(
        f"<property><name>{name}</name><value>{value}</value></property>\n"
        for name, value in values.items()
    )
    return f"<configuration>\n{rows}</configuration>\n"


@pytest.fixture(scope="module")
def out() -> Iterator[Path]:
    """What a whole run left: the daemons' logs, the nodes, the job, the executor's calls."""
    jars = hadoop.jars()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-yarn-") as scratch:
        work = Path(scratch)
        (work / "out").mkdir()
        (work / "broken").mkdir()
        for name, (shell, _) in BROKEN.items():
            (work / "broken" / name).write_text(f"{shell}\n")
        cards = {"gpus": [{"name": "NVIDIA L4", "mig": None}] * 2}
        metadata = {"instance": {"attributes": {"dataproc-role": "Worker"}}}
        files = {
            "site.xml": xml(SITE),
            "core-site.xml": xml({"hadoop.tmp.dir": "/hadoop/tmp", "fs.defaultFS": "file:///"}),
            "capacity-scheduler.xml": xml(SCHEDULER),
            "log4j2.properties": LOG4J,
            "cards.json": json.dumps(cards),
            "metadata.json": json.dumps(metadata),
            "cluster.sh": (hadoop.HERE / "cluster.sh").read_text(),
        }
        for name, text in files.items():
            (work / name).write_text(text)
        classes = work / "classes"
        classes.mkdir()
        compiler = ["javac", "-nowarn", "-cp", f"{jars}/*", "-d", str(classes)]
        subprocess.run([*compiler, str(hadoop.HERE / "Job.java")], check=True)
        subprocess.run(["jar", "cf", str(work / "job.jar"), "-C", str(classes), "."], check=True)
        enter = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
        enter += ["--propagation", "private", "sh", "-e", str(work / "cluster.sh")]
        ran = subprocess.run(
            [*enter, str(work), str(jars), str(ROOT)],
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        said = work / "out"
        assert ran.returncode == 0, ran.stderr[-2000:] + _text(said / "config")
        yield said


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


def test_the_managers_agree_on_the_cards(out: Path) -> None:
    """The NodeManager ran nvidia-smi -x -q; the ResourceManager counts what it reported."""
    assert "yarn.io/gpu: 2>" in _text(out / "nm")
    (node,) = json.loads(_text(out / "nodes.json"))["nodes"]
    assert node["state"] == "RUNNING"
    assert "DominantResourceCalculator" in _text(out / "rm")
    found = {one["name"]: one["value"] for one in node["totalResource"]["resource"]["resources"]}
    assert found["yarn.io/gpu"] == 2


def test_a_spark_job_gets_its_card(out: Path) -> None:
    """And the executor was told to shut the container out of the other one."""
    job = _text(out / "job")
    assert "ADDRESSES [[0], [0]]" in job or "ADDRESSES [[1], [1]]" in job, job[-3000:]
    gpu_calls = [line for line in _text(out / "calls").splitlines() if "--module-gpu" in line]
    assert any("--excluded_gpus" in line for line in gpu_calls)


@pytest.mark.parametrize("name", list(BROKEN))
def test_what_is_broken_keeps_the_node_manager_down(out: Path, name: str) -> None:
    said = _text(out / f"broken-{name}")
    assert BROKEN[name][1] in said, said[-3000:]
    assert "exit 0" not in said.splitlines()[-1]
    assert "Registered with ResourceManager" not in said


def test_the_run_says_what_was_done(out: Path) -> None:
    result: dict[str, Any] = json.loads(_text(out / "gpu-config-result.json"))
    assert result["outcome"] == "configured"
    assert len(result["provenance"]["gpus"]) == 2
    assert result["bytes_fetched"] == 0
