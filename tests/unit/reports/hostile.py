"""A report in which every text that a node can reach is an attack."""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from reports.model import CellVerdict, Report
from tests.unit.reports.sample import mixed_report

ATTACK = (
    "</pre></style></title><script>alert(1)</script><img src=x onerror=alert(1)>"
    "\"'><svg/onload=alert(1)> ]]> &amp; {{ 7*7 }} {% raw %}"
    "\n# heading\n- item | cell [link](javascript:alert(1)) ![x](http://evil.test/x.png) `code`"
    " @everyone #1 http://evil.test www.evil.test <evil@evil.test>"
    "\x00\x08\x1b[2J\x1b]0;title\x07\u202egpj.exe\u2066\x9b31m\ufffe"
)

_OURS = {*get_args(CellVerdict), "refused", "skip", "not-verified"} | {
    *("ok", "cached", "failed", "skipped", "unchanged", "nothing"),
    *("blocker", "major", "minor", "serial"),
}


def hostile_report() -> Report:
    """The mixed report with an attack behind every free text, keys of dicts included."""
    document = msgspec.to_builtins(mixed_report())
    return msgspec.convert(_poison(document), Report)


def _poison(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        free = key in ("hosts", "extra", "provenance", "tools") and "pyz_sha256" not in value
        return {(k + ATTACK if free else k): _poison(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_poison(item, key) for item in value]
    if isinstance(value, str) and value not in _OURS and not _is_moment(key):
        return value + ATTACK
    return value


def _is_moment(key: str) -> bool:
    return key in ("started", "finished", "created", "inherited")
