"""NVIDIA's modules, really: source, headers and compiler from the archive, in the image's own root.

Takes minutes for each release; a cached build is used again. The kernel's own verdict on these
modules is that of the Secure Boot cells, not of this test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fixtures.pki import Authority
from fixtures.signer import SignerServer
from harness.pack import pack
from harness.state import cache_dir
from installers import audit, modsig
from installers.asn1 import read_certificate
from installers.debian import LISTS

pytestmark = [
    pytest.mark.lab,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for chroot and mounts"),
    pytest.mark.skipif(not shutil.which("mmdebstrap"), reason="needs mmdebstrap"),
]
COMPONENTS = "main,contrib,non-free,non-free-firmware"
INCLUDE = "linux-image-cloud-amd64,python3,kmod,ca-certificates"
NODE = "/run/airlock/airlock-node.pyz"
CACHE = "/run/airlock/modules"
_ENTER = f"""
root=$1; cache=$2; shift 2
mount --bind "$cache" "$root{CACHE}"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"""


@dataclass
class Image:
    """An unpacked image with a signer's socket in it, and a way to run the node file."""

    root: Path
    signer: SignerServer

    def airlock(self, verb: str) -> dict[str, Any]:
        """What a verb of the node file answers, for the driver alone."""
        command = [NODE, verb, "--only", "driver", "--metadata", "/run/airlock/m.json", "--json"]
        done = self.run("python3", *command)
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        assert answer["exit"] == done.returncode
        return answer

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A program of the image, in it, with the module cache where the metadata says."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        # In a mount namespace that ends with the program: whatever removes the image later must
        # never find this machine's own /dev below it.
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _ENTER, "sh"]
        command = [*enter, str(self.root), str(cache_dir("modules")), *argv]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    @property
    def packages(self) -> str:
        """What dpkg says is installed."""
        return self.run("dpkg-query", "-W", "-f", "${Package} ${Version} ${Status}\n").stdout

    @property
    def kernel(self) -> str:
        """The one kernel of the image."""
        (release,) = [path.name for path in (self.root / "lib/modules").iterdir()]
        return release


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def image(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Image]:
    """A fresh image of a release. The keys are made for this test."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as scratch:
        tar, root = Path(scratch) / "root.tar", Path(scratch) / "root"
        make = ["mmdebstrap", "--variant=minbase", f"--components={COMPONENTS}"]
        subprocess.run([*make, f"--include={INCLUDE}", request.param, str(tar)], check=True)
        root.mkdir()
        subprocess.run(["tar", "-xpf", str(tar), "-C", str(root)], check=True)
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        private = root / "run/airlock"
        (private / "modules").mkdir(parents=True)
        shutil.copy(pack(cache_dir("node")).path, root / NODE.lstrip("/"))
        attributes = {
            "airlock-signer": "/run/airlock/sign.sock",
            "airlock-cache": f"file://{CACHE}",
            "invocation-type": "custom-images",
        }
        (private / "m.json").write_text(json.dumps({"instance": {"attributes": attributes}}))
        tar.unlink()
        authority = Authority(tmp_path_factory.mktemp("pki") / "keys")
        with SignerServer(authority, private / "sign.sock") as signer:
            yield Image(root, signer)


def test_the_driver_from_source_to_signature(image: Image) -> None:
    before = image.packages
    first = image.airlock("apply")["installers"][0]
    assert (first["outcome"], first["problems"]) == ("ok", []), first
    # No compiler, no headers, no lists, no work directory are left in the image.
    assert image.packages == before
    assert not list((image.root / LISTS.lstrip("/")).glob("*Packages*"))
    assert not list((image.root / "var/tmp").iterdir())
    _look_at_the_modules(image, first["provenance"])
    signed = len(image.signer.signatures)
    again = image.airlock("apply")["installers"][0]
    assert (again["outcome"], again["changes"]) == ("unchanged", [])
    assert len(image.signer.signatures) == signed
    assert image.airlock("verify")["exit"] == 0


def _look_at_the_modules(image: Image, provenance: dict[str, Any]) -> None:
    """With modinfo and openssl, not with our own reader alone."""
    place = image.root / "lib/modules" / image.kernel / "updates/airlock"
    authority = image.signer.authority
    certificate = read_certificate(authority.module.der)
    names = [path.name for path in audit.find_modules(place)]
    assert {"nvidia.ko", "nvidia-uvm.ko", "nvidia-modeset.ko", "nvidia-drm.ko"} <= set(names)
    assert sorted(names) == sorted(entry["name"] for entry in image.signer.signatures)
    (image.root / "run/airlock/cert.pem").write_bytes(authority.module.pem)
    for name in names:
        inside = f"/lib/modules/{image.kernel}/updates/airlock/{name}"
        said = image.run("modinfo", inside).stdout
        assert f"vermagic:       {image.kernel} " in said
        assert f"signer:         {authority.module.common_name}" in said
        parts = modsig.split((place / name).read_bytes())
        assert len(parts.signatures) == 1
        (image.root / "run/airlock/body").write_bytes(parts.body)
        (image.root / "run/airlock/cms").write_bytes(parts.signatures[0])
        check = ["openssl", "cms", "-verify", "-binary", "-noverify", "-inform", "DER"]
        check += ["-in", "cms", "-content", "body", "-certfile", "cert.pem", "-out", "/dev/null"]
        checked = subprocess.run(
            check,
            cwd=image.root / "run/airlock",
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, checked.stderr
        assert audit.audit_module(place / name, [certificate]) == []
    assert provenance["kernel"] == image.kernel
    assert provenance["cache"] in ("hit", "miss")
    assert provenance["source"]["sha256"]
    assert all(fixup["state"] in ("applied", "not-needed") for fixup in provenance["fixups"])


def test_a_tampered_module_is_replaced_from_the_cache(image: Image) -> None:
    image.airlock("apply")
    module = image.root / "lib/modules" / image.kernel / "updates/airlock/nvidia.ko"
    good = module.read_bytes()
    data = bytearray(good)
    data[5000] ^= 1
    module.write_bytes(data)
    assert image.airlock("verify")["exit"] == 1
    answer = image.airlock("apply")["installers"][0]
    assert answer["outcome"] == "ok"
    assert answer["provenance"]["cache"] == "hit"
    assert module.read_bytes() == good


def test_an_old_card_gets_proprietary_modules(image: Image) -> None:
    """The distribution's own: the open ones load on a V100 and drive nothing."""
    file = image.root / "run/airlock/m.json"
    text = file.read_text()
    attributes = json.loads(text)["instance"]["attributes"] | {"airlock-gpu": "v100"}
    file.write_text(json.dumps({"instance": {"attributes": attributes}}))
    packages = image.packages
    try:
        answer = image.airlock("apply")["installers"][0]
    finally:
        file.write_text(text)
    assert (answer["outcome"], answer["problems"]) == ("ok", []), answer
    assert answer["provenance"]["source"]["name"] == "nvidia-kernel-source"
    assert image.packages == packages
    module = f"/lib/modules/{image.kernel}/updates/airlock/nvidia.ko"
    assert image.run("modinfo", "-F", "license", module).stdout.strip() == "NVIDIA"
    signer = image.run("modinfo", "-F", "signer", module).stdout.strip()
    assert signer == image.signer.authority.module.common_name
    # Without that card, the open ones come back.
    again = image.airlock("apply")["installers"][0]
    assert again["provenance"]["source"]["name"] == "nvidia-open-kernel-source"
    assert image.run("modinfo", "-F", "license", module).stdout.strip() == "Dual MIT/GPL"


def test_headers_that_the_archive_does_not_have(image: Image) -> None:
    other = image.root / "lib/modules/99.1.0-1-cloud-amd64"
    other.mkdir()
    (other / "modules.builtin").write_text("")
    packages = image.packages
    try:
        answer = image.airlock("apply")["installers"][0]
    finally:
        shutil.rmtree(other)
    assert answer["outcome"] == "failed"
    assert "headers-missing" in answer["problems"][0]["what"]
    assert "linux-headers-99.1.0-1-cloud-amd64" in answer["problems"][0]["what"]
    assert image.packages == packages


def test_remove_leaves_nothing(image: Image) -> None:
    image.airlock("apply")
    assert image.airlock("remove")["exit"] == 0
    assert not (image.root / "lib/modules" / image.kernel / "updates").exists()
    assert not (image.root / "usr/lib/airlock/signing-cert.der").exists()
    assert not (image.root / "etc/modprobe.d/airlock-nouveau.conf").exists()
    listed = (image.root / "lib/modules" / image.kernel / "modules.dep").read_text()
    assert "airlock" not in listed
