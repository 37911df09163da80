"""A small real proxy for one request at a time: intercepts TLS, asks for a password if told to."""

from __future__ import annotations

import base64
import contextlib
import socketserver
import ssl
import threading
from pathlib import Path

from fixtures.pki import Identity, make_leaf

ORIGIN = "origin.airlock.test"


class _Handler(socketserver.StreamRequestHandler):
    server: Proxy

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            request, login = self._head()
            if self.server.login and login != self.server.login:
                self._answer(
                    "407 Proxy Authentication Required", 'Proxy-Authenticate: Basic realm="x"'
                )
            elif not request.startswith("CONNECT "):
                self._answer("200 OK", size=int(self._size(request)))
            else:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._intercept()

    def _head(self) -> tuple[str, str]:
        """The request line and the decoded ``user:password``, if any."""
        request = self.rfile.readline().decode()
        login = ""
        while line := self.rfile.readline().strip().decode():
            name, _, value = line.partition(": ")
            if name.lower() == "proxy-authorization":
                login = base64.b64decode(value.removeprefix("Basic ")).decode()
        return request, login

    def _size(self, request: str) -> str:
        """N of a request for ``/bytes/N``, as our origin has it."""
        path = request.split()[1]
        return path.rpartition("/bytes/")[2] if "/bytes/" in path else "0"

    def _answer(self, status: str, *headers: str, size: int = 0) -> None:
        length = f"Content-Length: {size}"
        lines = [f"HTTP/1.1 {status}", *headers, length, "Connection: close", "", ""]
        self.wfile.write("\r\n".join(lines).encode() + bytes(size))

    def _intercept(self) -> None:
        with self.server.tls.wrap_socket(self.connection, server_side=True) as tls:
            while not tls.recv(4096).endswith(b"\r\n\r\n"):
                pass
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


class Proxy(socketserver.ThreadingTCPServer):
    """Listens on a port of loopback of its own. ``login``: ``user:password`` it demands, or ""."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, directory: Path, authority: Identity, login: str = "") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.login = login
        chain = directory / "origin.pem"
        chain.write_bytes(make_leaf(authority, [ORIGIN]).key_and_cert())
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(chain)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """``http://127.0.0.1:port``."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that refuses our certificate is what these tests are about."""
