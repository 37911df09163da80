"""systemd accepts the units."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from installers import newkernel, units


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (units.PROXY, units.PROXY_TEXT),
        (units.HOST_KEYS, units.HOST_KEYS_TEXT),
        (newkernel.SERVICE, newkernel.SERVICE_TEXT),
        (newkernel.PATH, newkernel.PATH_TEXT),
    ],
)
def test_systemd_accepts_it(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    (tmp_path / newkernel.SERVICE).write_text(newkernel.SERVICE_TEXT)  # the path unit's
    said = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    about_us = [line for line in said.stderr.splitlines() if name in line]
    assert about_us == []
