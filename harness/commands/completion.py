"""``airlock completion``."""

from __future__ import annotations

import argparse

from installers.exits import Exit

SHELLS = ("bash", "zsh", "fish")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "shell", choices=SHELLS, help="the shell that reads what is printed; see docs/packaging.md"
    )


def run(args: argparse.Namespace) -> int:
    """Print what makes the shell ask us."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["airlock"], shell=args.shell))
    return Exit.PASS
