"""Hadoop's and Spark's own classes read what the installer wrote, and what is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.lab.deferred import hadoop
from tests.unit.deferred import tree

pytestmark = [pytest.mark.lab, pytest.mark.slow]
Said = dict[str, dict[str, str]]
TYPES = "[memory-mb, vcores, yarn.io/gpu]"


def broken(good: Path, name: str, file: str, old: str, new: str) -> None:
    """A copy of a good directory with one thing wrong."""
    directory = good.parent / name
    shutil.copytree(good, directory)
    text = (directory / file).read_text()
    assert old in text
    (directory / file).write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Said:
    """Case → question → answer."""
    jars = hadoop.jars()
    base = tmp_path_factory.mktemp("oracle")
    root = base / "root"
    assert tree.run(tree.make(root, [tree.L4, tree.L4])).exit == 0
    good = base / "cases/good"
    shutil.copytree(root / "etc/hadoop/conf", good)
    script = str(root / "usr/lib/spark/scripts/gpu/getGpusResources.sh")
    defaults = (root / "etc/spark/conf/spark-defaults.conf").read_text()
    defaults = defaults.replace("=/usr/lib/spark/scripts/gpu/getGpusResources.sh", f"={script}")
    (good / "spark-defaults.conf").write_text(defaults)
    spark, amount = "spark-defaults.conf", "spark.executor.resource.gpu.amount="
    broken(good, "other type", "resource-types.xml", "yarn.io/gpu", "nvidia.com/gpu")
    broken(good, "odd name", "resource-types.xml", "yarn.io/gpu", "yarn.io/gpu!")
    broken(good, "twice", "resource-types.xml", "yarn.io/gpu", "yarn.io/gpu,yarn.io/gpu")
    broken(good, "unclosed", "yarn-site.xml", "</configuration>", "")
    broken(good, "misplaced", "capacity-scheduler.xml", "resource-calculator", "calculator")
    broken(good, "too many", spark, f"{amount}1", f"{amount}3")
    broken(good, "no number", spark, f"{amount}1", f"{amount}one")
    broken(
        good,
        "large share",
        spark,
        "task.resource.gpu.amount=0.166666",
        "task.x=1\nspark.task.resource.gpu.amount=0.9",
    )
    broken(good, "no script", spark, "discoveryScript=", "discoveryscript=")
    for name in ("other type", "odd name", "twice"):
        # The type stands in both files: break it in both.
        path = good.parent / name / "yarn-site.xml"
        path.write_text(path.read_text().replace("yarn.resource-types", "yarn.resource-other"))
    nothing = good.parent / "no types"
    shutil.copytree(good, nothing)
    (nothing / "resource-types.xml").unlink()
    site = (nothing / "yarn-site.xml").read_text()
    (nothing / "yarn-site.xml").write_text(site.replace("yarn.resource-types", "yarn.other"))
    environment = {
        **os.environ,
        "PATH": f"{root}/usr/bin:{os.environ['PATH']}",
        "NVIDIA_SMI_DOUBLE": f"{root}/etc/nvidia-smi-double.json",
    }
    cases = sorted(path.name for path in good.parent.iterdir())
    options = ["-Xmx256m", "-XX:TieredStopAtLevel=1"]
    done = subprocess.run(
        ["java", *options, "-cp", f"{jars}/*", str(hadoop.HERE / "Oracle.java"), *cases],
        cwd=good.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    found: Said = {}
    for line in done.stdout.splitlines():
        if line.count("\t") == 2:
            case, question, answer = line.split("\t")
            found.setdefault(case, {})[question] = answer
    assert set(found) == set(cases), done.stdout[-2000:] + done.stderr[-2000:]
    return found


def test_what_was_written_reads_back(said: Said) -> None:
    good = said["good"]
    assert good["types"] == TYPES
    assert good["yarn.nodemanager.resource-plugins"] == "yarn.io/gpu"
    assert good["yarn.nodemanager.container-executor.class"].endswith(".LinuxContainerExecutor")
    assert good["yarn.nodemanager.local-dirs"] == "/hadoop/yarn/nm-local-dir"
    # Dataproc's own value stands before ours in the file: the last one counts.
    assert good["calculator"].endswith(".DominantResourceCalculator")
    assert good["spark"] == "6"
    assert good["request"] == "<memory:1024, vCores:1, yarn.io/gpu: 1>"
    assert "name: gpu, addresses: 0,1" in good["discovery"]
    assert good["tasks"] == "6"


@pytest.mark.parametrize(
    ("case", "question", "words"),
    [
        ("other type", "request", "<memory:1024, vCores:1>"),
        ("no types", "request", "<memory:1024, vCores:1>"),
        ("odd name", "types", "is not a valid resource name"),
        ("twice", "types", "specified twice"),
        ("unclosed", "types", "REFUSED"),
        ("misplaced", "calculator", "null"),
        ("too many", "discovery", "REFUSED"),
        ("no number", "discovery", "REFUSED"),
        ("large share", "tasks", "REFUSED"),
        ("no script", "discovery", "REFUSED"),
    ],
)
def test_what_is_broken_fails_as_in_the_field(
    said: Said, case: str, question: str, words: str
) -> None:
    """The two requests without a GPU are the silent ones: no error, and no GPU."""
    assert words in said[case][question]
