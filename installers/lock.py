"""One change of a node at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator

from installers.errors import NodeError, UnreachableError
from installers.host import Host, make_directory
from installers.journal import STATE_DIR

_PATIENCE = 60.0


@contextlib.contextmanager
def lock(host: Host) -> Iterator[None]:
    """One change at a time: the unit at boot and a person must not write the same files."""
    directory = host.path(STATE_DIR)
    try:
        make_directory(directory)
    except OSError as error:
        raise NodeError(
            error.strerror or "cannot be made", where=STATE_DIR, remedy="run it as root"
        ) from None
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    deadline = time.monotonic() + _PATIENCE
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise UnreachableError(
                        "another run is at work on this node", where=STATE_DIR, remedy="wait for it"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)
