"""``airlock cache``: every action on directories, through the command itself."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.pki import Authority, Identity, make_leaf, make_signer
from fixtures.secrets import Secrets
from fixtures.signer import SignerServer
from harness.cachetool import sign
from harness.cli import main
from harness.signers.secret_manager import ENDPOINT
from installers.cache import manifest
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.manifest import Manifest, Trust
from installers.cache.store import object_name

FILES = {"nvidia.ko": b"one" * 1000, "nvidia-uvm.ko": b"two"}
SHARED = {"nvidia-uvm.ko": b"two"}


def key(number: int) -> str:
    return Manifest("kernel-modules", {"kernel": f"6.1.{number}"}, {}).key


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """Three entries; the second and third have only a file that the first has too."""
    local = FileStore(tmp_path / "store")
    cache = Cache([local], local)
    for number, files in enumerate((FILES, SHARED, SHARED)):
        cache.put("kernel-modules", {"kernel": f"6.1.{number}"}, dict(files), {})
    return local


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> tuple[Identity, Path]:
    who = make_signer("Publisher")
    path = tmp_path_factory.mktemp("key") / "key.pem"
    path.write_bytes(who.key_and_cert())
    path.chmod(0o600)
    return who, path


def age(store: FileStore, name: str, days: float) -> None:
    path, moment = store.directory / name, time.time() - days * 86400
    os.utime(path, (moment, moment))


def run(capsys: Any, *argv: str) -> tuple[int, str]:
    code = main(["cache", *argv])
    seen = capsys.readouterr()
    return code, seen.out + seen.err


def test_ls(store: FileStore, capsys: Any) -> None:
    code, said = run(capsys, "ls", str(store.directory))
    assert code == 0
    assert "3 entries" in said
    assert all(key(number)[:16] in said for number in range(3))
    assert said.count("unsigned") == 3
    assert "6.1.2" in said


def test_an_empty_store(tmp_path: Path, capsys: Any) -> None:
    assert run(capsys, "ls", str(tmp_path / "none")) == (0, "0 entries, 0 bytes\n")
    assert run(capsys, "verify", f"file://{tmp_path}/none") == (0, "every entry is good\n")


def test_verify_finds_and_puts_aside(store: FileStore, capsys: Any) -> None:
    assert run(capsys, "verify", store.url)[0] == 0
    big = store.directory / object_name(hashlib.sha256(FILES["nvidia.ko"]).hexdigest())
    big.write_bytes(b"two" * 1000)
    code, said = run(capsys, "verify", store.url)
    assert code == 1
    assert "nvidia.ko: its content was changed" in said
    assert "1 bad entries" in said
    big.write_bytes(b"two")
    assert "3 bytes, not 3000" in run(capsys, "verify", store.url)[1]
    big.unlink()
    assert "is missing" in run(capsys, "verify", store.url, "--quarantine")[1]
    assert run(capsys, "verify", store.url)[0] == 0
    assert "2 entries" in run(capsys, "ls", store.url)[1]


def test_verify_whom_to_believe(store: FileStore, capsys: Any) -> None:
    code, said = run(capsys, "verify", store.url, "--trust", "a" * 64)
    assert code == 1
    assert "not signed" in said


def test_a_damaged_manifest_is_listed_and_verified(store: FileStore, capsys: Any) -> None:
    (store.directory / "entries" / f"{key(1)}.json").write_text("{")
    assert "cannot be read" in run(capsys, "ls", store.url)[1]
    assert run(capsys, "verify", store.url)[0] == 1


def test_warm_signs_with_a_key(
    store: FileStore, tmp_path: Path, identity: tuple[Identity, Path], capsys: Any
) -> None:
    who, path = identity
    target = FileStore(tmp_path / "target")
    code, said = run(capsys, "warm", store.url, target.url, "--plan")
    assert (code, said.count("would copy")) == (0, 3)
    assert not target.directory.exists()
    argv = ("warm", store.url, target.url, "--key", f"file:{path}")
    assert run(capsys, *argv, "--entry", key(1)[:10])[1].endswith("1 copied, 0 left out\n")
    assert run(capsys, *argv)[1].endswith("2 copied, 0 left out\n")
    assert run(capsys, *argv)[1].endswith("0 copied, 0 left out\n")
    assert run(capsys, "verify", target.url, "--trust", who.sha256)[0] == 0
    assert f"signed by {who.sha256[:16]}" in run(capsys, "ls", target.url)[1]
    assert Cache([target], target).get("kernel-modules", {"kernel": "6.1.0"}) is not None


def test_warm_leaves_bad_entries_behind(store: FileStore, tmp_path: Path, capsys: Any) -> None:
    big = store.directory / object_name(hashlib.sha256(FILES["nvidia.ko"]).hexdigest())
    big.write_bytes(b"two" * 1000)
    code, said = run(capsys, "warm", store.url, str(tmp_path / "target"))
    assert code == 1
    assert said.endswith("2 copied, 1 left out\n")


def test_warm_signs_by_a_socket(store: FileStore, tmp_path: Path, capsys: Any) -> None:
    with SignerServer(Authority(tmp_path / "pki"), tmp_path / "sock") as server:
        code, _ = run(capsys, "warm", store.url, str(tmp_path / "t"), "--signer", str(server.path))
        assert code == 0
        assert len(server.signatures) == 3
        pin = server.authority.module.sha256
    assert run(capsys, "verify", str(tmp_path / "t"), "--trust", pin)[0] == 0


def test_the_signature_is_one_that_nodes_accept(identity: tuple[Identity, Path]) -> None:
    who, path = identity
    made = Manifest("x", {"y": 1}, {"z": manifest.Content("a" * 64, 1)})
    with sign.signer(f"file:{path}", None) as publisher:
        envelope = manifest.encode(made, publisher)
    found, signature = manifest.decode(envelope, made.key)
    assert Trust(frozenset({who.sha256})).against(found, signature) is None


def test_gc_by_age(store: FileStore, capsys: Any) -> None:
    for name in ("entries/" + key(0) + ".json", "entries/" + key(1) + ".json"):
        age(store, name, 40)
    for info in list(store.list("objects/")):
        age(store, info.name, 50)
    before = sorted(info.name for info in store.list(""))
    code, said = run(capsys, "gc", store.url, "--older-than", "30d")
    assert code == 0
    assert "nothing was removed" in said
    assert sorted(info.name for info in store.list("")) == before
    code, said = run(capsys, "gc", store.url, "--older-than", "30d", "--delete")
    assert "3 objects removed" in said  # two entries, and the content that only they had
    assert run(capsys, "verify", store.url) == (0, f"good  {key(2)[:16]}\nevery entry is good\n")
    assert len(list(store.list("objects/"))) == 1


def test_gc_by_size_keeps_the_newest(store: FileStore, capsys: Any) -> None:
    age(store, "entries/" + key(0) + ".json", 3)
    run(capsys, "gc", store.url, "--keep-size", "100", "--delete")
    assert {info.name for info in store.list("entries/")} == {
        f"entries/{key(1)}.json",
        f"entries/{key(2)}.json",
    }
    # Content that is young may belong to a manifest that is on its way.
    assert len(list(store.list("objects/"))) == 2


def test_gc_does_not_guess_what_a_damaged_manifest_needs(store: FileStore, capsys: Any) -> None:
    (store.directory / "entries" / f"{key(0)}.json").write_text("{")
    for info in list(store.list("objects/")):
        age(store, info.name, 50)
    run(capsys, "gc", store.url, "--delete")
    assert len(list(store.list("objects/"))) == 2


def test_gc_sweeps_old_leases_and_quarantine(store: FileStore, capsys: Any) -> None:
    store.create("leases/x.json", b"{}")
    store.create("leases/young.json", b"{}")
    store.create("objects/bad", b"bad")
    bad = store.read("objects/bad")
    assert bad is not None
    store.set_aside("objects/bad", bad.generation, "bad")
    age(store, "leases/x.json", 2)
    for info in list(store.list("quarantine/")):
        age(store, info.name, 2)
    assert "3 objects removed" in run(capsys, "gc", store.url, "--delete")[1]
    assert [info.name for info in store.list("leases/")] == ["leases/young.json"]


@pytest.mark.parametrize(
    "argv",
    [
        ["ls"],
        ["ls", "ftp://x/y"],
        ["ls", "http://mirror.invalid/x"],
        ["verify", "x", "--trust", "abc"],
        ["warm", "x"],
        ["warm", "x", "https://mirror.invalid/y"],
        ["warm", "https://mirror.invalid/x", "y"],
        ["warm", "x", "y", "--key", "/nonexistent"],
        ["warm", "x", "y", "--key", "file:/nonexistent"],
        ["warm", "x", "y", "--key", "k", "--signer", "s"],
        ["gc", "x", "--older-than", "soon"],
        ["gc", "x", "--keep-size", "little"],
        ["shred", "x"],
    ],
)
def test_bad_input(argv: list[str], capsys: Any) -> None:
    code, said = run(capsys, *argv)
    assert code == 2, said
    assert said.startswith("airlock: ")


def test_keys_that_are_no_good(
    tmp_path: Path, store: FileStore, identity: tuple[Identity, Path], capsys: Any
) -> None:
    who, path = identity
    authority = Authority(tmp_path / "pki")
    cases = {
        "0 private keys in PEM": b"nothing",
        "the private key is not RSA": make_leaf(authority.origin, ["x.test"]).key_and_cert(),
        "is not that of the certificate": who.key_pem + authority.stranger.pem,
    }
    for words, data in cases.items():
        bad = tmp_path / "bad.pem"
        bad.write_bytes(data)
        bad.chmod(0o600)
        code, said = run(capsys, "warm", store.url, f"{tmp_path}/t", "--key", f"file:{bad}")
        assert (code, words in said) == (2, True), said
    open_to_all = tmp_path / "open.pem"
    open_to_all.write_bytes(path.read_bytes())
    open_to_all.chmod(0o644)
    code, said = run(capsys, "warm", store.url, f"{tmp_path}/t", "--key", f"file:{open_to_all}")
    assert (code, "read by others" in said) == (2, True)
    assert not (tmp_path / "t").exists()


def test_warm_signs_with_a_key_of_secret_manager(
    store: FileStore,
    tmp_path: Path,
    identity: tuple[Identity, Path],
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By Google's own library, as everything that names its key with --key."""
    who, _ = identity
    secret = "projects/p/secrets/publisher"
    spec = f"secret-manager:{secret}/versions/1?certificate={secret}-cert/versions/1"
    with Secrets() as double:
        double.versions = {secret: [who.key_pem], f"{secret}-cert": [who.der]}
        monkeypatch.setenv(ENDPOINT, double.url)
        target = str(tmp_path / "t")
        assert run(capsys, "warm", store.url, target, "--key", spec)[0] == 0
        assert len(double.requests) == 2
        double.versions = {}
        assert run(capsys, "warm", store.url, f"{tmp_path}/u", "--key", spec)[0] == 3
    assert run(capsys, "verify", target, "--trust", who.sha256)[0] == 0
