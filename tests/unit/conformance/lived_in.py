"""A whole node as a directory: what the facts beside cards, environments and YARN are read from.

Files of tools are written by our own translators, modules signed by a key of ours; the collectors
read what is here, and sabotages' shell runs here as it stands.
"""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fixtures.openpgp import SigningKey
from fixtures.pki import Authority, Identity, make_ca
from fixtures.repository import TITLE
from harness.checks import MARKER, Check
from installers import openpgp
from installers.asn1 import load_certificate
from installers.collect import (
    boot,
    built,
    efi,
    hygiene,
    modules,
    network,
    proxy,
    repositories,
    seams,
    secure_boot,
    trust,
    upkeep,
)
from installers.collect.reader import Reader, assignments
from installers.dialects import authorities
from installers.dialects.base import Wanted
from installers.host import Host
from tests.unit.conformance import good, good_deferred, trees

ROOT = Path(__file__).parents[3]
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
CA_FILE = "/etc/airlock/proxy-ca.pem"
RINGS = ("debian-archive-keyring.gpg", "debian-archive-removed-keys.gpg")
EFIVARS = "sys/firmware/efi/efivars"
DBX = f"{EFIVARS}/dbx-d719b2cb-3d3a-4596-a3bc-dad00e67656f"
MOK = f"{EFIVARS}/MokListRT-605dab50-e046-4300-abb6-3dd810dd8b23"
SITE = "lib/python3.11/site-packages"
SBAT = (
    b"sbat,1,SBAT Version,sbat,1,https://example.org\nshim,4,UEFI shim,shim,1,https://example.org\n"
)
PROGRAMS = ("usr/lib/google-cloud-sdk/bin/gcloud", *(f"usr/local/bin/{n}" for n in ("npm", "node")))
FILES = {
    "proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz root=/dev/vda ro\n",
    "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
    "etc/hostname": "airlock-node\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 airlock-node\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/shadow": "root:*:20779:0:99999:7:::\ndaemon:*:20779:0:99999:7:::\nsshd:!:20779::::::\n",
    "etc/apt/sources.list": "deb https://mirror.airlock.test/debian bookworm main\n",
    "etc/modprobe.d/airlock-nouveau.conf": "blacklist nouveau\noptions nouveau modeset=0\n",
    "var/lib/dpkg/status": (
        "Package: wget\nStatus: install ok installed\nVersion: 1.21\n\n"
        "Package: curl\nStatus: install ok installed\nVersion: 7.88\n"
    ),
    "var/lib/dpkg/info/debian-archive-keyring.list": (
        "/usr/share/keyrings/debian-archive-keyring.gpg\n"
    ),
    "opt/conda/conda-meta/history": "",
    "opt/conda/condabin/.keep": "",
    "usr/lib/google-cloud-sdk/VERSION": "560.0.0\n",
    "usr/lib/systemd/system/ssh.service": "[Service]\nExecStart=/usr/sbin/sshd\n",
}
FOLDERS = (
    "run",
    "tmp",
    "var/lib/systemd",
    "var/tmp",
    "var/log",
    "root/.ssh",
    "usr/local/etc",
    "srv",
    "home",
)
#: Sabotages that are run here.
HERE = {
    *("store-of-root-alone", "anchor-passed-over", "ca-without-hash", "java-unpacked"),
    *("certifi-updated", "test-ca-left", "ca-ends-soon", "ca-too-weak", "requests-told-otherwise"),
    *("git-told-otherwise", "pip-told-otherwise", "conda-told-otherwise", "node-told-of-nothing"),
    *("gsutil-told-otherwise", "git-takes-anything", "apt-takes-any-certificate"),
    *("stale-gitconfig-of-root", "stale-manager-files", "socks-left-over"),
    *("vendor-without-keyring", "vendor-trusted", "vendor-twice", "vendor-keyring-missing"),
    *("vendor-key-ended", "vendor-key-weak", "key-for-everything", "key-for-everything-in-parts"),
    *("db-without-the-new-ca", "nothing-revoked", "stranger-owns-the-machine", "shim-of-2022"),
    *("signatures-not-enforced", "kernel-unsigned", "depmod-forgotten", "blacklist-passed-over"),
    *("nvidia-switched-off", "upgrade-half-done", "dkms-waits", "mount-forgotten", "tmp-of-root"),
    *("package-half-configured", "own-name-unknown", "initramfs-empty", "key-of-the-builder"),
    *("password-empty", "login-left", "history-left", "cloud-init-of-the-builder"),
    *("random-seed-of-the-image", "lease-of-the-builder", "host-id-of-the-image"),
    *("card-of-the-builder", "useradd-killed", "apt-lists-of-the-image", "log-of-the-build"),
    *("profile-of-everybody", "resolver-public", "time-from-outside", "record-of-another-driver"),
    *("download-left-half", "package-of-the-user", "pythonpath-for-all"),
}
#: Those that are run on trees of their own: test_conda_tree, test_deferred_tree.
ELSEWHERE = {
    *("environment-of-root", "environment-of-everybody", "pip-installed-over-it"),
    *("requirement-unmet", "nvidia-smi-elsewhere", "script-of-root", "executor-too-large"),
}
LIVED_IN = HERE | ELSEWHERE
#: Facts of files that a first boot makes.
OF_A_BOOT = ("machine", "secrets", "ssh_host")
#: Checks that ask the node to run something, or what only a running node knows.
RUNNING = {
    *("keyrings.apt-verifies", "keyrings.apt-refuses", "trust.tls-through-proxy"),
    *("trust.tls-needs-ca", "proxy.whole-downloads", "proxy.throughput", "proxy.auth-required"),
    *("egress.google-direct", "deferred.spark-finds"),
}
CARDS = ("cuda", "containers", "driver", "frameworks", "mig", "performance")


