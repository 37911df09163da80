"""Where an environment meets its users and the system: who can read it, and what gets in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.checks import check, environments, fact, fail, not_verified
from harness.node import Node

SINCE = "2026-11-22"


@check(
    id="conda.readable",
    severity="blocker",
    title="Every user can read every file of every environment",
    remedy="Run 'chmod -R o+rX PREFIX', and build images with umask 022: root's jobs work, and "
    "everybody else's end with ModuleNotFoundError or PermissionError.",
    requires=environments,
    depends=["conda.installed"],
    source="the mode of each file that the record names, and of the folders above it",
    since=SINCE,
)
def test_readable(node: Node) -> None:
    """YARN's containers, Jupyter's users: nobody who works in it is root."""
    _none(node, "closed", "cannot be read by everybody")


@check(
    id="conda.writable",
    severity="blocker",
    title="Nobody but root can change an environment",
    remedy="Run 'chmod -R o-w PREFIX', and give who must install packages an environment of "
    "their own ('conda create --clone').",
    requires=environments,
    depends=["conda.installed"],
    source="the mode of each file that the record names, and of the folders above it",
    since=SINCE,
)
def test_writable(node: Node) -> None:
    """One user's 'pip install' is then every user's environment."""
    _none(node, "writable", "can be written by everybody")


@check(
    id="conda.strays",
    severity="major",
    title="Nothing lies among an environment's packages that none of them brought",
    remedy="Run 'airlock-node.pyz apply --only environments' with the package in the lock, or "
    "remove what the evidence names from site-packages: 'pip list' and the lock tell two stories.",
    requires=environments,
    depends=["conda.installed"],
    source="site-packages beside the files that the record names",
    since=SINCE,
)
def test_strays(node: Node) -> None:
    """What pip put over it is in no lock, and in no other node's environment."""
    _none(node, "strays", "is no package's")


@check(
    id="conda.requirements",
    severity="major",
    title="Every package in an environment has the packages that it requires",
    remedy="Run 'PREFIX/bin/python -m pip check', and solve the environment anew with 'airlock env "
    "lock': something was installed over it, or left out.",
    requires=environments,
    depends=["conda.installed"],
    source="Requires-Dist of each METADATA; requirements with a marker are passed over",
    since=SINCE,
)
def test_requirements(node: Node) -> None:
    """It imports today; the function that needs the other package is called tomorrow."""
    _none(node, "unmet", "")


@check(
    id="conda.nothing-before",
    severity="major",
    title="Python takes nothing before an environment's own packages",
    remedy="Remove ~/.local/lib/pythonX.Y/site-packages, and PYTHONPATH from /etc/environment and "
    "/etc/profile.d; PYTHONNOUSERSITE=1 keeps the first out for good.",
    requires=environments,
    depends=["conda.installed"],
    source="site(1): the user's site-packages come before the system's; PYTHONPATH before all",
    since=SINCE,
)
def test_nothing_before(node: Node) -> None:
    """'pip install --user' of another day, under the same number of Python."""
    _none(node, "before", "comes before it")


def _none(node: Node, key: str, what: str) -> None:
    found = []
    for name, environment in _present(node).items():
        found += [f"{name}: {path} {what}".rstrip() for path in environment[key]]
    if found:
        fail(found[0], found)


def _present(node: Node) -> dict[str, Mapping[str, Any]]:
    every: Mapping[str, Any] = fact(node, "environments")
    present = {name: every[name] for name in node.expect["environments"] if every.get(name)}
    if not present:
        not_verified("no environment of those that were asked for has a record")
    return present
