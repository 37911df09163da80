"""Puts the node file into the wheel: it is installed as ``share/airlock/airlock-node.pyz``.

What Airlock itself sends to nodes it packs from its own ``installers`` (harness/pack.py), to the
same bytes; the file is for people who copy it by hand.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACE = "share/airlock"


class NodeFile(BuildHookInterface):  # type: ignore[misc, type-arg, unused-ignore]
    """Packs it for the time of a build."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before a wheel is made; an editable one has the sources beside it."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from harness.pack import NAME, pack

        self._folder = tempfile.TemporaryDirectory(prefix="airlock-wheel-")
        packed = pack(Path(self._folder.name), Path(self.root, "installers"))
        build_data["shared_data"][str(packed.path)] = f"{PLACE}/{NAME}"

    def finalize(self, version: str, *_: object) -> None:
        """Called when the wheel is there."""
        if version != "editable":
            self._folder.cleanup()
