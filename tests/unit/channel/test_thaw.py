"""A fork's own identity, as far as it is text. What the kernel does is tried on forks, in lab."""

from __future__ import annotations

import pytest

from installers.thaw import renamed


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("127.0.0.1 localhost\n127.0.1.1 old\n", "127.0.0.1 localhost\n127.0.1.1 new-1\n"),
        ("127.0.1.1\told.lab old\n", "127.0.1.1\told.lab new-1\n"),
        ("127.0.1.1 old", "127.0.1.1 new-1"),
        ("10.0.0.1 older bold old-2 old.lab\n", "10.0.0.1 older bold old-2 old.lab\n"),
        ("", ""),
    ],
)
def test_the_hosts_file_names_the_fork(before: str, after: str) -> None:
    assert renamed(before, "old", "new-1") == after