class Made:
    """The tree, and who signed what in it."""

    def __init__(self, root: Path, keys: Path) -> None:
        self.root = root
        self.ca = make_ca("Airlock lab proxy CA")
        authority = Authority(keys)
        self.signer: Identity = authority.module
        self._key = SigningKey(authority.packages, f"{TITLE} <packages@airlock.test>")
        self._files()
        self._trust()
        self._packages()
        self._boot()
        held = modules.collect(Reader(str(root)), [], modules.Seen())
        self.bodies = {str(m["path"]).rpartition("/")[2]: str(m["body_sha256"]) for m in held}

    def broken(self, root: Path, apply: str) -> Path:
        """The same below ``root``, after a sabotage's shell."""
        shutil.copytree(self.root, root, symlinks=True)
        trees.sabotage(root, apply)
        # What the shell wrote into files are paths of the node again.
        for path in (root / "etc").rglob("*"):
            if path.is_file() and not path.is_symlink() and str(root).encode() in path.read_bytes():
                path.write_bytes(path.read_bytes().replace(str(root).encode(), b""))
        return root

    def _write(self, name: str, data: bytes | str, mode: int = 0o644) -> None:
        path = self.root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)

    def _files(self) -> None:
        trees.settings(self.root, good.PROXY)
        for name in FOLDERS:
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for name in ("tmp", "var/tmp"):
            (self.root / name).chmod(0o1777)
        for name, text in FILES.items():
            self._write(name, text)
        self._write("etc/shadow", FILES["etc/shadow"], 0o640)
        for name in PROGRAMS:
            self._write(name, "#!/bin/sh\n", 0o755)

    def _trust(self) -> None:
        public = [make_ca(f"A public CA {number}") for number in (1, 2)]
        name = f"airlock-{self.ca.sha256[:16]}"
        self._write(BUNDLE, b"".join(one.pem for one in (*public, self.ca)))
        self._write(CA_FILE, self.ca.pem)
        self._write(f"usr/local/share/ca-certificates/{name}.crt", self.ca.pem)
        hashed = self.root / "etc/ssl/certs"
        for number, one in enumerate(public):
            place = f"/usr/share/ca-certificates/mozilla/{number}.crt"
            self._write(place, one.pem)
            (hashed / f"{number}.pem").symlink_to(place)
            (hashed / f"0000000{number}.0").symlink_to(f"{number}.pem")
        (hashed / f"{name}.pem").symlink_to(f"/usr/local/share/ca-certificates/{name}.crt")
        (hashed / "0a775a30.0").symlink_to(f"{name}.pem")
        want = Wanted(ca_bundle=BUNDLE, ca_file=CA_FILE)
        host = Host(self.root)
        for dialect in authorities.dialects(host):
            old = host.read(dialect.path) or ""
            self._write(dialect.path, dialect.write(old, dialect.settings(want)))

    def _packages(self) -> None:
        (certificate,) = openpgp.read(self._key.armored())
        self.pinned = [certificate.fingerprint]
        binary = b"".join(packet.raw for packet in _packets(certificate))
        self._write(good.RING, binary)
        for name in RINGS:
            shutil.copy(f"/usr/share/keyrings/{name}", self.root / "usr/share/keyrings" / name)
        fields = {"Types": "deb", "URIs": good.URIS, "Suites": "stable", "Components": "main"}
        fields["Signed-By"] = good.RING
        self._write(good.SOURCE, "".join(f"{key}: {value}\n" for key, value in fields.items()))
        (self.root / "etc/apt/trusted.gpg.d").mkdir(parents=True)

    def _boot(self) -> None:
        for name in good.MODULES:
            trees.module(self.root, name, self.signer)
        place = trees.MODULES.partition(f"{trees.RELEASE}/")[2]
        lines = [f"{place}/{name}.ko:\n" for name in good.MODULES]
        self._write(f"lib/modules/{trees.RELEASE}/modules.dep", "".join(lines))
        record = {"driver": "1", "kernel": trees.RELEASE}
        self._write(f"{trees.MODULES}/airlock-modules.json", json.dumps({"provenance": record}))
        self._write(f"boot/vmlinuz-{trees.RELEASE}", pe(signed=True))
        self._write(f"boot/initrd.img-{trees.RELEASE}", b"070701" + bytes(1 << 20))
        self._write("usr/lib/shim/shimx64.efi.signed", pe(sbat=SBAT))
        names = ("Airlock lab module signing", "Microsoft Corporation UEFI CA 2011")
        known = [self.signer, *(make_ca(name) for name in (names[1], "Microsoft UEFI CA 2023"))]
        trees.signature_database(self.root, known)
        vendor = make_ca("Debian Secure Boot CA").der
        size = 16 + len(vendor)
        head = trees.X509 + struct.pack("<III", 28 + size, 0, size) + bytes(16)
        self._write(MOK, b"\x06\0\0\0" + head + vendor)
        # A list of one hash (EFI_CERT_SHA256_GUID).
        kind = bytes.fromhex("2616c4c14c509240aca941f936934328")
        revoked = kind + struct.pack("<III", 76, 0, 48) + bytes(48)
        self._write(DBX, b"\x27\0\0\0" + revoked)
        self._write(f"{EFIVARS}/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", b"\6\0\0\0\1")


