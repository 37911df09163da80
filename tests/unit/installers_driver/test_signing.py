"""The client of the signing socket, against the real signer and against broken ones."""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from fixtures.pki import Identity
from fixtures.signer import SignerServer
from installers import asn1, modsig, signing
from installers.signing import Signer, SigningError
from tests.unit.installers_driver import material


def test_several_requests_on_one_connection(server: SignerServer) -> None:
    with Signer(str(server.path)) as signer:
        certificate = signer.certificate()
        assert certificate.sha256 == server.authority.module.sha256
        for name in ("nvidia.ko", "nvidia-uvm.ko"):
            body = material.module({"name": name})
            cms, fingerprint = signer.sign(name, body)
            assert fingerprint == certificate.sha256
            seen = modsig.examine(modsig.attach(body, cms), [certificate])
            assert (seen.signatures, seen.digest_ok) == (1, True)
    assert [entry["name"] for entry in server.signatures] == ["nvidia.ko", "nvidia-uvm.ko"]


def test_the_signers_refusal_is_passed_on(server: SignerServer) -> None:
    body = material.module({"name": "nvidia"})
    with Signer(str(server.path)) as signer:
        cms, _ = signer.sign("nvidia.ko", body)
        with pytest.raises(SigningError, match="the signer refuses"):
            signer.sign("nvidia.ko", modsig.attach(body, cms))
        assert signer.certificate().sha256 == server.authority.module.sha256


def test_no_signer(tmp_path: Path) -> None:
    with pytest.raises(SigningError, match="does not answer"):
        Signer(str(tmp_path / "nobody"))


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[Callable[[bytes], str]]:
    """Starts a signer that answers one request with given bytes and hangs up."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    threads = []

    def start(answer: bytes) -> str:
        path = str(tmp_path / "s")
        listener.bind(path)
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[0].start()
        return path

    yield start
    for thread in threads:
        thread.join(5)
    listener.close()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"", "closed the connection"),
        (b"hello\n", "not JSON"),
        (b"[1]\n", "not an object"),
        (b'{"ok": true}\n', "states a size of None"),
        (b'{"ok": true, "size": -4}\n', "states a size of -4"),
        (b'{"ok": true, "size": 10, "fingerprint": ""}\nshort', "in the middle"),
        (b'{"ok": true, "size": 3, "fingerprint": ""}\nabc', "cannot be read"),
        (b'{"ok": false, "error": "not today"}\n', "refuses: not today"),
        (b"x" * 70000, "no end of line"),
    ],
)
def test_broken_signers_are_named(broken: Callable[[bytes], str], answer: bytes, says: str) -> None:
    with Signer(broken(answer), timeout=5) as signer, pytest.raises(SigningError, match=says):
        signer.certificate()


def test_another_certificate_than_stated(broken: Callable[[bytes], str], ours: Identity) -> None:
    head = {"ok": True, "size": len(ours.der), "fingerprint": "00" * 32}
    path = broken(json.dumps(head).encode() + b"\n" + ours.der)
    with Signer(path) as signer, pytest.raises(SigningError, match="another fingerprint"):
        signer.certificate()


def test_a_silent_signer_ends_at_the_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(1)
        with Signer(str(tmp_path / "s"), timeout=0.2) as signer, pytest.raises(SigningError):
            signer.certificate()


def test_reasons_against_a_certificate(ours: Identity) -> None:
    def against(who: Identity) -> list[str]:
        return signing.reasons_against(asn1.read_certificate(who.der))

    assert against(ours) == []
    assert "codeSigning is missing" in against(material.identity(purposes=None))[0]
    wrong = [ExtendedKeyUsageOID.SERVER_AUTH]
    assert "codeSigning is missing" in against(material.identity(purposes=wrong))[0]
    assert "expired" in against(material.identity(days=(-9, -1)))[0]
    assert "not valid before" in against(material.identity(days=(3, 9)))[0]
    assert "not RSA-2048" in against(material.identity(1024))[0]
    assert "ec 384" in against(material.ec_identity())[0]
    later = dt.datetime.now(dt.UTC) + dt.timedelta(days=500)
    assert len(signing.reasons_against(asn1.read_certificate(ours.der), later)) == 1
