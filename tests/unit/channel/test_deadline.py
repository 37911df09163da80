"""Waiting has an end, and a success after it is an error of its own."""

from __future__ import annotations

import time

import pytest

from harness.deadline import Deadline, DeadlinePassed, LateSuccess


def test_what_is_left_shrinks_to_zero() -> None:
    deadline = Deadline(0.02, "a thing")
    assert 0 < deadline.remaining() <= 0.02
    deadline.check()
    time.sleep(0.03)
    assert deadline.remaining() == 0
    with pytest.raises(DeadlinePassed, match=r"a thing: not done within 0\.02 s \(do that\)"):
        deadline.check(hint="do that")


def test_late_success_is_no_success() -> None:
    said = r"a thing: done after .* and it had 0\.01 s"
    with pytest.raises(LateSuccess, match=said), Deadline(0.01, "a thing"):
        time.sleep(0.02)


def test_an_error_of_the_block_is_not_hidden() -> None:
    def fail_late() -> None:
        with Deadline(0.01, "a thing"):
            time.sleep(0.02)
            raise KeyError("the cause")

    with pytest.raises(KeyError):
        fail_late()


def test_a_part_is_never_longer_than_the_whole() -> None:
    whole = Deadline(0.05, "all")
    part = whole.part(60, "one step")
    assert part.seconds <= 0.05
    assert part.what == "all: one step"
    assert whole.part(0.001, "quick").seconds == 0.001
