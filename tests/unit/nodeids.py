"""Whether pytest would find a test by its node id, without asking pytest."""

from __future__ import annotations

import ast
import functools
from pathlib import Path


def exists(folder: Path, node_id: str) -> bool:
    """True for ``path/test_x.py::test_name`` below ``folder``, or a file with any test."""
    file, _, name = node_id.partition("::")
    path = folder / file
    if not path.is_file() or not path.name.startswith("test_"):
        return False
    names = _tests(path)
    return name in names if name else bool(names)


@functools.cache
def _tests(path: Path) -> frozenset[str]:
    return frozenset(
        node.name
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )
