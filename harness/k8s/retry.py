"""Trying again: how long, how often, and for what. One way for clusters, registries and charts."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from harness.errors import AirlockError

_FIRST = 0.5
_LONGEST = 15.0


@dataclass
class Patience:
    """For how many ``seconds`` what fails in passing is tried again.

    Pauses double from half a second to fifteen, each drawn between half of it and all of it, so
    that many clients that were sent away together do not come back together.
    """

    seconds: float = 120.0
    first: float = _FIRST
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    tried: list[str] = field(default_factory=list)
    """What failed and was tried again, for reports."""

    def attempts(self) -> Iterator[Attempt]:
        """One Attempt a try; the loop's body returns, or says that it failed."""
        end, pause = self.clock() + self.seconds, self.first
        while True:
            attempt = Attempt(self, end, pause)
            yield attempt
            self.sleep(attempt.pause)
            pause = min(_LONGEST, pause * 2)


@dataclass
class Attempt:
    """One try."""

    patience: Patience
    end: float
    pause: float

    def failed(self, error: AirlockError, *, retry: bool, wait: float | None = None) -> None:
        """Return if it is to be tried again; ``wait``: what the server asked for. Else raises."""
        drawn = self.pause * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
        self.pause = drawn if wait is None else wait + drawn
        if not retry or self.patience.clock() + self.pause > self.end:
            raise error
        self.patience.tried.append(error.message)


def retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header: a number or a date; None without one that can be read."""
    if not header:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        when = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, when.timestamp() - time.time())
