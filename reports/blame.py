"""Whose fault a failure is: where to look, and whom to wake."""

from __future__ import annotations

import re
from typing import Literal

from reports.model import Cell, CheckResult

Blame = Literal["product", "installer", "environment", "harness", "quota"]
"""``product``: the node or image is wrong. ``installer``: one of ours stopped. ``environment``: the
machine or network under the lab. ``harness``: our own checks or capture. ``quota``: a cloud gave
no more."""

#: What clouds and their clients say when there is no more: words of error codes and messages.
_QUOTA = re.compile(
    r"quota|RESOURCE_POOL_EXHAUSTED|RESOURCE_EXHAUSTED|rate ?limit ?exceeded|stockout"
    r"|does not have enough resources|too many requests",
    re.IGNORECASE,
)


def of_check(check: CheckResult) -> Blame:
    """Whose fault it is that a check failed, or could not run."""
    if check.outcome == "fail":
        return "product"
    return "quota" if _QUOTA.search(check.message) else "harness"


def of_cell(cell: Cell) -> Blame:
    """Whose fault it is that a cell has its verdict, where no check says it."""
    if cell.verdict in ("error", "not-run"):
        if _QUOTA.search(cell.reason):
            return "quota"
        broken = any(check.outcome == "error" for check in cell.checks)
        return "harness" if broken else "environment"
    stopped = any(found.outcome in ("failed", "refused") for found in cell.installers)
    return "installer" if stopped or cell.cause or cell.verdict == "refused" else "product"
