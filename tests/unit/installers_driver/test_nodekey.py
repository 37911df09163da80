"""Signing on the node with a key from Secret Manager, as today's scripts do it, but in memory."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import pytest

from fixtures.metadata import MetadataServer
from fixtures.pki import Identity
from fixtures.secrets import Secrets
from installers import asn1, config, modsig, secretmanager, signed
from installers.config import Config
from installers.errors import ConfigError, NodeError
from installers.host import Host
from installers.journal import JOURNAL, Journal
from tests.unit.installers_driver import material

PROJECT = "projects/p/secrets"
KERNEL = "6.1.0-56-cloud-amd64"
BODY = material.module({"name": "nvidia", "vermagic": f"{KERNEL} SMP "})


@pytest.fixture
def secrets(ours: Identity) -> Iterator[Secrets]:
    """A project with our key as version 2, in the form that today's helper stores it."""
    with Secrets(token="t0ken") as double:
        double.versions[f"{PROJECT}/key"] = [b"old", ours.key_pem]
        double.versions[f"{PROJECT}/cert"] = [b"old", base64.b64encode(ours.der)]
        yield double


@pytest.fixture
def metadata_url() -> Iterator[str]:
    with MetadataServer(token="t0ken").serve() as server:
        yield server.url


def _config(secrets: Secrets, metadata_url: str, **more: str) -> Config:
    attributes = {
        "private_secret_name": "key",
        "public_secret_name": "cert",
        "secret_project": "p",
        "secret_version": "2",
        "airlock-secrets-endpoint": secrets.url,
        **more,
    }
    return config.from_attributes(attributes, metadata_url)


def test_signed_with_the_key_of_a_fixed_version(
    tmp_path: Path, secrets: Secrets, metadata_url: str, ours: Identity
) -> None:
    host = Host(tmp_path)
    modulus = f"Modulus={ours.key.private_numbers().public_numbers.n:X}\n"  # type: ignore[union-attr]
    md5 = hashlib.md5(modulus.encode(), usedforsecurity=False).hexdigest()
    one = signed.Signing(_config(secrets, metadata_url, modulus_md5sum=md5))
    assert one.way == "on-node"
    assert "weaker choice" in one.notes[0]
    assert one.problems(host, KERNEL) == []
    ready, certificate = one.sign(host, {"nvidia.ko": BODY}, KERNEL, Journal(host).log("driver"))
    assert certificate is not None
    assert certificate.sha256 == ours.sha256
    seen = modsig.examine(ready["nvidia.ko"], [asn1.read_certificate(ours.der)])
    assert (seen.signatures, seen.digest_ok) == (1, True)
    asked = {path for _, path in secrets.requests}
    assert asked == {f"/v1/{PROJECT}/{name}/versions/2:access" for name in ("key", "cert")}
    _nothing_of_the_key(tmp_path, ours)


def _nothing_of_the_key(root: Path, who: Identity) -> None:
    """Neither the key nor a line of its PEM nor a prime is in any file below ``root``."""
    lines = who.key_pem.splitlines()[1:-1]
    prime = who.key.private_numbers().p  # type: ignore[union-attr]
    needles = [*lines, str(prime).encode(), prime.to_bytes(128, "big")]
    files = [path for path in root.rglob("*") if path.is_file()]
    assert files, "the journal at least was written"
    for path in files:
        data = path.read_bytes()
        assert not any(needle in data for needle in needles), path


def _refusal(host: Host, one: Config) -> tuple[str, str]:
    (refusal,) = signed.Signing(one).problems(host, KERNEL)
    assert refusal.remedy
    return refusal.code, refusal.reason


def test_refusals_and_plans_ask_nobody(
    tmp_path: Path, secrets: Secrets, metadata_url: str, ours: Identity
) -> None:
    one = signed.Signing(_config(secrets, metadata_url))
    assert one.refuse(Host(tmp_path), KERNEL) == []
    assert one.fingerprint(Host(tmp_path, offline=True), {}) is None
    record = {"key": "p/key/2", "certificate": "of the record"}
    assert one.fingerprint(Host(tmp_path), record) == "of the record"
    assert secrets.requests == []
    # Another version of the secret is another key: that is worth a question.
    assert one.fingerprint(Host(tmp_path), {**record, "key": "p/key/1"}) == ours.sha256
    secrets.damaged = True
    with pytest.raises(NodeError, match="CRC32C"):
        signed.Signing(_config(secrets, metadata_url)).require(Host(tmp_path), KERNEL)


