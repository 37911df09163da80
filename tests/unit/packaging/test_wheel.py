"""What the wheel holds, and that it works where there is no checkout."""

from __future__ import annotations

import json
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from harness.pack import pack
from reports.read import read_report
from tests.unit.packaging.installed import ROOMS, ROOT, Installed, environment

DOCS = ROOT / "docs/packaging.md"


def test_it_holds_every_file_of_its_rooms_and_no_other(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *ROOMS], cwd=ROOT, capture_output=True, check=True
    )
    ours = {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        data = {name for name in held if ".data/" in name}
        packed = archive.read(next(iter(data)))
    assert sorted(ours - held) == []
    unknown = {name for name in held - data - ours if not _untracked(name)}
    assert unknown == set()
    assert [name.split(".data/")[1] for name in data] == ["data/share/airlock/airlock-node.pyz"]
    assert {name.split("/")[0] for name in held - data} == set(ROOMS)
    for kind in (
        *("matrices/default.toml", "reports/schema.json", "fixtures/scenarios/proxy.toml"),
        *("harness/ci/templates/github.yaml.j2", "conformance/proxy/sabotage.toml"),
    ):
        assert kind in held, kind
    assert len(packed) > 100_000


def _untracked(name: str) -> bool:
    """Whether somebody is writing it just now: it is in the checkout, and not ignored."""
    ignored = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False)
    return (ROOT / name).is_file() and ignored.returncode == 1


def test_its_node_file_is_the_one_that_it_sends(installed: Installed, tmp_path: Path) -> None:
    packed = pack(tmp_path, installed.packages / "installers")
    assert installed.node_file.read_bytes() == packed.path.read_bytes()
    done = subprocess.run(
        ["sh", str(installed.node_file), "lint", "localhost"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_pages_name_its_packages() -> None:
    said = set(re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE))
    assert said == set(ROOMS)


def _all_verbs(tool: Installed) -> None:
    """What a user does first, in a directory without anything."""
    status, said = tool.run("python", "-c", "import harness; print(harness.__file__)")
    assert said.strip() == str(tool.packages / "harness/__init__.py"), "not the checkout's"
    status, said = tool.run("airlock", "--version")
    assert (status, said.split()[0]) == (0, "airlock")
    status, said = tool.run("airlock", "doctor")
    assert status in (0, 3), said
    assert "qemu-system-x86_64" in said
    status, said = tool.run("airlock", "plan", "--provider", "fake", "--json")
    assert status == 0, said
    assert len(json.loads(said)) > 3
    status, said = tool.run("airlock", "plan", "--emit", "github", "--shards", "2")
    assert status == 0, said
    status, said = tool.run("airlock", "checks", "--json")
    assert status == 0, said
    assert len(json.loads(said)["checks"]) > 50
    status, said = tool.run("airlock", "check", "local", "-k", "test_clock")
    assert status in (0, 1), said
    (cell,) = read_report(tool.home / "out/latest").cells
    assert [check.id for check in cell.checks] == ["system.clock"]
    assert (tool.home / "out/latest/index.html").is_file()
    status, said = tool.run("airlock", "run", "--provider", "fake", "-k", "test_clock")
    assert status == 0, said
    checks = str(tool.packages / "conformance/system")
    status, said = tool.run(
        *("python", "-m", "pytest", "-p", "no:cacheprovider", checks),
        *("--airlock-target", "local", "-k", "test_clock"),
    )
    assert status in (0, 1), said
    assert "1 passed" in said or "1 failed" in said, said


def test_it_works_where_there_is_no_checkout(installed: Installed) -> None:
    _all_verbs(installed)


@pytest.mark.slow
def test_it_works_with_what_the_index_gives(wheel: Path, tmp_path: Path) -> None:
    """Everything it depends on is fetched, from the index that this machine is configured for."""
    _all_verbs(environment(tmp_path / "env", wheel))
