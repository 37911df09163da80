"""An installed Airlock, as ``uv tool install`` or ``pipx install`` would make it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
#: The top-level packages of the wheel; docs/packaging.md names them.
ROOMS = ("conformance", "fixtures", "harness", "installers", "matrices", "reports")


@dataclass(frozen=True)
class Installed:
    """``home`` is an empty directory to be in, and the user's home."""

    prefix: Path
    home: Path

    @property
    def python(self) -> Path:
        return self.prefix / "bin/python"

    @property
    def packages(self) -> Path:
        """Its site-packages."""
        (found,) = self.prefix.glob("lib/python3*/site-packages")
        return found

    @property
    def node_file(self) -> Path:
        return self.prefix / "share/airlock/airlock-node.pyz"

    def run(self, *words: str) -> tuple[int, str]:
        """A program of the environment: exit status, and all it printed."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PYTEST", "AIRLOCK", "VIRTUAL_ENV", "COV"))
        }
        done = subprocess.run(
            [str(self.prefix / "bin" / words[0]), *words[1:]],
            cwd=self.home,
            env={**kept, "HOME": str(self.home), "AIRLOCK_STATE": str(self.home / "state")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


def environment(prefix: Path, wheel: Path, *options: str) -> Installed:
    """A new environment with the wheel in it; ``options`` are pip's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    command = [sys.executable, "-m", "pip", f"--python={prefix}", "install", "--quiet"]
    command += ["--disable-pip-version-check", "--no-compile", *options, str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    home = prefix.parent / "home"
    home.mkdir()
    return Installed(prefix, home)
