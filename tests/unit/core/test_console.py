"""What a run shows: plain lines for logs, a table for people."""

from __future__ import annotations

import io

from harness.console import LiveTable, PlainLines, open_console


class Terminal(io.StringIO):
    """Text that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_log_gets_one_line_per_phase() -> None:
    out = io.StringIO()
    with open_console(["a"], out) as console:
        for line in ("1", "2", "3"):
            console.cell("a", "build", f"step {line}")
        console.cell("a", "boot", "")
        console.note("about the run")
    lines = out.getvalue().splitlines()
    assert [line.partition("] ")[2] for line in lines] == [
        "a: build: step 1",
        "a: boot",
        "about the run",
    ]


def test_a_long_line_is_cut_and_stays_one_line() -> None:
    out = io.StringIO()
    PlainLines(out).cell("a", "build", "word\n" * 100)
    assert out.getvalue().count("\n") == 1
    assert len(out.getvalue()) < 130


def test_a_terminal_gets_a_table_with_phase_time_and_last_line() -> None:
    out = Terminal()
    with open_console(["a", "b"], out) as console:
        assert isinstance(console, LiveTable)
        console.cell("a", "build", "compiling [not markup]")
        console.cell("b", "error", "it broke")
    shown = out.getvalue()
    for word in ("a", "build", "compiling [not markup]", "error", "it broke", "0 s"):
        assert word in shown
