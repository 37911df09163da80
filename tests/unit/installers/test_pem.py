"""Which PEM files may be trusted, and where they come from."""

from __future__ import annotations

import hashlib
import http.server
import shlex
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from fixtures.metadata import MetadataServer
from fixtures.secrets import Secrets
from installers import fetching, pem, pemsource
from installers.config import Config, from_attributes
from installers.errors import ConfigError, NodeError, UnreachableError
from installers.host import Host
from tests.unit.installers.authorities import DAY, NOW, Made, make

GOOD = make()


def test_good_authorities_of_both_kinds() -> None:
    for key in (
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
    ):
        made = make(key=key)
        [certificate] = pem.authorities(made.pem, NOW)
        assert certificate.sha256 == made.sha256
        assert pem.fingerprints(pem.encode(certificate)) == {made.sha256}
        assert pem.encode(certificate).strip() == made.pem.strip()


def test_bundle_is_split_without_doubles() -> None:
    other = make("Intermediate")
    text = b"# a comment\r\n" + GOOD.pem.replace(b"\n", b"\r\n") + other.pem + b"\n" + GOOD.pem
    assert [c.sha256 for c in pem.authorities(text, NOW)] == [GOOD.sha256, other.sha256]


def test_missing_key_usage_is_noted() -> None:
    [certificate] = pem.authorities(make(key_usage=None).pem, NOW)
    assert "Python 3.13" in pem.notes(certificate)[0]


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "no PEM certificate"),
        (b"hello", "no PEM certificate"),
        (b"\x30\x82\x01\x00", "DER, not PEM"),
        (GOOD.pem.replace(b"-----END", b"----END"), "damaged"),
        (GOOD.pem[:-40], "damaged"),
        (GOOD.pem[:200] + GOOD.pem[264:], "block 1 is not a certificate"),
        (GOOD.pem + GOOD.key_pem, "private key"),
        (GOOD.pem.replace(b"CERTIFICATE", b"CERTIFICATE REQUEST"), "is a CERTIFICATE REQUEST"),
        (make(ca=False).pem, "is not a CA"),
        (make(ca=None).pem, "is not a CA"),
        (make(key_usage="other").pem, "not allowed to sign"),
        (make(start=NOW - 9 * DAY, end=NOW - DAY).pem, "expired on 2030-05-31"),
        (make(start=NOW + DAY).pem, "not valid before 2030-06-02"),
        (make(key=rsa.generate_private_key(public_exponent=65537, key_size=1024)).pem, "1024 bits"),
        (make(key=ec.generate_private_key(ec.SECP256K1())).pem, "of a kind"),
        (make(key=dsa.generate_private_key(2048)).pem, "of a kind"),
        (GOOD.pem + make("Leaf", ca=False).pem, r"certificate 2 \(Leaf\) is not a CA"),
    ],
    # Certificates are new each time, and xdist's workers must agree on the names of tests.
    ids=lambda value: value if isinstance(value, str) else "pem",
)
def test_refused(data: bytes, what: str) -> None:
    with pytest.raises(NodeError, match=what) as caught:
        pem.authorities(data, NOW)
    assert caught.value.remedy
    assert caught.value.where == "http-proxy-pem-uri"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_sha1_signature_is_refused() -> None:
    # cryptography refuses to make one.
    made = subprocess.run(
        shlex.split(
            "openssl req -x509 -sha1 -newkey rsa:2048 -nodes -days 9000 -subj /CN=Old"
            " -keyout /dev/null"
        ),
        capture_output=True,
        check=True,
    ).stdout
    with pytest.raises(NodeError, match="sha1WithRSAEncryption"):
        pem.authorities(made, NOW)


