"""Which kernels take keys from UEFI db: the table answers for kernels and for images."""

from __future__ import annotations

import pytest

from installers import compat


@pytest.mark.parametrize(
    ("kernel", "trusts"),
    [
        ("4.19.0-27-amd64", False),
        ("5.10.0-32-cloud-amd64", False),
        ("6.1.0-56-cloud-amd64", True),
        ("6.12.117+deb13-cloud-amd64", True),
        ("5.19.0-1", None),  # nobody has measured it
        ("7.0.1", None),
        ("nonsense", None),
    ],
)
def test_debian_kernels(kernel: str, trusts: bool | None) -> None:
    answer = compat.db_trust("debian", kernel)
    assert answer.trusts_db is trusts
    if trusts is False:
        assert "UEFI db" in answer.reason
        assert "Debian 12" in answer.remedy


def test_other_systems_are_unknown() -> None:
    assert compat.db_trust("ubuntu", "5.10.0").trusts_db is None


@pytest.mark.parametrize(("version", "trusts"), [("11", False), ("12", True), ("13", True)])
def test_images_by_their_release(version: str, trusts: bool) -> None:
    assert compat.image_trust("debian", version).trusts_db is trusts


def test_an_unknown_image() -> None:
    assert compat.image_trust("debian", "99").trusts_db is None


@pytest.mark.parametrize(
    ("version", "span", "inside"),
    [
        ("535.261.03", ["535", "590"], True),
        ("590.0", ["535", "590"], False),
        ("534.99", ["535", None], False),
        ("9", [None, "10"], True),
        ("6.12.9+deb13", ["6.12.10", None], False),
        ("6.12.117+deb13", ["6.12.10", None], True),
    ],
)
def test_ranges(version: str, span: list[str | None], inside: bool) -> None:
    assert compat.within(version, span) is inside
