"""Waiting is an object: how long, for what, and what is left of it."""

from __future__ import annotations

import time
from types import TracebackType

from harness.errors import InfraError


class DeadlinePassed(InfraError):
    """It did not happen in time. ``what`` was waited for, for ``seconds``."""

    def __init__(self, what: str, seconds: float, *, hint: str = "") -> None:
        super().__init__(f"{what}: not done within {seconds:g} s", hint=hint)
        self.what = what
        self.seconds = seconds


class LateSuccess(InfraError):
    """It happened, and too late: a number that grew past its limit unnoticed would come back."""

    def __init__(self, what: str, seconds: float, took: float) -> None:
        super().__init__(f"{what}: done after {took:.1f} s, and it had {seconds:g} s")
        self.what = what
        self.seconds = seconds
        self.took = took


class Deadline:
    """A moment by which ``what`` has to be done; as a context manager it ends with that moment.

    ``with Deadline(30, "facts of node-1") as deadline:`` raises LateSuccess where the block ends
    well and late; errors of the block pass through.
    """

    def __init__(self, seconds: float, what: str) -> None:
        self.seconds = seconds
        self.what = what
        self._started = time.monotonic()

    def remaining(self) -> float:
        """Seconds left, never below 0."""
        return max(0.0, self.seconds - self.elapsed())

    def elapsed(self) -> float:
        """Seconds since this deadline was made."""
        return time.monotonic() - self._started

    @property
    def passed(self) -> bool:
        """Whether the moment has gone."""
        return self.elapsed() >= self.seconds

    def check(self, *, hint: str = "") -> None:
        """Raises DeadlinePassed once the moment has gone."""
        if self.passed:
            raise DeadlinePassed(self.what, self.seconds, hint=hint)

    def part(self, seconds: float, what: str) -> Deadline:
        """A deadline for a step of this one: no longer than what is left."""
        return Deadline(min(seconds, self.remaining()), f"{self.what}: {what}")

    def done(self) -> None:
        """Says that it happened; raises LateSuccess if that was too late."""
        if self.passed:
            raise LateSuccess(self.what, self.seconds, self.elapsed())

    def __enter__(self) -> Deadline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.done()
