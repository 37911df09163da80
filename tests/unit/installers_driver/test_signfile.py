"""sign-modules: every compression, read back by the audit and by kmod's own modinfo."""

from __future__ import annotations

import json
import lzma
import subprocess
from pathlib import Path

import pytest

from fixtures.pki import Identity
from fixtures.signer import SignerServer
from installers import audit, cli, modsig
from installers.asn1 import read_certificate
from tests.unit.installers_driver import material

BODY = material.module({"name": "nvidia", "vermagic": "6.1.0 SMP "})
SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")


def _pack(path: Path, data: bytes) -> None:
    if path.suffix == ".xz":
        path.write_bytes(lzma.compress(data))
    elif path.suffix == ".ko":
        path.write_bytes(data)
    else:
        tool = {".zst": "zstd", ".gz": "gzip"}[path.suffix]
        done = subprocess.run([tool, "-c"], input=data, capture_output=True, check=True)
        path.write_bytes(done.stdout)


def _metadata(tmp_path: Path, **attributes: str) -> str:
    file = tmp_path / "metadata.json"
    attributes.setdefault("airlock-secure-boot", "off")
    file.write_text(json.dumps({"instance": {"attributes": attributes}}))
    return str(file)


def _sign(tmp_path: Path, server: SignerServer, *paths: Path) -> int:
    metadata = _metadata(tmp_path, **{"airlock-signer": str(server.path)})
    return cli.main(["sign-modules", "--metadata", metadata, *map(str, paths)])


def test_every_compression(
    tmp_path: Path, server: SignerServer, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"nvidia{suffix}" for suffix in SUFFIXES]
    for path in paths:
        _pack(path, BODY)
        path.chmod(0o640)
    assert _sign(tmp_path, server, *paths) == 0
    certificate = read_certificate(server.authority.module.der)
    for path in paths:
        assert audit.audit_module(path, [certificate]) == []
        assert path.stat().st_mode & 0o777 == 0o640
        assert modsig.split(modsig.read_module(path)).body == BODY
    before = [path.read_bytes() for path in paths]
    assert _sign(tmp_path, server, *paths) == 0
    assert [path.read_bytes() for path in paths] == before
    assert "was signed already" in capsys.readouterr().out


def test_xz_is_what_the_kernel_decodes(tmp_path: Path, server: SignerServer) -> None:
    """The kernel's decoder knows no CRC64, which is what xz makes on its own."""
    path = tmp_path / "nvidia.ko.xz"
    _pack(path, BODY)
    assert path.read_bytes()[7] == 4
    assert _sign(tmp_path, server, path) == 0
    assert path.read_bytes()[7] == 1


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_signed(
    tmp_path: Path,
    server: SignerServer,
    stranger: Identity,
    suffix: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / f"nvidia{suffix}"
    for data, says in (
        (modsig.attach(BODY, material.sign(stranger, BODY)), "signed already"),
        (BODY + b"!", "no signature"),
        (b"text", "not an ELF file"),
    ):
        _pack(path, data)
        before = path.read_bytes()
        assert _sign(tmp_path, server, path) == 1
        assert path.read_bytes() == before
        error = capsys.readouterr().err
        assert says in error
        assert str(path) in error


def test_without_zstd(
    tmp_path: Path,
    server: SignerServer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "nvidia.ko.zst"
    _pack(path, BODY)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _sign(tmp_path, server, path) == 1
    assert "install the package zstd" in capsys.readouterr().err


def test_without_a_signer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nvidia.ko"
    path.write_bytes(BODY)
    for attributes, says in (
        ({}, "no signer is configured"),
        ({"airlock-unsigned-modules": "true"}, "installs its modules unsigned"),
        ({"airlock-signer": str(tmp_path / "nobody")}, "does not answer"),
    ):
        words = ["--metadata", _metadata(tmp_path, **attributes), str(path)]
        assert cli.main(["sign-modules", *words]) == 1
        assert says in capsys.readouterr().err
    assert path.read_bytes() == BODY
