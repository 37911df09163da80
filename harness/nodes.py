"""Every node that is up: made by hand (harness.held), or left by a run (harness.kept)."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from harness import held, kept
from harness.errors import UsageError
from harness.names import nearest
from harness.transports.base import Transport


class Standing(Protocol):
    """A node that is up. Its calls go through the process that holds it."""

    @property
    def name(self) -> str: ...

    @property
    def cell(self) -> str: ...

    @property
    def provider(self) -> str: ...

    @property
    def state(self) -> str:
        """Since when, or why, it is there; for people."""

    def transport(self) -> AbstractContextManager[Transport]:
        """A way to ask it. InfraError if it cannot be reached."""

    def door(self) -> dict[str, Any]:
        """A way in for people; see ``harness.lab.door``."""

    def evidence(self) -> dict[str, Any]:
        """What the lab knows of it: ledger, expect, requests, console, simulated; no secrets."""

    def end(self) -> None:
        """End it and everything made for it; returns when it is gone."""


def listed() -> list[Standing]:
    """All of them: first those made by hand, each kind oldest first."""
    return [*held.listed(), *kept.listing()]


def find(name: str) -> Standing:
    """The node of that name; UsageError with the nearest one if there is none."""
    nodes = {node.name: node for node in listed()}
    if name not in nodes:
        hint = nearest(name, nodes) if nodes else "airlock node up makes one"
        raise UsageError(f"there is no node {name!r}", hint=hint)
    return nodes[name]
