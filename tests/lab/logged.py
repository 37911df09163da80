"""Rows of a proxy's log, which come when the client has gone on already."""

from __future__ import annotations

import time
from typing import Any

from fixtures.squid import Squid

SECONDS = 20


def logged(squid: Squid, **wanted: object) -> dict[str, Any]:
    """The last row that has these values; it is waited for."""
    deadline = time.monotonic() + SECONDS
    while not (found := [row for row in squid.rows() if wanted.items() <= row.items()]):
        assert time.monotonic() < deadline, squid.rows()
        time.sleep(0.05)
    return found[-1]
