"""Just enough D-Bus to ask systemd questions: one connection, method calls, their answers.

``systemctl`` costs a process for each question, which in an emulated machine is most of what facts
cost. systemd answers root on a private socket without a broker; anyone else asks the system bus.
Wire format: D-Bus specification, sections "Type system", "Message protocol", "Authentication".
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any, Union

PRIVATE = "/run/systemd/private"
SYSTEM = "/run/dbus/system_bus_socket"
SYSTEMD = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
PROPERTIES = "org.freedesktop.DBus.Properties"

METHOD_CALL, METHOD_RETURN, ERROR = 1, 2, 3
PATH, INTERFACE, MEMBER, REPLY_SERIAL, DESTINATION, SIGNATURE = 1, 2, 3, 5, 6, 8

# Type code -> (struct format, size); alignment is the size.
FIXED = {
    "y": ("B", 1),
    "b": ("I", 4),
    "n": ("h", 2),
    "q": ("H", 2),
    "i": ("i", 4),
    "u": ("I", 4),
    "x": ("q", 8),
    "t": ("Q", 8),
    "d": ("d", 8),
    "h": ("I", 4),
}
ALIGN = {"s": 4, "o": 4, "g": 1, "v": 1, "a": 4, "(": 8, "{": 8}

Argument = Union[str, list[str]]


class DBusError(OSError):
    """The bus or systemd answered with an error, or with something that is no message."""


def _split(signature: str) -> list[str]:
    """A signature cut into complete types: "sa{sv}u" -> ["s", "a{sv}", "u"]."""
    found, start, depth = [], 0, 0
    for index, code in enumerate(signature):
        depth += (code in "({") - (code in ")}")
        if depth == 0 and code != "a":
            found.append(signature[start : index + 1])
            start = index + 1
    return found


class _Decoder:
    """Reads values off a message's bytes; ``order`` is "<" or ">"."""

    def __init__(self, data: bytes, order: str, offset: int = 0) -> None:
        self.data, self.order, self.offset = data, order, offset

    def pad(self, size: int) -> None:
        self.offset = (self.offset + size - 1) & -size

    def fixed(self, code: str) -> Any:
        form, size = FIXED[code]
        self.pad(size)
        (value,) = struct.unpack_from(self.order + form, self.data, self.offset)
        self.offset += size
        return bool(value) if code == "b" else value

    def string(self, code: str) -> str:
        size = self.fixed("y" if code == "g" else "u")
        text = self.data[self.offset : self.offset + size].decode("utf-8", "replace")
        self.offset += size + 1
        return text

    def value(self, kind: str) -> Any:
        code = kind[:1]
        if code in FIXED:
            return self.fixed(code)
        if code in ("s", "o", "g"):
            return self.string(code)
        if code == "v":
            return self.value(self.string("g"))
        if code == "a":
            return self.array(kind[1:])
        if not code or code not in "({":
            raise DBusError(f"there is no type {kind!r}")
        self.pad(8)
        return tuple(self.value(part) for part in _split(kind[1:-1]))

    def array(self, kind: str) -> Any:
        size = self.fixed("u")
        self.pad(FIXED[kind[0]][1] if kind[0] in FIXED else ALIGN[kind[:1]])
        end = self.offset + size
        items = []
        while self.offset < end:
            start = self.offset
            items.append(self.value(kind))
            if self.offset == start:
                raise DBusError(f"an array of {kind!r}, which takes no bytes")
        return dict(items) if kind[0] == "{" else items

    def values(self, signature: str) -> list[Any]:
        return [self.value(kind) for kind in _split(signature)]


def decode(data: bytes, signature: str, order: str = "<", offset: int = 0) -> list[Any]:
    """The values of a message's body; raises DBusError where the bytes are none."""
    try:
        return _Decoder(data, order, offset).values(signature)
    except (struct.error, LookupError, TypeError, ValueError) as error:
        raise DBusError(f"a message that cannot be read: {error}") from error


class _Encoder:
    """Writes strings, arrays of strings and header fields, little-endian."""

    def __init__(self) -> None:
        self.data = bytearray()

    def pad(self, size: int) -> None:
        self.data += bytes(-len(self.data) % size)

    def u32(self, value: int) -> None:
        self.pad(4)
        self.data += struct.pack("<I", value)

    def string(self, text: str) -> None:
        raw = text.encode()
        self.u32(len(raw))
        self.data += raw + b"\0"

    def signature(self, text: str) -> None:
        self.data += bytes([len(text)]) + text.encode() + b"\0"

    def strings(self, texts: list[str]) -> None:
        inner = _Encoder()
        for text in texts:
            inner.string(text)
        self.u32(len(inner.data))
        self.data += inner.data

    def field(self, code: int, kind: str, text: str) -> None:
        self.pad(8)
        self.data.append(code)
        self.signature(kind)
        if kind == "g":
            self.signature(text)
        else:
            self.string(text)


