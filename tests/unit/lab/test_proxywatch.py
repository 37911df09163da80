"""The watch that tells when an image's configuration first named the proxy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.lab import foreign, proxywatch

PROXY = "10.0.2.100:3128"


@contextmanager
def watched(tree: Path) -> Iterator[list[dict[str, object]]]:
    """Run it over ``tree``; afterwards the list holds what it said."""
    said: list[dict[str, object]] = []
    process = subprocess.Popen(
        [sys.executable, "-I", str(proxywatch.__file__), str(tree), PROXY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # a buffer would keep what communicate is to read
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield said
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    said += [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "etc/apt").mkdir(parents=True)
    (tmp_path / "etc/apt/apt.conf").write_text('APT::Sandbox::User "root";\n')
    (tmp_path / "root").mkdir()
    (tmp_path / "var").mkdir()
    return tmp_path


def test_the_first_file_counts_and_its_own_time(tree: Path) -> None:
    file = tree / "etc/environment"
    with watched(tree) as said:
        (tree / "etc/hosts").write_text("127.0.0.1 localhost\n")
        (tree / "var/log").write_text(PROXY)  # no configuration
        file.write_text(f"http_proxy=http://{PROXY}\n")
        first = file.lstat().st_ctime
        (tree / "root/.curlrc").write_text(f"proxy = {PROXY}\n")
    assert said == [{"path": "/etc/environment", "time": first}]


def test_a_file_that_is_moved_into_a_folder_that_was_not_there(tree: Path) -> None:
    with watched(tree) as said:
        folder = tree / "etc/systemd/system/docker.service.d"
        folder.mkdir(parents=True)
        (tree / "var/new").write_text(f"Environment=HTTP_PROXY=http://{PROXY}\n")
        (tree / "var/new").rename(folder / "proxy.conf")
        (tree / "etc/loop").symlink_to("/etc")
    assert [one["path"] for one in said] == ["/etc/systemd/system/docker.service.d/proxy.conf"]


def test_an_image_that_never_names_it(tree: Path) -> None:
    with watched(tree) as said:
        (tree / "etc/environment").write_text("http_proxy=http://192.0.2.7:3128\n")
    assert said == []


def test_an_image_that_named_it_from_the_start(tree: Path) -> None:
    (tree / "etc/apt/apt.conf").write_text(f'Acquire::http::Proxy "http://{PROXY}";\n')
    with watched(tree) as said:
        pass
    assert [one["path"] for one in said] == ["/etc/apt/apt.conf"]


def test_what_is_said_together_with_ready_is_heard(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine the program has said everything before anybody listens."""

    class Busy(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.wait(20)

    file = tree / "etc/apt/apt.conf"
    file.write_text(f'Acquire::http::Proxy "http://{PROXY}";\n')
    monkeypatch.setattr(subprocess, "Popen", Busy)
    with foreign.watching(tree) as named:
        pass
    assert named() == file.lstat().st_ctime
