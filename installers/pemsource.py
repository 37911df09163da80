"""Where the CA's PEM file is: on the node, at a pinned URL, or in an object store."""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, urlsplit

from installers import metadata, noproxy
from installers.config import Config
from installers.errors import ConfigError, NodeError, UnreachableError
from installers.host import Host

KEY = "http-proxy-pem-uri"
LIMIT = 1 << 20
_TIMEOUT = 30.0
_FORMS = (
    "write file:///path, gs://bucket/object, or https://host/path#sha256=HEX "
    "with the SHA-256 of the file"
)


@dataclass(frozen=True)
class PemSource:
    """A checked URI. ``kind`` is file, url or gs; ``pin`` the SHA-256 of the content, if any."""

    kind: str
    location: str
    pin: Optional[str]

    @property
    def is_remote(self) -> bool:
        """True when reading it needs the network."""
        return self.kind != "file"

    @property
    def host(self) -> str:
        """The name that will be contacted, empty for a file."""
        return urlsplit(self.location).hostname or "" if self.kind == "url" else ""


def parse(uri: str) -> PemSource:
    """Check the URI. Raises ConfigError: what it is not, and the forms it may have."""
    base, _, fragment = uri.partition("#")
    pin = _pin(fragment)
    if not base.isascii() or not base.isprintable() or " " in base:
        raise ConfigError("holds characters that no URI has", where=KEY, remedy=_FORMS)
    if base.startswith("file://"):
        path = base[len("file://") :]
        if not path.startswith("/"):
            raise ConfigError("a file is named by its absolute path", where=KEY, remedy=_FORMS)
        return PemSource("file", path, pin)
    if base.startswith("gs://"):
        if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]/[^/].*", base):
            raise ConfigError("is not gs://bucket/object", where=KEY, remedy=_FORMS)
        return PemSource("gs", base, pin)
    if base.startswith(("http://", "https://")):
        if pin is None:
            # Who serves the CA decides whom the node trusts: only a pin makes that the operator.
            raise ConfigError("a URL needs the hash of its content", where=KEY, remedy=_FORMS)
        parts = urlsplit(base)
        if not parts.hostname or "@" in parts.netloc:
            raise ConfigError("is not a URL without credentials", where=KEY, remedy=_FORMS)
        return PemSource("url", base, pin)
    raise ConfigError("has a scheme that is not known", where=KEY, remedy=_FORMS)


def read(source: PemSource, host: Host, config: Config) -> bytes:
    """The content, at most 1 MiB, equal to its pin.

    Raises NodeError for a file that is not there or another content than pinned, UnreachableError
    when it cannot be fetched.
    """
    if source.kind == "file":
        data = host.read_bytes(source.location)
        if data is None:
            raise NodeError("there is no such file", where=f"{KEY} {source.location}")
    elif source.kind == "gs":
        data = _object(source, config)
    else:
        data = fetch(source.location, config, {}, pinned=True)
    if len(data) > LIMIT:
        raise NodeError(f"is larger than {LIMIT} bytes", where=KEY, remedy="give a CA's PEM file")
    found = hashlib.sha256(data).hexdigest()
    if source.pin is not None and found != source.pin:
        raise NodeError(
            f"the content has SHA-256 {found}, not the pinned {source.pin}",
            where=KEY,
            remedy="somebody replaced the file: check it, then update the pin",
        )
    return data


def object_url(source: PemSource, config: Config) -> str:
    """The REST address of a gs:// object; the endpoint follows the universe domain."""
    bucket, _, name = source.location[len("gs://") :].partition("/")
    base = config.raw.get("airlock-storage-endpoint") or f"https://storage.{config.universe_domain}"
    return f"{base.rstrip('/')}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"


def _pin(fragment: str) -> Optional[str]:
    if not fragment:
        return None
    if not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", fragment):
        raise ConfigError("the part after # is not sha256= and 64 hex digits", where=KEY)
    return fragment[len("sha256=") :].lower()


def _object(source: PemSource, config: Config) -> bytes:
    token = metadata.access_token(config.metadata_server)
    # Without a service account the object may still be public.
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return fetch(object_url(source, config), config, headers, pinned=source.pin is not None)


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
    context = ssl.create_default_context()
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
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - parse() allows http(s)
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
