"""Secrets go, whatever they are spelled like; what is none stays."""

from __future__ import annotations

import json

import pytest

from installers.blacken import Blackener, worth_hiding
from tests.unit.capsules.spellings import SECRETS, spellings


@pytest.mark.parametrize("name", SECRETS)
def test_a_known_secret_goes_in_every_spelling(name: str) -> None:
    secret = SECRETS[name]
    blackener = Blackener([secret])
    for how, text in spellings(secret):
        line = f"before {text} after"
        after = blackener.text(line.replace("\0", ""))
        assert after == "before *** after", (how, after)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://u:p@h:1/x", "http://***@h:1/x"),
        ("PROXY=http://user:pa/ss@proxy:3128 and x@y", "PROXY=http://***@proxy:3128 and x@y"),
        (r"http:\/\/u:p@h", r"http:\/\/***@h"),
        ("http%3A%2F%2Fu%3Ap%40host", "http%3A%2F%2F***%40host"),
        ("-Dnet.ssl.trustStorePassword=hunter2 x", "-Dnet.ssl.trustStorePassword=*** x"),
        ('"Proxy-Authorization": "Basic Zm9v"', '"Proxy-Authorization": "Basic ***"'),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("login --password hunter2 now", "login --password *** now"),
        (r'said {\"token\": \"abc\"}', r'said {\"token\": \"***\"}'),
        ("a https://c.test/t/tk-1234567/main", "a https://c.test/t/***/main"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\ndef", "-----BEGIN RSA PRIVATE KEY-----***"),
        ("get https://x/y?X-Goog-Signature=abc&b=c", "get https://x/y?X-Goog-Signature=***&b=c"),
        ("curl -u bob:hunter2 x", "curl -u *** x"),
        ("key ghp_abcdefghijklmnopqrstuvwxyz0123 used", "key *** used"),
        ("<proxyPassword>x</proxyPassword>", "<proxyPassword>***</proxyPassword>"),
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_goes(text: str, clean: str) -> None:
    blackener = Blackener()
    assert blackener.text(text) == clean
    assert blackener.text(clean) == clean, "once is enough"
    assert blackener.count == 1


@pytest.mark.parametrize(
    "text",
    [
        "systemd-ask-password-console.path: Deactivated successfully.",
        "https://github.test/a/b@v1.2",
        "mail root@node: Secure Boot enabled",
        "sha256:" + "5e" * 32,
        "curl: (56) CONNECT tunnel failed, response 407",
    ],
)
def test_what_is_none_stays(text: str) -> None:
    assert Blackener(["hunter2"]).text(text) == text


def test_values_keep_their_shape_and_lose_their_secrets() -> None:
    blackener = Blackener(["proxy", "hunter22"])
    value = {
        "proxy": {"apt": ["a hunter22", 1, None, True]},
        "/root/hunter22": "x",
        "password": "abc",
        "a\0b": "h\0u\0n\0t\0e\0r\x002\x002",
    }
    # A short password does not rename what is ours.
    assert blackener.value(value) == {
        "proxy": {"apt": ["a ***", 1, None, True]},
        "/root/***": "x",
        "password": "***",
        "ab": "***",
    }
    assert json.dumps(blackener.value(["\udc80 hunter22"]))


@pytest.mark.parametrize("secret", ["on", "123", "12345", "***"])
def test_what_is_in_every_text_is_not_taken_out_of_it(secret: str) -> None:
    assert not worth_hiding(secret)
    assert Blackener([secret]).text(f"a {secret} b") == f"a {secret} b"
