"""Whether what the extra ``k8s`` brings is installed."""

from __future__ import annotations

import importlib.util

from harness.errors import UsageError

_MODULES = ("yaml", "urllib3", "kubernetes")


def must_be_installed() -> None:
    """UsageError that says how, if anything is missing."""
    lacks = [name for name in _MODULES if importlib.util.find_spec(name) is None]
    if lacks:
        raise UsageError(
            f"what clusters take is not installed: {', '.join(lacks)}",
            hint="pip install 'gpu-airlock[k8s]'",
        )
