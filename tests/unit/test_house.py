"""The rules of the house, run as tests: linters, types, import contracts, sizes, words."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
#: Lines of a module. Longer ones hold two things.
LONGEST = 400

#: Configuration of this machine that names package mirrors and indexes.
MACHINE = (
    "/etc/apt/sources.list",
    "/etc/apt/sources.list.d",
    "/etc/apt/apt.conf.d",
    "/etc/pip.conf",
    "~/.config/pip/pip.conf",
    "~/.pip/pip.conf",
)
#: Public archives, last part first, so that they are not named here either.
PUBLIC = (
    *("org.debian.deb", "org.debian.security", "com.ubuntu.archive", "org.pypi"),
    *("org.npmjs.registry", "org.maven.repo1", "org.anaconda.conda", "org.golang.proxy"),
)
URL = re.compile(r"https?://(?:[^/\s@\"']+@)?([\w.-]+\.[a-z]{2,}|\d+(?:\.\d+){3})", re.IGNORECASE)


def tracked() -> list[Path]:
    """Files that git knows, and that are there."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = [ROOT / name for name in done.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.mark.parametrize(
    "command",
    [
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy"],
        ["lint-imports"],
    ],
    ids=" ".join,
)
def test_the_linters_are_content(command: list[str]) -> None:
    done = subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"


def test_no_module_is_long() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked()
        if path.suffix == ".py"
        and "tests" not in path.parts
        and (lines := path.read_text().count("\n")) > LONGEST
    }
    assert long == {}


def test_packages_hold_no_logic() -> None:
    wrong = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.name == "__init__.py"
        and re.search(r"^\s*(def|class|if|for|while|try)\b", path.read_text(), re.MULTILINE)
    ]
    assert wrong == []


def test_no_file_names_a_package_registry() -> None:
    """A mirror's name in the code is right on one machine only."""
    public = {".".join(reversed(name.split("."))) for name in PUBLIC}
    hosts = {*public, *machine_hosts()}
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in tracked()
        for host in hosts
        if host.encode() in path.read_bytes()
    ]
    assert found == []


def machine_hosts() -> set[str]:
    """Hosts that this machine's own configuration names."""
    files: list[Path] = []
    for name in MACHINE:
        path = Path(name).expanduser()
        files += [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    hosts: set[str] = set()
    for file in files:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        said = "\n".join(line for line in lines if not line.lstrip().startswith(("#", "//")))
        hosts |= set(URL.findall(said))
    # Google's own hosts stay direct on its machines: there they are data of the product.
    return {host for host in hosts if not host.startswith("127.") and ".google.com" not in host}
