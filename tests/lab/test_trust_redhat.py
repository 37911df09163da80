"""The RHEL family's store with p11-kit's own ``trust``, on a copy of this machine that says Rocky.

``update-ca-trust`` is a shell script of Fedora's that calls ``trust extract``; ours calls it with
the same arguments for the same files, since Debian packages the program and not the script.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fixtures.daemons import unpack_debs
from fixtures.errors import FixtureError
from fixtures.pki import make_ca
from harness.state import cache_dir
from tests.unit.installers_keyrings.workshop import ROCKY, can_overlay, in_overlay

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not can_overlay(), reason="needs root and overlayfs"),
]

EXTRACTED = "/etc/pki/ca-trust/extracted"
SCRIPT = f"""#!/bin/sh
set -e
mkdir -p {EXTRACTED}/pem {EXTRACTED}/java
extract() {{ trust extract --overwrite --comment --filter=ca-anchors --purpose=server-auth "$@"; }}
extract --format=pem-bundle {EXTRACTED}/pem/tls-ca-bundle.pem
extract --format=java-cacerts {EXTRACTED}/java/cacerts
"""
# Where Fedora's p11-kit looks; Debian's is built to look at its own bundle.
MODULE = """module: /usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-trust.so
priority: 1
trust-policy: yes
x-init-reserved: paths='/etc/pki/ca-trust/source'
"""


def ended(said: str) -> int:
    """The exit code in a summary; the shell adds a line where it is not 0."""
    code: int = json.JSONDecoder().raw_decode(said)[0]["exit"]
    return code


def test_p11_kit_takes_the_anchor_and_lets_it_go(tmp_path: Path) -> None:
    try:
        packages = unpack_debs(["p11-kit", "p11-kit-modules"], cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"p11-kit cannot be had here: {error}")
    shared = tmp_path / "shared"
    shared.mkdir()
    ca = make_ca("Airlock Redhat Lab")
    for name, content in (
        ("ca.pem", ca.pem),
        ("os-release", ROCKY.encode()),
        ("update-ca-trust", SCRIPT.encode()),
        ("p11-kit-trust.module", MODULE.encode()),
    ):
        (shared / name).write_bytes(content)
    metadata = tmp_path / "metadata.json"
    attributes = {"http-proxy-pem-uri": "file:///srv/ca.pem"}
    metadata.write_text(json.dumps({"instance": {"attributes": attributes}}))
    tool = f"python3 -m installers %s --root $ROOT --metadata {metadata} --only trust --json"
    modules = "$ROOT/usr/share/p11-kit/modules"
    ask = (
        f"chroot $ROOT sh -c 'trust list --filter=ca-anchors | grep -c Airlock.Redhat.Lab;"
        f' grep -c "Airlock Redhat Lab" {EXTRACTED}/pem/tls-ca-bundle.pem;'
        f" openssl verify -CAfile {EXTRACTED}/pem/tls-ca-bundle.pem /srv/ca.pem;"
        f" ls /etc/pki/ca-trust/source/anchors'"
    )
    outputs = in_overlay(
        tmp_path / "mount",
        # JVMs, SDKs and the like have tests of their own.
        "rm -rf $ROOT/usr/lib/jvm $ROOT/usr/lib/google-cloud-sdk $ROOT/opt",
        f"tar -C {packages} -c . | tar -C $ROOT -x --keep-directory-symlink",
        f"cp -r {shared}/. $ROOT/srv/; cp --remove-destination {shared}/os-release $ROOT/etc/",
        f"mkdir -p {modules} $ROOT/etc/pki/ca-trust/source/anchors; rm -f {modules}/*",
        f"cp {shared}/p11-kit-trust.module {modules}/",
        f"install -m 755 {shared}/update-ca-trust $ROOT/usr/bin/update-ca-trust",
        "chroot $ROOT update-ca-trust extract",
        ask,
        tool % "apply",
        ask,
        tool % "verify",
        f"chroot $ROOT sh -c ': > {EXTRACTED}/pem/tls-ca-bundle.pem'",
        tool % "verify",
        tool % "apply",
        tool % "verify",
        tool % "remove",
        ask,
    )
    (before, applied, after, verified, _, emptied, _, mended, removed, left) = outputs[7:]
    assert before.split()[:2] == ["0", "0"], before
    assert ended(applied) == 0, applied
    assert after.split()[:2] == ["1", "1"], after
    assert "/srv/ca.pem: OK" in after
    assert "airlock" in after.splitlines()[-1]
    assert ended(verified) == 0, verified
    assert ended(emptied) == 1, emptied
    assert ended(mended) == 0, mended
    assert ended(removed) == 0, removed
    assert left.split()[:2] == ["0", "0"], left
    assert "airlock" not in left
