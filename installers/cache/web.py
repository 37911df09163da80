"""HTTP for stores: through the node's proxy, with the node's token, patient, or not at all.

No redirect is followed: it would lead to a host that no plan named, and take the token there.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import random
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from installers import noproxy
from installers.cache.store import Content, DeniedError, StoreError, TamperedError, size_of
from installers.config import ProxySettings

#: Seconds during which a store that does not answer is asked again.
PATIENCE = 60.0
_TIMEOUT = 30.0
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 8.0
_CUTS = 3
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class CutError(StoreError):
    """The connection ended in the middle of an answer."""


class Answer:
    """A response that is being read. ``length`` is what the server announced, if it did."""

    def __init__(self, status: int, headers: Message, stream: Any, where: str) -> None:
        self.status = status
        self.headers = headers
        self._stream = stream
        self._where = where
        text = headers.get("Content-Length", "")
        self.length = int(text) if text.isdigit() else None

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, empty at the end. CutError when the connection breaks."""
        try:
            return bytes(self._stream.read(size))
        except (OSError, http.client.HTTPException) as error:
            raise CutError(f"was cut off: {error!r}", where=self._where) from error

    def read_into(self, buffer: memoryview) -> int:
        """Fill the buffer from its beginning: bytes, 0 at the end. CutError as in ``read``."""
        try:
            return int(self._stream.readinto(buffer))
        except (OSError, http.client.HTTPException) as error:
            raise CutError(f"was cut off: {error!r}", where=self._where) from error

    def body(self, limit: int) -> bytes:
        """The whole body; CutError when it is shorter than announced, TamperedError above limit."""
        buffer = io.BytesIO()
        while block := self.read(1 << 16):
            if buffer.tell() + len(block) > limit:
                raise TamperedError(f"it has more than {limit} bytes", where=self._where)
            buffer.write(block)
        if self.length is not None and buffer.tell() != self.length:
            raise CutError(
                f"was cut off at {buffer.tell()} of {self.length} bytes", where=self._where
            )
        return buffer.getvalue()


@dataclass(frozen=True)
class Whole:
    """An answer that was read to its end."""

    status: int
    headers: Message
    data: bytes


