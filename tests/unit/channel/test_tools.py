"""What facts tell of the tools that know the proxy: every one, and no password."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.lab import tools
from installers.collect import proxy
from installers.collect.reader import Reader
from installers.config import from_attributes
from installers.engine import Engine
from installers.host import Host
from installers.proxy import Proxy

INDIRECT = {"sudo", "unit", "pip"}


@pytest.mark.parametrize("login", ["", "bob:p%40%3A%2F%25%23secret@"])
def test_every_tool_of_the_lab_is_told_and_tells_no_password(tmp_path: Path, login: str) -> None:
    for name, text in tools.files().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if name in tools.PROGRAMS else 0o644)
    for name, target in tools.LINKS.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "etc/apt").mkdir()
    (tmp_path / "etc/os-release").write_text("ID=debian\n")
    (tmp_path / "etc/wgetrc").touch()
    url = f"http://{login}10.0.2.100:3128"
    config = from_attributes({"http-proxy": url, "https-proxy": url})
    assert Engine(Host(tmp_path), [Proxy(config)]).apply().exit == 0

    found = proxy.collect(Reader(str(tmp_path)), {})
    assert set(found["tools"]) == set(tools.NAMES)
    for name, told in found["tools"].items():
        if name.partition(" ")[0] in INDIRECT:
            assert told["refers"], name
        else:
            assert told["proxies"] == ["10.0.2.100:3128"], name
    said = json.dumps(found)
    assert "secret" not in said
    assert "bob" not in said
