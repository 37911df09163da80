"""What tests of translators share: settings, running a program, a proxy that takes notes."""

from __future__ import annotations

import base64
import os
import re
import shutil
import socket
import subprocess
import threading

import pytest

from installers.config import ProxySettings, from_attributes
from installers.dialects.base import Wanted, wanted

PASSWORD = "p@:/%#'\" $x"
URL = "http://bob:p%40%3A%2F%25%23%27%22%20%24x@10.0.2.100:3128"
NO_PROXY = "localhost,127.0.0.1,::1,169.254.169.254,metadata.google.internal"


def settings(**attributes: str) -> ProxySettings:
    return from_attributes({k.replace("_", "-"): v for k, v in attributes.items()}).proxy


def want(credentials: bool = True) -> Wanted:
    return wanted(settings(proxy_uri=URL, no_proxy=".corp.example"), credentials)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
REFUSAL = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=lab\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)
NOTHING = wanted(ProxySettings(), credentials=True)


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def run(*argv: str, env: dict[str, str] | None = None) -> str:
    base = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}
    return subprocess.run(
        argv, env={**base, **(env or {})}, capture_output=True, text=True, check=True
    ).stdout


class Recorder:
    """A proxy that notes each request's head, answers ok and closes.

    With ``challenge`` it asks for a password first, as programs want it that send none unasked.
    """

    def __init__(self, challenge: bool = False) -> None:
        self.challenge = challenge
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.heads: list[str] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                head = b""
                while b"\r\n\r\n" not in head:
                    piece = connection.recv(4096)
                    if not piece:
                        break
                    head += piece
                self.heads.append(head.decode("latin-1"))
                connection.sendall(REFUSAL if self._unasked(head) else ANSWER)

    def _unasked(self, head: bytes) -> bool:
        return self.challenge and b"proxy-authorization:" not in head.lower()

    @property
    def credentials(self) -> set[str]:
        """Every ``user:password`` that came, decoded."""
        found = re.findall(r"(?im)^proxy-authorization: basic (\S+)", "\n".join(self.heads))
        return {base64.b64decode(one).decode() for one in found}


def proxied(port: int) -> Wanted:
    url = f"http://bob:p%40%3A%2F%25%23@127.0.0.1:{port}"
    return wanted(settings(proxy_uri=url, no_proxy=".direct.example"), credentials=True)


BASIC = "Basic Ym9iOnBAOi8lIw=="  # bob:p@:/%#
