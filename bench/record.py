"""What one measurement leaves in ``out/bench/latest.json``."""

from __future__ import annotations

import datetime as dt
import json
import platform
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

OUT = Path("out/bench/latest.json")


@dataclass
class Measurement:
    """``ours`` and ``peer`` are medians in ``unit``; ``ratio`` is peer / ours: above 1, ours wins.

    ``samples`` holds every single value: {"ours": [...], "peer": [...]}. A limit of the project's
    own is a peer too: its name says "limit".
    """

    name: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    samples: dict[str, list[float]]
    commands: list[str]
    ratio: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    started: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat("T", "seconds"))

    def __post_init__(self) -> None:
        self.ratio = self.peer / self.ours if self.ours else float("inf")
        self.versions = {"python": _interpreter(), **self.versions}


def _interpreter() -> str:
    """One that was built without optimisation takes more than twice as long."""
    built = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if "'--prefix=/usr'" in built:
        # Debian optimises by a target of its own make, not by the option.
        return f"{platform.python_version()}, the distribution's"
    how = "with" if "--enable-optimizations" in built else "without"
    return f"{platform.python_version()}, built {how} --enable-optimizations"


def against(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    unit: str,
    commands: Sequence[str],
    versions: Mapping[str, str] | None = None,
) -> Measurement:
    """A measurement from samples of both sides."""
    return Measurement(
        name,
        statistics.median(ours),
        statistics.median(peer),
        peer_name,
        unit,
        {"ours": list(ours), "peer": list(peer)},
        list(commands),
        versions=dict(versions or {}),
    )


def timed(action: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def command(argv: Sequence[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command of the measurement; its failure ends the bench with its last words."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done  # type: ignore[no-any-return]


def save(new: Sequence[Measurement]) -> None:
    """Replace the entries of the same name, keep the others."""
    try:
        kept = [m for m in json.loads(OUT.read_text()) if m["name"] not in {n.name for n in new}]
    except (OSError, ValueError):
        kept = []
    OUT.parent.mkdir(parents=True, exist_ok=True)
    partial = OUT.with_suffix(".partial")
    entries = sorted(kept + [asdict(m) for m in new], key=lambda m: str(m["name"]))
    partial.write_text(json.dumps(entries, indent=1) + "\n")
    partial.replace(OUT)
