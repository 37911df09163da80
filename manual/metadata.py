"""Which keys of the metadata a module of the installers reads, from its source.

A key is a text that is asked of the attributes: ``raw.get(KEY)``, ``_text(attributes, "a-key")``,
also where the text stands in a constant of the module, or in a loop's list.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from harness.catalog import ROOMS

_KEY = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)+|[A-Z]+(?:_[A-Z]+)+")
_ATTRIBUTES = ("raw", "attributes", "text")
#: Read by every installer's machinery, or for other ends than the node's own settings.
_APART = ("installers.config", "installers.engine", "installers.registry", "installers.host")


@cache
def _parsed(module: str) -> ast.Module | None:
    path = ROOMS / (module.replace(".", "/") + ".py")
    return ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None


def below(module: str) -> list[str]:
    """The module, and every one of the installers that it imports, in turn."""
    found = [module]
    for name in found:
        for node in ast.walk(_parsed(name) or ast.Module([], [])):
            named: list[str] = []
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("installers"):
                named = [str(node.module), *(f"{node.module}.{one.name}" for one in node.names)]
            found += [
                one for one in named if one not in (*found, *_APART) and _parsed(one) is not None
            ]
    return found


@cache
def keys(module: str) -> frozenset[str]:
    """The keys that a module reads itself."""
    tree = _parsed(module)
    if tree is None:
        return frozenset()
    known = {key for call in ast.walk(tree) for key in _asked(tree, call)}
    return frozenset(key for key in known if _KEY.fullmatch(key))


def _asked(tree: ast.Module, call: ast.AST) -> Iterator[str]:
    if not isinstance(call, ast.Call):
        return
    function = call.func
    got = isinstance(function, ast.Attribute) and function.attr == "get"
    receiver = [function.value] if got else []  # type: ignore[attr-defined]
    if not any(ast.unparse(one).split(".")[-1] in _ATTRIBUTES for one in [*receiver, *call.args]):
        return
    for argument in call.args:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value
        elif isinstance(argument, ast.Name):
            yield from _values(tree, argument.id)
        elif isinstance(argument, ast.Attribute) and isinstance(argument.value, ast.Name):
            other = _parsed(f"installers.{argument.value.id}")
            yield from _values(other, argument.attr) if other else ()


def _values(tree: ast.Module, name: str) -> Iterator[str]:
    """The texts that a name may stand for: a constant of the module, or each of a loop."""
    pairs: list[tuple[ast.expr, ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            pairs += [(target, node.value) for target in node.targets]
        elif isinstance(node, ast.For | ast.comprehension) and isinstance(node.iter, ast.Tuple):
            pairs += [(node.target, each) for each in node.iter.elts]
    for target, value in pairs:
        both = isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple)
        inner = zip(target.elts, value.elts, strict=False) if both else [(target, value)]  # type: ignore[attr-defined]
        for one, text in inner:
            if isinstance(one, ast.Name) and one.id == name and isinstance(text, ast.Constant):
                yield str(text.value)
