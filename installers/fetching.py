"""One GET with the standard library: through the node's proxy, and no further than asked."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from installers import noproxy
from installers.config import Config
from installers.errors import NodeError, UnreachableError

LIMIT = 1 << 20
_TIMEOUT = 30.0


def fetch(url: str, config: Config, headers: dict[str, str], *, pinned: bool) -> bytes:
    """At most LIMIT + 1 bytes of an answer, through the node's proxy; UnreachableError otherwise.

    ``pinned``: the caller knows the content's hash, so the server need not be known.
    """
    try:
        return _get(url, config, headers, ssl.create_default_context())
    except urllib.error.URLError as error:
        untrusted = isinstance(error.reason, ssl.SSLCertVerificationError)
        if not (untrusted and pinned and "Authorization" not in headers):
            raise _unreachable(url, error) from None
    # The proxy that intercepts this connection is the one whose CA is being fetched. The pin alone
    # decides about the content, and nothing secret is sent.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        return _get(url, config, headers, context)
    except urllib.error.URLError as error:
        raise _unreachable(url, error) from None


def _get(url: str, config: Config, headers: dict[str, str], context: ssl.SSLContext) -> bytes:
    proxies: dict[str, str] = {}
    if not noproxy.matches(urlsplit(url).hostname or "", config.proxy.no_proxy):
        for scheme, proxy in (("http", config.proxy.http), ("https", config.proxy.https)):
            if proxy is not None:
                proxies[scheme] = proxy.url
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies),
        urllib.request.HTTPSHandler(context=context),
        _NoRedirect() if headers else urllib.request.HTTPRedirectHandler(),
    )
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - callers check the scheme
    try:
        with opener.open(request, timeout=_TIMEOUT) as answer:
            return bytes(answer.read(LIMIT + 1))
    except (http.client.HTTPException, TimeoutError) as error:
        raise urllib.error.URLError(error) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would send the token on to wherever a redirect points."""

    def redirect_request(self, *_: object) -> None:
        """Decline, so that the answer becomes an error."""


def _unreachable(url: str, error: urllib.error.URLError) -> NodeError:
    place = url.partition("?")[0]
    if isinstance(error, urllib.error.HTTPError):
        code = error.code
        if code == 407:
            why, remedy = "the proxy wants other credentials", "check them in http-proxy"
        elif code in (401, 403):
            why = f"answered {code}"
            remedy = "allow the node's service account, or the proxy's rule, to read it"
        else:
            why, remedy = f"answered {code}", "check the address"
    else:
        why, remedy = f"cannot be fetched: {error.reason}", "check the proxy and the address"
    return UnreachableError(why, where=place, remedy=remedy)
