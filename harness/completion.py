"""Answers a shell that asks how a command line may go on (argcomplete's protocol).

What ``airlock completion SHELL`` prints starts ``airlock`` with ``_ARGCOMPLETE`` set, the line in
``COMP_LINE`` and the cursor's place in ``COMP_POINT``. Only the verb of the line is imported.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from harness.cli import VERBS, command_of
from harness.errors import AirlockError


def answer() -> NoReturn:
    """Write the ways to go on where the shell reads them, and end."""
    import argcomplete

    argcomplete.autocomplete(_parser(_verb()))
    raise SystemExit(0)  # only where the shell asked in a way that argcomplete does not know


def _verb() -> str:
    """The verb of the line, if it is past it; what a shell would not split names none."""
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0") or 0)]
    try:
        words = shlex.split(line)
    except ValueError:  # an open quotation mark
        words = line.split()
    return words[1] if len(words) > 1 and words[1] in VERBS else ""


def _parser(verb: str) -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="airlock")
    top.add_argument("--version", action="store_true", help="print the version")
    verbs = top.add_subparsers()
    for name, what in VERBS.items():
        parser = verbs.add_parser(name, help=what)
        if name == verb:
            command_of(name).arguments(parser)
            for action in _actions(parser):
                complete = COMPLETERS.get(action.dest)
                if complete and action.choices is None:
                    action.completer = complete  # type: ignore[attr-defined]
    return top


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those of a parser and of the words below it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
        else:
            yield action


def _named(what: Callable[[], Iterable[str]]) -> Callable[..., list[str]]:
    def complete(**_: object) -> list[str]:
        try:
            return sorted(what())
        except (AirlockError, OSError):  # the command itself says what is wrong
            return []

    return complete


def _images() -> Iterable[str]:
    from harness.catalog import load_catalog

    return load_catalog().images


def _profiles() -> Iterable[str]:
    from harness.catalog import load_catalog

    return load_catalog().profiles


def _scenarios() -> Iterable[str]:
    from harness.catalog import load_catalog

    return load_catalog().scenarios


def _providers() -> Iterable[str]:
    from harness.providers.registry import PROVIDERS

    return PROVIDERS


def _targets() -> Iterable[str]:
    return ("local", "ssh://", "ssh+sudo://")


def _nodes() -> Iterable[str]:
    from harness import nodes

    return [node.name for node in nodes.listed()]


#: argparse's name of an argument -> the values it may have; all others are left to the shell.
COMPLETERS: dict[str, Callable[..., list[str]]] = {
    "image": _named(_images),
    "profile": _named(_profiles),
    "scenario": _named(_scenarios),
    "provider": _named(_providers),
    "target": _named(_targets),
    "name": _named(_nodes),
    "names": _named(_nodes),
}