def _packets(certificate: openpgp.Certificate) -> list[openpgp.Packet]:
    found = [certificate.key.packet, *(one.packet for one in certificate.signatures)]
    for user in certificate.user_ids:
        found += [user.packet, *(one.packet for one in user.signatures)]
    for subkey in certificate.subkeys:
        found += [subkey.key.packet, *(one.packet for one in subkey.signatures)]
    return found


def pe(signed: bool = False, sbat: bytes = b"") -> bytes:
    """The head of a 64-bit EFI program, and its section .sbat; Microsoft's "PE Format"."""
    directories = bytearray(16 * 8)
    if signed:
        struct.pack_into("<II", directories, 32, 4096, 64)
    optional = struct.pack("<H", 0x20B) + bytes(110) + bytes(directories)
    coff = struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, len(optional), 0)
    row = b".sbat\0\0\0" + struct.pack("<IIII", len(sbat), 0, len(sbat), 1024) + bytes(16)
    head = b"MZ" + bytes(0x3A) + struct.pack("<I", 0x40) + b"PE\0\0" + coff + optional + row
    return head.ljust(1024, b"\0") + sbat


def facts(root: Path, sample: good.Sample, made: Made) -> dict[str, Any]:
    """What the collectors read in the tree, and what the sample says of the rest."""
    reader = Reader(str(root))
    environment = assignments((root / "etc/environment").read_text())
    effective = {k: v for k, v in environment.items() if k in good.variables("")}
    seen = modules.Seen()
    certificates = [load_certificate(made.signer.der)]
    given = proxy.collect(reader, effective)
    given.update(unit=sample.facts["proxy"]["unit"], tools=sample.facts["proxy"]["tools"])
    found = {
        **sample.facts,
        "proxy": given,
        "trust": trust.collect(reader),
        "modules": modules.collect(reader, certificates, seen),
        "boot": boot.collect(reader, seen),
        "built": _built(reader, made),
        "repositories": repositories.collect(reader),
        "secure_boot": {**sample.facts["secure_boot"], **_firmware(reader)},
        "upkeep": upkeep.collect(reader),
        "hygiene": {**sample.facts["hygiene"], **_hygiene(reader)},
        "environments": _environments(reader, sample.facts["environments"]),
    }
    resolvers = network.resolvers(reader.text("/etc/resolv.conf") or "")
    found["network"] = {**sample.facts["network"], "resolv": resolvers}
    found["kernel"] = {
        **sample.facts["kernel"],
        "release": trees.RELEASE,
        "installed": [trees.RELEASE],
        "cmdline": reader.line("/proc/cmdline"),
    }
    return found


