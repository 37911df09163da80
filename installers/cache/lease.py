"""One builder among many: an object that only one can create, kept alive by heartbeats.

No clock is compared between machines. Who waits watches the generation: every heartbeat makes a new
one, and when none came for a while by the waiter's own clock, the builder is taken for dead. To
take over is to write over exactly the generation that was watched, so only one succeeds.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from typing import Optional

from installers.cache.store import Store, StoreError, lease_name

#: Seconds between heartbeats; a bucket takes one write a second to an object.
EVERY = 15.0
#: Heartbeats that fail to come before a builder is taken for dead.
MISSED = 4


class Lease:
    """The right to build ``key``. ``owner`` is said in the lease, for people who look at it."""

    def __init__(self, store: Store, key: str, *, every: float = EVERY) -> None:
        self._store = store
        self._name = lease_name(key)
        self._every = every
        # The random part tells our own write from another's when an answer was lost.
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        self._beats = 0
        self._generation: Optional[str] = None
        self._stop = threading.Event()
        self._thread: Optional[threading.Thread] = None
        self._watched = ("", 0.0)

    @property
    def held(self) -> bool:
        """Whether it is ours, as far as the last heartbeat could tell."""
        return self._generation is not None

    def acquire(self) -> bool:
        """Try once: True when the lease is ours now. Raises StoreError."""
        generation = self._store.create(self._name, self._text())
        if generation is None:
            there = self._store.read(self._name)
            if there is None or not self._is_stale(there.generation):
                return False
            generation = self._store.replace(self._name, self._text(), there.generation)
        if generation is None:
            return False
        self._generation = generation
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._thread.start()
        return True

    def release(self) -> None:
        """Give it back: only what is still ours is deleted. Never raises."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._generation is not None:
            # Otherwise it goes stale, and the next builder takes it over.
            with contextlib.suppress(StoreError):
                self._store.delete(self._name, self._generation)
            self._generation = None

    def _is_stale(self, generation: str) -> bool:
        """Whether the same generation has been there for too long."""
        seen, since = self._watched
        if generation != seen:
            self._watched = (generation, time.monotonic())
            return False
        return time.monotonic() - since > MISSED * self._every

    def _text(self) -> bytes:
        self._beats += 1
        body = {"owner": self.owner, "beat": self._beats, "every": self._every}
        return json.dumps(body, sort_keys=True).encode()

    def _beat(self) -> None:
        while not self._stop.wait(self._every):
            try:
                generation = self._store.replace(self._name, self._text(), self._generation or "")
            except StoreError:
                continue  # the next heartbeat may get through before we are taken for dead
            self._generation = generation
            if generation is None:
                return  # somebody took over; both may publish, and only the first one will
