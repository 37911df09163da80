"""The checks of environments on one that the installer restored and sabotages broke."""

from __future__ import annotations

import importlib.metadata
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from conformance.conda import test_conda as conda
from conformance.conda import test_seams as seams
from fixtures.pki import Authority
from harness.errors import InfraError
from harness.lab import environment
from harness.node import CellNames, Node
from installers import environments as installer
from installers.collect import environments
from installers.collect.reader import Reader
from installers.config import Config
from installers.host import Host
from installers.journal import Journal
from tests.unit.conformance import good, trees
from tests.unit.conformance.conftest import ROOT
from tests.unit.conformance.double import ThisMachine

CHECKS = {
    "conda.installed": conda.test_installed,
    "conda.files": conda.test_files,
    "conda.imports": conda.test_imports,
    "conda.kernel": conda.test_kernel,
    "conda.readable": seams.test_readable,
    "conda.writable": seams.test_writable,
    "conda.strays": seams.test_strays,
    "conda.requirements": seams.test_requirements,
    "conda.nothing-before": seams.test_nothing_before,
}
TABLES = {
    table["name"]: table
    for table in tomllib.loads((ROOT / "conformance/conda/sabotage.toml").read_text())["sabotage"]
}


#: What these break is outside of the environment: see test_lived_in.
AROUND = ("package-of-the-user", "pythonpath-for-all")
PLACES = ("/opt/airlock/envs", "/usr/local/share/jupyter/kernels")


@dataclass
class Made:
    """The lab's environment as a build restores it, below a directory; programs run here."""

    root: Path
    digest: str

    def collect(self) -> dict[str, Any]:
        """The facts, by the collector itself."""
        reader = Reader("/")
        facts = {"environments": environments.collect(reader, environments.Seen())}
        return {**facts, "unreadable": reader.unreadable}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Locked, built, signed, and restored from the store; only the places are others."""
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    authority = Authority(tmp_path / "keys")
    lock = environment.lock(authority, tmp_path / "store")
    assert environment.lock(authority, tmp_path / "store") == lock
    root = tmp_path / "tree"
    for module in (installer, environments):
        monkeypatch.setattr(module, "RECORDS", f"{root}{environments.RECORDS}")
        monkeypatch.setattr(module, "KERNELS", f"{root}{PLACES[1]}")
    place = root / environment.LOCK_FILE
    place.parent.mkdir(parents=True)
    place.write_text(lock.text())
    config = Config(
        raw={
            "airlock-environments": environment.NAME,
            "airlock-environment-locks": str(place.parent),
            "airlock-environments-root": f"{root}{PLACES[0]}",
            "airlock-cache": f"file://{tmp_path}/store",
            "airlock-cache-signers": authority.module.sha256,
            "airlock-offline": "true",
        }
    )
    there = installer.Environments(config)
    there.apply(Host("/"), [], Journal(Host(str(root))).log("environments"))
    assert there.verify(Host("/")) == []
    return Made(root, lock.digest)


@pytest.mark.parametrize("name", ["", *(name for name in TABLES if name not in AROUND)])
def test_the_shell_breaks_what_it_says(made: Made, tmp_path: Path, name: str) -> None:
    if name:
        trees.sabotage(made.root, TABLES[name]["apply"])
    prefix = f"{made.root}{PLACES[0]}/lab"
    wanted = {"lock": made.digest, "prefix": prefix, "kernel": f"{prefix}/bin/python"}
    (tmp_path / "home").mkdir()
    sample = good.intercepted("", "", "", 80)
    transport = ThisMachine(sample, tmp_path / "home", tmp_path / "none", {})
    cell = CellNames("debian-12", "tree", "full", "tree")
    node = Node("tree", cell, made.collect(), transport, {"environments": {"lab": wanted}})
    ends = {check: trees.outcome(function, node) for check, function in CHECKS.items()}
    failed = {check for check, end in ends.items() if end[0] == "fail"}
    table = TABLES.get(name, {"kills": []})
    assert failed == {*table["kills"], *table.get("dependants", ())}, ends
    assert {end[0] for end in ends.values()} <= {"pass", "fail"}, ends


def test_what_was_seen_is_seen_again_without_running_anything(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent looks at hundreds of files each time; it hashes and imports them once."""
    monkeypatch.setattr("installers.collect.remember.FRESH", -1.0)
    seen = environments.Seen()
    first = environments.collect(Reader("/"), seen)
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "command", None)
        patch.setattr(environments, "_digest", None)
        assert environments.collect(Reader("/"), seen) == first
    assert first["lab"]["files"] > 100
    # A stray file changes none of the lock's: what was imported before says nothing any more.
    (made.root / "opt/airlock/envs/lab/lib/python3.11/site-packages/json.py").write_text("raise 1")
    assert environments.collect(Reader("/"), seen)["lab"]["imports"] is None
    (made.root / "opt/airlock/envs/lab/lib/python3.11/site-packages/json.py").unlink()
    changed = made.root / "opt/airlock/envs/lab/lib/python3.11/site-packages/models/__init__.py"
    changed.write_text("raise RuntimeError('broken')\n")
    now = environments.collect(Reader("/"), seen)["lab"]
    assert now["first"] == ["lib/python3.11/site-packages/models/__init__.py"]
    assert now["imports"] == {"models": "RuntimeError: broken"}


def test_a_record_that_is_none(made: Made) -> None:
    Path(environments.RECORDS, "torn.json").write_text("{")
    facts = made.collect()
    assert facts["environments"]["torn"] is None
    assert "no record of ours" in facts["unreadable"]["environments.torn"]


@pytest.mark.parametrize(("name", "said"), [("pip", "pip 23.0.1 does not run"), ("py-rattler", "")])
def test_what_the_lab_lacks_is_named_with_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    """A virtual environment made by Debian 12's Python brings a pip that fails on Debian 13."""
    real = importlib.metadata.version

    def version(asked: str) -> str:
        if asked != name:
            return real(asked)
        if said:
            return "23.0.1"
        raise importlib.metadata.PackageNotFoundError(asked)

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(InfraError, match=said or "py-rattler is not installed") as error:
        environment.lock(Authority(tmp_path / "keys"), tmp_path / "store")
    assert "gpu-airlock[conda]" in error.value.hint
