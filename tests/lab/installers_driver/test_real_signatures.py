"""What real programs say of our signatures: kmod's modinfo, DKMS, a PKCS#11 token."""

from __future__ import annotations

import json
import lzma
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from fixtures.daemons import library_path, unpack_debs
from fixtures.pki import Authority
from fixtures.signer import SignerServer
from harness import cli as control
from harness import pack
from harness.state import cache_dir
from installers import asn1, audit, cli, cms, dkms, modsig
from installers.asn1 import read_certificate
from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.host import Host
from tests.unit.installers_driver import material

pytestmark = pytest.mark.lab
KERNEL = "6.1.0-56-cloud-amd64"
BODY = material.module({"name": "nvidia", "vermagic": f"{KERNEL} SMP "})


def _metadata(tmp_path: Path, server: SignerServer) -> str:
    file = tmp_path / "metadata.json"
    attributes = {"airlock-signer": str(server.path), "airlock-secure-boot": "off"}
    file.write_text(json.dumps({"instance": {"attributes": attributes}}))
    return str(file)


def test_modinfo_reads_the_same(tmp_path: Path) -> None:
    root = unpack_debs(["kmod"], cache_dir("daemons"))
    path = tmp_path / "nvidia.ko"
    path.write_bytes(BODY)
    with SignerServer(Authority(tmp_path / "pki"), tmp_path / "sock") as server:
        assert cli.main(["sign-modules", "--metadata", _metadata(tmp_path, server), str(path)]) == 0
    done = subprocess.run(
        ["modinfo", str(path)],
        executable=str(root / "bin/kmod"),
        env={"LD_LIBRARY_PATH": library_path(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    said = {key: value.strip() for key, _, value in _pairs(done.stdout)}
    signer = modsig.read_cms(modsig.split(path.read_bytes()).signatures[0])
    assert said["signer"] == signer.issuer_cn
    assert int(said["sig_key"].replace(":", ""), 16) == signer.serial
    assert said["sig_hashalgo"] == signer.digest


def _pairs(text: str) -> list[tuple[str, str, str]]:
    return [line.partition(":") for line in text.splitlines() if not line.startswith("\t")]


def _dkms(tmp_path: Path, metadata: str) -> tuple[list[str], Path]:
    """The real DKMS with its directories, our configuration and our program moved to tmp_path."""
    root = unpack_debs(["dkms"], cache_dir("daemons"))
    program = tmp_path / "dkms"
    text = (root / "usr/sbin/dkms").read_text().replace("/etc/dkms", f"{tmp_path}/etc/dkms")
    program.write_text(text)
    program.chmod(0o755)
    host = Host(tmp_path)
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/dkms").write_text(text)
    assert dkms.desired(host, signs=True) == "ours"
    assert dkms.inspect(host) == "absent"
    dkms.install(host, "ours")
    assert dkms.inspect(host) == "ours"
    # Moved, and told where the test's metadata is; otherwise the very files that nodes get.
    conf = host.path(dkms.CONF)
    conf.write_text(conf.read_text().replace("/usr/lib/airlock", f"{tmp_path}/usr/lib/airlock"))
    sign = host.path(dkms.SIGN)
    node_file = pack.pack(cache_dir("node-file")).path
    script = sign.read_text().replace("/usr/lib/airlock/airlock-node.pyz", str(node_file))
    sign.write_text(script.replace("sign-modules", f"sign-modules --metadata {metadata}"))
    source = tmp_path / "src/nvidia-1.0"
    source.mkdir(parents=True)
    (source / "body.ko").write_bytes(BODY)
    (source / "dkms.conf").write_text(
        'PACKAGE_NAME="nvidia"\nPACKAGE_VERSION="1.0"\nBUILT_MODULE_NAME[0]="nvidia"\n'
        'DEST_MODULE_LOCATION[0]="/updates/dkms"\nMAKE[0]="cp body.ko nvidia.ko"\n'
        'CLEAN="true"\nSTRIP[0]="no"\n'
    )
    headers = tmp_path / "headers"
    (headers / "include").mkdir(parents=True)
    (headers / ".config").write_text('CONFIG_MODULE_SIG_HASH="sha256"\n')
    words = [str(program), "build", "-m", "nvidia", "-v", "1.0", "-k", KERNEL, "-a", "x86_64"]
    words += ["--kernelsourcedir", str(headers), "--dkmstree", str(tmp_path / "var")]
    words += ["--sourcetree", str(tmp_path / "src"), "--installtree", str(tmp_path / "lib")]
    (tmp_path / "var").mkdir()
    (tmp_path / "lib").mkdir()
    return [*words, "--no-depmod"] if "no-depmod" in text else words, tmp_path / "var"


def test_dkms_signs_with_our_signer_or_fails(tmp_path: Path) -> None:
    with SignerServer(Authority(tmp_path / "pki"), tmp_path / "sock") as server:
        (tmp_path / "usr/lib/airlock").mkdir(parents=True)
        (tmp_path / "usr/lib/airlock/signing-cert.der").write_bytes(server.authority.module.der)
        words, tree = _dkms(tmp_path, _metadata(tmp_path, server))
        environment = {**os.environ, "LC_ALL": "C"}
        subprocess.run(
            [words[0], "add", *words[2:6], *words[-6:]], env=environment, capture_output=True
        )
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        (module,) = tree.glob(f"nvidia/1.0/{KERNEL}/x86_64/module/nvidia.ko*")
        certificate = read_certificate(server.authority.module.der)
        assert audit.audit_module(module, [certificate]) == []
        removed = [words[0], "remove", *words[2:]]
        subprocess.run(removed, env=environment, capture_output=True, check=False)
        subprocess.run(
            [words[0], "add", *words[2:6], *words[-6:]], env=environment, capture_output=True
        )
    # The signer is gone: DKMS itself would have gone on with an unsigned module.
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "was not signed" in done.stdout + done.stderr
    assert list(tree.glob(f"nvidia/1.0/{KERNEL}/x86_64/module/nvidia.ko*")) == []


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, bytes, Path]]:
    """SoftHSM with a key that it made itself; (URI, certificate in DER, folder of its files).

    One for all tests: the library reads its configuration once in a process.
    """
    folder = tmp_path_factory.mktemp("token")
    pkcs11 = pytest.importorskip("pkcs11")
    root = unpack_debs(["softhsm2"], cache_dir("daemons"))
    (library,) = root.glob("usr/lib/*/softhsm/libsofthsm2.so")
    (folder / "tokens").mkdir()
    (folder / "softhsm.conf").write_text(f"directories.tokendir = {folder}/tokens\n")
    patch = pytest.MonkeyPatch()
    patch.setenv("SOFTHSM2_CONF", str(folder / "softhsm.conf"))
    words = ["--init-token", "--free", "--label", "Modules", "--so-pin", "5678", "--pin", "1234"]
    subprocess.run(
        [root / "usr/bin/softhsm2-util", "--module", library, *words],
        env={**os.environ, "LD_LIBRARY_PATH": library_path(root)},
        check=True,
        capture_output=True,
    )
    (folder / "pin").write_text("1234\n")
    (folder / "pin").chmod(0o600)
    with (
        pkcs11.lib(str(library))
        .get_token(token_label="Modules")
        .open(user_pin="1234", rw=True) as session
    ):
        public, private = session.generate_keypair(
            pkcs11.KeyType.RSA, 2048, store=True, label="module", id=b"\x01"
        )
        with pytest.raises(pkcs11.PKCS11Error):
            private[pkcs11.Attribute.PRIVATE_EXPONENT]
        certificate = _certificate_for(public, private, pkcs11)
    (folder / "cert.der").write_bytes(certificate)
    query = f"module-path={library}&pin-source={folder}/pin&certificate={folder}/cert.der"
    yield f"pkcs11:token=Modules;object=module?{query}", certificate, folder
    patch.undo()


def _certificate_for(public: Any, private: Any, pkcs11: Any) -> bytes:
    """A self-signed certificate for a key that only the token can use.

    Made from another one: its key is replaced, and what is signed is signed by the token.
    """
    model = material.identity()
    outer = asn1.parse(model.der)
    tbs, algorithm, _ = asn1.fields(outer, 3)
    numbers = rsa.RSAPublicNumbers(
        int.from_bytes(public[pkcs11.Attribute.PUBLIC_EXPONENT], "big"),
        int.from_bytes(public[pkcs11.Attribute.MODULUS], "big"),
    )
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ours = numbers.public_key().public_bytes(*form)
    theirs = model.cert.public_key().public_bytes(*form)
    assert len(ours) == len(theirs)
    signed = tbs.raw.replace(theirs, ours)
    signature = private.sign(signed, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS)
    bits = cms.element(asn1.BIT_STRING, b"\x00", signature)
    return cms.element(asn1.SEQUENCE, signed, algorithm.raw, bits)


def test_a_token_signs_and_the_kernel_accepts_the_form(
    tmp_path: Path, token: tuple[str, bytes, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    uri, der, folder = token
    certificate = read_certificate(der)
    module = tmp_path / "nvidia.ko.xz"
    module.write_bytes(lzma.compress(BODY))
    words = ["keys", "sign", "--key", uri, "--fingerprint", certificate.sha256, str(module)]
    assert control.main(words) == 0
    assert audit.audit_module(module, [certificate]) == []
    (tmp_path / "body").write_bytes(BODY)
    signature = modsig.split(modsig.read_module(module)).signatures[0]
    (tmp_path / "cms").write_bytes(signature)
    argv = ["openssl", "cms", "-verify", "-binary", "-noverify", "-inform", "DER", "-in", "cms"]
    argv += ["-content", "body", "-certfile", "cert.pem", "-out", "/dev/null"]
    pem = x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "cert.pem").write_bytes(pem)
    subprocess.run(argv, cwd=tmp_path, check=True, capture_output=True)

    # Another certificate, a wrong PIN, a key that is not there.
    (folder / "cert.der").write_bytes(material.identity().der)
    assert control.main(["keys", "sign", "--key", uri, str(module)]) == 2
    assert "not that of the certificate" in capsys.readouterr().err
    (folder / "cert.der").write_bytes(der)
    (folder / "pin").write_text("9999")
    assert control.main(["keys", "sign", "--key", uri, str(module)]) == 3
    said = capsys.readouterr().err
    assert "PinIncorrect" in said
    assert "9999" not in said
    (folder / "pin").write_text("1234")
    other = uri.replace("object=module", "object=other")
    assert control.main(["keys", "sign", "--key", other, str(module)]) == 3
    assert "NoSuchKey" in capsys.readouterr().err


def test_a_token_signs_entries_of_the_cache(tmp_path: Path, token: tuple[str, bytes, Path]) -> None:
    """A publisher's key need not lie in a file for ``cache warm`` either."""
    uri, der, _ = token
    local = FileStore(tmp_path / "lab")
    Cache([local], local).put("x", {"kernel": "6.1"}, {"a": b"a"}, {})
    target = f"{tmp_path}/published"
    assert control.main(["cache", "warm", local.url, target, "--key", uri]) == 0
    pin = read_certificate(der).sha256
    assert control.main(["cache", "verify", target, "--trust", pin]) == 0
    assert control.main(["cache", "verify", target, "--trust", "0" * 64]) == 1
