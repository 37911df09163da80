"""What the code itself says there is: checks, codes of refusals, keys of the metadata."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import pkgutil
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import conformance
from harness.catalog import ROOMS
from harness.checks import MARKER, Check
from installers import causes, config, registry
from installers.engine import Contract
from installers.host import Host
from manual import metadata


@cache
def checks() -> tuple[Check, ...]:
    """Every check of the room conformance, by id."""
    found = set()
    for module in pkgutil.walk_packages(conformance.__path__, "conformance."):
        for value in vars(importlib.import_module(module.name)).values():
            for mark in getattr(value, "pytestmark", ()) if callable(value) else ():
                if mark.name == MARKER:
                    found.add(mark.args[0])
    return tuple(sorted(found, key=lambda check: check.id))


@cache
def codes() -> Mapping[str, str]:
    """Codes of refusals and causes -> the remedy of a cause, or empty."""
    found = dict.fromkeys(sorted(_refusals()), "")
    return {**found, **{code: remedy for code, _, remedy in causes._KNOWN}}


def _refusals() -> Iterator[str]:
    """The first argument of every ``Refusal(...)``; ``made.refuse("x")`` gives ``gpu.x``."""
    for path in [*sorted((ROOMS / "installers").rglob("*.py")), ROOMS / "harness/refusals.py"]:
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            first = call.args[0]
            if not isinstance(first, ast.Constant) or not isinstance(first.value, str):
                continue
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name == "Refusal":
                yield first.value
            elif name == "refuse" and path.name == "gpudecide.py":
                yield f"gpu.{first.value}"


@dataclasses.dataclass(frozen=True)
class Described:
    """What an installer says of itself, the keys it reads, what it takes on a bare Debian 12."""

    name: str
    title: str
    about: str
    keys: tuple[str, ...]
    contract: Contract


@cache
def shared_keys() -> tuple[str, ...]:
    """Keys that are read once, for all installers."""
    return tuple(sorted(metadata.keys("installers.config")))


@cache
def installers() -> tuple[Described, ...]:
    """Every installer, in the order in which they run."""
    with tempfile.TemporaryDirectory() as root:
        host = Host(root, offline=True)
        host.write("/etc/os-release", "ID=debian\nVERSION_ID=12\n")
        return tuple(_described(name, host) for name in registry.ORDER)


def _described(name: str, host: Host) -> Described:
    place = registry.ORDER[name].partition(":")[0]
    module = importlib.import_module(place)
    title, _, about = (module.__doc__ or "").partition("\n\n")
    made = registry.load([name], config.from_attributes({}))[0]
    keys = {key for each in metadata.below(place) for key in metadata.keys(each)}
    return Described(name, title, about, tuple(sorted(keys)), made.contract(host))


def repository_file(name: str) -> str:
    """A text of this repository."""
    return Path(ROOMS, name).read_text(encoding="utf-8")
