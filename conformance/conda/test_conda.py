"""Every environment is the one of its lock, file by file, and does what it is for."""

from __future__ import annotations

from typing import Any

from harness.checks import check, environments, fact, fail, not_verified
from harness.node import Node

REMEDY = "Run 'airlock-node.pyz apply --only environments': it repairs single files from the cache."


@check(
    id="conda.installed",
    severity="blocker",
    title="Every environment that was asked for is there, built from the lock that was asked for",
    remedy=REMEDY,
    requires=environments,
    source="the record of the installation; a lock's digest is the SHA-256 of all package hashes",
)
def test_installed(node: Node) -> None:
    """Another lock under the same name is another environment."""
    wrong = []
    for name, wanted in node.expect["environments"].items():
        found = _found(node).get(name)
        if found is None:
            wrong.append(f"{name} is not installed")
        elif found["lock"] != wanted["lock"]:
            wrong.append(f"{name} is of lock {found['lock'][:16]}, not {wanted['lock'][:16]}")
        elif found["prefix"] != wanted["prefix"]:
            wrong.append(f"{name} is at {found['prefix']}, not at {wanted['prefix']}")
    if wrong:
        fail(wrong[0], wrong)


@check(
    id="conda.files",
    severity="blocker",
    title="Every file of every environment is as it was unpacked",
    remedy=REMEDY,
    requires=environments,
    depends=["conda.installed"],
    source="SHA-256 of each file, computed on the node",
)
def test_files(node: Node) -> None:
    """What pip installed over it, or a disk lost, is not what was tested."""
    wrong = []
    for name, found in _present(node).items():
        if found["files"] == 0:
            wrong.append(f"{name} has no files at all")
        if found["changed"]:
            first = ", ".join(found["first"])
            wrong.append(f"{found['changed']} of {found['files']} files of {name}: {first}")
    if wrong:
        fail(f"changed or gone: {wrong[0]}", wrong)


@check(
    id="conda.imports",
    severity="blocker",
    title="What every environment is for can be imported by its own interpreter",
    remedy="Run the import by hand, with the interpreter that the evidence names. " + REMEDY,
    requires=environments,
    depends=["conda.installed", "conda.files"],
    source="the imports that the lock names, by the environment's own python, on the node",
)
def test_imports(node: Node) -> None:
    """A package can be whole and still not load: its libraries are the node's."""
    wrong = []
    for name, found in _present(node).items():
        if found["imports"] is None:
            fail(
                f"{found['prefix']}/bin/python does not run: "
                f"{node.facts['unreadable'].get(f'environments.{name}.imports')}"
            )
        wrong += [f"{name}: {module}: {why}" for module, why in found["imports"].items()]
    if wrong:
        fail(f"cannot import {wrong[0]}", wrong)


@check(
    id="conda.kernel",
    severity="major",
    title="Jupyter starts the environment's own interpreter, for every user",
    remedy=REMEDY,
    requires=environments,
    depends=["conda.installed"],
    source="/usr/local/share/jupyter/kernels: the system-wide place of Jupyter's data path",
)
def test_kernel(node: Node) -> None:
    """A kernel below one user's home is nobody else's."""
    wrong = []
    for name, wanted in node.expect["environments"].items():
        starts = (_present(node).get(name) or {}).get("kernel")
        if wanted["kernel"] and starts != wanted["kernel"]:
            wrong.append(f"the kernel of {name} starts {starts!r}, not {wanted['kernel']}")
    if wrong:
        fail(wrong[0], wrong)


def _found(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = fact(node, "environments")
    return found


def _present(node: Node) -> dict[str, Any]:
    """Those that were asked for and have a record that can be read."""
    found = _found(node)
    present = {name: found[name] for name in node.expect["environments"] if found.get(name)}
    if not present:
        not_verified("no environment of those that were asked for has a record")
    return present
