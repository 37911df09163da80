"""audit-modules finds each way in which a signature is not what it should be."""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
import subprocess
from pathlib import Path

import pytest

from fixtures.pki import Identity
from installers import audit, modsig
from tests.unit.installers_driver import material

BODY = material.module({"name": "nvidia", "vermagic": "6.1.0 SMP "})


@pytest.fixture
def place(tmp_path: Path, ours: Identity) -> Path:
    """A directory with one good module, our certificate beside it."""
    (tmp_path / "cert.der").write_bytes(ours.der)
    directory = tmp_path / "modules"
    directory.mkdir()
    (directory / "nvidia.ko").write_bytes(modsig.attach(BODY, material.sign(ours, BODY)))
    return directory


def _run(place: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """(exit code, kinds of the findings)"""
    code = audit.main([str(place), "--cert", str(place.parent / "cert.der"), "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit"] == code
    assert all(row["remedy"] for row in answer["findings"])
    return code, [row["kind"] for row in answer["findings"]]


def test_good_modules_pass(place: Path, capsys: pytest.CaptureFixture[str], ours: Identity) -> None:
    signed = modsig.attach(BODY, material.sign(ours, BODY))
    (place / "deep").mkdir()
    (place / "deep" / "nvidia-uvm.ko.xz").write_bytes(lzma.compress(signed))
    assert _run(place, capsys) == (0, [])
    assert audit.main([str(place), "--cert", str(place.parent / "cert.der")]) == 0
    assert capsys.readouterr().out == "2 modules, 0 findings\n"


def test_unsigned(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "nvidia.ko").write_bytes(BODY)
    assert _run(place, capsys) == (1, ["unsigned"])


def test_doubly_signed(place: Path, capsys: pytest.CaptureFixture[str], ours: Identity) -> None:
    once = (place / "nvidia.ko").read_bytes()
    (place / "nvidia.ko").write_bytes(once + modsig.attach(b"", material.sign(ours, once)))
    assert _run(place, capsys) == (1, ["doubly-signed"])


def test_foreign_signed(
    place: Path, capsys: pytest.CaptureFixture[str], stranger: Identity
) -> None:
    signed = modsig.attach(BODY, material.sign(stranger, BODY))
    (place / "nvidia.ko").write_bytes(signed)
    assert _run(place, capsys) == (1, ["foreign-signed"])


def test_same_names_and_another_key(
    place: Path, capsys: pytest.CaptureFixture[str], ours: Identity
) -> None:
    # A certificate is more than its names: issuer and serial are ours, the key is not.
    double = material.identity(name="Ours", serial=ours.cert.serial_number)
    (place / "nvidia.ko").write_bytes(modsig.attach(BODY, material.sign(double, BODY)))
    assert _run(place, capsys) == (1, ["tampered"])


def test_tampered(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray((place / "nvidia.ko").read_bytes())
    data[70] ^= 1
    (place / "nvidia.ko").write_bytes(data)
    assert _run(place, capsys) == (1, ["tampered"])


@pytest.mark.parametrize("keep", [-1, -28, -40, -60])
def test_a_signature_that_is_cut_off(
    place: Path, capsys: pytest.CaptureFixture[str], keep: int
) -> None:
    data = (place / "nvidia.ko").read_bytes()
    (place / "nvidia.ko").write_bytes(data[:keep])
    assert _run(place, capsys) == (1, ["tampered"])


def test_cut_off_files_and_other_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "nvidia.ko").write_bytes(BODY[:50])
    (place / "nvidia-uvm.ko").write_bytes(b"")
    (place / "nvidia-drm.ko.xz").write_bytes(b"not xz")
    assert _run(place, capsys) == (1, ["tampered"] * 3)


@pytest.mark.skipif(not shutil.which("strip"), reason="needs strip (binutils)")
@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_strip_takes_the_signature_away(
    place: Path, capsys: pytest.CaptureFixture[str], ours: Identity
) -> None:
    module = place / "nvidia.ko"
    (place / "m.c").write_text("int f(void) { return 1; }\n")
    subprocess.run(["gcc", "-g", "-c", "m.c", "-o", "nvidia.ko"], cwd=place, check=True)
    body = module.read_bytes()
    module.write_bytes(modsig.attach(body, material.sign(ours, body)))
    record = {"modules": {"nvidia.ko": {"body_sha256": hashlib.sha256(body).hexdigest()}}}
    (place / audit.RECORD).write_text(json.dumps(record))
    assert _run(place, capsys) == (0, [])
    subprocess.run(["strip", "--strip-debug", "nvidia.ko"], cwd=place, check=True)
    assert _run(place, capsys) == (1, ["stripped-after-sign"])
    (place / audit.RECORD).write_text("damaged")
    assert _run(place, capsys) == (1, ["unsigned"])


def test_nothing_there_is_not_a_pass(tmp_path: Path, ours: Identity) -> None:
    (tmp_path / "cert.pem").write_bytes(ours.pem)
    (tmp_path / "empty").mkdir()
    arguments = ["--cert", str(tmp_path / "cert.pem")]
    assert audit.main([str(tmp_path / "empty"), *arguments]) == 4
    assert audit.main([str(tmp_path / "absent"), *arguments]) == 2
    assert audit.main([str(tmp_path), "--cert", str(tmp_path / "no.pem")]) == 2


def test_what_cannot_be_read_is_not_judged(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (place / "nvidia.ko").rename(place / "nvidia.ko.zst")
    monkeypatch.setenv("PATH", str(place))
    assert _run(place, capsys) == (3, ["unreadable"])


def test_links_are_not_followed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place.parent / "outside.ko").write_bytes(BODY)
    (place / "link.ko").symlink_to(place.parent / "outside.ko")
    assert _run(place, capsys) == (0, [])
