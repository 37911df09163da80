"""What a node tells of its cards, on trees without any, and of programs that do not end well."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from installers import facts
from installers.collect import cards, computing, containers, gpu
from installers.collect.reader import Reader
from installers.exits import Exit

SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "nvidia.com/gpu",
    "devices": [
        {"name": "0", "containerEdits": {"deviceNodes": [{"path": "/dev/nvidia0"}]}},
        {"name": "GPU-1", "containerEdits": {}},
    ],
    "containerEdits": {"mounts": [{"hostPath": "/usr/lib/libcuda.so.550.163.01"}]},
}


def tree(root: Path, **texts: str) -> Reader:
    """A root with these files; ``__`` stands for a slash."""
    for name, text in texts.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Reader(str(root))


def test_a_machine_without_cards(tmp_path: Path) -> None:
    found = gpu.collect(tree(tmp_path))
    assert found["cards"] == []
    assert found["module"] is None
    assert found["libraries"] == dict.fromkeys(gpu.LIBRARIES)
    assert found["double"] is False


def test_the_loader_s_folders(tmp_path: Path) -> None:
    """Includes are followed, also one that includes itself."""
    reader = tree(tmp_path)
    (tmp_path / "etc/ld.so.conf.d").mkdir(parents=True)
    own = "# comment\ninclude ld.so.conf.d/*.conf\n/opt/own/lib/  # trailing\n"
    (tmp_path / "etc/ld.so.conf").write_text(own)
    again = "/usr/local/cuda/lib64\ninclude /etc/ld.so.conf\n"
    (tmp_path / "etc/ld.so.conf.d/cuda.conf").write_text(again)
    (tmp_path / "etc/ld.so.conf.d/other.txt").write_text("/not/this\n")
    found = gpu.configured(reader)
    assert found[0] == "/usr/local/cuda/lib64"
    assert set(found) == {"/usr/local/cuda/lib64", "/opt/own/lib"}


def test_a_specification_as_json(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    reader = tree(tmp_path, etc__cdi__nvidia=json.dumps(SPEC))
    (tmp_path / "etc/cdi/nvidia").rename(tmp_path / "etc/cdi/nvidia.json")
    (found,) = containers.collect(reader)["cdi"]
    assert found["devices"] == ["0", "GPU-1"]
    assert found["missing"] == ["/usr/lib/libcuda.so.550.163.01"]
    assert found["releases"] == ["550.163.01"]
    assert found["why"] is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "nvidia.com/gpu"}', "null"])
def test_a_torn_specification_says_why(tmp_path: Path, text: str) -> None:
    reader = tree(tmp_path, etc__cdi__x="")
    (tmp_path / "etc/cdi/nvidia.json").write_text(text)
    (found,) = containers.collect(reader)["cdi"]
    assert found["why"]
    assert found["devices"] == []


def test_somebody_else_s_specification_is_not_ours(tmp_path: Path) -> None:
    tree(tmp_path, etc__cdi__x="")
    (tmp_path / "etc/cdi/vendor.yaml").write_text("kind: vendor.example/net\ndevices: []\n")
    (tmp_path / "etc/cdi/torn.json").write_text("{")
    assert containers.collect(Reader(str(tmp_path)))["cdi"] == []


@pytest.mark.parametrize("text", ["{", "[]", '{"runtimes": []}'])
def test_torn_settings_of_docker_say_why(tmp_path: Path, text: str) -> None:
    tree(tmp_path, etc__docker__x="")
    (tmp_path / "etc/docker/daemon.json").write_text(text)
    found = containers.collect(Reader(str(tmp_path)))["runtimes"]["docker"]
    assert found["why"].startswith("/etc/docker/daemon.json: ")


def test_the_kernel_s_arithmetic() -> None:
    """By hand: 2 * 2654435761 + 1 wraps, and 300 >> 7 is 2."""
    assert computing.expected([0, 2]) == [0, (2 * 2654435761 + 1) % 2**32]
    assert computing.expected([300]) == [((300 * 2654435761) % 2**32) ^ 2]


@pytest.mark.parametrize("framework", sorted(cards.FRAMEWORKS))
def test_a_framework_that_is_not_there_says_so(framework: str) -> None:
    """By a Python without any, in one line, whatever else is printed."""
    script = Path(str(cards.__file__)).with_name("trial.py").read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-", framework],
        input=script,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["error"].startswith("ModuleNotFoundError")
    assert answer["results"] == []


def program(folder: Path, text: str) -> str:
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_what_hangs_is_left_behind(tmp_path: Path) -> None:
    """Also one that ignores what it is told, and one that leaves a child with its pipes."""
    trial = cards.Trial(total=30, ask=1)
    started = time.monotonic()
    hung = program(tmp_path, "trap '' TERM HUP INT; echo begun; sleep 600 & sleep 600")
    done = trial.run([hung], 1)
    assert time.monotonic() - started < 20
    assert done["code"] is None
    assert done["error"] == "did not end within 1 s"
    assert done["out"] == b"begun\n"


def test_there_is_one_clock_for_all_of_it(tmp_path: Path) -> None:
    trial = cards.Trial(total=0)
    assert trial.run([program(tmp_path, "echo late")], 60)["error"] == "no time was left for it"


def test_a_part_that_says_nothing_is_an_error() -> None:
    """A library may end the process that loads it."""
    said: dict[str, Any] = cards.Trial(ask=60).part("none-of-this-name")
    assert said["error"].startswith("its process ended with ")


def test_environments_are_ours_and_conda_s(tmp_path: Path) -> None:
    record = json.dumps({"prefix": "/opt/airlock/envs/pytorch"})
    reader = tree(tmp_path, opt__conda__envs__ml__x="")
    records = tmp_path / "var/lib/airlock/environments"
    records.mkdir(parents=True)
    (records / "pytorch.json").write_text(record)
    (records / "torn.json").write_text("{")
    found = cards.environments(reader)
    assert found["pytorch"] == "/opt/airlock/envs/pytorch"
    assert found["ml"] == "/opt/conda/envs/ml"
    assert "torn" not in found


def test_an_image_s_cards_cannot_be_tried(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert facts.main(["--root", str(tmp_path), "--cards"]) == Exit.USAGE
    assert "cannot be tried: it does not run" in capsys.readouterr().err


def test_nobody_tried_them_until_somebody_did(tmp_path: Path) -> None:
    collector = facts.Collector(str(tmp_path))
    found = collector.collect()
    assert found["cards"] is None
    assert found["unreadable"]["cards"] == facts.NOT_TRIED
    collector.cards = {"toolkits": []}
    found = collector.collect()
    assert found["cards"] == {"toolkits": []}
    assert "cards" not in found["unreadable"]
