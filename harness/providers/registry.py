"""Providers by name. A provider's module is imported when a cell needs it, not before."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from harness.errors import UsageError
from harness.names import nearest

if TYPE_CHECKING:
    from harness.providers.base import Provider

#: name -> "module:class"; the class takes no argument.
PROVIDERS = {
    "qemu": "harness.providers.qemu:Qemu",
    "gce": "harness.providers.gce:Gce",
    "host": "harness.providers.host:Host",
    "fake": "harness.providers.fake:Fake",
}


def known(name: str) -> str:
    """``name`` itself; UsageError with the nearest one if there is no such provider."""
    if name not in PROVIDERS:
        raise UsageError(f"unknown provider {name!r}", hint=nearest(name, PROVIDERS))
    return name


def load(name: str) -> Provider:
    """A new provider object for one run."""
    module, _, attribute = PROVIDERS[known(name)].partition(":")
    provider: Provider = getattr(importlib.import_module(module), attribute)()
    return provider
