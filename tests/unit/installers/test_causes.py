"""Programs' words, as they were seen, and what they mean."""

from __future__ import annotations

import pytest

from installers import causes
from installers.build import DriverBuildError
from installers.errors import CommandError, NodeError

APT = "E: Failed to fetch http://mirror.example/debian/dists/bookworm/InRelease  "


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (APT + "403  Forbidden [IP: 10.0.2.100 3128]", "proxy.host-refused"),
        ("curl: (56) CONNECT tunnel failed, response 403", "proxy.host-refused"),
        ("Invalid response from proxy: HTTP/1.1 403 Forbidden", "proxy.host-refused"),
        (APT + "503  Service Unavailable [IP: 10.0.2.100 3128]", "repository.unavailable"),
        (APT + "407  Proxy Authentication Required", "proxy.credentials"),
        ("Invalid response from proxy: HTTP/1.1 407 Proxy Authentication", "proxy.credentials"),
        ("curl: (56) CONNECT tunnel failed, response 407", "proxy.credentials"),
        (
            "E: Release file for x is not valid yet (invalid for another 2h 3min 4s).",
            "clock.wrong",
        ),
        ("SSL certificate problem: certificate is not yet valid", "clock.wrong"),
        ("Certificate verification failed: The certificate is NOT trusted.", "trust.untrusted"),
        ("SSL certificate problem: certificate has expired", "trust.expired"),
        ("dpkg: error: failed to write: No space left on device", "disk.space"),
        ("curl: (18) transfer closed with 5 bytes remaining to read", "network.cut"),
        (
            "Could not connect to 10.0.2.100:3128 (10.0.2.100). Connection refused",
            "network.no-answer",
        ),
        ("Temporary failure resolving 'mirror.example'", "network.no-answer"),
        ("Fetched 407 kB in 4s", ""),
        ("make: *** [Makefile:82: modules] Error 2", ""),
    ],
)
def test_words(words: str, code: str) -> None:
    assert causes.find(words).code == code
    assert bool(causes.find(words).remedy) == bool(code)


def test_a_command_is_known_by_all_that_it_said() -> None:
    """The tail that stands in its message is often a consequence."""
    said = "\n".join([APT + "403  Forbidden", *["E: The repository is not signed."] * 5])
    error = CommandError(["apt-get", "update"], 100, "", said)
    assert "403" not in str(error)
    assert causes.of(error).code == "proxy.host-refused"
    wrapped = DriverBuildError("headers-missing", "apt: exited 100")
    wrapped.__cause__ = error
    assert causes.of(wrapped).code == "proxy.host-refused"


def test_a_builds_own_cause_stands_where_no_other_is_known() -> None:
    assert causes.of(DriverBuildError("api-changed", "error: too few")).code == "driver.api-changed"
    assert causes.of(NodeError("is odd")) == causes.Cause()
