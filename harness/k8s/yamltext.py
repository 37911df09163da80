"""YAML as Kubernetes' own programs read and write it, which is not quite as PyYAML does.

They take ``y`` and ``1e3`` for a boolean and a number, and ``10:30`` and dates for strings; PyYAML
has each the other way about (sigs.k8s.io/yaml, go-yaml v2). What we write is quoted for both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from harness.errors import UsageError

_INT = re.compile(r"^[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)$")
_FLOAT = re.compile(
    r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
)
_LETTER = re.compile(r"^[yYnN]$")
_SIGNS = list("-+.0123456789")


def load_all(text: str, where: str) -> list[Any]:
    """Every document that is not empty. UsageError with the place if it is not YAML."""
    import yaml

    try:
        return [one for one in yaml.load_all(text, _loader()) if one is not None]
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UsageError(f"{where}: is not YAML: {' '.join(str(error).split())}") from error


def load(text: str, where: str) -> dict[str, Any]:
    """One mapping; an empty text is an empty one. UsageError if it is something else."""
    found = load_all(text, where)
    if not found:
        return {}
    if len(found) > 1 or not isinstance(found[0], dict):
        raise UsageError(f"{where}: is not one mapping of keys to values")
    return found[0]


def dump(value: Any) -> str:
    """One document with its keys sorted: the same value gives the same bytes."""
    import yaml

    return str(
        yaml.dump(value, Dumper=_dumper(), sort_keys=True, allow_unicode=True, width=1 << 20)
    )


def dump_all(values: Iterable[Any]) -> str:
    """Documents, each after ``---``."""
    return "".join(f"---\n{dump(value)}" for value in values)


def _loader() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc]
        """Without dates and base 60."""

    wrong = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in rules if tag not in wrong]
        for first, rules in base.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(wrong[1], _INT, _SIGNS)
    Loader.add_implicit_resolver(wrong[2], _FLOAT, _SIGNS)
    Loader.add_constructor(wrong[1], lambda loader, node: _integer(loader.construct_scalar(node)))
    return Loader


def _integer(text: str) -> int:
    digits = text.replace("_", "").lower()
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    return sign * int(digits, 0)


def _dumper() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        """Quotes what any of the two would take for something else; knows no anchors."""

        def ignore_aliases(self, _data: Any) -> bool:
            return True

    Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, _SIGNS)
    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, _SIGNS)
    Dumper.add_implicit_resolver("tag:yaml.org,2002:bool", _LETTER, list("yYnN"))
    return Dumper