def _call(
    serial: int, where: tuple[str, str, str, str], kinds: str, arguments: tuple[Argument, ...]
) -> bytes:
    """A METHOD_CALL; ``where`` is destination ("" on a private socket), path, interface, member."""
    destination, path, interface, member = where
    fields = _Encoder()
    # The array of fields starts at offset 16 of the message, so its own offsets align alike.
    fields.field(PATH, "o", path)
    fields.field(INTERFACE, "s", interface)
    fields.field(MEMBER, "s", member)
    if destination:
        fields.field(DESTINATION, "s", destination)
    body = _Encoder()
    if kinds:
        fields.field(SIGNATURE, "g", kinds)
        for argument in arguments:
            if isinstance(argument, str):
                body.string(argument)
            else:
                body.strings(argument)
    head = struct.pack(
        "<cBBBIII", b"l", METHOD_CALL, 0, 1, len(body.data), serial, len(fields.data)
    )
    message = bytearray(head + fields.data)
    message += bytes(-len(message) % 8)
    return bytes(message + body.data)


class Bus:
    """A connection to systemd's manager; use as a context manager. Every wait ends in 5 s."""

    def __init__(self, path: str = PRIVATE, timeout: float = 5.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout)
        self._buffer = b""
        self._serial = 0
        self._answers: dict[int, tuple[int, list[Any]]] = {}
        self._private = path != SYSTEM
        try:
            self._socket.connect(path)
            user = str(os.geteuid()).encode().hex()
            # In one piece, as systemd's own library does: systemd overlooks a call that arrives
            # together with BEGIN until something else comes.
            self._socket.sendall(f"\0AUTH EXTERNAL {user}\r\nBEGIN\r\n".encode())
            answer = self._until(b"\r\n")
            if not answer.startswith(b"OK "):
                raise DBusError(f"{path} refused us: {answer.decode('ascii', 'replace')}")
            if not self._private:
                self.answer(self.ask("/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"))
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Bus:
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()

    def _more(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise DBusError("systemd closed the connection")
        self._buffer += data

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        line, self._buffer = self._buffer.split(end, 1)
        return line

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _message(self) -> tuple[int, dict[int, Any], list[Any]]:
        """(type, header fields, body) of the next message."""
        head = self._take(16)
        order = "<" if head[:1] == b"l" else ">"
        size, _serial, fields_size = struct.unpack(order + "III", head[4:16])
        rest = self._take((fields_size + 7 & ~7) + size)
        fields: dict[int, Any] = dict(decode(head + rest, "a(yv)", order, 12)[0])
        # The body is aligned by itself: it starts at a multiple of 8.
        return (
            head[1],
            fields,
            decode(rest[-size:] if size else b"", fields.get(SIGNATURE, ""), order),
        )

    def ask(
        self, path: str, interface: str, member: str, kinds: str = "", *arguments: Argument
    ) -> int:
        """Sends a method call; ``kinds`` is the arguments' signature, of "s" and "as" only.

        Returns its serial, for ``answer``: several questions can be on their way at once.
        """
        self._serial += 1
        owner = "org.freedesktop.DBus" if interface == "org.freedesktop.DBus" else SYSTEMD
        where = ("" if self._private else owner, path, interface, member)
        self._socket.sendall(_call(self._serial, where, kinds, arguments))
        return self._serial

    def answer(self, serial: int) -> list[Any]:
        """What the call returned; raises DBusError with the peer's own words, or OSError."""
        while serial not in self._answers:
            kind, fields, body = self._message()
            if kind in (METHOD_RETURN, ERROR):
                self._answers[fields.get(REPLY_SERIAL, 0)] = (kind, body)
        kind, body = self._answers.pop(serial)
        if kind == ERROR:
            raise DBusError(str(body[0] if body else "no reason given"))
        return body

    def ask_manager(self, member: str, kinds: str = "", *arguments: Argument) -> int:
        """Asks a method of systemd's manager object."""
        return self.ask(MANAGER_PATH, f"{SYSTEMD}.Manager", member, kinds, *arguments)

    def ask_property(self, path: str, interface: str, name: str) -> int:
        """Asks a property of an object of systemd: of its "Manager", "Unit" or "Service"."""
        return self.ask(path, PROPERTIES, "Get", "ss", f"{SYSTEMD}.{interface}", name)


def unit_path(name: str) -> str:
    """The object path of a unit: every byte that is no letter or digit is written as _xx."""
    escaped = "".join(
        chr(b) if chr(b).isalnum() and b < 128 else f"_{b:02x}" for b in name.encode()
    )
    return f"{MANAGER_PATH}/unit/{escaped}"
