"""Metadata keys of today's scripts that mean nothing here any more, and what took their place.

A key that is set and silently ignored is a promise broken; so a plan names each of them.
"""

from __future__ import annotations

from collections.abc import Mapping

#: Key → its successor, in words. docs/migration.md has the keys that still work.
CUDA = {
    "cudnn-install-source": "nothing: cuDNN comes as a package, in the version of cudnn-version",
}
ENVIRONMENTS = {
    "gpu-conda-env": "airlock-environments: an environment has the name of its lock",
}
EVERY = {**CUDA, **ENVIRONMENTS}


def notes(attributes: Mapping[str, str], keys: Mapping[str, str]) -> list[str]:
    """What a plan says of retired keys that are set."""
    return [
        f"{key} is retired and does nothing; its successor is {successor}"
        for key, successor in keys.items()
        if (attributes.get(key) or "").strip()
    ]
