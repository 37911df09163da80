"""The wheel, and an environment in which nothing else of this checkout can be found."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.unit.packaging.installed import ROOT, Installed, environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the build backend that ``pyproject.toml`` names."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel alone; what it depends on comes from the environment around us, to be quick."""
    place = tmp_path_factory.mktemp("tool")
    made = environment(place / "env", wheel, "--no-deps", "--no-index")
    (made.packages / "around.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return made