def _built(reader: Reader, made: Made) -> list[dict[str, Any]]:
    """The record; the cache's entry is as good as a sample's, of the modules that were made."""
    found = built.collect(reader)
    for one in found:
        one.update(good.entry(), signer=made.signer.sha256, files=made.bodies)
    return found


def _hygiene(reader: Reader) -> dict[str, Any]:
    found = hygiene.collect(reader)
    return {key: found[key] for key in found if not key.startswith(OF_A_BOOT)}


def _environments(reader: Reader, whole: Mapping[str, Any]) -> dict[str, Any]:
    """What is around an environment; the environment itself is test_conda_tree's."""
    record = {"prefix": good_deferred.PREFIX, "files": {f"{SITE}/models/__init__.py": ""}}
    return {"lab": {**whole["lab"], "before": seams.collect(reader, record)["before"]}}


def _firmware(reader: Reader) -> dict[str, Any]:
    """What firmware and shim say."""
    shim = secure_boot.collect(reader, efi.Variables())["shim"]
    return {"shim": shim, **secure_boot.lists(reader, efi.Variables())}


def all_checks() -> dict[str, tuple[Check, Callable[..., None]]]:
    """Every check that is not of cards, and its function."""
    found: dict[str, tuple[Check, Callable[..., None]]] = {}
    for path in sorted((ROOT / "conformance").glob("*/test_*.py")):
        if path.parent.name in CARDS:
            continue
        module = importlib.import_module(f"conformance.{path.parent.name}.{path.stem}")
        for _, function in inspect.getmembers(module, inspect.isfunction):
            for mark in getattr(function, "pytestmark", ()):
                if mark.name == MARKER and function.__module__ == module.__name__:
                    found[mark.args[0].id] = mark.args[0], function
    return found
