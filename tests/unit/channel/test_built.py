"""Facts of the cache's entry beside the modules, and of apt's keyrings and sources."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from fixtures.pki import Authority, Identity, make_signer
from fixtures.repository import Repository
from fixtures.signer import sign
from installers import audit, kernels
from installers.cache import manifest
from installers.cache.manifest import Content, Manifest
from installers.collect import built, repositories
from installers.collect.reader import Reader

KERNEL = "6.1.0-56-cloud-amd64"
MADE = Manifest("kernel-modules", {"kernel": KERNEL}, {"nvidia.ko": Content("ab" * 32, 4)})


@pytest.fixture(scope="module")
def signer() -> Identity:
    return make_signer("Signer")


def node(root: Path, envelope: bytes | None, key: str = MADE.key) -> Path:
    place = root / kernels.module_directory(KERNEL).lstrip("/")
    place.mkdir(parents=True)
    facts = {"cache_key": key, "cache": "hit", "cache_store": "file:///c"}
    facts |= {"driver": "570.1", "kernel": KERNEL}
    (place / audit.RECORD).write_text(json.dumps({"schema": 1, "provenance": facts}))
    if envelope is not None:
        (place / kernels.ENTRY).write_bytes(envelope)
    return place / kernels.ENTRY


def test_a_signed_entry(tmp_path: Path, signer: Identity) -> None:
    node(tmp_path, manifest.encode(MADE, lambda data: (sign(signer, data), signer.der)))
    (found,) = built.collect(Reader(str(tmp_path)))
    assert found == {
        "kernel": KERNEL,
        "key": MADE.key,
        "outcome": "hit",
        "store": "file:///c",
        "driver": "570.1",
        "made_for": KERNEL,
        "signer": signer.sha256,
        "files": {"nvidia.ko": "ab" * 32},
        "against": "",
    }


def test_what_is_wrong_with_an_entry_is_told(tmp_path: Path, signer: Identity) -> None:
    envelope = manifest.encode(MADE, lambda data: (sign(signer, data), signer.der))
    entry = node(tmp_path, None)

    def told() -> tuple[str | None, str]:
        (found,) = built.collect(Reader(str(tmp_path)))
        return found["signer"], found["against"]

    assert told() == (None, f"there is no {kernels.ENTRY} beside the modules")
    entry.write_bytes(manifest.encode(MADE))
    assert told() == (None, "the manifest is not signed")
    entry.write_bytes(envelope.replace(b"ab" * 32, b"cd" * 32))
    assert told() == (signer.sha256, "the signature does not fit the manifest")
    entry.write_bytes(b"{")
    assert "cannot be read" in told()[1]
    other = Manifest("kernel-modules", {"kernel": "other"}, MADE.files)
    entry.write_bytes(manifest.encode(other))
    assert told() == (None, "the manifest belongs to other inputs")
    (entry.parent / audit.RECORD).write_text("{")
    assert built.collect(Reader(str(tmp_path)))[0]["key"] is None


def test_a_node_without_modules(tmp_path: Path) -> None:
    assert built.collect(Reader(str(tmp_path))) == []


def test_keyrings_and_sources(tmp_path: Path) -> None:
    rings, sources = tmp_path / "usr/share/keyrings", tmp_path / "etc/apt/sources.list.d"
    rings.mkdir(parents=True)
    sources.mkdir(parents=True)
    repository = Repository(Authority(tmp_path / "keys"))
    binary = _dearmor(repository.armored)
    (rings / "airlock-lab.gpg").write_bytes(binary)
    (rings / "airlock-lab.gpg").chmod(0o644)
    (rings / "airlock-box.gpg").write_bytes(bytes(8) + b"KBXf" + bytes(40))
    (rings / "vendor.asc").write_bytes(repository.armored)
    (sources / "airlock-lab.sources").write_text(
        "Types: deb\nURIs: https://one.test/deb\nSuites: stable\n"
        "Signed-By: /usr/share/keyrings/airlock-lab.gpg\n\n"
        "Types: deb\nURIs: https://off.test/deb\nSuites: stable\nEnabled: no\n"
    )
    (sources / "vendor.sources").write_text(
        "Types: deb\nURIs: https://two.test/deb\nSuites: stable\n"
        "Signed-By: /usr/share/keyrings/vendor.asc\n\nTypes: deb\nURIs: https://three.test/\n"
        "Suites: ./\nSigned-By: /usr/share/keyrings/gone.gpg\n"
    )
    found = repositories.collect(Reader(str(tmp_path)))
    shown = {ring["path"].rpartition("/")[2]: ring for ring in found["keyrings"]}
    assert shown["airlock-lab.gpg"] == {
        "path": "/usr/share/keyrings/airlock-lab.gpg",
        "mode": "0644",
        "format": "binary",
        "fingerprints": [repository.fingerprint],
        "keys": [{"fingerprint": repository.fingerprint, "ends": None, "unusable": "", "weak": ""}],
        "why": None,
    }
    assert shown["airlock-box.gpg"]["format"] == "keybox"
    assert shown["airlock-box.gpg"]["why"]
    assert shown["vendor.asc"]["format"] == "armored"
    assert shown["gone.gpg"]["why"] == "absent"
    assert [(entry["uris"], entry["signed_by"]) for entry in found["sources"]] == [
        ("https://one.test/deb", "/usr/share/keyrings/airlock-lab.gpg"),
        ("https://two.test/deb", "/usr/share/keyrings/vendor.asc"),
        ("https://three.test/", "/usr/share/keyrings/gone.gpg"),
    ]


def test_sources_of_one_line_and_keys_for_everything(tmp_path: Path) -> None:
    apt, owned = tmp_path / "etc/apt", tmp_path / "var/lib/dpkg/info"
    for folder in (apt / "sources.list.d", apt / "trusted.gpg.d", owned):
        folder.mkdir(parents=True)
    (apt / "sources.list").write_text(
        "deb https://one.test/debian bookworm main\n# deb https://off.test/ x y\n"
        "deb [arch=amd64 signed-by=/a.gpg,/b.gpg] https://two.test/deb stable main\n"
    )
    (apt / "sources.list.d/three.list").write_text("deb [trusted=yes] https://three.test/ ./\n")
    (apt / "sources.list.d/four.sources").write_text(
        "Types: deb\nURIs: https://four.test/\nSuites: ./\nAllow-Insecure: Yes\n"
    )
    (apt / "sources.list.d/five.list.save").write_text("deb https://five.test/ ./\n")
    for name in ("archive.asc", "vendor.gpg", "vendor.gpg~"):
        (apt / "trusted.gpg.d" / name).write_bytes(b"x")
    (apt / "trusted.gpg").write_bytes(b"")
    (owned / "debian-archive-keyring.list").write_text("/etc/apt/trusted.gpg.d/archive.asc\n")
    found = repositories.collect(Reader(str(tmp_path)))
    assert [(s["uris"], s["signed_by"], s["unchecked"]) for s in found["sources"]] == [
        ("https://one.test/debian", None, None),
        ("https://two.test/deb", "/a.gpg /b.gpg", None),
        ("https://four.test/", None, "allow-insecure=Yes"),
        ("https://three.test/", None, "trusted=yes"),
    ]
    assert found["trusted"] == [
        {"path": "/etc/apt/trusted.gpg.d/archive.asc", "owner": "debian-archive-keyring"},
        {"path": "/etc/apt/trusted.gpg.d/vendor.gpg", "owner": None},
    ]
    (apt / "trusted.gpg").write_bytes(b"key")
    again = repositories.collect(Reader(str(tmp_path)))
    assert {"path": "/etc/apt/trusted.gpg", "owner": None} in again["trusted"]


def test_module_hashes_with_and_without_their_signature() -> None:
    from installers.collect.modules import _hashes

    assert _hashes(b"bodytail", 4) == {
        "sha256": hashlib.sha256(b"bodytail").hexdigest(),
        "body_sha256": hashlib.sha256(b"body").hexdigest(),
    }


def _dearmor(text: bytes) -> bytes:
    from installers import armor

    return armor.dearmor(text)
