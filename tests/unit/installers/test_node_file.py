"""The packed node file: reproducible, alone in the world, one line for every error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import installers
from fixtures.metadata import MetadataServer
from harness.pack import Packed, pack
from installers import cli, units
from installers import metadata as server_or_file

PASSWORD = "c@n:/%#ary-9c1d"
URL = "http://bob:c%40n%3A%2F%25%23ary-9c1d@10.0.2.100:3128"


@pytest.fixture(scope="module")
def node_file(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    return pack(tmp_path_factory.mktemp("pack"))


def run(
    node_file: Packed,
    *args: str,
    python: str = sys.executable,
    options: tuple[str, ...] = ("-I", "-S"),
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, *options, str(node_file.path), *args],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        check=False,
    )


def metadata(folder: Path, **attributes: str) -> str:
    file = folder / "metadata.json"
    named = {key.replace("_", "-"): value for key, value in attributes.items()}
    file.write_text(json.dumps({"instance": {"attributes": named}}))
    return str(file)


def test_same_sources_give_the_same_bytes(tmp_path: Path) -> None:
    source = tmp_path / "elsewhere/installers"
    shutil.copytree(Path(str(installers.__file__)).parent, source)
    (source / "__pycache__").mkdir(exist_ok=True)
    (source / "__pycache__/x.py").write_text("no")
    (source / "notes.txt").write_text("no")
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    one, two = pack(tmp_path / "one"), pack(tmp_path / "two", source)
    assert one.sha256 == two.sha256
    assert one.path.read_bytes() == two.path.read_bytes()
    with zipfile.ZipFile(one.path) as archive:
        names = archive.namelist()
    assert "installers/cli.py" in names
    assert any(name.endswith(".json") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".txt")]


def test_kept_by_content(tmp_path: Path) -> None:
    first = pack(tmp_path)
    before = first.path.stat().st_mtime_ns
    assert pack(tmp_path) == first
    assert first.path.stat().st_mtime_ns == before
    first.path.write_bytes(b"damaged")
    assert pack(tmp_path) == first
    assert first.path.read_bytes() != b"damaged"


def test_applies_alone_and_installs_itself(node_file: Packed, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    file = metadata(tmp_path, http_proxy=URL)
    common = ("--root", str(root), "--metadata", file, "--only", "proxy", "--json")
    started = time.monotonic()
    done = run(node_file, "apply", *common)
    seconds = time.monotonic() - started
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["installers"][0]["outcome"] == "ok"
    assert answer["exit"] == 0
    installed = root / units.NODE_FILE.lstrip("/")
    assert installed.read_bytes() == node_file.path.read_bytes()
    again = json.loads(run(node_file, "apply", *common).stdout)
    assert again["installers"][0]["outcome"] == "unchanged"
    assert json.loads(run(node_file, "verify", *common).stdout)["exit"] == 0
    assert seconds < 10


def test_boot_with_a_real_metadata_server(node_file: Packed, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with MetadataServer({"http-proxy": URL}) as server:
        server.serve()
        source = f"http://127.0.0.1:{server.port}"
        done = run(node_file, "apply", "--only", "proxy", "--root", str(root), "--metadata", source)
        assert done.returncode == 0
        assert PASSWORD not in done.stdout
        assert "ary-9c1d" not in done.stdout
        assert "ary-9c1d" in (root / "etc/environment").read_text()
        project = [row["path"] for row in server.requests]
    assert len(project) == 2


@pytest.mark.parametrize(
    ("args", "code", "what"),
    [
        ((), 2, "usage:"),
        (("paint",), 2, "invalid choice"),
        (("plan", "--only", "prxy"), 2, "did you mean proxy?"),
        (("plan", "--root", "/nowhere"), 2, "is not a directory"),
        (("plan", "--metadata", "/nowhere.json"), 2, "/nowhere.json: No such file"),
        (("apply", "--help"), 0, ""),
    ],
)
def test_usage(node_file: Packed, args: tuple[str, ...], code: int, what: str) -> None:
    done = run(node_file, *args)
    assert done.returncode == code
    assert what in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http-proxy", "host"),
        ("http-proxy", "http://http://h:1"),
        ("http-proxy", f"user:{PASSWORD}@h:1"),
        ("http-proxy", "::1:3128"),
        ("http-proxy-pem-uri", "ftp://x/y"),
    ],
)
def test_bad_metadata_is_exit_2_and_changes_nothing(
    node_file: Packed, tmp_path: Path, key: str, value: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    file = metadata(tmp_path, **{key: value})
    only = "trust" if "pem" in key else "proxy"
    done = run(node_file, "apply", "--only", only, "--root", str(root), "--metadata", file)
    assert done.returncode == 2
    assert done.stderr.startswith(f"airlock-node: {key}: ")
    assert len(done.stderr.splitlines()) == 1
    assert "ary-9c1d" not in done.stderr
    assert not (root / "etc").exists()
    done = run(
        node_file, "apply", "--only", only, "--root", str(root), "--metadata", file, "--json"
    )
    assert json.loads(done.stdout)["error"]["where"] == key
    assert json.loads(done.stdout)["exit"] == done.returncode == 2


def test_no_metadata_server_fails_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/environment").write_text("http_proxy=http://kept:1\n")
    monkeypatch.setattr(server_or_file, "PATIENCE", 0.2)
    argv = ["apply", "--only", "proxy", "--root", str(root), "--metadata", "http://127.0.0.1:9"]
    assert cli.main(argv) == 3
    assert (root / "etc/environment").read_text() == "http_proxy=http://kept:1\n"
    last = json.loads((root / "var/lib/airlock/journal.jsonl").read_text().splitlines()[-1])
    assert (last["installer"], last["step"], last["event"]) == ("metadata", "read", "fail")


def test_second_run_waits_for_the_first(node_file: Packed, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    file = metadata(tmp_path, http_proxy="h:1")
    argv = [sys.executable, str(node_file.path), "apply", "--only=proxy", f"--root={root}"]
    several = [
        subprocess.Popen([*argv, f"--metadata={file}", "--json"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    answers = [json.loads(process.communicate()[0]) for process in several]
    outcomes = sorted(answer["installers"][0]["outcome"] for answer in answers)
    assert outcomes == ["ok", "unchanged", "unchanged"]


def other_python(version: str) -> str | None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return str(found[0]) if found else shutil.which(f"python{version}")


@pytest.mark.parametrize("version", ["3.9", "3.13"])
def test_oldest_and_newest_python(node_file: Packed, tmp_path: Path, version: str) -> None:
    python = other_python(version)
    if python is None:
        pytest.skip(f"Python {version} is not installed")
    root = tmp_path / "root"
    root.mkdir()
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text("ID=debian\n")
    file = metadata(tmp_path, http_proxy=URL, invocation_type="custom-images")
    argv = ("--only", "proxy,trust,seal", "--root", str(root), "--metadata", file)
    for verb in ("plan", "apply", "verify", "remove"):
        done = run(node_file, verb, *argv, python=python)
        assert (done.returncode, done.stderr) == (0, ""), verb
