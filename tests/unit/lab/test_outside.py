"""Which hosts a build reaches where there is no proxy."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.scenarios import load_scenario
from harness.errors import InfraError
from harness.lab.outside import Outside

DIRECT, PROXY = load_scenario("direct"), load_scenario("proxy")


def tree(path: Path, **files: str) -> Path:
    folder = path / "etc/apt/sources.list.d"
    folder.mkdir(parents=True)
    (path / "etc/apt/sources.list").write_text(
        "deb [arch=amd64] http://Mirror.test:8080/debian bookworm main\n"
        "# deb http://gone.test/debian bookworm main\n"
        "deb https://user@security.test/debian-security bookworm-security main\n"
        "deb file:/srv/local ./\n"
    )
    for name, text in files.items():
        (folder / f"{name}.sources").write_text(text)
    return path


def test_every_host_of_the_sources_has_an_address(tmp_path: Path) -> None:
    more = "Types: deb\nURIs: http://mirror.test/debian http://third.test/x\nSuites: bookworm\n"
    outside = Outside(DIRECT, tree(tmp_path, more=more))
    assert outside.known == {
        "mirror.test": "10.0.2.110",
        "security.test": "10.0.2.111",
        "third.test": "10.0.2.112",
    }
    assert len(outside.places) == 6
    (bind,) = outside.names(tmp_path / "hosts")
    assert bind.target == "/etc/hosts"
    lines = bind.source.read_text().splitlines()
    assert "127.0.0.1 localhost" in lines
    assert "10.0.2.112 third.test" in lines


def test_behind_a_proxy_there_is_none(tmp_path: Path) -> None:
    outside = Outside(PROXY, tree(tmp_path))
    assert (outside.known, outside.places, outside.names(tmp_path / "hosts")) == ({}, [], [])


def test_too_many_are_refused(tmp_path: Path) -> None:
    many = " ".join(f"http://h{number}.test/" for number in range(101))
    with pytest.raises(InfraError, match="name 103 hosts, 100 fit"):
        Outside(DIRECT, tree(tmp_path, many=f"URIs: {many}\n"))
