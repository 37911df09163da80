"""The cards: MIG on every one, compute mode, discovery, and cards that do not answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from installers.deferred import gpus, scripts, spark, stamp, yarn
from installers.errors import NodeError
from installers.exits import Exit
from tests.unit.deferred import tree
from tests.unit.deferred.test_node import NM, amounts, site
from tests.unit.deferred.tree import A100, L4, WORKER


def test_B41_mig_on_every_card(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [A100, A100])
    asked = {**WORKER, "ENABLE_MIG": "1", "MIG_CGI": "9,9"}
    assert tree.run(host, attributes=asked).exit == Exit.PASS
    assert [len(gpu.slices) for gpu in gpus.inspect(host)] == [2, 2]
    path = f"{NM}.resource-plugins.gpu.path-to-discovery-executables"
    assert site(tmp_path)[path] == "/usr/lib/airlock/yarn-mig"
    assert "gpu.major-device-number=508" in (tmp_path / yarn.EXECUTOR.lstrip("/")).read_text()
    assert amounts(tmp_path)["spark.executor.cores"] == "2"
    assert tree.run(host, attributes=asked).installers[0].outcome == "unchanged"
    answer = json.loads(host.run([spark.SCRIPT]).out)
    assert len(set(answer["addresses"])) == 4
    assert all(address.startswith("MIG-") for address in answer["addresses"])


def test_mig_that_waits_for_a_reset_is_named(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [{**A100, "pending": True}])
    summary = tree.run(host, attributes={"ENABLE_MIG": "yes"})
    assert "changes after a reset only" in summary.installers[0].problems[0].what
    assert stamp.read(host) is None


def test_compute_mode(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4, L4])
    asked = {"airlock-gpu-compute-mode": "exclusive-process"}
    assert tree.run(host, attributes=asked).exit == Exit.PASS
    state = json.loads((tmp_path / "etc/nvidia-smi-double.json").read_text())
    assert [gpu["mode"] for gpu in state["gpus"]] == ["Exclusive_Process"] * 2
    assert tree.run(host, attributes=asked).installers[0].outcome == "unchanged"


def test_B43_discovery_asks_each_time_and_never_answers_with_no_gpu(tmp_path: Path) -> None:
    host = tree.make(tmp_path, [L4])
    tree.run(host)
    assert json.loads(host.run([spark.SCRIPT]).out) == {"name": "gpu", "addresses": ["0"]}
    tree.cards(tmp_path, [L4, A100, L4])
    answer = json.loads(host.run([spark.SCRIPT]).out)
    assert answer["addresses"] == ["0", "1", "2"]
    for gone in ([], [L4]):
        tree.cards(tmp_path, gone, fails=9 if gone else 0)
        result = host.run([spark.SCRIPT], check=False)
        assert result.code == 1
        assert result.out == ""
        assert "getGpusResources.sh: " in result.err


@pytest.mark.parametrize(
    ("bus", "smi", "fails", "what"),
    [
        (1, False, 0, "nvidia-smi is not installed"),
        (1, True, 9, "exited 9: NVIDIA-SMI has failed"),
        (2, True, 0, "knows 1 of 2 GPUs on the bus"),
        (0, True, 9, ""),
    ],
)
def test_a_card_that_does_not_answer(
    tmp_path: Path, bus: int, smi: bool, fails: int, what: str
) -> None:
    host = tree.make(tmp_path, [L4] if smi else None)
    for number in range(bus):
        device = tmp_path / f"sys/bus/pci/devices/0000:00:0{number}.0"
        device.mkdir(parents=True)
        (device / "vendor").write_text("0x10de\n")
        (device / "class").write_text("0x030200\n")
    if smi:
        tree.cards(tmp_path, [L4], fails)
    if not what:
        assert gpus.inspect(host) == []
        return
    with pytest.raises(NodeError, match=what):
        gpus.inspect(host)


def test_old_names_of_slices() -> None:
    uuid = "GPU-5c89852c-d268-c3f3-1b07-005d5ae1dc3f"
    listing = f"GPU 0: A100-SXM4-40GB (UUID: {uuid})\n"
    listing += f"  MIG 1c.3g.20gb Device 0: (UUID: MIG-{uuid}/1/0)\n"
    assert gpus.listed(listing) == {uuid: [("1c.3g.20gb", f"MIG-{uuid}/1/0")]}


def test_yarn_is_shown_each_slice_as_a_card(tmp_path: Path) -> None:
    """With the minor number of its GPU instance's capability; whole cards stay as they are."""
    host = tree.make(tmp_path, [{**A100, "mig": True, "slices": ["3g.20gb"] * 2}, L4])
    for instance, minor in ((1, 12), (2, 21)):
        access = tmp_path / f"proc/driver/nvidia/capabilities/gpu0/mig/gi{instance}/access"
        access.parent.mkdir(parents=True)
        access.write_text(f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\n")
    assert tree.run(host).exit == Exit.PASS
    program = tmp_path / scripts.MIG_SMI.lstrip("/")
    program.write_text(program.read_text().replace('"/proc/', f'"{tmp_path}/proc/'))
    shown = gpus.parse(host.run([scripts.MIG_SMI, "-x", "-q"]).out, "")
    assert [gpu.minor for gpu in shown] == [1, 12, 21]
    assert len({gpu.uuid for gpu in shown}) == 3
    # What else is asked of it, the real one answers.
    assert host.run([scripts.MIG_SMI, "-L"]).out == host.run(["nvidia-smi", "-L"]).out
