"""Public keys by fingerprint: from the node's cache, from their vendors, from key servers.

HTTPS only, through the proxy and with the CA that apply on the node, and never gpg's own key server
client: that one speaks on port 11371 and resolves names itself before it thinks of a proxy. Whoever
answers is not believed: only a key with the pinned fingerprint is taken.
"""

from __future__ import annotations

import base64
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Optional, Union
from urllib.parse import urlsplit

from installers import keypolicy, noproxy, openpgp, proxyurl
from installers.errors import NodeError, UnreachableError
from installers.host import Host
from installers.openpgp import Certificate
from installers.proxyurl import ProxyURL
from installers.repositories import EXTRA, PinnedKey
from installers.trust import store_of

CACHE = "/var/lib/airlock/keys"
# The largest key of a vendor is 5 kB; a person's, with all that key servers hang on it, 300 kB.
LIMIT = 1 << 20
_TIMEOUT = 30.0
_WHOLE_TIMEOUT = 60.0
_ATTEMPTS, _PAUSE = 2, 0.5
_TRANSIENT = (429, 500, 502, 503, 504)

Say = Callable[..., None]


@dataclass(frozen=True)
class Found:
    """A key with the pinned fingerprint. ``why_not``: what still speaks against it, or empty."""

    certificate: Certificate
    judgement: keypolicy.Judgement
    source: str
    why_not: str


@dataclass
class KeySource:
    """Looks keys up; every address is asked once a run.

    ``servers``: address forms with ``{fingerprint}``, in order; ``objection``: what the system has
    against a key, or empty; ``say``: journals one attempt.
    """

    host: Host
    servers: list[str]
    objection: Callable[[keypolicy.Judgement], str]
    now: float
    say: Say = lambda *_, **__: None
    _answers: dict[str, Union[bytes, NodeError]] = field(default_factory=dict)

    def cached(self, fingerprint: str) -> Optional[Found]:
        """The key from the node itself, without any network."""
        for suffix in ("pgp", "asc"):
            place = f"{CACHE}/{fingerprint}.{suffix}"
            data = self.host.read_bytes(place)
            if data is not None:
                try:
                    return self._pick(fingerprint, data, place)
                except NodeError:
                    # Not what its name says: as good as not there, and overwritten later.
                    continue
        return None

    def addresses(self, key: PinnedKey) -> list[str]:
        """Where the key may be fetched, in order."""
        return [*key.urls, *(s.replace("{fingerprint}", key.fingerprint) for s in self.servers)]

    def obtain(self, key: PinnedKey) -> Found:
        """The first copy that nothing speaks against; else the first that has the fingerprint.

        Raises NodeError when somebody answered, but never with this key, and UnreachableError when
        nobody answered.
        """
        best = self.cached(key.fingerprint)
        if best is not None and not best.why_not:
            return best
        failures: list[NodeError] = []
        for address in self.addresses(key):
            shown = address.partition("?")[0]
            try:
                found = self._pick(key.fingerprint, self._answer(address), shown)
            except NodeError as error:
                failures.append(error)
                self.say("key refused", fingerprint=key.fingerprint, source=shown, why=error.what)
                continue
            self.say(
                "key found", fingerprint=key.fingerprint, source=shown, objection=found.why_not
            )
            if not found.why_not:
                return found
            best = best or found
        if best is not None:
            return best
        said = "; ".join(f"{error.where}: {error.what}" for error in failures)
        unreachable = all(isinstance(error, UnreachableError) for error in failures)
        remedy = next((error.remedy for error in failures if error.remedy), "")
        raise (UnreachableError if unreachable else NodeError)(
            f"no key server has it: {said}" if said else "no address is known for it",
            where=f"key {key.fingerprint}",
            remedy=remedy or f"put the key's file at {CACHE}/{key.fingerprint}.asc",
        )

    def keep(self, found: Found) -> None:
        """Put a key into the cache, named after what it is."""
        packets = keypolicy.minimal(found.certificate)
        self.host.write(f"{CACHE}/{found.certificate.fingerprint}.pgp", packets)

    def _pick(self, fingerprint: str, data: bytes, place: str) -> Found:
        try:
            certificates = openpgp.read(data)
        except openpgp.OpenPGPError as error:
            raise NodeError(str(error), where=place) from None
        for certificate in certificates:
            if certificate.fingerprint == fingerprint:
                judgement = keypolicy.judge(certificate, self.now)
                why_not = self.objection(judgement)
                return Found(certificate, judgement, place, why_not)
        held = ", ".join(certificate.fingerprint for certificate in certificates[:4])
        raise NodeError(
            f"answers with {held}, which is not the pinned key",
            where=place,
            remedy="somebody answers in the vendor's name, or the vendor has a new key: "
            "ask the vendor, then pin it",
        )

    def _answer(self, address: str) -> bytes:
        if address not in self._answers:
            try:
                self._answers[address] = self._read(address)
            except NodeError as error:
                self._answers[address] = error
        answer = self._answers[address]
        if isinstance(answer, NodeError):
            raise answer
        return answer

    def _read(self, address: str) -> bytes:
        if address.startswith("file://"):
            data = self.host.read_bytes(urlsplit(address).path)
            if data is None:
                raise NodeError("there is no such file", where=address)
        else:
            data = self._fetch(address)
        if len(data) > LIMIT:
            raise NodeError(f"is larger than {LIMIT} bytes", where=address.partition("?")[0])
        return data

    def _fetch(self, address: str) -> bytes:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return get(self.host, address)
            except (OSError, http.client.HTTPException) as error:
                if attempt == _ATTEMPTS or not _passing(error):
                    raise _unreachable(address, error) from None
            time.sleep(_PAUSE * attempt)
        raise AssertionError("the last attempt returns or raises")


