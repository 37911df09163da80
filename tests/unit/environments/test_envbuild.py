"""Building on a node by its own mamba: a double here, for there is none to be had."""

from __future__ import annotations

from pathlib import Path

import pytest

from installers import envbuild, envmanifest, envpack
from installers.config import Config
from installers.envfiles import Lock, Package
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Journal
from installers.proxyurl import parse

# Fails as mamba does while several downloads run at once; then makes the prefix it was given.
MAMBA = """\
#!/bin/sh
echo "$MAMBA_DOWNLOAD_THREADS $https_proxy $*" >> {folder}/log
test "$MAMBA_DOWNLOAD_THREADS" = 1 || { echo "RuntimeError: Multi-download failed." >&2; exit 1; }
grep -q '^@EXPLICIT$' "$7" || exit 3
mkdir -p "$5/bin"
echo "#!$5/bin/python" > "$5/bin/tool"
"""
LOCK = Lock(
    "small",
    "linux-64",
    (
        Package(
            "https://channel.invalid/c/noarch/a-1-0.conda",
            *("ab" * 32, 10, "a", "1", "0", 0, "noarch", None, ()),
        ),
    ),
    (),
)


@pytest.fixture
def host() -> Host:
    return Host("/")


def _build(host: Host, tmp_path: Path, *, offline: bool = False) -> envbuild.Built:
    from installers.config import ProxySettings

    proxy = parse("http://proxy.invalid:3128", "http-proxy")
    config = Config(proxy=ProxySettings(proxy, proxy))
    log = Journal(Host(tmp_path / "state")).log("environments")
    return envbuild.build(host, LOCK, str(tmp_path / "r"), config, log, offline=offline)


def test_a_broken_multi_download_is_tried_one_at_a_time(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/mamba"
    program.parent.mkdir()
    program.write_text(MAMBA.replace("{folder}", str(tmp_path)))
    program.chmod(0o755)
    monkeypatch.setattr(envbuild, "_FOLDERS", (str(program.parent),))
    packed, details = _build(host, tmp_path)
    manifest = envmanifest.read_manifest(Path(str(packed[envmanifest.MANIFEST])).read_text())
    assert manifest.files["bin/tool"].how == envpack.TEXT
    assert len(manifest.prefix) == envpack.PREFIX_LENGTH
    assert details == {"tool": str(program), "packages": 1}
    first, second = (tmp_path / "log").read_text().splitlines()
    assert first.startswith(" http://proxy.invalid:3128")
    assert second.startswith("1 http://proxy.invalid:3128 create --yes --quiet --prefix")
    # Neither the build nor its packages stay.
    envbuild.clear(host, str(tmp_path / "r"), "small")
    assert list((tmp_path / "r").iterdir()) == []


def test_a_node_that_cannot_build(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envbuild, "_FOLDERS", ())
    with pytest.raises(NodeError, match="no mamba, micromamba or conda"):
        _build(host, tmp_path)
    with pytest.raises(NodeError, match="told to be offline"):
        _build(host, tmp_path, offline=True)


def test_a_build_that_does_not_end_is_an_error(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin/mamba"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nsleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(envbuild, "_FOLDERS", (str(program.parent),))
    monkeypatch.setattr(envbuild, "_LIMIT", 0.3)
    with pytest.raises(NodeError, match="did not end within"):
        _build(host, tmp_path)
    envbuild.clear(host, str(tmp_path / "r"), "small")
    assert list((tmp_path / "r").iterdir()) == []


def test_the_hosts_of_a_plan() -> None:
    assert envbuild.hosts([LOCK]) == ["channel.invalid"]
