"""Lets cells in by the machine's memory and cores, not by count."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from harness.providers.base import Needs, Stopped
from harness.space import memory_available


class Admission:
    """Room for cells. One cell always fits."""

    def __init__(self, memory_mb: int, cores: int) -> None:
        self.memory_mb = memory_mb
        self.cores = cores
        self._inside: dict[str, Needs] = {}
        self._memory = 0
        self._cores = 0
        self._changed = threading.Condition()

    def enter(
        self, name: str, needs: Needs, stopping: threading.Event, crowded: Callable[[], None]
    ) -> None:
        """Wait for room, calling ``crowded`` now and then. Raises ``Stopped`` on a stop."""
        while True:
            with self._changed:
                if self._fits(needs):
                    self._inside[name] = needs
                    self._memory += needs.memory_mb
                    self._cores += needs.cores
                    return
                if stopping.is_set():
                    raise Stopped(f"{name}: stopped while waiting for memory")
                self._changed.wait(0.2)
            crowded()

    def leave(self, name: str) -> None:
        """Give the room back; harmless if it was never taken."""
        with self._changed:
            needs = self._inside.pop(name, None)
            if needs:
                self._memory -= needs.memory_mb
                self._cores -= needs.cores
            self._changed.notify_all()

    def inside(self) -> set[str]:
        """The cells that hold room."""
        with self._changed:
            return set(self._inside)

    def _fits(self, needs: Needs) -> bool:
        memory, cores = self._memory + needs.memory_mb, self._cores + needs.cores
        return not self._inside or (memory <= self.memory_mb and cores <= self.cores)


def machine_budget() -> Admission:
    """Four fifths of the memory that is free now, and every core."""
    return Admission(memory_available() * 4 // 5, os.cpu_count() or 1)