def forget(host: Host) -> None:
    """Empty the cache of what we put there; files that somebody else placed stay."""
    for path in host.glob(CACHE, "*.pgp"):
        host.remove(path)
    if not host.glob(CACHE, "*"):
        host.remove(CACHE)


def get(host: Host, address: str) -> bytes:
    """At most LIMIT + 1 bytes from an https address. Raises OSError and HTTPException."""
    opener = urllib.request.build_opener(
        # Without this one urllib would listen to the variables of our own process.
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPSHandler(context=_context(host)),
        _Through(_proxy(host, address)),
        _SameHost(),
    )
    request = urllib.request.Request(address, headers={"User-Agent": "airlock-node"})  # noqa: S310
    deadline = time.monotonic() + _WHOLE_TIMEOUT
    content = bytearray()
    with opener.open(request, timeout=_TIMEOUT) as answer:
        while len(content) <= LIMIT:
            part = answer.read(min(1 << 16, LIMIT + 1 - len(content)))
            if not part:
                break
            content += part
            if time.monotonic() > deadline:
                raise TimeoutError(f"took longer than {_WHOLE_TIMEOUT:.0f} s")
        promised = answer.headers.get("Content-Length", "")
    # A binary key that ends between two packets would look whole.
    if promised.isdecimal() and len(content) < min(int(promised), LIMIT + 1):
        raise http.client.IncompleteRead(bytes(content), int(promised) - len(content))
    return bytes(content)


def _proxy(host: Host, address: str) -> Optional[ProxyURL]:
    """What children of ours would use, too: the environment of the run."""
    bypass = host.env.get("no_proxy", "").split(",")
    if noproxy.matches(urlsplit(address).hostname or "", [entry for entry in bypass if entry]):
        return None
    proxy = proxyurl.parse(host.env.get("https_proxy"), "https_proxy")
    if proxy is not None and proxy.scheme != "http":
        raise OSError("a proxy that is itself reached by TLS is not supported for keys")
    return proxy


def _context(host: Host) -> ssl.SSLContext:
    """The trust store of the node, which of a mounted image is not that of this machine."""
    store = store_of(host)
    bundle = host.path(store.bundle) if store is not None else None
    if bundle is not None and bundle.is_file():
        # Only that: OpenSSL takes a tenth of a second to read a machine's authorities.
        return ssl.create_default_context(cafile=str(bundle))
    return ssl.create_default_context()


class _Through(urllib.request.BaseHandler):
    """Sends every request through one proxy, also those that follow a redirect."""

    def __init__(self, proxy: Optional[ProxyURL]) -> None:
        self._proxy = proxy

    def https_request(self, request: urllib.request.Request) -> urllib.request.Request:
        """Called by urllib before each request."""
        if self._proxy is not None:
            request.set_proxy(self._proxy.hostport, "http")
            if self._proxy.user is not None:
                pair = f"{self._proxy.user}:{self._proxy.password or ''}".encode()
                value = f"Basic {base64.b64encode(pair).decode()}"
                request.add_header("Proxy-authorization", value)
        return request


class _SameHost(urllib.request.HTTPRedirectHandler):
    """The plan named the hosts, and a redirect must not lead to plain http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: Any,
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> Optional[urllib.request.Request]:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme != "https" or new.hostname != old.hostname:
            raise urllib.error.URLError(f"redirects to {new.scheme}://{new.hostname}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _passing(error: Exception) -> bool:
    """Whether the same question may be answered a moment later."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code in _TRANSIENT
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(
        reason, (TimeoutError, ConnectionError, http.client.HTTPException)
    ) and not isinstance(reason, ssl.SSLError)


def _unreachable(address: str, error: Exception) -> NodeError:
    place = address.partition("?")[0]
    if isinstance(error, urllib.error.HTTPError):
        return UnreachableError(f"answers {error.code}", where=place)
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UnreachableError(
            f"shows a certificate that this node does not trust: {reason.verify_message}",
            where=place,
            remedy="if the proxy opens TLS, name its CA in http-proxy-pem-uri",
        )
    if "407" in str(reason):
        remedy = "the proxy wants other credentials: check http-proxy and https-proxy"
    elif isinstance(reason, str):
        remedy = f"name an address that answers itself in {EXTRA}"
    else:
        remedy = f"let the proxy reach {urlsplit(address).hostname}, or fill {CACHE}"
    return UnreachableError(f"cannot be fetched: {reason}", where=place, remedy=remedy)
