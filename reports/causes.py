"""One cause, one failure: what failed because something else failed is folded under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from reports.model import CheckResult


@dataclass
class Failure:
    """A check that failed (or could not run), and what only follows from it."""

    check: CheckResult
    followers: list[CheckResult] = field(default_factory=list)


def fold(checks: Sequence[CheckResult]) -> list[Failure]:
    """Group the failed and broken checks of one node by root cause.

    Failures come before errors and blockers before the rest; within that, in the given order.
    Every failed or broken check is in the result exactly once.
    """
    bad = [check for check in checks if check.outcome in ("fail", "error")]
    first = {check.id: check for check in reversed(bad)}
    roots: dict[str, Failure] = {}
    followers: list[tuple[str, CheckResult]] = []
    trees: list[Failure] = []
    for check in bad:
        root = _root(check, first)
        if root.id != check.id:
            followers.append((root.id, check))
            continue
        tree = Failure(check)
        trees.append(tree)
        roots.setdefault(check.id, tree)
    for root_id, check in followers:
        roots[root_id].followers.append(check)
    ranks = ("blocker", "major", "minor")
    trees.sort(key=lambda tree: (tree.check.outcome != "fail", ranks.index(tree.check.severity)))
    return trees


def _root(check: CheckResult, bad: dict[str, CheckResult]) -> CheckResult:
    """Follow the failed dependencies to their end. In a circle, the smallest id is the root."""
    path = [check.id]
    while True:
        cause = next((name for name in bad[path[-1]].depends if name in bad), None)
        if cause is None:
            return bad[path[-1]]
        if cause in path:
            return bad[min(path[path.index(cause) :])]
        path.append(cause)
