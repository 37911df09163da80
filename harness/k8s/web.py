"""HTTP to registries and chart repositories: proxy, CA, redirects, and trying again."""

from __future__ import annotations

import base64
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import InfraError, UsageError
from harness.k8s.retry import Patience, retry_after

_SECONDS = 30.0
_REDIRECTS = 5
_MOVED = (301, 302, 303, 307, 308)
_PASSING = (408, 429, 500, 502, 503, 504)


class WebError(InfraError):
    """No answer, or one that says that it will not do. ``status`` is 0 for no answer."""

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """``status`` is below 500; ``headers`` have names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Web:
    """Asks through ``HTTPS_PROXY`` and ``NO_PROXY`` of the environment.

    ``ca``: a PEM bundle instead of the system's; ``proxy``: this one, and not the environment's.
    """

    ca: Path | None = None
    patience: Patience = field(default_factory=Patience)
    proxy: str = ""
    _pools: dict[str, Any] = field(default_factory=dict)

    def ask(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, most: int = 1 << 22
    ) -> Answer:
        """One request and where it leads; what fails in passing is tried again.

        ``most``: bytes of a body. Raises WebError (exit 3).
        """
        for attempt in self.patience.attempts():
            try:
                found = self._follow(method, url, dict(headers or {}), most)
            except WebError as error:
                attempt.failed(error, retry="CERTIFICATE_VERIFY_FAILED" not in error.message)
                continue
            if found.status in _PASSING:
                words = f"{method} {shown(url)}: HTTP {found.status}"
                busy = WebError(words, status=found.status)
                attempt.failed(busy, retry=True, wait=retry_after(found.headers.get("retry-after")))
                continue
            return found
        raise AssertionError("attempts end with a return or an error")

    def _follow(self, method: str, url: str, headers: dict[str, str], most: int) -> Answer:
        for _ in range(_REDIRECTS + 1):
            found = self._once(method, url, headers, most)
            where = found.headers.get("location")
            if found.status not in _MOVED or not where:
                return found
            target = urllib.parse.urljoin(url, where)
            if urllib.parse.urlsplit(target).netloc != urllib.parse.urlsplit(url).netloc:
                # Stores that registries lead to must not see their tokens.
                headers = {k: v for k, v in headers.items() if k.lower() != "authorization"}
            url = target
        raise WebError(f"{shown(url)}: leads from one address to the next")

    def _once(self, method: str, url: str, headers: dict[str, str], most: int) -> Answer:
        import urllib3

        try:
            found = self._pool(url).request(
                method,
                url,
                headers=headers,
                timeout=_SECONDS,
                retries=False,
                redirect=False,
                preload_content=False,
            )
            body = b"" if method == "HEAD" else found.read(most + 1, decode_content=True)
            found.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise WebError(f"{shown(url)}: {error}") from error
        if len(body) > most:
            raise WebError(f"{shown(url)}: the answer is over {most >> 20} MiB")
        announced = found.headers.get("content-length", "")
        whole = method == "HEAD" or "content-encoding" in found.headers or not announced.isdigit()
        if not whole and len(body) < int(announced):
            raise WebError(f"{shown(url)}: the answer was cut off")
        return Answer(found.status, {k.lower(): v for k, v in found.headers.items()}, body)

    def _pool(self, url: str) -> Any:
        import urllib3

        parts = urllib.parse.urlsplit(url)
        proxy = self.proxy or urllib.request.getproxies().get(parts.scheme, "")
        if proxy != self.proxy and urllib.request.proxy_bypass(parts.netloc):
            proxy = ""
        if proxy not in self._pools:
            kept: dict[str, Any] = {"cert_reqs": "CERT_REQUIRED"}
            if self.ca:
                kept["ca_certs"] = str(self.ca)
            try:
                self._pools[proxy] = _manager(proxy, kept) if proxy else urllib3.PoolManager(**kept)
            except (OSError, ValueError) as error:
                raise UsageError(f"{self.ca or 'the proxy'}: {error}") from error
        return self._pools[proxy]


def _manager(proxy: str, kept: dict[str, Any]) -> Any:
    import urllib3

    parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    if parts.username:
        login = (
            f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        )
        kept["proxy_headers"] = {"proxy-authorization": basic(login)}
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return urllib3.ProxyManager(f"{parts.scheme}://{host}:{parts.port or 3128}", **kept)


def basic(login: str) -> str:
    """The header's value for ``user:password``."""
    return f"Basic {base64.b64encode(login.encode()).decode()}"


def shown(url: str) -> str:
    """An address as people may see it: without a login and what signs it."""
    parts = urllib.parse.urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
