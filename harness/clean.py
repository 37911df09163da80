"""``python -m harness.clean``: what ``make clean`` cannot do with ``rm``.

Ends what dead runs left, removes the state directory (keys and caches too), and lists the system
packages that Airlock uses, which stay. Needs the standard library only.
"""

from __future__ import annotations

import subprocess
import sys

from harness.doctor import PROGRAMS
from harness.state import state_dir
from harness.sweep import remove_tree, sweep

#: Packages that no program of ``PROGRAMS`` stands for.
FURTHER = ("ovmf", "debian-archive-keyring", "python3-venv", "chromium", "chromium-driver")


def main() -> int:
    """Clean; exit 3 if a run is still alive or something refused to go."""
    swept = sweep()
    runs = state_dir() / "runs"
    alive = [path.name for path in runs.glob("*")] if runs.is_dir() else []
    if alive or swept.refused:
        print(f"not cleaned: {', '.join([*alive, *swept.refused])} still there", file=sys.stderr)
        return 3
    if not remove_tree(state_dir()):
        print(f"not cleaned: {state_dir()} could not be removed", file=sys.stderr)
        return 3
    packages = sorted({package for package, _ in PROGRAMS.values()} | set(FURTHER))
    found = [package for package in packages if _installed(package)]
    print(f"removed {state_dir()}")
    print(f"left, because others may use them: {' '.join(found)}")
    return 0


def _installed(package: str) -> bool:
    try:
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Status}", package], capture_output=True, check=False
        )
    except FileNotFoundError:
        return False
    return done.stdout.endswith(b" installed")


if __name__ == "__main__":
    sys.exit(main())
