"""apt sources to https and back, in both formats."""

from __future__ import annotations

import pytest

from installers import aptsources

LIST = """\
# deb http://commented.example/debian x main
deb http://mirror.example/debian bookworm main  # http://note.example/
deb [signed-by=/k.gpg arch=amd64] http://mirror.example/debian bookworm-updates main
deb-src http://second.example/debian bookworm main
deb https://already.example/debian bookworm main
deb http://port.example:8080/debian bookworm main
deb http://user:pw@secret.example/debian bookworm main
deb cdrom:[x] bookworm main
deb mirror+http://mirrors.example/list bookworm main
"""
DEB822 = """\
Types: deb
# URIs: http://commented.example/
URIs: http://mirror.example/debian
 http://second.example/debian https://already.example/debian
Suites: bookworm
Description: http://not-a-source.example/

Types: deb
uris: http://mirror.example/security
Suites: bookworm-security
"""


@pytest.mark.parametrize(
    ("path", "text"),
    [("/etc/apt/sources.list", LIST), ("/etc/apt/sources.list.d/x.sources", DEB822)],
)
def test_there_and_back(path: str, text: str) -> None:
    mirrors = aptsources.plain_mirrors(text, path)
    assert mirrors == ["mirror.example", "second.example"]
    secure = aptsources.to_https(text, path)
    assert secure.count("https://mirror.example/") == 2
    assert aptsources.plain_mirrors(secure, path) == []
    for kept in ("http://commented.example", "https://already.example"):
        assert kept in secure
    assert aptsources.to_http(secure, path, mirrors) == text
    assert aptsources.to_https(secure, path) == secure


def test_what_cannot_be_guessed_stays_and_is_told() -> None:
    secure = aptsources.to_https(LIST, "/etc/apt/sources.list")
    for kept in ("http://port.example:8080", "http://user:pw@secret", "mirror+http://", "note"):
        assert kept in secure
    assert "http://note.example/" in secure
    assert aptsources.left_alone(LIST, "/etc/apt/sources.list")
    assert not aptsources.left_alone(DEB822, "/x.sources")


def test_mirror_lists_of_cloud_images() -> None:
    path = "/etc/apt/mirrors/debian.list"
    text = "http://mirror.example/debian\tpriority:1\n"
    assert aptsources.to_https(text, path) == "https://mirror.example/debian\tpriority:1\n"
