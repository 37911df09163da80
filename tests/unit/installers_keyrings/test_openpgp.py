"""The reader: as gpg reads real keys, and an error of its own for everything else."""

from __future__ import annotations

import base64
import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installers import armor, keypolicy, openpgp
from installers.openpgp import OpenPGPError
from tests.unit.installers_keyrings.conftest import Keys
from tests.unit.installers_keyrings.workshop import Smith

NOW = time.time()

# RFC 9580, A.3: the sample certificate of version 6 (Ed25519 with an X25519 subkey).
VERSION_6 = """-----BEGIN PGP PUBLIC KEY BLOCK-----

xioGY4d/4xsAAAAg+U2nu0jWCmHlZ3BqZYfQMxmZu52JGggkLq2EVD34laPCsQYf
GwoAAABCBYJjh3/jAwsJBwUVCg4IDAIWAAKbAwIeCSIhBssYbE8GCaaX5NUt+mxy
KwwfHifBilZwj2Ul7Ce62azJBScJAgcCAAAAAK0oIBA+LX0ifsDm185Ecds2v8lw
gyU2kCcUmKfvBXbAf6rhRYWzuQOwEn7E/aLwIwRaLsdry0+VcallHhSu4RN6HWaE
QsiPlR4zxP/TP7mhfVEe7XWPxtnMUMtf15OyA51YBM4qBmOHf+MZAAAAIIaTJINn
+eUBXbki+PSAld2nhJh/LVmFsS+60WyvXkQ1wpsGGBsKAAAALAWCY4d/4wKbDCIh
BssYbE8GCaaX5NUt+mxyKwwfHifBilZwj2Ul7Ce62azJAAAAAAQBIKbpGG2dWTX8
j+VjFM21J0hqWlEg+bdiojWnKfA5AQpWUWtnNwDEM0g12vYxoWM8Y81W+bHBw805
I8kWVkXU6vFOi+HWvv/ira7ofJu16NnoUkhclkUrk0mXubZvyl4GBg==
-----END PGP PUBLIC KEY BLOCK-----
"""


def only(data: bytes) -> openpgp.Certificate:
    (certificate,) = openpgp.read(data)
    return certificate


def test_reads_what_gpg_reads(keys: Keys) -> None:
    smith = keys.smith
    everything = smith.export()
    shown = [line for line in smith.show(everything) if line[0] == "pub"]
    found = openpgp.read(everything)
    assert [key.fingerprint for key in found] == smith.fingerprints(everything)
    for key, line in zip(found, shown, strict=True):
        judgement = keypolicy.judge(key, time.time())
        assert str(judgement.created) == line[5]
        assert str(judgement.expires or "") == line[6]
        # u: gpg trusts its own keys, which is not what is asked here.
        state = {"is revoked": "r", "": "u"}.get(judgement.unusable, "e")
        assert state == line[1].replace("-", "u")


def test_armor_and_binary_are_the_same_key(keys: Keys) -> None:
    binary, text = keys.file(keys.good, armored=False), keys.file(keys.good)
    assert only(binary).fingerprint == only(text).fingerprint == keys.good
    assert armor.dearmor(text) == binary
    assert keys.smith.fingerprints(armor.armor(binary)) == [keys.good]


def test_version_6_fingerprint() -> None:
    certificate = only(VERSION_6.encode())
    expected = "CB186C4F0609A697E4D52DFA6C722B0C1F1E27C18A56708F6525EC27BAD9ACC9"
    assert certificate.fingerprint == expected
    assert certificate.key.key_id == "CB186C4F0609A697"
    (direct,) = certificate.signatures
    assert (direct.version, direct.hash_name, direct.by(certificate.key)) == (6, "sha512", True)


def test_user_id_expiry_and_hash_are_read(keys: Keys) -> None:
    good = keypolicy.judge(only(keys.file(keys.good)), NOW)
    assert (good.user_id, good.unusable, good.weak) == ("good <good@acme.test>", "", False)
    assert (good.hash, good.checked) == ("sha512", True)
    expired = keypolicy.judge(only(keys.file(keys.expired)), NOW)
    assert expired.unusable == "expired on 2020-12-31"
    weak = keypolicy.judge(only(keys.file(keys.weak)), NOW)
    assert (weak.hash, weak.weak, weak.unusable) == ("sha1", True, "")
    assert keypolicy.judge(only(keys.file(keys.revoked)), NOW).unusable == "is revoked"
    for early in (1_000_000_000, 1_577_836_799):
        unborn = keypolicy.judge(only(keys.file(keys.good)), early)
        assert "was made on 2020-01-01, which" in unborn.unusable


def test_an_extended_key_is_alive_again_and_a_new_hash_heals(smith: Smith) -> None:
    key = smith.key("renewed", expires="1y", options=("--cert-digest-algo", "SHA1"))
    before = keypolicy.judge(only(smith.export(key)), NOW)
    assert (before.unusable, before.weak) == ("expired on 2020-12-31", True)
    smith.gpg("--faked-system-time", "20201201T000000!", "--quick-set-expire", key, "30y")
    after = keypolicy.judge(only(smith.export(key)), NOW)
    assert (after.unusable, after.weak) == ("", False)
    assert keypolicy.day(after.expires)[:4] == "2050"


