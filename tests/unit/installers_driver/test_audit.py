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


def _system(root: Path, ours: Identity, stranger: Identity) -> Path:
    """An installed Debian: two modules of the kernel's package, NVIDIA's by us, one by nobody."""
    tree = root / "usr/lib/modules/6.1.0-56-cloud-amd64"
    theirs = modsig.attach(BODY, material.sign(stranger, BODY))
    files = {
        "kernel/fs/ext4.ko": theirs,
        "kernel/video/nvidiafb.ko": theirs,
        "updates/airlock/nvidia.ko": modsig.attach(BODY, material.sign(ours, BODY)),
    }
    for name, data in files.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(data)
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    owned = [name for name in files if name.startswith("kernel/")]
    at = "lib/modules/6.1.0-56-cloud-amd64"
    package = info / "linux-image-6.1.0-56-cloud-amd64.list"
    package.write_text("".join(f"/{at}/{name}\n" for name in owned))
    digest = hashlib.md5(theirs, usedforsecurity=False).hexdigest()
    sums = "".join(f"{digest}  {at}/{name}\n" for name in owned)
    package.with_suffix(".md5sums").write_text(sums)
    (root / "cert.der").write_bytes(ours.der)
    return tree


def test_an_installed_systems_packages_are_counted_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ours: Identity, stranger: Identity
) -> None:
    tree = _system(tmp_path, ours, stranger)
    words = [str(tree), "--cert", str(tmp_path / "cert.der"), "--json"]

    def run() -> tuple[int, list[tuple[str, str, str]]]:
        code = audit.main(words)
        answer = json.loads(capsys.readouterr().out)
        rows = answer["findings"]
        found = [(row["class"], row["kind"], row["path"].rpartition("/")[2]) for row in rows]
        return code, found

    assert run() == (0, [])
    audit.main(words)
    counts = json.loads(capsys.readouterr().out)
    assert (counts["modules"], counts["distribution"]) == (3, 2)

    # NVIDIA's modules are strict even when a package owns them, and so is what nobody owns.
    theirs = (tree / "kernel/fs/ext4.ko").read_bytes()
    for name in ("updates/dkms/other.ko", "kernel/nvidia-uvm.ko", "updates/dkms/nvidia-current.ko"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(theirs)
        packages = tmp_path / "var/lib/dpkg/info/linux-modules-nvidia.list"
        packages.write_text(f"/usr/lib/modules/{tree.name}/{name}\n" if "nvidia" in name else "")
        assert run() == (1, [("strict", "foreign-signed", name.rpartition("/")[2])])
        (tree / name).unlink()

    (tree / "kernel/fs/ext4.ko").write_bytes(theirs + b"!")
    assert run() == (1, [("distribution", "changed", "ext4.ko")])
    (tmp_path / "var/lib/dpkg/info/linux-image-6.1.0-56-cloud-amd64.md5sums").unlink()
    assert run()[0] == 3

    # The same files in a directory of their own: everything is strict.
    bare = tmp_path / "bare"
    shutil.copytree(tree, bare)
    code = audit.main([str(bare), *words[1:]])
    answer = json.loads(capsys.readouterr().out)
    assert (code, answer["distribution"], len(answer["findings"])) == (1, 0, 2)


def test_many_modules_are_judged_in_their_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], ours: Identity
) -> None:
    good = modsig.attach(BODY, material.sign(ours, BODY))
    (tmp_path / "cert.der").write_bytes(ours.der)
    place = tmp_path / "modules"
    place.mkdir()
    for number in range(300):
        (place / f"m{number:03}.ko").write_bytes(BODY if number % 100 == 7 else good)
    code = audit.main([str(place), "--cert", str(tmp_path / "cert.der"), "--json"])
    answer = json.loads(capsys.readouterr().out)
    names = [row["path"].rpartition("/")[2] for row in answer["findings"]]
    assert (code, names) == (1, ["m007.ko", "m107.ko", "m207.ko"])
