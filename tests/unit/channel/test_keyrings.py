"""Keyrings, with the real system calls on keys of our own."""

from __future__ import annotations

import ctypes
import platform

import pytest

from installers.collect import keyrings
from installers.collect.reader import Reader

ADD_KEY = {"x86_64": 248, "aarch64": 217}
PROCESS_KEYRING = -2


def add_key(kind: bytes, description: bytes, payload: bytes | None, ring: int) -> int:
    """add_key(2); skips the test where this machine forbids it."""
    libc = ctypes.CDLL(None, use_errno=True)
    size = len(payload) if payload else 0
    number = ADD_KEY[platform.machine()]
    serial = int(libc.syscall(number, kind, description, payload, ctypes.c_size_t(size), ring))
    if serial < 0:
        pytest.skip(f"add_key is forbidden here: errno {ctypes.get_errno()}")
    return serial


def test_members_are_described() -> None:
    fetch = keyrings.kernel_fetch()
    assert fetch is not None
    ring = add_key(b"keyring", b"airlock-test", None, PROCESS_KEYRING)
    add_key(b"user", b"Debian Secure Boot CA: 6ccece7e4c6c0d1f6149", b"x", ring)
    add_key(b"user", b"plain", b"x", ring)
    found = keyrings.members(fetch, ring)
    assert sorted(found, key=str) == [
        {"description": "Debian Secure Boot CA", "keyid": "6ccece7e4c6c0d1f6149"},
        {"description": "plain", "keyid": None},
    ]


def test_a_keyring_larger_than_the_first_buffer_is_read_whole() -> None:
    fetch = keyrings.kernel_fetch()
    assert fetch is not None
    ring = add_key(b"keyring", b"airlock-large", None, PROCESS_KEYRING)
    for number in range(1100):
        add_key(b"keyring", f"entry-{number}".encode(), None, ring)
    assert len(keyrings.members(fetch, ring)) == 1100


def test_a_keyring_that_cannot_be_read_is_named() -> None:
    reader = Reader()
    listed = keyrings.KEY_LINE.findall(reader.text("/proc/keys") or "")
    if not {name for _serial, name in listed} & set(keyrings.KEYRINGS):
        pytest.skip("this kernel has none of the keyrings")

    def refused(_operation: int, _serial: int) -> bytes:
        raise PermissionError(13, "Permission denied", "key 1")

    found = keyrings.collect(reader, refused)
    assert None in found.values()
    assert any(name.startswith("secure_boot.keyrings.") for name in reader.unreadable)


def test_names_and_serials_are_found_in_proc_keys() -> None:
    text = (
        "20644dce I------     1 perm 0f0b0000     0     0 keyring   .blacklist: empty\n"
        "2cbfedd8 I------     1 perm 1f0b0000     0     0 keyring   .platform: 3\n"
        "1a2b3c4d I------     1 perm 1f030000     0     0 asymmetri Debian: X509.rsa 3c []\n"
    )
    assert keyrings.KEY_LINE.findall(text) == [
        ("20644dce", ".blacklist"),
        ("2cbfedd8", ".platform"),
    ]
