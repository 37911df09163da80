"""Text that comes from a node, made safe to show; and durations and sizes in words.

What a node says is never trusted: it may hold terminal escapes, characters that no XML file may
hold, or marks that reorder what is read after them.
"""

from __future__ import annotations

import re

_TERMINAL = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movements
    r"|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC and other strings
    r"|[ -/]*[0-Z\\^-~])"  # two-character and charset escapes
)
# C0 and C1 controls, bidirectional marks, surrogates, non-characters: all but tab and newline.
_UNSEEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufffe\uffff]"
)
# A terminal that adds a return of its own to a line's ends it in two.
_RETURN = re.compile(r"\r+\n|\r")
_NOT_SLUG = re.compile(r"[^a-z0-9.]+")


def plain(text: str) -> str:
    """Return ``text`` without terminal escapes and with unseen characters spelled out.

    >>> plain("\\x1b[31mred\\x1b[0m\\r\\n\\x00")
    'red\\n\\\\x00'
    """
    if not _UNSEEN.search(text):
        return text
    text = _RETURN.sub("\n", _TERMINAL.sub("", text))
    return _UNSEEN.sub(_spell, text)


def _spell(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def head(text: str, limit: int) -> tuple[str, int]:
    """Return at most ``limit`` characters from the beginning, and how many were left out."""
    return text[:limit], max(0, len(text) - limit)


def tail(text: str, limit: int) -> tuple[str, int]:
    """Return at most ``limit`` characters from the end, and how many were left out."""
    left_out = max(0, len(text) - limit)
    return text[left_out:], left_out


def slug(text: str) -> str:
    """Return a name made of ``[a-z0-9.-]``, for anchors; different texts may give the same."""
    return _NOT_SLUG.sub("-", text.lower()).strip("-") or "x"


def duration(seconds: float) -> str:
    """Say a duration as people do.

    >>> [duration(s) for s in (0.0042, 3.21, 75, 3725)]
    ['0.00 s', '3.2 s', '1 min 15 s', '1 h 02 min']
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(number: int) -> str:
    """Say a number of bytes as people do.

    >>> [size(n) for n in (0, 999, 48_211, 371_402_118, 2_000_000_000)]
    ['0 B', '999 B', '48.2 kB', '371 MB', '2.0 GB']
    """
    if number < 1000:
        return f"{number} B"
    power = 1 if number < 999_500 else 2 if number < 999_500_000 else 3
    value, unit = number / 1000**power, ("", "kB", "MB", "GB")[power]
    return f"{value:.0f} {unit}" if value >= 99.95 else f"{value:.1f} {unit}"


def count(number: int, one: str, many: str = "") -> str:
    """Say a number of things: ``1 check``, ``2 checks``.

    >>> count(1, "cell"), count(2, "cell"), count(2, "metadata query", "metadata queries")
    ('1 cell', '2 cells', '2 metadata queries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
