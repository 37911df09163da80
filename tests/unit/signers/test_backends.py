"""Every place of a key signs the same module; what does not match is refused before it signs."""

from __future__ import annotations

import argparse
import base64
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.pki import Identity, make_ca, make_leaf, make_signer
from fixtures.secrets import Secrets
from fixtures.signer import SignerServer
from harness import cli
from harness.commands.keys import _serve, _tls
from harness.errors import InfraError, UsageError
from harness.signers.base import OneKey, checked
from harness.signers.file import FileKey
from harness.signers.pkcs11 import parse_uri
from harness.signers.secret_manager import ENDPOINT
from harness.signers.spec import open_key
from installers import audit, modsig
from installers.asn1 import read_certificate
from installers.signing import Signer, SigningError
from tests.unit.installers_driver import material

BODY = material.module({"name": "nvidia", "vermagic": "6.1.0 SMP "})
KEY, CERT = "projects/p/secrets/k-priv", "projects/p/secrets/k-pub"


@pytest.fixture(scope="module")
def ours() -> Identity:
    return make_signer("Ours")


@pytest.fixture(scope="module")
def stranger() -> Identity:
    return make_signer("Stranger")


@pytest.fixture
def key_file(tmp_path: Path, ours: Identity) -> Path:
    path = tmp_path / "key.pem"
    path.write_bytes(ours.key_and_cert())
    path.chmod(0o600)
    return path


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch, ours: Identity) -> Iterator[Secrets]:
    with Secrets() as double:
        double.versions = {KEY: [ours.key_pem], CERT: [base64.b64encode(ours.der)]}
        monkeypatch.setenv(ENDPOINT, double.url)
        yield double


def _signs(spec: str, ours: Identity, fingerprint: str = "") -> None:
    with open_key(spec, fingerprint) as key:
        signed = modsig.attach(BODY, key.cms(BODY))
    seen = modsig.examine(signed, [read_certificate(ours.der)])
    assert (seen.signatures, seen.digest_ok) == (1, True)


def test_a_file(key_file: Path, tmp_path: Path, ours: Identity) -> None:
    _signs(f"file:{key_file}", ours, ours.sha256.upper())
    alone = tmp_path / "alone.pem"
    alone.write_bytes(ours.key_pem)
    alone.chmod(0o600)
    (tmp_path / "c.der").write_bytes(ours.der)
    _signs(f"file:{alone}?certificate={tmp_path}/c.der", ours)


def test_key_and_certificate_must_match(key_file: Path, tmp_path: Path, stranger: Identity) -> None:
    (tmp_path / "c.der").write_bytes(stranger.der)
    with (
        pytest.raises(UsageError, match="not that of the certificate"),
        open_key(f"file:{key_file}?certificate={tmp_path}/c.der"),
    ):
        pass
    for expected in (stranger.sha256, "ab" * 16):
        with (
            pytest.raises(UsageError, match="not the expected"),
            open_key(f"file:{key_file}", expected),
        ):
            pass
    key_file.chmod(0o644)
    with pytest.raises(UsageError, match="read by others"), open_key(f"file:{key_file}"):
        pass


def test_secret_manager_by_googles_own_library(secrets: Secrets, ours: Identity) -> None:
    spec = f"secret-manager:{KEY}/versions/1?certificate={CERT}/versions/1"
    _signs(spec, ours)
    assert [path for _, path in secrets.requests] == [
        f"/v1/{KEY}/versions/1:access",
        f"/v1/{CERT}/versions/1:access",
    ]
    secrets.damaged = True
    with pytest.raises(InfraError, match="CRC32C"), open_key(spec):
        pass
    secrets.damaged = False
    with (
        pytest.raises(InfraError, match="not found"),
        open_key(spec.replace("versions/1?", "versions/7?")),
    ):
        pass
    with (
        pytest.raises(UsageError, match="latest"),
        open_key(spec.replace("versions/1?", "versions/latest?")),
    ):
        pass