class Web:
    """Makes requests. ``token`` gives the bearer token, asked for once and again after a 401.

    ``patience``: seconds during which a server that is busy or away is asked again. Safe to use
    from several threads.
    """

    def __init__(
        self,
        proxy: Optional[ProxySettings] = None,
        *,
        token: Optional[Callable[[], Optional[str]]] = None,
        patience: float = PATIENCE,
    ) -> None:
        self._proxy = proxy or ProxySettings()
        self._ask_token = token
        self._token: Optional[str] = None
        self._has_token = False
        self._patience = patience
        self._lock = threading.Lock()
        self._context: Optional[ssl.SSLContext] = None

    @contextlib.contextmanager
    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Optional[Mapping[str, str]] = None,
        body: Optional[Content] = None,
        accept: tuple[int, ...] = (),
    ) -> Iterator[Answer]:
        """One request, repeated while the server is busy or away. Every 2xx is an answer.

        ``accept``: other statuses that the caller understands. Raises DeniedError for 401, 403 and
        407, StoreError for everything else. A repeated request may have had its effect already:
        what writes must carry a precondition.
        """
        place = url.partition("?")[0]
        deadline, pause, renewed = time.monotonic() + self._patience, 0.2, False
        while True:
            try:
                status, answered, stream = self._once(method, url, headers or {}, body)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", None) or error
                refused = re.search(r"Tunnel connection failed: (\d{3})", str(reason))
                status, why = int(refused[1]) if refused else 0, f"does not answer: {reason}"
                if isinstance(reason, ssl.SSLCertVerificationError):
                    raise DeniedError(
                        f"shows a certificate that is not trusted: {reason.verify_message}",
                        where=place,
                        remedy="install the proxy's CA first (http-proxy-pem-uri)",
                    ) from None
            else:
                if status < 300 or status in accept:
                    with stream:
                        yield Answer(status, answered, stream, place)
                    return
                stream.close()
                why = f"answered {status}"
                if status == 401 and not renewed and self._renew(url):
                    renewed = True
                    continue
            if status not in _RETRIED and status != 0:
                raise _refusal(status, place)
            if time.monotonic() + pause > deadline:
                raise StoreError(why, where=place, remedy="check the proxy and the address")
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause = min(pause * 2, _LONGEST_PAUSE)

    def whole(
        self,
        method: str,
        url: str,
        *,
        limit: int,
        body: Optional[Content] = None,
        accept: tuple[int, ...] = (),
    ) -> Whole:
        """A request whose answer is small: repeated when the answer is cut off, too."""
        cuts = 0
        while True:
            try:
                with self.send(method, url, body=body, accept=accept) as answer:
                    return Whole(answer.status, answer.headers, answer.body(limit))
            except CutError:
                cuts += 1
                if cuts == _CUTS:
                    raise

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: Optional[Content]
    ) -> tuple[int, Message, Any]:
        sent = dict(headers)
        if token := self._bearer(url):
            sent["Authorization"] = f"Bearer {token}"
        with contextlib.ExitStack() as stack:
            data: Any = body
            if isinstance(body, Path):
                data = stack.enter_context(body.open("rb"))
            if body is not None:
                sent["Content-Length"] = str(size_of(body))
                sent.setdefault("Content-Type", "application/octet-stream")
            request = urllib.request.Request(  # noqa: S310 - stores check the scheme
                url, data=data, headers=sent, method=method
            )
            try:
                answer = self._opener(url).open(request, timeout=_TIMEOUT)
            except urllib.error.HTTPError as error:
                return error.code, error.headers, error
            return answer.status, answer.headers, answer

    def _opener(self, url: str) -> urllib.request.OpenerDirector:
        host = urlsplit(url).hostname or ""
        proxies: dict[str, str] = {}
        if host not in _LOOPBACK and not noproxy.matches(host, self._proxy.no_proxy):
            for scheme in ("http", "https"):
                proxy = getattr(self._proxy, scheme)
                if proxy is not None:
                    proxies[scheme] = proxy.url
        return urllib.request.build_opener(
            urllib.request.ProxyHandler(proxies),
            urllib.request.HTTPSHandler(context=self._trusting(url)),
            _NoRedirect(),
        )

    def _trusting(self, url: str) -> ssl.SSLContext:
        """Whom this machine trusts, read once; nobody where no TLS is spoken: it takes 0.1 s."""
        if not url.startswith("https:"):
            return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        with self._lock:
            if self._context is None:
                self._context = ssl.create_default_context()
            return self._context

    def _bearer(self, url: str) -> Optional[str]:
        if self._ask_token is None or not is_private(url):
            return None
        with self._lock:
            if not self._has_token:
                self._token, self._has_token = self._ask_token(), True
            return self._token

    def _renew(self, url: str) -> bool:
        """Forget a token that has run out; whether there is another one to be had."""
        if self._ask_token is None or not is_private(url):
            return False
        with self._lock:
            self._has_token = False
        return True


def is_private(url: str) -> bool:
    """Whether nobody on the way can read what is sent: https, or this machine itself."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)


def _refusal(status: int, place: str) -> StoreError:
    if status == 407:
        return DeniedError(
            "the proxy wants other credentials", where=place, remedy="check them in http-proxy"
        )
    if status in (401, 403):
        remedy = "allow the node's service account, or the proxy's rule, to use it"
        return DeniedError(f"answered {status}", where=place, remedy=remedy)
    if status in (301, 302, 303, 307, 308):
        remedy = "name the address that it points to"
        return DeniedError("points elsewhere, which is not followed", where=place, remedy=remedy)
    return StoreError(f"answered {status}", where=place, remedy="check the address")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Decline, so that the answer becomes an error."""
