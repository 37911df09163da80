"""A root without Python: the node file installs one with the real apt, through a real proxy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures import daemons
from fixtures.errors import FixtureError
from fixtures.pki import Authority
from fixtures.squid import Squid
from harness.pack import pack
from harness.state import cache_dir

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for chroot"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
]
USER, PASSWORD = "bob", "p%40ss%3Aw%2Frd"


@pytest.fixture
def root() -> Iterator[Path]:
    """Debian 12 with apt and no Python."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder) / "root"
        # A tar on the way: mmdebstrap as root would leave its mounts to us.
        tar = Path(folder) / "root.tar"
        subprocess.run(["mmdebstrap", "--variant=apt", "bookworm", str(tar)], check=True)
        root.mkdir()
        subprocess.run(["tar", "-xpf", str(tar), "-C", str(root)], check=True)
        tar.unlink()
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        shutil.copy(pack(cache_dir("node-file")).path, root / "airlock-node.pyz")
        yield root


def test_python_comes_through_the_proxy_with_its_password(root: Path, tmp_path: Path) -> None:
    try:
        install = daemons.squid(cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"squid cannot be had here: {error}")
    assert not list((root / "usr/bin").glob("python3*"))
    # What an image may say about proxies must not win.
    (root / "etc/apt/apt.conf.d/99stale").write_text('Acquire::http::Proxy "http://127.0.0.1:9";\n')
    authority = Authority(tmp_path / "pki")
    users = {USER: "p@ss:w/rd"}
    with Squid(tmp_path / "squid", install, authority, intercept=False, users=users) as squid:
        url = f"http://{USER}:{PASSWORD}@127.0.0.1:{squid.port}"
        attributes = {"http-proxy": url}
        text = json.dumps({"instance": {"attributes": attributes}})
        (root / "m.json").write_text(text)
        argv = ["unshare", "--mount", "sh", "-ec", 'mount --rbind /dev "$0/dev"; exec chroot "$@"']
        words = ["apply", "--only", "proxy", "--metadata", "/m.json"]
        done = subprocess.run(
            [*argv, str(root), str(root), "/bin/sh", "/airlock-node.pyz", *words],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
        )
        rows = squid.rows()
    assert done.returncode == 0, done.stderr[-2000:]
    assert "proxy: ok" in done.stdout
    assert (root / "usr/bin/python3").exists()
    fetched = [row for row in rows if row["user"] == USER and row["status"] == 200]
    assert any("python3" in str(row["url"]) for row in fetched)
    assert PASSWORD not in done.stdout + done.stderr
    assert not list((root / "tmp").iterdir())
