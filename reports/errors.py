"""The one error this room raises."""

from __future__ import annotations

from reports.text import plain


class ReportError(Exception):
    """A report that cannot be read or written: bad input, so exit 2.

    ``message`` says what is wrong and where; ``hint`` says how to mend it (may be empty).
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        # It may quote what a report holds, and so what a node said.
        message = plain(message)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message
