"""Keys that vendors really use, as Debian ships them; our reading beside gpg's and Sequoia's."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from fixtures.daemons import library_path, unpack_debs
from fixtures.errors import FixtureError
from harness.state import cache_dir
from installers import keypolicy, openpgp, repositories
from tests.unit.installers_keyrings.conftest import Keys
from tests.unit.installers_keyrings.workshop import RELEASES, Smith, make_root

pytestmark = pytest.mark.lab


def unpacked(package: str) -> Path:
    try:
        return unpack_debs([package], cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"{package} cannot be had here: {error}")


@pytest.fixture(scope="module")
def shipped() -> dict[str, bytes]:
    """Key files of package repositories by name, each content once."""
    folder = unpacked("extrepo-offline-data") / "usr/share/extrepo/offline-data/debian"
    found = {path.read_bytes(): path for path in sorted(folder.glob("*/*.asc"))}
    return {str(path.relative_to(folder)): data for data, path in found.items()}


def test_every_key_is_read_as_gpg_reads_it(shipped: dict[str, bytes], smith: Smith) -> None:
    assert len(shipped) > 100
    now = time.time()
    for name, data in shipped.items():
        certificates = openpgp.read(data)
        small = b"".join(keypolicy.minimal(certificate) for certificate in certificates)
        assert smith.fingerprints(small) == smith.fingerprints(data), name
        lines = [line for line in smith.show(data) if line[0] == "pub"]
        for certificate, line in zip(certificates, lines, strict=True):
            judgement = keypolicy.judge(certificate, now)
            assert (judgement.unusable == "is revoked") == (line[1] == "r"), name
            if line[1] == "e":
                assert judgement.unusable.startswith("expired"), name


def test_the_pins_are_the_keys_that_debian_ships(tmp_path: Path, shipped: dict[str, bytes]) -> None:
    host = make_root(tmp_path / "root", RELEASES["debian-12"])
    catalog = repositories.Catalog({})
    system = repositories.system_of(host)
    files = {
        "docker": "docker-ce",
        "nvidia-container-toolkit": "nvidia-docker",
        "cran": "r-project",
    }
    for name, file in files.items():
        repository = catalog.find(name, system)
        assert repository is not None
        held = [
            certificate.fingerprint
            for path, data in shipped.items()
            if path.endswith(f"/{file}.asc")
            for certificate in openpgp.read(data)
        ]
        assert set(repository.fingerprints) <= set(held), name


def test_what_we_call_weak_is_what_sequoia_refuses(tmp_path: Path, keys: Keys) -> None:
    root = unpacked("sqv")
    codes = {}
    for key in (keys.good, keys.weak):
        (tmp_path / "ring.pgp").write_bytes(keys.file(key, armored=False))
        (tmp_path / "text").write_bytes(b"text\n")
        detached = keys.smith.gpg("--local-user", key, "--detach-sign", input=b"text\n")
        (tmp_path / "text.sig").write_bytes(detached)
        command = [f"{root}/usr/bin/sqv", "--keyring", "ring.pgp", "text.sig", "text"]
        ran = subprocess.run(
            command,
            cwd=tmp_path,
            env={"LD_LIBRARY_PATH": library_path(root)},
            capture_output=True,
            text=True,
        )
        codes[key] = ran.returncode
        (certificate,) = openpgp.read(keys.file(key))
        assert keypolicy.judge(certificate, time.time()).weak == (ran.returncode != 0), ran.stderr
    assert codes[keys.good] == 0
