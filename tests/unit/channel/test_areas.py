"""Whoever names a part of the facts names one that exists: an unknown one is null without a word.

Names stand in calls, in strings that are sent to a node, and in constants, so the text is read.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from installers.facts import AREAS, NEEDS, Collector

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("installers", "harness", "conformance", "bench")
#: ``facts(only=["kernel"])``, ``collect(nonce, only=AREAS)``
ONLY = re.compile(r"\b(?:facts|collect)\([^()]*\bonly=(\[[^\]]*\]|\([^)]*\)|[A-Z_]+)")
#: ``fact(node, "kernel.release")``; ``facts["kernel"]``, ``node.facts.get("kernel")``
PATH = re.compile(r"""\bfact\(node, f?["']([\w.]+)|\bfacts(?:\[|\.get\()["'](\w+)""")
#: What whoever asked puts beside the node's own facts.
SET = re.compile(r"""\bfacts\[["'](\w+)["']\] = """)


def sources(*rooms: str) -> Iterator[Path]:
    return (path for room in rooms for path in sorted((ROOT / room).rglob("*.py")))


def asked_for(path: Path) -> Iterator[str]:
    """Every area that a module asks for by ``only``."""
    for found in ONLY.findall(path.read_text()):
        if found.isidentifier():
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield from getattr(importlib.import_module(module), found)
        else:
            yield from ast.literal_eval(found)


def has(facts: Any, steps: list[str]) -> bool:
    """Whether the facts have that path; below what is null or a list nothing can be said."""
    if not steps or not isinstance(facts, Mapping):
        return True
    return steps[0] in facts and has(facts[steps[0]], steps[1:])


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """Those of this machine, and what the harness adds to them."""
    text = "".join(path.read_text() for path in sources("harness"))
    # What a cluster tells (harness.k8s.collect) is no node's; its checks are tried on a whole one.
    return Collector().collect() | dict.fromkeys([*SET.findall(text), "cluster"])


def test_every_area_that_is_asked_for_exists() -> None:
    asked = {(str(path), area) for path in sources(*ROOMS) for area in asked_for(path)}
    assert any(path.endswith("keyprobe.py") for path, _ in asked), "the pattern finds nothing"
    assert [(path, area) for path, area in asked if area not in AREAS] == []


def test_every_area_that_is_collected_can_be_asked_for() -> None:
    """Its name in ``area("disk", ...)`` decides whether it is read at all."""
    tree = ast.parse((ROOT / "installers/facts.py").read_text())
    names = {
        call.args[0].value
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "area"
        and isinstance(call.args[0], ast.Constant)
    }
    known = {*AREAS, *(need for needs in NEEDS.values() for need in needs)}
    assert "kernel" in names
    assert names - known == set()
    assert NEEDS.keys() <= set(AREAS)


def test_every_fact_that_is_read_exists(facts: dict[str, Any]) -> None:
    read = {
        (str(path), name)
        for path in sources("harness", "conformance", "bench")
        for names in PATH.findall(path.read_text())
        for name in names
        if name
    }
    assert len(read) > 30, "the pattern finds nothing"
    assert [(path, name) for path, name in read if not has(facts, name.split("."))] == []
