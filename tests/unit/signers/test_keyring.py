"""Keys: create, rotate, revoke; the lists read back by our reader and by virt-firmware's."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from cryptography import x509
from virt.firmware.efi import siglist

from fixtures.pki import SIGNING_DAYS
from fixtures.secrets import Secrets
from harness import cli
from harness.keydb import MICROSOFT
from harness.signers.secret_manager import ENDPOINT
from harness.signers.spec import open_key
from installers import enrolled, signing
from installers.asn1 import Certificate, load_certificate
from installers.collect import efi
from installers.host import Host


def _names(path: Path) -> list[str]:
    return sorted(entry.stem for entry in path.iterdir())


def _firmware(root: Path, **variables: bytes) -> Host:
    """A machine whose firmware holds these variables."""
    host = Host(root)
    for name, value in variables.items():
        guid = enrolled._SHIM if name.startswith("Mok") else efi.IMAGE_SECURITY
        host.write(f"{efi.EFIVARS}/{name}-{guid}", struct.pack("<I", 7) + value)
    return host


def _codes(host: Host, certificate: Certificate) -> list[str]:
    return [refusal.code for refusal in enrolled.refuse(host, certificate)]


def test_B33_create_rotate_revoke(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ring = tmp_path / "ring"
    assert cli.main(["keys", "create", str(ring), "--name", "Ours"]) == 0
    first = load_certificate((ring / "cert.der").read_bytes())
    said = capsys.readouterr().out
    assert f"airlock-signer-fingerprint={first.sha256}" in said
    assert "MicCorUEFCA2011 ended on 2026-06-27" in said
    assert signing.reasons_against(first) == []
    assert (ring / "key.pem").stat().st_mode & 0o777 == 0o600
    with open_key(f"file:{ring}/key.pem", first.sha256):
        pass
    mine = f"airlock-{first.sha256[:16]}"
    assert _names(ring / "db") == sorted([mine, *MICROSOFT.values()])
    assert cli.main(["keys", "create", str(ring)]) == 2
    assert "rotate" in capsys.readouterr().err

    assert cli.main(["keys", "revoke", str(ring), first.sha256]) == 2
    assert "rotate" in capsys.readouterr().err
    assert cli.main(["keys", "rotate", str(ring), "--name", "Ours"]) == 0
    second = load_certificate((ring / "cert.der").read_bytes())
    assert second.sha256 != first.sha256
    # Both are trusted; the old private key is gone.
    assert {mine, f"airlock-{second.sha256[:16]}"} <= set(_names(ring / "db"))
    with open_key(f"file:{ring}/key.pem") as key:
        assert key.sha256 == second.sha256
    before = _firmware(tmp_path / "before", db=(ring / "db.esl").read_bytes())
    assert _codes(before, first) == _codes(before, second) == []

    assert cli.main(["keys", "revoke", str(ring), "beef"]) == 2
    assert first.sha256[:16] in capsys.readouterr().err
    assert cli.main(["keys", "revoke", str(ring), first.sha256[:12]]) == 0
    assert mine not in _names(ring / "db")
    assert _names(ring / "dbx") == [mine]
    lists = {name: (ring / f"{name}.esl").read_bytes() for name in ("db", "dbx")}
    after = _firmware(tmp_path / "after", **lists)
    assert _codes(after, first) == ["driver.revoked"]
    assert _codes(after, second) == []
    # One whose db still has it, and a dbx that names it by hash alone.
    by_hash = lists["dbx"][-(28 + 16 + 48) :]
    both = _firmware(tmp_path / "both", db=(ring / "db.esl").read_bytes(), dbx=by_hash)
    assert _codes(both, first) == ["driver.revoked"]


def test_another_implementation_reads_the_lists(tmp_path: Path) -> None:
    ring = tmp_path / "ring"
    assert cli.main(["keys", "create", str(ring)]) == 0
    database = siglist.EfiSigDB((ring / "db.esl").read_bytes())
    found = {entry.x509.subject.rfc4514_string() for entry in database}
    expected = {
        x509.load_der_x509_certificate(path.read_bytes()).subject.rfc4514_string()
        for path in (ring / "db").iterdir()
    }
    assert found == expected
    assert len(expected) == 5


def test_a_firmware_that_does_not_know_the_certificate(tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert cli.main(["keys", "create", str(tmp_path / name)]) == 0
    ours = load_certificate((tmp_path / "a/cert.der").read_bytes())
    theirs = (tmp_path / "b/db.esl").read_bytes()
    assert _codes(_firmware(tmp_path / "1", db=theirs), ours) == ["driver.not-enrolled"]
    owner = (tmp_path / "a/db.esl").read_bytes()
    assert _codes(_firmware(tmp_path / "2", db=theirs, MokListRT=owner), ours) == []
    assert _codes(Host(tmp_path / "3"), ours) == []


def test_keys_in_secret_manager(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ring, secret = tmp_path / "ring", "projects/p/secrets/modules"
    with Secrets() as double:
        monkeypatch.setenv(ENDPOINT, double.url)
        assert cli.main(["keys", "create", str(ring), "--secret", secret]) == 0
        said = capsys.readouterr().out
        assert "private_secret_name=modules-priv" in said
        assert "modulus_md5sum=" in said
        assert not (ring / "key.pem").exists()
        assert cli.main(["keys", "rotate", str(ring), "--secret", secret]) == 0
        assert "secret_version=2" in capsys.readouterr().out
        spec = f"secret-manager:{secret}-priv/versions/2?certificate={secret}-pub/versions/2"
        with open_key(spec) as key:
            assert key.der == (ring / "cert.der").read_bytes()
    private = b"".join(double.versions[f"{secret}-priv"])
    for path in ring.rglob("*.*"):
        assert path.is_dir() or private[100:160] not in path.read_bytes()


def test_signing_keys_last(tmp_path: Path) -> None:
    assert cli.main(["keys", "create", str(tmp_path / "r")]) == 0
    made = load_certificate((tmp_path / "r/cert.der").read_bytes())
    assert (made.not_after - made.not_before).days == SIGNING_DAYS
