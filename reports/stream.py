"""One JSON object, member by member, and one list in it element by element, in bounded memory.

msgspec decodes whole values only. But it tells where a value ends: what comes behind a whole value
is an error with its place, and a value that is cut off is an error of another kind. So a window of
the file is enough, as wide as the widest single value, and the bytes are scanned in C.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

WINDOW = 1 << 20
"""Bytes read at a time."""

_LONGEST = 4096
"""Bytes. An error so near to the window's end may be the window's, not the value's."""

_INK = re.compile(rb"[^ \t\r\n]")
_TRAILING = re.compile(r"trailing characters \(byte (\d+)\)")
_PLACE = re.compile(r"\(byte (\d+)\)")
_skip = msgspec.json.Decoder(msgspec.Raw)


class Window:
    """The bytes of a file around the place that is being read.

    ``seen`` is called with all bytes, in order, as they are read.
    """

    def __init__(self, file: BinaryIO, limit: int, seen: Callable[[bytes], object]) -> None:
        self._file = file
        self._left = limit
        self._seen = seen
        self._data = b""
        self._at = 0
        self._passed = 0  # bytes of the file before the window
        self._whole = False  # nothing comes after the window

    @property
    def place(self) -> int:
        """Bytes of the file that were passed."""
        return self._passed + self._at

    @property
    def end(self) -> int:
        """Bytes of the file that were read."""
        return self._passed + len(self._data)

    def peek(self) -> bytes:
        """The next byte that is not blank; empty at the end of the file."""
        while True:
            found = _INK.search(self._data, self._at)
            if found:
                self._at = found.start()
                return found[0]
            self._at = len(self._data)
            if not self._more():
                return b""

    def take(self, wanted: bytes) -> bytes:
        """Pass one of the bytes ``wanted``; DecodeError for another, or the end."""
        found = self.peek()
        if not found:
            raise msgspec.DecodeError("Input data was truncated")
        if found not in wanted:
            raise malformed(f"expected {_either(wanted)}", self.place)
        self._at += 1
        return found

    def value(self) -> memoryview:
        """Pass one whole value. DecodeError when it is malformed or cut off."""
        self.peek()
        while True:
            view = memoryview(self._data)[self._at :]
            try:
                _skip.decode(view)
            except msgspec.DecodeError as error:
                text = str(error)
                end = _TRAILING.search(text)
                if end:
                    # The place, from one, of the first byte behind that is not blank.
                    length = int(end[1]) - 1
                    self._at += length
                    return view[:length]
                place = _PLACE.search(text)
                # A number that is cut off is called invalid where the window ends.
                cut = not place or int(place[1]) >= len(view) - _LONGEST
                if not cut or not self._more():
                    raise self._told_for_the_file(text, len(view)) from error
            else:
                # The window ends with the value: so does the file, or there may be more of it.
                if not self._more():
                    self._at = len(self._data)
                    return view

    def _more(self) -> bool:
        """Read on; what was passed is let go. False at the end of the file."""
        if self._whole:
            return False
        kept = self._data[self._at :]
        # Twice what there is, so that a value wider than the window is not scanned without end.
        data = self._file.read(max(WINDOW, len(kept)))
        self._left -= len(data)
        if self._left < 0:
            raise TooMuch
        self._seen(data)
        self._whole = not data
        self._passed += self._at
        self._at = 0
        self._data = kept + data if kept else data
        return bool(data)

    def _told_for_the_file(self, text: str, length: int) -> msgspec.DecodeError:
        """An error about a value as one about the file: where, or that it ends in the value."""
        place = _PLACE.search(text)
        if not place or int(place[1]) >= length:
            return msgspec.DecodeError("Input data was truncated")
        return msgspec.DecodeError(_PLACE.sub(f"(byte {self.place + int(place[1])})", text))


class TooMuch(Exception):
    """The file holds more bytes than the limit."""


def members(window: Window, unfold: str) -> Iterator[tuple[str, memoryview | None]]:
    """Yield the members of one JSON object: name and value, in the order of the file.

    A list named ``unfold`` comes as one pair an element, and one without a value at its end. A
    value is only good until the next pair is asked for.

    Raises ``msgspec.DecodeError`` (``ValidationError`` for a value that is no object, or a name
    that comes twice) and :class:`TooMuch`.
    """
    first = window.peek()
    if first != b"{":
        window.value()
        raise msgspec.ValidationError("Expected `object`")
    window.take(b"{")
    names: set[str] = set()
    more = window.peek() != b"}"
    if not more:
        window.take(b"}")
    while more:
        if window.peek() not in (b'"', b""):
            raise malformed("expected a name", window.place)
        name = msgspec.json.decode(window.value(), type=str)
        if name in names:
            raise msgspec.ValidationError(f"Object contains the field {name!r} twice")
        names.add(name)
        window.take(b":")
        if name == unfold and window.peek() == b"[":
            for element in _elements(window):
                yield name, element
            yield name, None
        else:
            yield name, window.value()
        more = window.take(b",}") == b","
    if window.peek():
        raise malformed("trailing characters", window.place)


def _elements(window: Window) -> Iterator[memoryview]:
    window.take(b"[")
    if window.peek() == b"]":
        window.take(b"]")
        return
    while True:
        yield window.value()
        if window.take(b",]") == b"]":
            return


def malformed(what: str, place: int) -> msgspec.DecodeError:
    """The error of something at a place (bytes passed before it), in msgspec's words."""
    return msgspec.DecodeError(f"JSON is malformed: {what} (byte {place + 1})")


def _either(wanted: bytes) -> str:
    return " or ".join(f"'{chr(byte)}'" for byte in wanted)