@given(st.binary(max_size=300), st.integers(0, len(GOOD.pem)))
def test_damage_is_an_error_and_never_another_one(noise: bytes, at: int) -> None:
    data = GOOD.pem[:at] + noise + GOOD.pem[at:]
    try:
        found = pem.authorities(data, NOW)
    except NodeError:
        return
    assert [certificate.sha256 for certificate in found] == [GOOD.sha256]


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("/etc/ca.pem", "scheme"),
        ("ftp://h/x", "scheme"),
        ("file://etc/ca.pem", "absolute path"),
        ("gs://bucket", "gs://bucket/object"),
        ("secret-manager:projects/p/secrets/s", "versions/NUMBER"),
        ("secret-manager:projects/p/secrets/s/versions/latest", "versions/NUMBER"),
        ("secret-manager:projects/p/secrets/../x/versions/1", "versions/NUMBER"),
        ("gs://Bad_Bucket!/x", "gs://bucket/object"),
        ("https://h/ca.pem", "needs the hash"),
        ("https://h/ca.pem#sha256=12", "64 hex"),
        ("https://u:p@h/ca.pem#sha256=" + "0" * 64, "without credentials"),
        ("https://h/c a.pem#sha256=" + "0" * 64, "characters"),
    ],
)
def test_uris_that_are_refused(uri: str, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        pemsource.parse(uri)


class Web:
    """An HTTP(S) server that gives one body, and notes paths and headers."""

    def __init__(
        self, body: bytes, tls: Made | None = None, status: int = 200, to: str = ""
    ) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, dict(self.headers.items())))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                if to:
                    self.send_header("Location", to)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._file(tls))
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    folder = Path()

    def _file(self, tls: Made) -> Path:
        path = self.folder / "tls.pem"
        path.write_bytes(tls.pem + tls.key_pem)
        return path

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def webs(tmp_path: Path) -> Iterator[list[Web]]:
    Web.folder = tmp_path
    opened: list[Web] = []
    yield opened
    for web in opened:
        web.close()


def fetch(uri: str, config: Config | None = None, root: Path = Path("/")) -> bytes:
    return pemsource.read(pemsource.parse(uri), Host(root), config or Config())


def pinned(url: str, body: bytes) -> str:
    return f"{url}#sha256={hashlib.sha256(body).hexdigest()}"


def test_file_is_read_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_bytes(GOOD.pem)
    assert fetch("file:///ca.pem", root=tmp_path) == GOOD.pem
    with pytest.raises(NodeError, match="no such file"):
        fetch("file:///other.pem", root=tmp_path)
    with pytest.raises(NodeError, match="not the pinned"):
        fetch("file:///ca.pem#sha256=" + "0" * 64, root=tmp_path)


def test_url_goes_through_the_proxy_with_its_password(webs: list[Web]) -> None:
    proxy = Web(GOOD.pem)
    webs.append(proxy)
    url = f"http://bob:p%40%3A%2F%25%23@127.0.0.1:{proxy.port}"
    config = from_attributes({"proxy-uri": url})
    uri = pinned("http://origin.example/ca.pem", GOOD.pem)
    assert fetch(uri, config) == GOOD.pem
    path, headers = proxy.seen[0]
    assert path == "http://origin.example/ca.pem"
    assert headers["Proxy-Authorization"] == "Basic Ym9iOnBAOi8lIw=="


def test_url_that_is_not_to_be_proxied(webs: list[Web]) -> None:
    web = Web(GOOD.pem)
    webs.append(web)
    config = from_attributes({"proxy-uri": "http://127.0.0.1:9"})
    assert fetch(pinned(f"http://127.0.0.1:{web.port}/ca.pem", GOOD.pem), config) == GOOD.pem


def test_interceptor_cannot_change_pinned_content(webs: list[Web]) -> None:
    tls = make("127.0.0.1", ca=False, key_usage=None, san="localhost")
    web = Web(GOOD.pem, tls=tls)
    webs.append(web)
    url = f"https://localhost:{web.port}/ca.pem"
    assert fetch(pinned(url, GOOD.pem)) == GOOD.pem
    with pytest.raises(NodeError, match="not the pinned"):
        fetch(pinned(url, b"another"))


def test_object_with_the_nodes_own_token(webs: list[Web]) -> None:
    store = Web(GOOD.pem)
    webs.append(store)
    with MetadataServer({}) as server:
        server.serve()
        config = from_attributes(
            {"airlock-storage-endpoint": f"http://127.0.0.1:{store.port}"},
            f"http://127.0.0.1:{server.port}",
        )
        assert fetch("gs://bucket/dir/ca.pem", config) == GOOD.pem
    path, headers = store.seen[0]
    assert path == "/storage/v1/b/bucket/o/dir%2Fca.pem?alt=media"
    assert headers["Authorization"] == f"Bearer {server.token}"


