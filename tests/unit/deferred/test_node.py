"""What is decided for a node, and written: by role, cards, cgroups; again; and taken back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from installers import retired, units
from installers.adopt.installer import Adopt
from installers.adopt.rows import by_id
from installers.config import from_attributes
from installers.deferred import (
    boot,
    hadoopxml,
    settings,
    spark,
    stamp,
    unit,
    yarn,
)
from installers.deferred.cgroups import OWN
from installers.deferred.installer import Deferred
from installers.deferred.properties import read as read_properties
from installers.errors import ConfigError
from installers.exits import Exit
from installers.host import Host
from tests.unit.deferred import tree
from tests.unit.deferred.tree import L4, MASTER, WORKER

NM = "yarn.nodemanager"
LCE = f"{NM}.linux-container-executor"
GPU_SITE = {
    "yarn.resource-types": "yarn.io/gpu",
    f"{NM}.resource-plugins": "yarn.io/gpu",
    f"{NM}.resource-plugins.gpu.allowed-gpu-devices": "auto",
    f"{NM}.resource-plugins.gpu.path-to-discovery-executables": "/usr/bin",
    f"{NM}.container-executor.class": yarn.EXECUTOR_CLASS,
    f"{LCE}.group": "yarn",
    f"{LCE}.cgroups.mount": "false",
    f"{LCE}.cgroups.mount-path": "/sys/fs/cgroup",
    f"{LCE}.cgroups.hierarchy": "yarn",
}


def site(root: Path) -> dict[str, str]:
    path = root / yarn.YARN_SITE.lstrip("/")
    return hadoopxml.ours(path.read_bytes(), str(path))


def amounts(root: Path) -> dict[str, str]:
    found = read_properties((root / spark.CONF.lstrip("/")).read_text())
    return {key: value for key, value in found.items() if key != "spark.master"}


@pytest.mark.parametrize(
    ("role", "cards", "wanted", "asked"),
    [
        (WORKER, [L4], GPU_SITE, True),
        (MASTER, [L4], GPU_SITE, True),
        ({}, [L4, L4], GPU_SITE, True),
        (MASTER, None, {"yarn.resource-types": "yarn.io/gpu"}, True),
        (WORKER, None, {"yarn.resource-types": "yarn.io/gpu"}, False),
        ({**WORKER, "airlock-spark-gpu": "0"}, [L4], GPU_SITE, False),
    ],
    ids=["worker", "master", "single", "master without", "worker without", "not for spark"],
)
def test_roles(
    tmp_path: Path,
    role: dict[str, str],
    cards: list[dict[str, Any]] | None,
    wanted: dict[str, str],
    asked: bool,
) -> None:
    host = tree.make(tmp_path, cards)
    summary = tree.run(host, attributes=role)
    assert summary.exit == Exit.PASS, summary
    assert site(tmp_path) == wanted
    types = (tmp_path / yarn.RESOURCE_TYPES.lstrip("/")).read_bytes()
    assert hadoopxml.read(types, "x") == {"yarn.resource-types": "yarn.io/gpu"}
    scheduler = (tmp_path / yarn.SCHEDULER.lstrip("/")).read_bytes()
    assert hadoopxml.read(scheduler, "x") == {
        "yarn.scheduler.capacity.resource-calculator": yarn.CALCULATOR
    }
    executor = (tmp_path / yarn.EXECUTOR.lstrip("/")).read_text()
    assert ("[gpu]" in executor) == (cards is not None)
    assert ("spark.executor.resource.gpu.amount" in amounts(tmp_path)) == asked
    before = tree.contents(tmp_path)
    again = tree.run(host, attributes=role)
    assert again.installers[0].outcome == "unchanged", again.installers[0].changes
    assert tree.contents(tmp_path) == before
    assert tree.run(host, "verify", role).exit == Exit.PASS


def test_remove_gives_the_files_back(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    before = tree.contents(tmp_path)
    assert tree.run(host).exit == Exit.PASS
    assert tree.contents(tmp_path) != before
    assert tree.run(host, "remove").exit == Exit.PASS
    after = tree.contents(tmp_path)
    for name in ("etc/group", "etc/group-"):  # to be in a group harms nobody
        before.pop(name, None)
        after.pop(name, None)
    assert {name: text for name, text in after.items() if "gshadow" not in name} == before


@pytest.mark.parametrize(
    ("count", "cores", "memory", "task"),
    [(1, "12", "44g", "0.083333"), (2, "6", "22g", "0.166666")],
)
def test_amounts(tmp_path: Path, count: int, cores: str, memory: str, task: str) -> None:
    """16 cores and 58.8 GiB; an executor for each card."""
    assert tree.run(tree.make(tmp_path, [L4] * count)).exit == Exit.PASS
    assert amounts(tmp_path) == {
        "spark.executor.resource.gpu.amount": "1",
        "spark.executor.resource.gpu.discoveryScript": spark.SCRIPT,
        "spark.executor.cores": cores,
        "spark.executor.memory": memory,
        "spark.task.resource.gpu.amount": task,
    }


@pytest.mark.parametrize(
    ("foreign", "task"),
    [
        ("spark.executor.cores=4\n", "0.25"),
        ("spark.executor.cores 1\n", "1"),
        ("spark.executor.cores 3\nspark.executor.resource.gpu.amount 2\n", "0.5"),
        ("spark.executor.cores 2\nspark.executor.resource.gpu.amount 4\n", "2"),
    ],
)
def test_what_the_cluster_asks_for_stands(tmp_path: Path, foreign: str, task: str) -> None:
    host = tree.make(tmp_path, [L4] * 8)
    path = tmp_path / spark.CONF.lstrip("/")
    path.write_text(foreign)
    assert tree.run(host).exit == Exit.PASS
    assert path.read_text().startswith(foreign)
    found = read_properties(path.read_text())
    assert found["spark.task.resource.gpu.amount"] == task
    assert {**found, **read_properties(foreign)} == found


@pytest.mark.parametrize("cores", range(1, 65))
def test_as_many_tasks_as_cores(cores: int) -> None:
    """Spark: a share of at most a half, of which floor(1/share) fit."""
    share = float(spark.task_amount(1, cores))
    assert share == 1 or share <= 0.5
    assert int(1 / share) == cores


def test_an_amount_that_spark_refuses_is_named(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    (tmp_path / spark.CONF.lstrip("/")).write_text("spark.executor.resource.gpu.amount two\n")
    summary = tree.run(host)
    assert summary.exit == Exit.FAIL
    assert "amount is 'two', not a whole number" in summary.installers[0].problems[0].what


def test_B40_an_image_holds_the_unit_and_nothing_of_a_node(tmp_path: Path) -> None:
    build = {**WORKER, "invocation-type": "custom-images"}
    host = tree.make(tmp_path, [L4])
    before = tree.contents(tmp_path)
    # Configured by an older program first, as an image that is taken of a running node.
    assert tree.run(host).exit == Exit.PASS
    assert stamp.read(host) is not None
    assert tree.run(host, attributes=build).exit == Exit.PASS
    new = {name: text for name, text in tree.contents(tmp_path).items() if before.get(name) != text}
    units = {name for name in new if name.startswith("etc/systemd/")}
    assert units == {
        f"etc/systemd/system/{unit.NAME}",
        *(unit.drop_in(daemon).lstrip("/") for daemon in unit.DAEMONS),
    }
    assert {name for name in new if "group" not in name} == units
    assert stamp.read(host) is None
    assert not (tmp_path / stamp.RESULT.lstrip("/")).exists()
    assert tree.run(host, attributes=build).installers[0].outcome == "unchanged"


def test_a_stamp_of_another_instance_is_not_believed(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    tree.run(host)
    (tmp_path / "sys/class/dmi/id/product_uuid").write_text("3333-4444\n")
    plan = tree.run(host, "plan")
    assert [change.key for change in plan.installers[0].changes] == ["stamp"]
    assert tree.run(host).installers[0].outcome == "ok"
    found = stamp.read(host)
    assert found is not None
    assert found.instance == "dmi:3333-4444"


def test_another_card_is_another_configuration(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    tree.run(host)
    tree.cards(tmp_path, [L4, L4])
    changes = {change.key for change in tree.run(host).installers[0].changes}
    assert "stamp" in changes
    assert f"{spark.CONF}:spark.executor.cores" in changes
    shutil.rmtree(tmp_path / "usr/bin")
    assert tree.run(host).exit == Exit.PASS
    assert site(tmp_path) == {"yarn.resource-types": "yarn.io/gpu"}
    assert not (tmp_path / spark.SCRIPT.lstrip("/")).exists()


def test_what_todays_scripts_left_is_taken_over(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    lefts = [path for name in ("gpu-unit", "cgroup-unit") for path in by_id(name).paths]
    theirs = {path: f"# {path}\nExecStart=/x/apply-dataproc-gpu-config.sh\n" for path in lefts}
    for left, text in theirs.items():
        (tmp_path / left.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / left.lstrip("/")).write_text(text)
    path = tmp_path / yarn.EXECUTOR.lstrip("/")
    path.write_text(
        path.read_text()
        + "\n[gpu]\nmodule.enabled=true\n[cgroups]\nroot=/sys/fs/cgroup\nyarn-hierarchy=yarn\n"
    )
    assert tree.run(host).exit == Exit.PASS
    there = {p for p in lefts if (tmp_path / p.lstrip("/")).exists()}
    assert there == {units.unit_path(unit.NAME)}
    assert host.read(units.unit_path(unit.NAME)) == unit.TEXT
    assert path.read_text().count("[gpu]") == path.read_text().count("[cgroups]") == 1
    config = from_attributes({})
    for one in (Deferred(config), Adopt(config)):
        one.remove(host)
    assert {p: host.read(p) for p in lefts} == theirs


def test_B42_cgroup_v2_gets_a_hierarchy_of_its_own(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    shutil.rmtree(tmp_path / "sys/fs/cgroup/devices")
    (tmp_path / "sys/fs/cgroup/cgroup.controllers").write_text("cpu memory\n")
    assert tree.run(host).exit == Exit.PASS
    assert site(tmp_path)[f"{LCE}.cgroups.mount-path"] == OWN
    assert (tmp_path / f"{OWN}/devices/yarn".lstrip("/")).stat().st_uid == tree.YARN_ID
    (tmp_path / "proc/cgroups").write_text("#subsys_name\n")
    shutil.rmtree(tmp_path / OWN.lstrip("/"))
    summary = tree.run(host)
    assert "the kernel has no devices controller" in summary.installers[0].problems[0].what


def test_owners_and_groups(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    assert tree.run(host).exit == Exit.PASS
    assert "video:x:44:yarn" in (tmp_path / "etc/group").read_text()
    assert (tmp_path / "hadoop/yarn/nm-local-dir/x").stat().st_uid == tree.YARN_ID
    assert (tmp_path / "sys/fs/cgroup/devices/yarn").stat().st_uid == tree.YARN_ID


@pytest.mark.parametrize(
    ("attributes", "where"),
    [
        ({"ENABLE_MIG": "maybe"}, "ENABLE_MIG"),
        ({"ENABLE_MIG": "1", "MIG_CGI": "9;9"}, "MIG_CGI"),
        ({"MIG_CGI": "9"}, "MIG_CGI"),
        ({"airlock-gpu-compute-mode": "shared"}, "airlock-gpu-compute-mode"),
        ({"airlock-spark-gpu": "some"}, "airlock-spark-gpu"),
        (
            {"ENABLE_MIG": "1", "airlock-gpu-compute-mode": "exclusive-process"},
            "airlock-gpu-compute-mode",
        ),
    ],
)
def test_bad_metadata(attributes: dict[str, str], where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings.from_attributes(attributes)
    assert caught.value.where == where


def test_retired_keys_name_their_successors(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    notes = tree.run(host, "plan", dict.fromkeys(retired.DEFERRED, "x")).contract.notes
    assert len([note for note in notes if " is retired " in note]) == len(retired.DEFERRED)


def test_B38_the_boot_verb_leaves_a_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It configures whatever invocation-type says, and tries until its time is over."""
    root = tmp_path / "root"
    tree.make(root, [L4])
    monkeypatch.setattr(boot, "Host", tree.TreeHost)
    monkeypatch.setattr(boot, "_PAUSE", 0.01)
    file = tmp_path / "m.json"
    attributes = {**WORKER, "invocation-type": "custom-images"}
    file.write_text(json.dumps({"instance": {"attributes": attributes}}))
    argv = ["--root", str(root), "--metadata", str(file), "--patience", "1"]
    tree.cards(root, [L4], fails=9)
    (root / "sys/bus/pci/devices/a").mkdir(parents=True)
    (root / "sys/bus/pci/devices/a/vendor").write_text("0x10de\n")
    (root / "sys/bus/pci/devices/a/class").write_text("0x030000\n")

    def result() -> dict[str, Any]:
        found: dict[str, Any] = json.loads((root / stamp.RESULT.lstrip("/")).read_text())
        return found

    assert boot.main(argv) == Exit.FAIL
    assert result()["outcome"] == "failed"
    assert result()["attempts"] > 1
    assert "exited 9" in result()["problems"][0]["what"]
    tree.cards(root, [L4])
    assert boot.main(argv) == Exit.PASS
    assert result()["outcome"] == "configured"
    assert {step["outcome"] for step in result()["steps"]} == {"ok"}
    assert result()["bytes_fetched"] == 0
    assert boot.main(argv) == Exit.PASS
    assert result()["outcome"] == "unchanged"
    attributes["ENABLE_MIG"] = "perhaps"
    file.write_text(json.dumps({"instance": {"attributes": attributes}}))
    assert boot.main(argv) == Exit.USAGE
    assert result()["attempts"] == 1
    assert "Traceback" not in capsys.readouterr().err


def test_no_hadoop_nothing_to_do(tmp_path: Path) -> None:
    host = Host(tmp_path)
    summary = tree.run(host)
    assert summary.installers[0].outcome == "unchanged"
    assert any("/etc/hadoop/conf is not there" in note for note in summary.contract.notes)


def test_the_instance_is_the_metadata_servers(tmp_path: Path) -> None:
    from fixtures.metadata import MetadataServer

    host = tree.make(tmp_path, [L4])
    with MetadataServer({}) as server:
        server.serve()
        config = from_attributes({}, f"http://127.0.0.1:{server.port}")
        assert stamp.instance(host, config) == "gce:1000000000000000001"