def test_remote_with_both_sides_proved(
    key_file: Path, tmp_path: Path, ours: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    server_ca, client_ca = make_ca("Servers"), make_ca("Clients")
    (tmp_path / "server-ca.pem").write_bytes(server_ca.pem)
    (tmp_path / "client-ca.pem").write_bytes(client_ca.pem)
    (tmp_path / "server.pem").write_bytes(make_leaf(server_ca, ["127.0.0.1"]).key_and_cert())
    for name, ca in (("client", client_ca), ("nobody", make_ca("Nobody"))):
        leaf = make_leaf(ca, ["builder"], client=True)
        (tmp_path / f"{name}.pem").write_bytes(leaf.key_and_cert())

    class Arguments:
        identity, clients = tmp_path / "server.pem", tmp_path / "client-ca.pem"

    tls = _tls(Arguments)  # type: ignore[arg-type]
    with (
        open_key(f"file:{key_file}") as key,
        SignerServer(OneKey(key), tmp_path / "unused", address=("127.0.0.1", 0), tls=tls) as server,
    ):
        assert server.address is not None
        place = f"remote:127.0.0.1:{server.address[1]}?ca={tmp_path}/server-ca.pem"
        _signs(f"{place}&identity={tmp_path}/client.pem", ours, ours.sha256)
        with pytest.raises(InfraError), open_key(f"{place}&identity={tmp_path}/nobody.pem"):
            pass
        other = place.replace("server-ca", "client-ca")
        with (
            pytest.raises(InfraError, match="certificate"),
            open_key(f"{other}&identity={tmp_path}/client.pem"),
        ):
            pass
        # The command signs files through it, and says what it cannot.
        module = tmp_path / "nvidia.ko"
        module.write_bytes(BODY)
        words = ["keys", "sign", "--key", f"{place}&identity={tmp_path}/client.pem", str(module)]
        assert cli.main(words) == 0
        assert audit.audit_module(module, [read_certificate(ours.der)]) == []
        module.write_bytes(b"text")
        assert cli.main(words) == 3
        assert "nvidia.ko: not an ELF file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("file", "names no key"),
        ("floppy:a", "there is no 'floppy'"),
        ("file:/nowhere/key.pem", "No such file"),
        ("file:/k?password=x", "does not know password"),
        ("secret-manager:projects/p/secrets/k/versions/1", "needs certificate="),
        ("remote:host?ca=a&identity=b", "is not HOST:PORT"),
        ("remote:host:1?ca=a", "needs identity="),
        ("pkcs11:token=t", "names no object"),
        ("pkcs11:token", "has no value"),
        ("pkcs11:token=t;object=o?pin-value=1234", "seen by everybody"),
        ("pkcs11:token=t;object=o?slot=3", "does not know slot"),
    ],
)
def test_what_is_no_key(spec: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught, open_key(spec):
        pass
    assert "1234" not in str(caught.value)


def test_a_pkcs11_uri() -> None:
    uri = "pkcs11:token=My%20Token;object=module?module-path=/l.so&pin-source=file:/p"
    assert parse_uri(uri) == (
        {"token": "My Token", "object": "module"},
        {"module-path": "/l.so", "pin-source": "file:/p"},
    )


def test_serve_says_what_is_missing(capsys: pytest.CaptureFixture[str], key_file: Path) -> None:
    words = ["keys", "serve", "--key", f"file:{key_file}"]
    for more, says in (
        ([], "--socket or --listen"),
        (["--listen", "localhost"], "is not HOST:PORT"),
        (["--listen", "localhost:1"], "who asks must be known"),
        (["--socket", "/nowhere/s"], "cannot listen"),
    ):
        assert cli.main([*words, *more]) in (2, 3)
        assert says in capsys.readouterr().err


def test_the_command_serves_a_socket(
    tmp_path: Path, key_file: Path, ours: Identity, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = argparse.Namespace(
        key=f"file:{key_file}", fingerprint=ours.sha256, socket=tmp_path / "s", listen=""
    )
    stop = threading.Event()
    thread = threading.Thread(target=_serve, args=(arguments, stop))
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "s").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        with Signer(str(tmp_path / "s")) as signer:
            assert signer.certificate().sha256 == ours.sha256
            cms, _ = signer.sign("nvidia.ko", BODY)
    finally:
        stop.set()
        thread.join(20)
    assert modsig.examine(modsig.attach(BODY, cms), [read_certificate(ours.der)]).digest_ok
    assert not (tmp_path / "s").exists()
    assert f"signing with {ours.sha256}" in capsys.readouterr().out


def test_what_the_place_of_a_key_refuses_reaches_the_client(
    tmp_path: Path, ours: Identity, key_file: Path
) -> None:
    """A token that was pulled out: the client reads why, and the connection goes on."""

    class Pulled(FileKey):
        def raw(self, data: bytes) -> bytes:
            if data == BODY:
                raise InfraError("the token is gone")
            return super().raw(data)

    key = checked(Pulled(key_file))
    with SignerServer(OneKey(key), tmp_path / "s") as server, Signer(str(server.path)) as signer:
        with pytest.raises(SigningError, match="the token is gone"):
            signer.sign("nvidia.ko", BODY)
        assert signer.certificate().sha256 == ours.sha256
