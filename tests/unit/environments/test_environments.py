"""From a specification to a node: solved, locked, built, packed, restored elsewhere, repaired."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from fixtures.channel import Channel, small
from fixtures.pki import make_ca, make_leaf
from harness import cli
from harness.envs import solve
from harness.envs.build import build, install
from harness.errors import InfraError, UsageError
from installers import envbuild, envfiles, environments, envpack
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.config import Config
from installers.engine import Engine
from installers.envfiles import Lock
from installers.environments import Environments
from installers.errors import ConfigError
from installers.host import Host

SPEC = {
    "schema": 1,
    "name": "small",
    "channels": [],
    "packages": ["models", "ipykernel", "where", "pip"],
    "imports": ["models", "tensors"],
    "cuda": {"default": "12.6", "package": "cuda-version", "from": "12.0", "below": None},
}


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Channel]:
    with small(tmp_path_factory.mktemp("channel")) as channel:
        yield channel


@pytest.fixture(scope="module")
def lock(channel: Channel) -> Lock:
    spec = envfiles.spec_of({**SPEC, "channels": [channel.url]}, "test")
    return solve.lock(spec, tool="rattler")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, lock: Lock) -> Path:
    """A store that holds the built environment."""
    folder = tmp_path_factory.mktemp("store")
    cache = Cache([FileStore(folder)], FileStore(folder))
    build(lock, cache, tmp_path_factory.mktemp("work"))
    return folder


def test_a_lock_names_every_package(lock: Lock, channel: Channel) -> None:
    names = [(package.name, package.version) for package in lock.packages]
    assert sorted(names) == [
        ("cuda-version", "12.6"),
        ("ipykernel", "6.0"),
        ("models", "0.3"),
        ("pip", "24.0"),
        ("python", "3.11.7"),
        ("tensors", "2.0"),
        ("where", "1.0"),
    ]
    for package in lock.packages:
        file = channel.directory / package.subdir / package.url.rpartition("/")[2]
        assert package.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
        assert package.url.startswith(channel.url)
    again = envfiles.lock_of(lock.text(), "again")
    assert again == lock
    assert again.digest == lock.digest
    assert lock.explicit.splitlines()[0] == "@EXPLICIT"


def test_the_key_is_the_content_and_not_the_address(lock: Lock) -> None:
    mirrored = json.loads(lock.text().replace("http://127.0.0.1", "https://mirror.invalid"))
    other = envfiles.lock_of(json.dumps(mirrored), "mirror")
    assert other.inputs == lock.inputs
    mirrored["packages"][0]["sha256"] = "ab" * 32
    assert envfiles.lock_of(json.dumps(mirrored), "mirror").digest != lock.digest


def _host(tmp_path: Path, lock: Lock) -> Host:
    """A root whose programs are run where they lie: prefixes are those of this machine."""
    host = Host("/")
    folder = tmp_path / "locks"
    folder.mkdir(exist_ok=True)
    (folder / "small.lock.json").write_text(lock.text())
    return host


def _config(tmp_path: Path, store: Path, **more: str) -> Config:
    return Config(
        raw={
            "airlock-environments": "small",
            "airlock-environment-locks": str(tmp_path / "locks"),
            "airlock-environments-root": str(tmp_path / "envs"),
            "airlock-cache": f"file://{store}",
            "airlock-offline": "true",
            **more,
        }
    )


@pytest.fixture(autouse=True)
def _records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the node keeps in /var/lib and /usr/local is kept in the test's directory."""
    monkeypatch.setattr(environments, "RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(environments, "KERNELS", str(tmp_path / "kernels"))


class _Engine(Engine):
    def _store(self, outcome: object) -> None:
        """The state file is this machine's own."""


def _apply(tmp_path: Path, lock: Lock, config: Config) -> tuple[int, list[str], str]:
    from installers.journal import Journal

    engine = _Engine(_host(tmp_path, lock), [Environments(config)])
    lines: list[str] = []

    class Quiet(Journal):
        def write(self, installer: str, step: str, event: str, **data: object) -> None:
            lines.append(json.dumps([installer, step, event, data], default=str))

    engine.journal = Quiet(engine.host)
    summary = engine.apply()
    outcome = summary.installers[0]
    said = [problem.what for problem in outcome.problems]
    said += [refusal.code for refusal in outcome.refusals]
    return int(summary.exit), said, "\n".join(lines)


def test_B36_B37_restored_without_network_at_another_prefix(
    tmp_path: Path, lock: Lock, store: Path, channel: Channel
) -> None:
    before = len(channel.requests)
    config = _config(tmp_path, store)
    code, said, _ = _apply(tmp_path, lock, config)
    assert (code, said) == (0, [])
    assert len(channel.requests) == before
    prefix = tmp_path / "envs/small"

    def run(*words: str) -> str:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()

    # Program, script and module know where they are now, and nowhere else.
    assert run(str(prefix / "bin/where")) == f"{prefix} {prefix}/lib/where.so"
    code_text = "import models; print(models.home)"
    assert run(str(prefix / "bin/python"), "-B", "-c", code_text) == f"{prefix}/share"
    assert (prefix / "lib/latest").resolve() == prefix / "bin/where"
    for path in prefix.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert b".build-__" not in path.read_bytes(), path
    kernel = json.loads((tmp_path / "kernels/airlock-small/kernel.json").read_text())
    assert kernel["argv"][0] == f"{prefix}/bin/python"
    # Twice changes nothing.
    stamp = prefix.stat().st_mtime_ns
    assert _apply(tmp_path, lock, config)[:2] == (0, [])
    assert prefix.stat().st_mtime_ns == stamp


def test_damage_is_found_and_repaired_in_place(tmp_path: Path, lock: Lock, store: Path) -> None:
    config = _config(tmp_path, store)
    assert _apply(tmp_path, lock, config)[0] == 0
    prefix = tmp_path / "envs/small"
    module = prefix / "lib/python3.11/site-packages/tensors/__init__.py"
    inode = (prefix / "bin/where").stat().st_ino
    module.write_text("raise SystemExit(1)\n")
    (prefix / "bin/python").unlink()
    (prefix / "share/cuda").write_bytes(b"13.0\n")
    problems = Environments(config).verify(_host(tmp_path, lock))
    assert "3 files are missing or changed" in problems[0].what
    code, said, journal = _apply(tmp_path, lock, config)
    assert (code, said) == (0, [])
    assert '"files": 3' in journal
    # Only what was damaged was written.
    assert (prefix / "bin/where").stat().st_ino == inode
    assert (prefix / "share/cuda").read_bytes() == b"12.6\n"


def _damage(archive: Path) -> None:
    """The length stays; what the archive says of its own content does too."""
    with zipfile.ZipFile(archive) as packed:
        member = max(packed.infolist(), key=lambda one: one.compress_size)
    data = bytearray(archive.read_bytes())
    data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 1
    archive.write_bytes(data)


@pytest.mark.parametrize("repairs", [False, True])
def test_a_damaged_archive_is_not_used(
    tmp_path: Path, lock: Lock, store: Path, repairs: bool
) -> None:
    """The node's own copy is not hashed before it is unpacked: the other tier's is used then."""
    mine = tmp_path / "mine"
    shutil.copytree(store, mine)
    config = _config(tmp_path, mine, **{"airlock-cache": f"file://{mine} file://{store}"})
    if repairs:
        assert _apply(tmp_path, lock, config)[0] == 0
        for path in (tmp_path / "envs/small").rglob("*"):
            if path.is_file():
                path.unlink()
    for archive in (mine / "objects").iterdir():
        if zipfile.is_zipfile(archive):
            _damage(archive)
    code, said, journal = _apply(tmp_path, lock, config)
    assert (code, said) == (0, [])
    assert "is not used: its hash is another one" in journal
    assert list((mine / "quarantine").iterdir())
    assert Environments(config).verify(_host(tmp_path, lock)) == []


def test_files_are_compared_once_by_an_apply_and_again_by_every_verify(
    tmp_path: Path, lock: Lock, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[Path] = []
    compare = envpack.differing

    def counted(target: Path, *others: Mapping[str, str]) -> list[str]:
        whole.append(target)
        return compare(target, *others)

    monkeypatch.setattr(envpack, "differing", counted)
    installer = Environments(_config(tmp_path, store))
    host = _host(tmp_path, lock)
    assert _Engine(host, [installer]).apply().exit == 0
    assert whole == []  # each when it had been written
    (tmp_path / "envs/small/share/cuda").write_bytes(b"13.0\n")
    assert "1 files are missing or changed" in installer.verify(host)[0].what


def test_B34_a_broken_import_is_a_problem(tmp_path: Path, lock: Lock, store: Path) -> None:
    changed = json.loads(lock.text())
    changed["imports"].append("nothing_of_this_name")
    broken = envfiles.lock_of(json.dumps(changed), "broken")
    code, said, _ = _apply(tmp_path, broken, _config(tmp_path, store))
    assert code == 1
    assert "nothing_of_this_name" in said[0]


def test_pip_check_is_asked(tmp_path: Path, lock: Lock, channel: Channel) -> None:
    rest = tuple(package for package in lock.packages if package.name != "tensors")
    lacking = dataclasses.replace(lock, packages=rest, imports=("models",))
    folder = tmp_path / "lacking"
    folder.mkdir()
    build(lacking, Cache([FileStore(folder)], FileStore(folder)), tmp_path / "work")
    code, said, _ = _apply(tmp_path, lacking, _config(tmp_path, folder))
    assert code == 1
    assert "pip check" in said[0]
    assert "models 0.3 requires tensors, which is not installed" in said[0]
    assert channel.requests


def test_what_a_node_cannot_have(tmp_path: Path, lock: Lock, store: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    code, said, _ = _apply(tmp_path, lock, _config(tmp_path, empty))
    assert code == 1
    assert "the cache lacks it, and this node is told to be offline" in said[0]
    config = _config(tmp_path, empty, **{"airlock-offline": "false"})
    code, said, _ = _apply(tmp_path, lock, config)
    assert code == 1
    assert "no mamba, micromamba or conda" in said[0]
    code, said, _ = _apply(tmp_path, lock, _config(tmp_path, store, **{"include-pytorch": "yes"}))
    assert said == ["environments.no-lock"]
    root = {"airlock-environments-root": "/" + "long" * 40}
    assert _apply(tmp_path, lock, _config(tmp_path, store, **root))[1] == ["environments.prefix"]
    with pytest.raises(ConfigError, match="short lower-case word"):
        Environments(Config(raw={"airlock-environments": "../etc"}))


def test_built_here_and_nothing_is_left_over(
    tmp_path: Path, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mamba is a double that installs by py-rattler: what it leaves is a real environment."""

    def create(host: Host, tool: str, prefix: str, explicit: str, config: Config) -> None:
        assert Path(explicit).read_text() == lock.explicit
        assert (tool, config.proxy.http) == ("mamba", None)
        install(lock, host.path(prefix), tmp_path / "packages")

    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.setattr(envbuild, "program", lambda _: "mamba")
    monkeypatch.setattr(envbuild, "_create", create)
    config = _config(tmp_path, empty, **{"airlock-offline": "false"})
    code, said, journal = _apply(tmp_path, lock, config)
    assert (code, said) == (0, [])
    assert '"result": "built"' in journal
    assert [path.name for path in (tmp_path / "envs").iterdir()] == ["small"]
    # The next node finds it in the store.
    shutil.rmtree(tmp_path / "envs")
    shutil.rmtree(tmp_path / "records")
    code, said, journal = _apply(tmp_path, lock, _config(tmp_path, empty))
    assert (code, said) == (0, [])
    assert '"result": "built"' not in journal


def test_no_longer_wanted(tmp_path: Path, lock: Lock, store: Path) -> None:
    config = _config(tmp_path, store)
    assert _apply(tmp_path, lock, config)[0] == 0
    assert _apply(tmp_path, lock, _config(tmp_path, store, **{"airlock-environments": ""}))[0] == 0
    assert not (tmp_path / "envs/small").exists()
    assert not (tmp_path / "kernels/airlock-small").exists()


def test_todays_keys() -> None:
    assert environments.wanted({"include-pytorch": "1", "include-tensorflow": "no"}) == ["pytorch"]
    assert environments.wanted(
        {"airlock-environments": "rapids pytorch", "include-pytorch": "YES"}
    ) == ["rapids", "pytorch"]


def test_the_command(tmp_path: Path, channel: Channel, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "small.json"
    spec.write_text(json.dumps({**SPEC, "channels": ["https://elsewhere.invalid"]}))
    lock = tmp_path / "small.lock.json"
    words = ["env", "lock", str(spec), "--channel", channel.url, "--output", str(lock)]
    assert cli.main([*words, "--cuda", "12.4", "--tool", "rattler"]) == 0
    assert '"version": "12.4"' in lock.read_text()
    store = tmp_path / "store"
    store.mkdir()
    for state in ("built", "was there"):
        assert cli.main(["env", "build", str(lock), "--store", f"file://{store}"]) == 0
        assert state in capsys.readouterr().out
    assert cli.main(["env", "check", "tensorflow", "--cuda", "13.0"]) == 2
    assert "use CUDA from 11.8 to below 13.0" in capsys.readouterr().err
    assert cli.main(["env", "check", "nothing"]) == 2


@pytest.mark.parametrize("name", envfiles.SHIPPED)
def test_B35_shipped_specifications_fit_the_compatibility_table(name: str) -> None:
    spec = envfiles.shipped(name)
    assert spec.name == name
    assert "ipykernel" in spec.packages
    assert spec.pinned(None)[-1] == "cuda-version=12.6"
    with pytest.raises(ConfigError, match="in no row"):
        spec.pinned("12.7")
    # pip's syntax is no conda package, and the channel 'pytorch' has ended.
    assert not any("[" in package for package in spec.packages)
    assert "pytorch" not in spec.channels


def test_what_cannot_be_solved_is_the_users(channel: Channel) -> None:
    spec = envfiles.spec_of(
        {**SPEC, "channels": [channel.url], "packages": ["models", "tensors <2"]}, "test"
    )
    with pytest.raises(UsageError, match="tensors"):
        solve.lock(spec, tool="rattler")
    away = envfiles.spec_of({**SPEC, "channels": ["http://127.0.0.1:9"]}, "test")
    with pytest.raises(InfraError):
        solve.lock(away, tool="rattler")


def test_a_package_that_is_not_the_locked_one(tmp_path: Path, lock: Lock) -> None:
    changed = json.loads(lock.text())
    for row in changed["packages"]:
        if row["name"] == "tensors":
            row["sha256"] = "ab" * 32
    tampered = envfiles.lock_of(json.dumps(changed), "tampered")
    cache = Cache([FileStore(tmp_path)], FileStore(tmp_path))
    with pytest.raises(InfraError, match="was not built"):
        build(tampered, cache, tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == []


def test_authentication(
    tmp_path: Path, channel: Channel, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Channel(channel.directory, login=("user", "s3cret-word")) as locked:
        spec = envfiles.spec_of({**SPEC, "channels": [locked.url]}, "test")
        with pytest.raises(InfraError) as caught:
            solve.lock(spec, tool="rattler")
        assert "401" in str(caught.value)
        login = {"BasicHTTP": {"username": "user", "password": "s3cret-word"}}
        (tmp_path / "auth.json").write_text(json.dumps({"127.0.0.1": login}))
        monkeypatch.setenv("RATTLER_AUTH_FILE", str(tmp_path / "auth.json"))
        made = solve.lock(spec, tool="rattler")
        assert made.inputs == lock.inputs
        assert "s3cret-word" not in made.text()


def test_through_a_proxy_that_wants_a_password(
    channel: Channel, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Channel(channel.directory, proxy_login=("me", "pr0xy-word")) as proxy:
        spec = envfiles.spec_of({**SPEC, "channels": ["http://channel.invalid"]}, "test")
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//me:pr0xy-word@"))
        monkeypatch.setenv("no_proxy", "")
        made = solve.lock(spec, tool="rattler")
        assert made.inputs == lock.inputs
        assert all(package.url.startswith("http://channel.invalid/") for package in made.packages)
        assert ("/linux-64/repodata.json", 200) in proxy.requests
        monkeypatch.setenv("http_proxy", proxy.url)
        with pytest.raises(InfraError, match="407"):
            solve.lock(spec, tool="rattler")


def test_a_ca_of_the_sites_own(
    tmp_path: Path, channel: Channel, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = make_ca("Site")
    (tmp_path / "server.pem").write_bytes(make_leaf(ca, ["127.0.0.1"]).key_and_cert())
    (tmp_path / "ca.pem").write_bytes(ca.pem)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(str(tmp_path / "server.pem"))
    with Channel(channel.directory, tls=tls) as served:
        spec = envfiles.spec_of({**SPEC, "channels": [served.url]}, "test")
        with pytest.raises(InfraError):
            solve.lock(spec, tool="rattler")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert solve.lock(spec, tool="rattler").inputs == lock.inputs


def test_a_wrong_lock_is_named(lock: Lock) -> None:
    good = json.loads(lock.text())
    for change, says in (
        ({"schema": 2}, "another schema"),
        ({"platform": "win-64"}, "platform"),
        ({"name": "../x"}, "name"),
        ({"packages": []}, "holds no packages"),
        ({"packages": [{}]}, "lacks build"),
        ({"imports": "x"}, "not a list of texts"),
    ):
        with pytest.raises(ConfigError, match=says):
            envfiles.lock_of(json.dumps({**good, **change}), "lock")
    for field, value, says in (
        ("url", "ftp://host/a.conda", "not a URL"),
        ("url", "https://user:pw@host/a.conda", "without credentials"),
        ("url", "https://host/a.zip", "not a conda package"),
        ("sha256", "", "no SHA-256"),
        ("noarch", "x", "noarch"),
    ):
        rows = [{**good["packages"][0], field: value}]
        with pytest.raises(ConfigError, match=says):
            envfiles.lock_of(json.dumps({**good, "packages": rows}), "lock")
    with pytest.raises(ConfigError, match="not JSON"):
        envfiles.lock_of("{", "lock")


def test_solving_by_mamba(
    tmp_path: Path, lock: Lock, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is a double that answers as micromamba --json does: none is to be had here."""
    rows = []
    for package in lock.packages:
        row = {k: getattr(package, k) for k in ("url", "sha256", "size", "name", "version")}
        row |= {"build_string": package.build, "build_number": package.build_number}
        row |= {"subdir": package.subdir, "depends": list(package.depends)}
        rows.append({**row, "noarch": package.noarch or ""})
    answer = json.dumps({"success": True, "actions": {"LINK": rows}})
    (tmp_path / "answer").write_text(answer)
    mamba = tmp_path / "micromamba"
    mamba.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\ncat {tmp_path}/answer\n')
    mamba.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    spec = envfiles.spec_of({**SPEC, "channels": [channel.url]}, "test")
    assert solve.lock(spec) == lock
    assert "--dry-run --json" in (tmp_path / "words").read_text()
    (tmp_path / "answer").write_text(json.dumps({"success": False, "solver_problems": ["no x"]}))
    with pytest.raises(UsageError, match="no x"):
        solve.lock(spec)
