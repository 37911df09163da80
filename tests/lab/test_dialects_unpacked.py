"""Translators whose tools this machine lacks: the real programs, unpacked from packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

from fixtures.daemons import library_path, unpack_debs
from installers.dialects import environment, packages, services
from installers.dialects.base import Wanted, wanted
from tests.unit.installers.tools import Recorder, settings, want

pytestmark = pytest.mark.lab
STATE = Path("/var/tmp/airlock-test-debs")
SECRET = "p@:/%#'\" $basearch %41 "


@pytest.fixture
def challenger() -> Recorder:
    """A proxy that wants a password first."""
    return Recorder(challenge=True)


def through(port: int) -> Wanted:
    url = f"http://b%25b:{quote(SECRET, safe='')}@127.0.0.1:{port}"
    return wanted(settings(proxy_uri=url, no_proxy=".direct.example"), credentials=True)


def run(root: Path, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    base = {"PATH": f"{root}/usr/bin:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        argv,
        env={**base, "LD_LIBRARY_PATH": library_path(root), **env},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "before",
    [
        "",
        "[main]\ngpgcheck=1\n",
        "# x\n[main]\nproxy=http://stale.invalid:1\nproxy_username=old\nproxy_password=old\n",
    ],
    ids=["no section", "section", "stale"],
)
def test_B03_dnf_sends_the_password(tmp_path: Path, challenger: Recorder, before: str) -> None:
    """The old setup's sed never matched ``[main]``, so dnf had no proxy at all."""
    root = unpack_debs(["dnf"], STATE)
    dialect = packages.Dnf()
    asked = through(challenger.port)
    text = dialect.write(before, dialect.settings(asked))
    assert dialect.write(text, dialect.settings(asked)) == text
    assert dialect.write(text, {}) == before
    (tmp_path / "dnf.conf").write_text(text)
    for name in ("root", "repos"):
        (tmp_path / name).mkdir()
    said = run(
        root,
        *("/usr/bin/python3", f"{root}/usr/bin/dnf-3", f"--config={tmp_path}/dnf.conf"),
        *(f"--installroot={tmp_path}/root", f"--setopt=reposdir={tmp_path}/repos"),
        *(f"--setopt=cachedir={tmp_path}/cache", f"--setopt=logdir={tmp_path}"),
        *(f"--setopt=persistdir={tmp_path}/persist", "--releasever=9", "-y"),
        *("--repofrompath=x,http://nowhere.example/x", "makecache"),
        PYTHONPATH=f"{root}/usr/lib/python3/dist-packages",
        RPM_CONFIGDIR=f"{root}/usr/lib/rpm",
        HOME=str(tmp_path),
    )
    assert challenger.heads, said.stderr[-2000:]
    assert "http://nowhere.example/x/repodata/repomd.xml" in challenger.heads[0]
    assert challenger.credentials == {f"b%b:{SECRET}"}


def test_sudo_takes_the_file(tmp_path: Path) -> None:
    root = unpack_debs(["sudo"], STATE)
    dialect = services.Sudo()
    file = tmp_path / "airlock-proxy"
    file.write_text(dialect.write("", dialect.settings(want())))
    file.chmod(0o440)
    libraries = f"{root}/usr/libexec/sudo:{library_path(root)}"
    argv = (f"{root}/usr/sbin/visudo", "-c", "-s", "-f", str(file))
    said = run(root, *argv, LD_LIBRARY_PATH=libraries)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "parsed OK" in said.stdout


def test_podman_pulls_through_it(tmp_path: Path) -> None:
    root = unpack_debs(["podman"], STATE)
    plain = Recorder()
    dialect = services.Podman()
    asked = through(plain.port)
    base = '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
    (tmp_path / "base.conf").write_text(base)
    ours = dialect.write("", dialect.settings(asked))
    # One file for CONTAINERS_CONF, which takes the place of every other: both [engine] joined.
    (tmp_path / "containers.conf").write_text(ours + base.partition("\n")[2])
    (tmp_path / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    said = run(
        root,
        *(f"{root}/usr/bin/podman", "--runtime", f"{root}/usr/bin/crun"),
        *("--conmon", f"{root}/usr/bin/conmon", "--root", f"{tmp_path}/storage"),
        # podman takes no longer path than 50 characters for it.
        *("--runroot", tempfile.mkdtemp(dir="/tmp"), "--storage-driver", "vfs"),
        *("--network-config-dir", f"{tmp_path}/net", "pull"),
        *("--signature-policy", f"{tmp_path}/policy.json", "docker://nowhere.example/x"),
        CONTAINERS_CONF=f"{tmp_path}/containers.conf",
        CONTAINERS_REGISTRIES_CONF="/dev/null",
        HOME=str(tmp_path),
    )
    assert plain.heads, said.stderr
    assert plain.heads[0].startswith("CONNECT nowhere.example:443 ")
    assert plain.credentials == {f"b%b:{SECRET}"}


@pytest.mark.parametrize("tool", ["uv", "rattler"])
def test_tools_that_take_the_environment(tmp_path: Path, tool: str) -> None:
    """uv refuses a whole file for one field its release does not know: it gets variables only."""
    package = {"uv": "uv", "rattler": "py-rattler"}[tool]
    venv = STATE / f"venv-{tool}"
    python = venv / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    made = subprocess.run([python, "-m", "pip", "-q", "install", package], capture_output=True)
    if made.returncode:
        shutil.rmtree(venv)
        pytest.skip(f"no package index to take {package} from")
    plain = Recorder()
    file = services.ServiceEnvironment()
    text = file.write("", file.settings(through(plain.port)))
    env = {**environment.EtcEnvironment().read(text), "HOME": str(tmp_path), "PATH": "/usr/bin"}
    script = (
        "import asyncio, rattler; "
        "asyncio.run(rattler.fetch_repo_data(channels=[rattler.Channel('http://nowhere.example/c')],"
        " platforms=[rattler.Platform('noarch')], cache_path='cache', callback=None))"
    )
    argv = {
        "uv": [f"{venv}/bin/uv", "pip", "download", "x"],
        "rattler": [str(python), "-c", script],
    }[tool]
    if tool == "uv":
        index = ["--index-url", "http://nowhere.example/simple", "--target", str(tmp_path)]
        argv = [f"{venv}/bin/uv", "pip", "install", *index, "--python", str(python), "x"]
    subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, timeout=120)
    assert plain.heads
    assert "nowhere.example" in plain.heads[0]
    assert plain.credentials == {f"b%b:{SECRET}"}
