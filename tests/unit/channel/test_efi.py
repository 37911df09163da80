"""Signature lists: what firmware writes is read, and nothing else is."""

from __future__ import annotations

import contextlib
import datetime
import os
import struct
import uuid
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from installers.collect import efi, secure_boot
from installers.collect.reader import Reader

SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328")

uuids = st.builds(lambda raw: uuid.UUID(bytes=raw), st.binary(min_size=16, max_size=16))


def written(kind: uuid.UUID, entries: list[tuple[uuid.UUID, bytes]], header: bytes = b"") -> bytes:
    """One EFI_SIGNATURE_LIST; all entries are of one size."""
    each = 16 + len(entries[0][1])
    body = b"".join(owner.bytes_le + data for owner, data in entries)
    head = kind.bytes_le + struct.pack("<III", 28 + len(header) + len(body), len(header), each)
    return head + header + body


@st.composite
def lists(draw: st.DrawFn) -> tuple[uuid.UUID, list[tuple[uuid.UUID, bytes]], bytes]:
    """A kind, entries of equal size, and a header."""
    size = draw(st.integers(0, 64))
    entry = st.tuples(uuids, st.binary(min_size=size, max_size=size))
    header = draw(st.binary(max_size=8))
    return draw(uuids), draw(st.lists(entry, min_size=1, max_size=5)), header


@given(st.lists(lists(), max_size=4))
def test_what_is_written_is_read(
    wanted: list[tuple[uuid.UUID, list[tuple[uuid.UUID, bytes]], bytes]],
) -> None:
    data = b"".join(written(*one) for one in wanted)
    expected = [(kind, owner, body) for kind, entries, _ in wanted for owner, body in entries]
    assert [tuple(found) for found in efi.signatures(data)] == expected


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(efi.SignatureListError):
        found = efi.signatures(data)
        assert sum(len(entry.data) + 16 for entry in found) <= len(data)


@given(lists(), st.data())
def test_a_list_that_is_cut_off_is_refused(
    one: tuple[uuid.UUID, list[tuple[uuid.UUID, bytes]], bytes], data: st.DataObject
) -> None:
    whole = written(*one)
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(efi.SignatureListError):
        efi.signatures(whole[:cut])


def certificate(name: str) -> bytes:
    """A DER certificate with this common name."""
    key = rsa.generate_private_key(65537, 2048)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.DER)


def test_a_db_names_its_certificates() -> None:
    der = certificate("Airlock lab module signing")
    owner = uuid.uuid4()
    data = written(efi.X509, [(owner, der)]) + written(SHA256, [(owner, bytes(32))])
    listed = secure_boot.database(data + written(efi.X509, [(owner, b"no certificate")]))
    assert [entry["subject_cn"] for entry in listed] == ["Airlock lab module signing", None]
    assert [found.der for found in secure_boot.certificates(data)] == [der]


def test_a_variable_is_read_without_its_attributes(tmp_path: Path) -> None:
    folder = tmp_path / efi.EFIVARS.lstrip("/")
    folder.mkdir(parents=True)
    (folder / f"SecureBoot-{efi.GLOBAL}").write_bytes(b"\6\0\0\0\1")
    (folder / f"SetupMode-{efi.GLOBAL}").write_bytes(b"\6\0\0\0\0")
    reader, variables = Reader(str(tmp_path)), efi.Variables()
    assert variables.flag(reader, "SecureBoot", "a") is True
    assert variables.flag(reader, "SetupMode", "b") is False
    assert reader.unreadable == {}
    assert variables.flag(reader, "Missing", "secure_boot.missing") is None
    variables.close()
    assert "No such file" in reader.unreadable["secure_boot.missing"]


def test_a_variable_is_read_once_until_one_is_written(tmp_path: Path) -> None:
    folder = tmp_path / efi.EFIVARS.lstrip("/")
    folder.mkdir(parents=True)
    file = folder / f"db-{efi.IMAGE_SECURITY}"
    other = folder / "Boot0000"
    reader, variables = Reader(str(tmp_path)), efi.Variables()

    def read() -> bytes | None:
        return variables.read(reader, "db", efi.IMAGE_SECURITY)

    file.write_bytes(b"\6\0\0\0one")
    assert read() == b"one"
    opened = file.stat().st_atime_ns
    os.utime(file, ns=(0, file.stat().st_mtime_ns))
    assert read() == b"one"
    assert file.stat().st_atime_ns == 0, f"it was read again, after {opened}"
    file.write_bytes(b"\6\0\0\0two")
    assert read() == b"two"
    file.unlink()
    assert read() is None
    file.write_bytes(b"\6\0\0\0three")
    assert read() == b"three"
    other.write_bytes(b"x")
    assert read() == b"three"
    variables.close()


def test_a_file_mounted_over_a_variable_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount is no write: nobody is told of it (and it needs root, so here a rename stands)."""
    folder = tmp_path / efi.EFIVARS.lstrip("/")
    folder.mkdir(parents=True)
    file = folder / f"db-{efi.IMAGE_SECURITY}"
    file.write_bytes(b"\6\0\0\0one")
    reader, variables = Reader(str(tmp_path)), efi.Variables()
    assert variables.read(reader, "db", efi.IMAGE_SECURITY) == b"one"
    monkeypatch.setattr(variables, "_changed", lambda _: False)
    over = tmp_path / "over"
    over.write_bytes(b"\6\0\0\0two")
    over.rename(file)
    assert variables.read(reader, "db", efi.IMAGE_SECURITY) == b"two"
    over.write_bytes(b"\6\0\0\0three")
    assert variables.read(reader, "db", efi.IMAGE_SECURITY) == b"two"
    variables.close()


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("none [integrity] confidentiality", "integrity"),
        ("[none] integrity confidentiality", "none"),
        ("", None),
        (None, None),
    ],
)
def test_lockdown_is_the_bracketed_word(text: str | None, mode: str | None) -> None:
    assert secure_boot.selected(text) == mode
