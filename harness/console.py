"""What a run shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

#: Seconds between plain lines of one cell in one phase: logs are read, not watched.
PLAIN_INTERVAL = 10.0
WIDTH = 90


class Console(Protocol):
    """Shows cells as they go. Methods may be called from any thread."""

    def __enter__(self) -> Console: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def cell(self, cell: str, phase: str, line: str) -> None:
        """A cell entered a phase, or said something in it."""

    def note(self, line: str) -> None:
        """Something about the whole run."""


def open_console(cells: Iterable[str], out: TextIO | None = None) -> Console:
    """The console that fits ``out``, which is standard error if nothing else is given."""
    out = out or sys.stderr
    return LiveTable(cells, out) if out.isatty() else PlainLines(out)


class PlainLines:
    """One line per phase of a cell, and now and then one for what it says."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._last: dict[str, tuple[str, float]] = {}

    def __enter__(self) -> PlainLines:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.flush()

    def cell(self, cell: str, phase: str, line: str) -> None:
        """Print a new phase at once, more of the same rarely."""
        now = time.monotonic()
        with self._lock:
            before, then = self._last.get(cell, ("", 0.0))
            if phase == before and now - then < PLAIN_INTERVAL:
                return
            self._last[cell] = (phase, now)
            self._print(f"{cell}: {phase}{f': {_short(line)}' if line else ''}")

    def note(self, line: str) -> None:
        """Print a line."""
        with self._lock:
            self._print(line)

    def _print(self, line: str) -> None:
        print(f"[{time.monotonic() - self._began:6.1f}s] {line}", file=self._out, flush=True)


@dataclass
class _Row:
    phase: str = "queued"
    line: str = ""
    began: float | None = None
    ended: float | None = None


class LiveTable:
    """A table of cells with phase, time and last line, redrawn four times a second."""

    def __init__(self, cells: Iterable[str], out: TextIO) -> None:
        from rich.console import Console as RichConsole

        self._rows = {cell: _Row() for cell in cells}
        self._lock = threading.Lock()
        self._rich = RichConsole(file=out)
        self._live: Live | None = None

    def __enter__(self) -> LiveTable:
        from rich.live import Live

        self._live = Live(
            get_renderable=self._table, console=self._rich, refresh_per_second=4, transient=False
        )
        self._live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.__exit__(kind, error, trace)

    def cell(self, cell: str, phase: str, line: str) -> None:
        """Remember what the next drawing shows."""
        with self._lock:
            row = self._rows.setdefault(cell, _Row())
            row.began = row.began or time.monotonic()
            row.phase, row.line = phase, line or row.line
            # The clock stands still at the end of the cell, not of the run.
            row.ended = (row.ended or time.monotonic()) if phase in FINAL else None

    def note(self, line: str) -> None:
        """Print a line above the table."""
        self._rich.print(line, markup=False, highlight=False)

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, expand=True)
        # Only the last column gives way on a narrow terminal.
        with self._lock:
            widest = max((len(cell) for cell in self._rows), default=0)
            for column, width in (("cell", widest), ("phase", 9), ("time", 6)):
                table.add_column(column, no_wrap=True, min_width=width, width=width)
            table.add_column("", no_wrap=True, ratio=1)
            for cell, row in self._rows.items():
                spent = (row.ended or time.monotonic()) - row.began if row.began else 0.0
                colour = COLOURS.get(row.phase, "cyan")
                table.add_row(
                    cell,
                    Text(row.phase, style=colour),
                    f"{spent:.0f} s" if row.began else "",
                    Text(_short(row.line), style="dim"),
                )
        return table


#: Phases after which a cell's clock stands still.
FINAL = {"pass", "fail", "failed", "error", "refused", "stopped", "not-run", "done", "kept"}
COLOURS = {
    "pass": "green",
    "done": "green",
    "refused": "yellow",
    "fail": "red",
    "failed": "red",
    "error": "magenta",
    "stopped": "magenta",
    "not-run": "magenta",
    "queued": "dim",
}


def _short(line: str) -> str:
    flat = " ".join(line.split())
    return flat if len(flat) <= WIDTH else f"{flat[: WIDTH - 1]}…"