SECRET = "projects/p/secrets/proxy-ca"


def secret_config(secrets: Secrets, server: MetadataServer) -> Config:
    given = {"airlock-secrets-endpoint": secrets.url}
    return from_attributes(given, f"http://127.0.0.1:{server.port}")


def test_secret_with_the_nodes_own_token() -> None:
    with MetadataServer({}) as server, Secrets(token=server.token) as secrets:
        server.serve()
        secrets.versions[SECRET] = [b"old", GOOD.pem]
        config = secret_config(secrets, server)
        uri = f"secret-manager:{SECRET}/versions/2"
        assert fetch(uri, config) == GOOD.pem
        assert secrets.requests == [("GET", f"/v1/{SECRET}/versions/2:access")]
        host = f"127.0.0.1:{secrets.port}"
        assert urlsplit(pemsource.address(pemsource.parse(uri), config)).netloc == host
        with pytest.raises(UnreachableError, match="answered 404"):
            fetch(f"secret-manager:{SECRET}/versions/3", config)
        with pytest.raises(NodeError, match="not the pinned"):
            fetch(f"{uri}#sha256=" + "0" * 64, config)
        secrets.damaged = True
        with pytest.raises(UnreachableError, match="CRC32C"):
            fetch(uri, config)


def test_secret_without_a_service_account(webs: list[Web]) -> None:
    web = Web(b"", status=404)
    webs.append(web)
    config = from_attributes(
        {"airlock-secrets-endpoint": "http://127.0.0.1:9"}, f"http://127.0.0.1:{web.port}"
    )
    with pytest.raises(NodeError, match="no service account"):
        fetch(f"secret-manager:{SECRET}/versions/1", config)


def test_secret_address_follows_the_universe() -> None:
    config = from_attributes({"universe-domain": "apis.sovereign.example"})
    source = pemsource.parse(f"secret-manager:{SECRET}/versions/7")
    url = f"https://secretmanager.apis.sovereign.example/v1/{SECRET}/versions/7:access"
    assert pemsource.address(source, config) == url


def test_token_does_not_follow_a_redirect(webs: list[Web]) -> None:
    thief = Web(GOOD.pem)
    store = Web(b"", status=302, to=f"http://127.0.0.1:{thief.port}/x")
    webs += [thief, store]
    with MetadataServer({}) as server:
        server.serve()
        config = from_attributes(
            {"airlock-storage-endpoint": f"http://127.0.0.1:{store.port}"},
            f"http://127.0.0.1:{server.port}",
        )
        with pytest.raises(UnreachableError, match="answered 302"):
            fetch("gs://bucket/ca.pem", config)
    assert thief.seen == []


def test_object_address_follows_the_universe() -> None:
    config = from_attributes({"universe-domain": "apis.sovereign.example"})
    url = pemsource.object_url(pemsource.parse("gs://bucket/x"), config)
    assert url == "https://storage.apis.sovereign.example/storage/v1/b/bucket/o/x?alt=media"


@pytest.mark.parametrize(
    ("status", "what"),
    [(404, "answered 404"), (403, "service account"), (407, "other credentials")],
)
def test_answers_that_are_no_file(webs: list[Web], status: int, what: str) -> None:
    web = Web(b"", status=status)
    webs.append(web)
    with pytest.raises(UnreachableError, match=what):
        fetch(pinned(f"http://127.0.0.1:{web.port}/x", b""))


def test_dead_proxy_is_could_not_tell() -> None:
    config = from_attributes({"proxy-uri": "http://bob:c%40nary@127.0.0.1:9"})
    with pytest.raises(UnreachableError, match="cannot be fetched") as caught:
        fetch(pinned("http://origin.example/x", b""), config)
    assert "nary" not in str(caught.value)


def test_too_large(webs: list[Web]) -> None:
    body = b"x" * (fetching.LIMIT + 1)
    web = Web(body)
    webs.append(web)
    with pytest.raises(NodeError, match="larger than"):
        fetch(pinned(f"http://127.0.0.1:{web.port}/x", body))
