"""The distribution's real nvidia-smi on the double of NVML: the exit codes that the checks know.

It is downloaded by apt from the mirror that this machine is configured for, unpacked, and never
installed.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.gpudouble import build
from harness.pack import pack
from tests.unit.conformance import gputree

pytestmark = [pytest.mark.lab, pytest.mark.slow]
PACKAGES = ("nvidia-smi", "libnvidia-ml1")
ASK = """
import json, sys
sys.path.insert(0, "/airlock-node.pyz")
from installers.collect.cards import Trial
trial = Trial()
print(json.dumps({"smi": trial.nvidia_smi(), "nvml": trial.part("nvml")}))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages' files."""
    folder = tmp_path_factory.mktemp("nvidia")
    sources = folder / "sources"
    sources.mkdir()
    for path in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")):
        text = re.sub(r"(?m)^Components:.*$", "Components: main non-free", path.read_text())
        (sources / path.name).write_text(text)
    (folder / "lists/partial").mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": "-",
        "Dir::Etc::sourceparts": str(sources),
        "Dir::State::Lists": str(folder / "lists"),
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in options.items())]
    for words in (["update"], ["download", *PACKAGES]):
        done = subprocess.run(
            [*apt, *words], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            pytest.skip(f"apt has no {PACKAGES[0]} here: {done.stderr.strip()[-200:]}")
    for path in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(path), str(folder / "root")], check=True)
    return folder / "root"


@pytest.fixture(scope="module")
def whole(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The node of doubles with the real program in place of ours."""
    why = gputree.why_not()
    if why:
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("node")
    gputree.make(folder / "tree", pack(folder).path)
    named = [path for path in unpacked.rglob("nvidia-smi") if path.is_file()]
    (real,) = [path for path in named if path.read_bytes()[:4] == b"\x7fELF"]
    shutil.copy(real, folder / "tree/local/bin/nvidia-smi")
    return folder / "tree"


@pytest.fixture
def tree(whole: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(whole, tmp_path / "tree", symlinks=True)
    yield tmp_path / "tree"
    shutil.rmtree(tmp_path / "tree")


def asked(tree: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gputree.enter(tree, gputree.PYTHON, "-c", ASK).stdout)
    return found


def test_it_lists_the_cards(tree: Path) -> None:
    found = asked(tree)
    assert (found["smi"]["code"], found["smi"]["error"]) == (0, None), found
    assert found["smi"]["cards"] == [card["uuid"] for card in found["nvml"]["cards"]]
    assert len(found["smi"]["cards"]) == 2


@pytest.mark.parametrize(
    ("line", "code", "meaning"),
    [
        ("fault=no-permission", 4, "no permission"),
        ("fault=no-power", 8, "power cables"),
        ("fault=no-driver", 9, "is not loaded"),
        ("fault=interrupts", 11, "interrupts"),
        ("fault=inforom", 14, "infoROM is corrupted"),
        ("fault=lost", 15, "fallen off the bus"),
        ("driver=555.42.06", 18, "not of the driver's release"),
    ],
)
def test_its_exit_codes(tree: Path, line: str, code: int, meaning: str) -> None:
    with (tree / build.FILE.lstrip("/")).open("a") as file:
        file.write(f"{line}\n")
    found = asked(tree)["smi"]
    assert found["code"] == code, found
    assert meaning in found["meaning"]


def test_without_a_library(tree: Path) -> None:
    for path in (tree / "local/lib").glob("libnvidia-ml*"):
        path.unlink()
    found = asked(tree)
    assert found["smi"]["code"] == 12, found["smi"]
    assert found["nvml"]["code"] == 12


def test_with_the_real_library_and_no_driver(tree: Path, unpacked: Path) -> None:
    """Debian's own libnvidia-ml, where no driver is loaded."""
    for path in (tree / "local/lib").glob("libnvidia-ml*"):
        path.unlink()
    (real,) = [path for path in unpacked.rglob("libnvidia-ml.so.*.*") if not path.is_symlink()]
    shutil.copy(real, tree / "local/lib" / real.name)
    (tree / "local/lib/libnvidia-ml.so.1").symlink_to(real.name)
    found = asked(tree)
    assert found["smi"]["code"] == 9, found["smi"]
    assert (found["nvml"]["code"], found["nvml"]["double"]) == (9, False)
