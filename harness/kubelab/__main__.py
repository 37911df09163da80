"""Build a Kubernetes control plane: what ``make lab-kube`` does before its tests."""

from __future__ import annotations

import argparse
import sys

from harness import doctor
from harness.errors import AirlockError
from harness.kubelab.build import build
from installers.exits import Exit

#: program -> (Debian package, why), as the doctor has them.
_WANTED = {
    "apt-get": ("apt", "fetches the sources and their compiler"),
    "dpkg-deb": ("dpkg", "unpacks the compiler privately"),
    "dpkg-source": ("dpkg-dev", "unpacks the sources"),
    "make": ("make", "runs the sources' own build"),
    "curl": ("curl", "is the shell of a cluster's sabotages"),
}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> int:
    """Set up, build, print where the programs are."""
    parser = argparse.ArgumentParser(prog="python -m harness.kubelab", description=__doc__)
    parser.add_argument("--fresh", action="store_true", help="build them even if they are there")
    args = parser.parse_args()
    try:
        findings = [doctor.program(name, *about) for name, about in _WANTED.items()]
        doctor.fix([*findings, doctor.keyring()], _say)
        found = build(_say, fresh=args.fresh)
    except AirlockError as error:
        _say(f"airlock: {error}")
        return error.exit
    done = "was there" if found.cached else "built"
    print(f"Kubernetes {found.version}: {done} ({found.built}): {found.programs}")
    return Exit.PASS


if __name__ == "__main__":
    sys.exit(main())
