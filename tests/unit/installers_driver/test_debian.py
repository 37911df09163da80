"""What apt's files say: sources in both formats, and packages in exact versions."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installers import debian, kernels
from installers.config import Config
from installers.host import Host

ONE_LINE = """\
# deb http://commented.invalid/debian bookworm contrib
deb [signed-by=/k.gpg arch=amd64] https://mirror.invalid/debian bookworm main contrib # words
deb-src http://source.invalid/debian bookworm non-free
deb http://user:secret@other.invalid:8080/debian bookworm-updates main
"""
DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://first.invalid/debian https://second.invalid/debian
Suites: trixie trixie-updates
Components: main
 contrib
# another
 non-free
Signed-By: /usr/share/keyrings/k.gpg

Enabled: no
Types: deb
URIs: http://disabled.invalid/
Suites: trixie
Components: main

Types: deb-src
URIs: http://source.invalid/
Suites: trixie
Components: main
"""


def test_sources_in_both_formats(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("/etc/apt/sources.list", ONE_LINE)
    host.write("/etc/apt/sources.list.d/more.sources", DEB822)
    host.write("/etc/apt/sources.list.d/off.list.disabled", "deb http://off.invalid/ x main\n")
    found = debian.apt_sources(host)
    assert [source.components for source in found] == [
        ["main", "contrib"],
        [],
        ["main"],
        ["main", "contrib", "non-free"],
        ["main", "contrib", "non-free"],
        [],
    ]
    assert debian.apt_hosts(host) == [
        "first.invalid",
        "mirror.invalid",
        "other.invalid",
        "second.invalid",
        "source.invalid",
    ]


@pytest.mark.skipif(not shutil.which("apt-get"), reason="needs apt")
def test_apt_reads_the_same_hosts(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.write("/etc/apt/sources.list", ONE_LINE)
    host.write("/etc/apt/sources.list.d/more.sources", DEB822)
    (tmp_path / "state/lists/partial").mkdir(parents=True)
    places = {"Etc": "etc/apt", "State": "state", "Cache": "cache", "State::status": "/dev/null"}
    options = [f"-oDir::{name}={tmp_path / place}" for name, place in places.items()]
    said = subprocess.run(
        ["apt-get", *options, "update", "--print-uris"], capture_output=True, text=True, check=True
    ).stdout
    names = {urlsplit(line.split()[0].strip("'")).hostname for line in said.splitlines()}
    assert sorted(name for name in names if name) == debian.apt_hosts(host)


def test_no_sources_at_all(tmp_path: Path) -> None:
    assert debian.apt_sources(Host(tmp_path)) == []


def test_stanzas() -> None:
    field = debian.parse_stanza("Package: a\nDepends: b,\n c (= 1:2)\nDescription-en: x: y\n z\n")
    assert field == {"package": "a", "depends": "b, c (= 1:2)", "description-en": "x: y z"}


@pytest.mark.parametrize(
    ("installed", "newest"),
    [
        (["6.1.0-9-amd64", "6.1.0-10-amd64"], "6.1.0-10-amd64"),
        (["6.1.0-56-cloud-amd64", "6.12.117+deb13-cloud-amd64"], "6.12.117+deb13-cloud-amd64"),
        (["6.12.9+deb13-amd64", "6.12.10+deb13-amd64"], "6.12.10+deb13-amd64"),
        (["6.12~rc1-amd64", "6.12-amd64"], "6.12-amd64"),
        (["6.12.1", "6.12"], "6.12.1"),
    ],
)
def test_the_newest_kernel_boots(tmp_path: Path, installed: list[str], newest: str) -> None:
    for release in installed:
        (tmp_path / "lib/modules" / release / "kernel").mkdir(parents=True)
    (tmp_path / "lib/modules/99.0-only-our-leftovers/updates").mkdir(parents=True)
    host = Host(tmp_path)
    assert kernels.boot_kernel(host, Config()) == newest
    assert kernels.boot_kernel(host, Config(boot_kernel=installed[0])) == installed[0]
    assert kernels.boot_kernel(host, Config(boot_kernel="1.0")) is None


def test_no_kernel(tmp_path: Path) -> None:
    assert kernels.boot_kernel(Host(tmp_path), Config()) is None


@given(st.lists(st.text("0123456789.~+-abz", max_size=12), max_size=5))
def test_any_release_can_be_ordered(releases: list[str]) -> None:
    ordered = sorted(releases, key=kernels.release_order)
    assert sorted(ordered, key=kernels.release_order) == ordered or len(
        {tuple(kernels.release_order(r)) for r in releases}
    ) < len(releases)
