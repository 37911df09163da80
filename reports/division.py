"""What names the division of a matrix into shards, so that those of another are told apart."""

from __future__ import annotations

import hashlib
import json


class Division:
    """A digest over the cells in the order of the matrix, each with the shard that it is in.

    The same cells, expected to end in the same way on the same providers, divided in the same way,
    have the same one, whichever machine asks.
    """

    def __init__(self, count: int) -> None:
        self._digest = hashlib.sha256(f"{count}\n".encode())

    def add(self, shard: int, provider: str, expected: str, cell: str) -> None:
        """Take the next cell; ``shard`` counts from one."""
        self._digest.update(f"{json.dumps([shard, provider, expected, cell])}\n".encode())

    def hexdigest(self) -> str:
        """SHA-256, lower-case hex."""
        return self._digest.hexdigest()
