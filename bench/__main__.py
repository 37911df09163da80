"""``python -m bench [NAME ...]``: measure, print a table, write ``out/bench/latest.json``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable

import bench
from bench.record import Measurement, save

Bench = Callable[[], Measurement]


def registry() -> dict[str, Bench]:
    """Every ``bench_NAME`` function of the modules in this directory."""
    found: dict[str, Bench] = {}
    for module in pkgutil.iter_modules(bench.__path__):
        if module.name in ("__main__", "record"):
            continue
        for name, value in vars(importlib.import_module(f"bench.{module.name}")).items():
            if name.startswith("bench_"):
                found[name.removeprefix("bench_")] = value
    return found


def main(names: list[str]) -> int:
    known = registry()
    unknown = [n for n in names if n not in known]
    if unknown:
        print(f"unknown: {', '.join(unknown)}; known: {', '.join(sorted(known))}", file=sys.stderr)
        return 2
    for name in names or sorted(known):
        print(f"{name} ...", flush=True)
        m = known[name]()
        save([m])
        print(
            f"{name}: ours {m.ours:.4g} {m.unit}, {m.peer_name} {m.peer:.4g} {m.unit}, "
            f"ratio {m.ratio:.3g}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