def test_key_and_certificate_must_match(
    tmp_path: Path, secrets: Secrets, metadata_url: str, stranger: Identity
) -> None:
    secrets.versions[f"{PROJECT}/key"][1] = stranger.key_pem
    code, reason = _refusal(Host(tmp_path), _config(secrets, metadata_url))
    assert code == "driver.signer"
    assert "not that of the certificate" in reason


@pytest.mark.parametrize(
    "key", ["modulus_md5sum", "cert_modulus_md5sum", "airlock-signer-fingerprint"]
)
def test_B31_the_expected_key_is_enforced(
    tmp_path: Path, secrets: Secrets, metadata_url: str, key: str
) -> None:
    digits = 64 if key.endswith("fingerprint") else 32
    one = _config(secrets, metadata_url, **{key: "ab" * (digits // 2)})
    code, reason = _refusal(Host(tmp_path), one)
    assert code == "driver.certificate"
    assert "not the expected" in reason


def test_what_secret_manager_does_not_give(
    tmp_path: Path, secrets: Secrets, metadata_url: str
) -> None:
    host = Host(tmp_path)
    secrets.damaged = True
    assert "CRC32C" in _refusal(host, _config(secrets, metadata_url))[1]
    secrets.damaged = False
    assert "404" in _refusal(host, _config(secrets, metadata_url, secret_version="3"))[1]
    assert "certificate" in _refusal(host, _config(secrets, metadata_url, secret_version="1"))[1]
    secrets.token = "other"
    code, reason = _refusal(host, _config(secrets, metadata_url))
    assert (code, "401" in reason) == ("driver.signer", True)


def test_the_checksum_is_googles() -> None:
    for data in (b"", b"123456789", bytes(range(256)) * 9):
        assert secretmanager.crc32c(data) == google_crc32c.value(data)


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"private_secret_name": "k"}, "public_secret_name: is needed"),
        ({"private_secret_name": "k", "public_secret_name": "c"}, "secret_project: is needed"),
        (
            {
                "private_secret_name": "k",
                "public_secret_name": "c",
                "secret_project": "p",
                "secret_version": "latest",
            },
            "'latest' is not a version's number",
        ),
        ({"modulus_md5sum": "xyz"}, "modulus_md5sum: is not 32 hex digits"),
        ({"airlock-signer-fingerprint": "ab"}, "is not 64 hex digits"),
        (
            {"airlock-unsigned-modules": "true", "airlock-secure-boot": "required"},
            "do not go together",
        ),
        ({"airlock-unsigned-modules": "true", "airlock-signer": "/s"}, "do not go together"),
    ],
)
def test_metadata_that_is_refused(attributes: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config.from_attributes(attributes)


def test_an_empty_name_means_no_signing() -> None:
    assert config.from_attributes({"private_secret_name": ""}).node_key is None


def test_a_certificate_without_purpose_where_the_kernel_asks_for_none(
    tmp_path: Path, secrets: Secrets, metadata_url: str
) -> None:
    """Today's helper makes certificates without codeSigning; only some kernels mind."""
    who = material.identity(purposes=None)
    secrets.versions[f"{PROJECT}/key"][1] = who.key_pem
    secrets.versions[f"{PROJECT}/cert"][1] = base64.b64encode(who.der)
    host, one = Host(tmp_path), _config(secrets, metadata_url)
    assert "codeSigning" in _refusal(host, one)[1]
    host.write(f"/boot/config-{KERNEL}", "CONFIG_MODULE_SIG=y\n")
    assert signed.Signing(one).problems(host, KERNEL) == []
    host.write(f"/boot/config-{KERNEL}", "CONFIG_CHECK_CODESIGN_EKU=y\n")
    assert "codeSigning" in _refusal(host, one)[1]


def test_the_journal_says_which_way(tmp_path: Path, secrets: Secrets, metadata_url: str) -> None:
    host = Host(tmp_path)
    one = signed.Signing(_config(secrets, metadata_url))
    one.sign(host, {"nvidia.ko": BODY}, KERNEL, Journal(host).log("driver"))
    lines = [json.loads(line) for line in host.path(JOURNAL).read_text().splitlines()]
    assert any(line.get("way") == "on-node" for line in lines)