def test_a_subkey_that_signs_decides_where_the_primary_key_only_certifies(smith: Smith) -> None:
    key = smith.key("certifier", algorithm="ed25519", usage="cert")
    assert keypolicy.judge(only(smith.export(key)), NOW).unusable == "holds no key that may sign"
    then = ("--faked-system-time", "20210101T000000!")
    smith.gpg(*then, "--quick-add-key", key, "ed25519", "sign", "1y")
    assert keypolicy.judge(only(smith.export(key)), NOW).unusable == "expired on 2022-01-01"
    smith.gpg(*then, "--quick-add-key", key, "rsa2048", "sign", "never")
    assert keypolicy.judge(only(smith.export(key)), NOW).unusable == ""


def test_a_signature_in_the_keys_name_that_it_did_not_make_counts_nothing(keys: Keys) -> None:
    """The right key, with another expiry that somebody wrote into its self-signature."""
    data = bytearray(keys.file(keys.good, armored=False))
    signature = only(bytes(data)).user_ids[0].signatures[0]
    at = data.index(signature.packet.raw) + signature.packet.raw.index(signature.numbers)
    data[at + 20] ^= 1
    forged = only(bytes(data))
    assert forged.fingerprint == keys.good
    judgement = keypolicy.judge(forged, NOW)
    assert judgement.unusable == "has no user ID that it vouches for itself"
    assert keypolicy.minimal(forged) == forged.key.packet.raw


def test_minimal_drops_what_others_hung_on_a_key(keys: Keys) -> None:
    smith = keys.smith
    smith.gpg("--local-user", keys.stranger, "--quick-sign-key", keys.other)
    full = smith.export(keys.other)
    (user,) = only(full).user_ids
    assert len(user.signatures) == 2
    small = keypolicy.minimal(only(full))
    assert len(only(small).user_ids[0].signatures) == 1
    assert smith.fingerprints(small) == [keys.other]


def test_trust_packets_and_pictures_are_passed_over(keys: Keys) -> None:
    data = keys.file(keys.good, armored=False)
    trust = bytes([0xC0 | openpgp.TRUST, 2, 0, 0])
    picture = bytes([0xC0 | openpgp.USER_ATTRIBUTE, 3, 2, 1, 0])
    signature = only(data).user_ids[0].signatures[0].packet.raw
    dressed = only(data + trust + picture + signature)
    assert len(dressed.user_ids[0].signatures) == 1
    assert keypolicy.minimal(dressed) == data


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"<!DOCTYPE html>\n<html><body>blocked by policy</body></html>", "a web page"),
        (b"\n <HTML>", "a web page"),
        (b"no results\n", "holds no OpenPGP key"),
        (b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nAAAA\n", "holds a PGP PRIVATE KEY BLOCK"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n", "cut off"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\nmQ==\n", "empty line after its headers"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n~~~\n", "not base64"),
        (b"\0\0\0\x20\x01\x01\0\0KBXf\0\0\0\0", "is a keybox"),
        (b"\x99\xff\xff\x04", "cut off"),
        (b"\xc6\xff\xff\xff\xff\xff\x04", "cut off"),
        (b"\x9b\x04", "without a length"),
        (b"\xc6\xe1\x04", "in parts"),
        (b"\xc6\x06\x03\0\0\0\0\x01", "version 3"),
        (b"\xc5\x06\x04\0\0\0\0\x01", "secret key"),
        (b"\xcd\x01a", "begins with packet 13"),
        (b"\xca\x03PGP", "holds no key"),
    ],
)
def test_what_is_no_key_is_named(data: bytes, what: str) -> None:
    with pytest.raises(OpenPGPError, match=what):
        openpgp.read(data)


def test_a_wrong_checksum_is_an_error_and_none_is_not(keys: Keys) -> None:
    lines = keys.file(keys.good).split(b"\n")
    at = next(n for n, line in enumerate(lines) if line.startswith(b"="))
    right = lines[at]
    lines[at] = b"=AAAA"
    with pytest.raises(OpenPGPError, match="checksum"):
        openpgp.read(b"\n".join(lines))
    without = b"\n".join([*lines[:at], *lines[at + 1 :]])
    assert only(without).fingerprint == keys.good
    assert right == b"=" + base64.b64encode(armor.crc24(armor.dearmor(without)).to_bytes(3, "big"))


def test_several_blocks_and_the_text_around_them(keys: Keys) -> None:
    text = b"pub  rsa2048 2020\n\n" + keys.file(keys.good) + b"\nnext\n" + keys.file(keys.other)
    windows = text.replace(b"\n", b"\r\n")
    for data in (text, windows):
        assert [key.fingerprint for key in openpgp.read(data)] == [keys.good, keys.other]


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_never_anything_but_its_own_error(data: bytes) -> None:
    for content in (data, b"\x99" + data, b"\xc6" + data, b"\x99\x00\x0d\x04" + data):
        with contextlib.suppress(OpenPGPError):
            for certificate in openpgp.read(content):
                keypolicy.judge(certificate, NOW)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_key_is_an_error_or_still_a_key(keys: Keys, data: st.DataObject) -> None:
    content = bytearray(keys.everything)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    for damaged in (bytes(content), bytes(content[:cut])):
        with contextlib.suppress(OpenPGPError):
            for certificate in openpgp.read(damaged):
                keypolicy.judge(certificate, NOW)
                keypolicy.minimal(certificate)


@settings(max_examples=100)
@given(st.binary(max_size=200), st.binary(max_size=100))
def test_armor_of_anything(packets: bytes, noise: bytes) -> None:
    if packets:
        assert armor.dearmor(armor.armor(packets)) == packets
    with contextlib.suppress(armor.ArmorError):
        armor.dearmor(noise + armor.armor(packets or b"x")[: len(noise) * 3] + noise)
