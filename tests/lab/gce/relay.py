"""A double of the relay behind Identity-Aware Proxy's TCP forwarding, for Google's own client.

``gcloud compute start-iap-tunnel`` speaks version 4 of the relay's protocol over a WebSocket
(RFC 6455) in TLS: binary messages of a tag (16 bits, big-endian) and what belongs to it. Read in
``iap_tunnel_websocket*.py`` of the Google Cloud CLI, which is this double's measure.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import select
import socket
import ssl
import struct
import threading
import urllib.parse
from pathlib import Path

SUBPROTOCOL = "relay.tunnel.cloudproxy.app"
CONNECTED, DATA, ACK = 1, 4, 7
MOST = 16384
_MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE = 0x2, 0x8


class Relay:
    """Leads every tunnel to one port of 127.0.0.1. Context manager; ``asked``: what for."""

    def __init__(self, certificate: Path, port: int) -> None:
        """``certificate``: key and certificate for the name ``localhost``, PEM."""
        self._port = port
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.asked: list[dict[str, str]] = []
        self.tokens: set[str] = set()

    @property
    def url(self) -> str:
        """What ``--iap-tunnel-url-override`` takes."""
        return f"wss://localhost:{self._listener.getsockname()[1]}/v4"

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with (
            contextlib.suppress(OSError, EOFError),
            self._context.wrap_socket(plain, server_side=True) as client,
            socket.create_connection(("127.0.0.1", self._port)) as node,
        ):
            self._greet(client)
            sid = b"a-session"
            _send(client, struct.pack(">HI", CONNECTED, len(sid)) + sid)
            _both_ways(client, node)

    def _greet(self, client: ssl.SSLSocket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += _exactly(client, 1)
        text = head.decode()
        path = text.split(" ", 2)[1]
        self.asked.append(dict(urllib.parse.parse_qsl(path.partition("?")[2])))
        said = {k.lower(): v for k, v in re.findall(r"^([\w-]+): (.*?)\r$", text, re.M)}
        self.tokens.add(said["authorization"])
        key = hashlib.sha1((said["sec-websocket-key"] + _MAGIC).encode()).digest()
        lines = (
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Accept: {base64.b64encode(key).decode()}",
            f"Sec-WebSocket-Protocol: {SUBPROTOCOL}",
        )
        client.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())


def _exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = link.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def _send(client: socket.socket, message: bytes) -> None:
    size = len(message)
    head = bytes([0x80 | _BINARY, size]) if size < 126 else struct.pack(">BBH", 0x82, 126, size)
    client.sendall(head + message)


def _message(client: socket.socket) -> bytes:
    """One message of the client's, which masks what it sends; EOFError when it says goodbye."""
    first, second = _exactly(client, 2)
    size = second & 0x7F
    if size == 126:
        size = struct.unpack(">H", _exactly(client, 2))[0]
    elif size == 127:
        size = struct.unpack(">Q", _exactly(client, 8))[0]
    mask = _exactly(client, 4) * (size // 4 + 1)
    masked = int.from_bytes(_exactly(client, size), "big")
    data = (masked ^ int.from_bytes(mask[:size], "big")).to_bytes(size, "big")
    if first & 0x0F == _CLOSE:
        raise EOFError
    return data if first & 0x0F == _BINARY else b""


def _both_ways(client: ssl.SSLSocket, node: socket.socket) -> None:
    """Until one of them ends. In one thread: a connection of TLS is not for two at a time."""
    got = 0
    while True:
        waiting = [client] if client.pending() else select.select([client, node], [], [])[0]
        if node in waiting:
            data = node.recv(MOST)
            if not data:
                return
            _send(client, struct.pack(">HI", DATA, len(data)) + data)
        if client in waiting:
            message = _message(client)
            if len(message) >= 6 and struct.unpack(">H", message[:2])[0] == DATA:
                size = struct.unpack(">I", message[2:6])[0]
                node.sendall(message[6 : 6 + size])
                got += size
                _send(client, struct.pack(">HQ", ACK, got))
