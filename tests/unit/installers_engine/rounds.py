"""``python -m tests.unit.installers_engine.rounds ORDER.json``: runs that die, and what follows.

A process of its own without threads, which forks one child for each run of the command line: the
interpreter starts and imports once.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from installers import cli, registry
from installers.config import from_attributes
from installers.host import Host
from installers.journal import read_journal
from tests.unit.installers_engine import crash
from tests.unit.installers_engine.root import copy, differences, tree


@dataclass
class Order:
    """``prepared``: the root to begin with; ``work``: a directory; ``way``: one of crash.WAYS.

    ``share`` of ``shares``: which of the points are tried here. ``undo``: remove at the end.
    """

    prepared: str
    work: str
    metadata: str
    only: str
    way: str
    share: int = 0
    shares: int = 1
    undo: bool = True


@dataclass
class Round:
    """One run that died at a point, and what came after: empty lists are what is wanted."""

    point: str
    died: int = 0
    apply: int = 0
    verify: int = 0
    remove: int = 0
    wrong: list[str] = field(default_factory=list)
    not_undone: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Point:
    """A line of the journal, counted from 0, and the side of it."""

    line: int
    when: str
    name: str


def points(lines: list[dict[str, Any]]) -> list[Point]:
    """Just after every beginning, just before every end, and after the very last line."""
    found = []
    for number, line in enumerate(lines):
        when = "after" if line["event"] == "begin" else "before"
        found.append(
            Point(number, when, f"{when} {line['event']} of {line['installer']} {line['step']}")
        )
    return [*found, Point(len(lines) - 1, "after", "after the last line")]


class Bench:
    """Forks runs of the command line on one root."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.root = Path(order.work) / "root"
        self.said = Path(order.work) / "said"

    def reset(self) -> None:
        copy(Path(self.order.prepared), self.root)

    def run(self, verb: str, point: Point | None = None) -> int:
        """Exit code of a verb, negative for a signal."""
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = self._child(verb, point)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _child(self, verb: str, point: Point | None) -> int:
        out = os.open(self.said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        if point is not None:
            crash.arm(self.root, point.line, point.when, self.order.way, self.survivor)
        order = self.order
        argv = [verb, f"--root={self.root}", f"--metadata={order.metadata}", f"--only={order.only}"]
        code = cli.main(argv)
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    @property
    def survivor(self) -> Path:
        return self.root.with_name("survivor")

    def cut(self, point: Point) -> int:
        """Apply on a fresh root until the point; the root is then what is left of it."""
        self.reset()
        code = self.run("apply", point)
        if self.survivor.exists():
            shutil.rmtree(self.root)
            self.survivor.rename(self.root)
        return code

    def words(self) -> list[str]:
        return self.said.read_text(errors="replace").splitlines()[-12:]


def rounds(order: Order) -> list[Round]:
    """Every point of this share. The first round is the run that nobody interrupts."""
    for name in order.only.split(","):
        registry.load([name], from_attributes({}))  # imported once, for all children
    bench = Bench(order)
    bench.reset()
    original = tree(bench.root)
    whole = Round("nobody interrupts", apply=bench.run("apply"), said=bench.words())
    should = tree(bench.root)
    lines = read_journal(Host(bench.root))
    _after(bench, whole, should, original)
    found = [whole]
    for point in points(lines)[order.share :: order.shares]:
        one = Round(point.name, died=bench.cut(point))
        one.apply = bench.run("apply")
        if one.apply:
            one.said = bench.words()
        _after(bench, one, should, original)
        found.append(one)
    return found


def _after(bench: Bench, one: Round, should: dict[str, str], original: dict[str, str]) -> None:
    one.wrong = differences(tree(bench.root), should)
    one.verify = bench.run("verify")
    if one.verify and not one.said:
        one.said = bench.words()
    if bench.order.undo:
        one.remove = bench.run("remove")
        one.not_undone = [
            text
            for text in differences(tree(bench.root), original)
            # What we know of the node, and its place in memory.
            if not text.startswith(("/var/lib/airlock", "/run/airlock", "/var/lib: "))
        ]


if __name__ == "__main__":
    given = Order(**json.loads(Path(sys.argv[1]).read_text()))
    with contextlib.redirect_stdout(sys.stderr):
        done = rounds(given)
    print(json.dumps([asdict(one) for one in done]))
