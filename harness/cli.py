"""The command `airlock`: finds the verb, imports what it needs, maps errors to exit codes."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from typing import NoReturn, Protocol

from harness.errors import AirlockError, UsageError
from harness.names import nearest
from installers.exits import Exit

#: verb -> what it does. ``harness.commands.<verb>`` (``_`` for ``-``) has ``arguments(parser)``
#: and ``run(args)``.
VERBS = {
    "doctor": "what this machine can do; --fix installs what it can",
    "image": "local base images: list, build, probe (whose modules their kernels take)",
    "run": "run a matrix of cells and write the report",
    "reproduce": "a customer's environment at your desk, and what names its cause",
    "sabotage": "break good nodes on purpose; do the right checks fail? Prints the kill rate",
    "plan": "the cells, why each will or will not run, and how long; runs nothing",
    "node": "one node by hand, in a scenario: up, ssh, down, list, save, resume",
    "install": "run the installers on an existing machine or a mounted image",
    "check": "conformance of an existing machine; provisions and changes nothing",
    "checks": "every check: severity, needs, source, and the sabotages that turn it red",
    "keys": "module signing keys: create, rotate, revoke, serve, sign",
    "env": "conda environments: check, lock, build",
    "cache": "stores of built things: ls, verify, warm, gc",
    "reap": "end what dead runs left, here and on Google Cloud",
    "report": "print the report of a run as HTML, JUnit, Markdown or CTRF",
    "merge": "one report from those of the shards of a matrix",
    "diff": "what is otherwise in one run than in another: verdicts, checks, facts, durations",
    "prove-proxy": "which programs go through the proxy, measured beside what we say they do",
    "attest": "sign for what a report says: an in-toto test result in a DSSE envelope",
    "completion": "what makes bash, zsh or fish complete this command: names, options, values",
    "gate": "may this be released? Says why not, and answers with the exit code",
}

EPILOG = """exit codes: 0 pass, 1 the node or image fails, 2 usage or configuration error,
3 could not tell (infrastructure or harness), 4 nothing ran, 77 all failures are waived (strict)"""


class Command(Protocol):
    """What a module in ``harness.commands`` is."""

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace) -> int: ...


class Parser(argparse.ArgumentParser):
    """argparse with our exit code and the nearest name."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of exiting."""
        hint = ""
        if message.startswith("unrecognized arguments:"):
            words = message.partition(": ")[2].split()
            flags = [word.partition("=")[0] for word in words if word.startswith("-")]
            if flags:
                hint = nearest(flags[0], self._option_string_actions)
        raise UsageError(f"{self.prog}: {message}", hint=hint or f"see {self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Run one command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if "_ARGCOMPLETE" in os.environ:
        from harness.completion import answer

        answer()
    try:
        return int(_dispatch(argv))
    except AirlockError as error:
        print(f"airlock: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  {error.hint}", file=sys.stderr)
        return int(error.exit)
    except KeyboardInterrupt:
        print("airlock: stopped", file=sys.stderr)
        return int(Exit.UNKNOWN)
    except BrokenPipeError:
        # Somebody's `head` has seen enough. Python must not try to flush again at exit.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123
        return int(Exit.UNKNOWN)
    except OSError as error:
        print(f"airlock: {error}", file=sys.stderr)
        return int(Exit.UNKNOWN)


def _dispatch(argv: list[str]) -> int:
    top = Parser(
        prog="airlock",
        description="Turns a machine image into a GPU node inside a locked-down network, "
        "and proves that it is one.",
        epilog="verbs:\n"
        + "\n".join(f"  {verb:11} {what}" for verb, what in VERBS.items())
        + f"\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument("verb", nargs="?", metavar="VERB", help="what to do; see below")
    top.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = top.parse_args(argv)
    if args.version:
        from harness.compose import VERSION

        print(f"airlock {VERSION}")
        return Exit.PASS
    if args.verb is None:
        top.print_help()
        return Exit.USAGE
    if args.verb not in VERBS:
        raise UsageError(f"unknown verb {args.verb!r}", hint=nearest(args.verb, VERBS))
    parser = parser_of(args.verb)
    return command_of(args.verb).run(parser.parse_args(args.rest))


def command_of(verb: str) -> Command:
    """The module of one of ``VERBS``."""
    command: Command = importlib.import_module(f"harness.commands.{verb.replace('-', '_')}")
    return command


def parser_of(verb: str) -> argparse.ArgumentParser:
    """The command line of one of ``VERBS``."""
    parser = Parser(prog=f"airlock {verb}", description=VERBS[verb], epilog=EPILOG)
    command_of(verb).arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
