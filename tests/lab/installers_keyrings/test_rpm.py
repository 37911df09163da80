"""dnf and rpm themselves, of Debian's packages, on a copy of this machine that says it is Rocky.

The copy is an overlay in a mount namespace of its own: nothing is installed on this machine.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from fixtures.daemons import unpack_debs
from fixtures.errors import FixtureError
from harness.state import cache_dir
from tests.unit.installers_keyrings.conftest import Keys
from tests.unit.installers_keyrings.workshop import (
    ROCKY,
    KeyServer,
    acme,
    attributes,
    can_overlay,
    in_overlay,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not can_overlay(), reason="needs root and overlayfs"),
]

RING = "/etc/pki/rpm-gpg/RPM-GPG-KEY-airlock-acme"
SPEC = """Name: acme
Version: 1
Release: 1
Summary: nothing
License: none
BuildArch: noarch
%description
nothing
%files
"""


@pytest.fixture(scope="module")
def packages() -> Path:
    try:
        return unpack_debs(["rpm", "dnf"], cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"rpm and dnf cannot be had here: {error}")


def repository(directory: Path, keys: Keys, signer: str) -> None:
    """A dnf repository without packages; its index is signed."""
    (directory / "repodata").mkdir(parents=True)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>']
    lines += ['<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>1</revision>']
    for kind, space in (("primary", "common"), ("filelists", "filelists"), ("other", "other")):
        root = {"primary": "metadata", "other": "otherdata"}.get(kind, kind)
        xmlns = f"http://linux.duke.edu/metadata/{space}"
        content = gzip.compress(f'<{root} xmlns="{xmlns}" packages="0"></{root}>\n'.encode())
        (directory / f"repodata/{kind}.xml.gz").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        lines.append(
            f'<data type="{kind}"><checksum type="sha256">{digest}</checksum>'
            f'<location href="repodata/{kind}.xml.gz"/><size>{len(content)}</size></data>'
        )
    index = "\n".join([*lines, "</repomd>", ""]).encode()
    (directory / "repodata/repomd.xml").write_bytes(index)
    signature = keys.smith.gpg("--local-user", signer, "--armor", "--detach-sign", input=index)
    (directory / "repodata/repomd.xml.asc").write_bytes(signature)


def test_dnf_and_rpm_take_what_the_pinned_key_signed_and_nothing_else(
    tmp_path: Path, server: KeyServer, keys: Keys, packages: Path
) -> None:
    shared = tmp_path / "shared"
    for name, signer in (("good", keys.good), ("stranger", keys.stranger)):
        repository(shared / name, keys, signer)
        secret = keys.smith.gpg("--armor", "--export-secret-keys", signer)
        (shared / f"{name}.key").write_bytes(secret)
    url = server.give("/key.asc", keys.file(keys.good))
    definition = acme((keys.good, [url]), os="rocky", uris="file:///srv/repo", kind="rpm")
    definition["acme"]["variants"][0]["rpm"]["repo_gpgcheck"] = True
    metadata = tmp_path / "metadata.json"
    metadata.write_text(json.dumps({"instance": {"attributes": attributes(definition, [])}}))
    (shared / "os-release").write_text(ROCKY)
    (shared / "ca.pem").write_bytes(server.ca.pem)
    (shared / "acme.spec").write_text(SPEC)
    tool = f"python3 -m installers %s --root $ROOT --metadata {metadata} --only keyrings --json"
    inside = "chroot $ROOT env HOME=/root sh -c "
    build = "rpmbuild -bb --define '_rpmdir /srv' /srv/acme.spec >/dev/null 2>&1"
    signing = [
        f"mkdir -m 700 /srv/g.{name} && cp /srv/noarch/acme-1-1.noarch.rpm /srv/{name}.rpm"
        f" && gpg -q --batch --homedir /srv/g.{name} --import /srv/{name}.key"
        f" && rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_path /srv/g.{name}'"
        f" --define '_gpg_name {name}' --addsign /srv/{name}.rpm >/dev/null"
        f" && gpgconf --homedir /srv/g.{name} --kill all"
        for name in ("good", "stranger")
    ]
    check = f'{inside} "rpm -K /srv/good.rpm; rpm -K /srv/stranger.rpm"'
    cache = "ln -sfn {} $ROOT/srv/repo; " + f'{inside} "dnf -y -q clean all; dnf -y makecache"'
    outputs = in_overlay(
        tmp_path / "mount",
        f"tar -C {packages} -c . | tar -C $ROOT -x --keep-directory-symlink",
        f"cp -r {shared}/. $ROOT/srv/; cp --remove-destination {shared}/os-release $ROOT/etc/",
        "mkdir -p $ROOT/etc/pki/ca-trust/extracted/pem; rm -rf $ROOT/etc/yum.repos.d",
        f"cp {shared}/ca.pem $ROOT/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        f'{inside} "{build} && {" && ".join(signing)}"',
        check,
        tool % "apply",
        check,
        cache.format("good"),
        cache.format("stranger"),
        tool % "apply",
        tool % "verify",
        f"cp $ROOT/srv/stranger.key $ROOT{RING}",
        tool % "verify",
        tool % "remove",
        f'{inside} "rpm -q gpg-pubkey; ls /etc/pki/rpm-gpg /etc/yum.repos.d"',
    )
    (*_, built, before, applied, after, taken, refused) = outputs[:10]
    (again, verified, _, sabotaged, removed, left) = outputs[10:]
    assert "failed" not in built, built
    assert before.count("SIGNATURES NOT OK") == 2
    assert json.loads(applied)["exit"] == 0, applied
    (first, second) = [line for line in after.splitlines() if line.startswith("/srv/")]
    assert first == "/srv/good.rpm: digests signatures OK"
    assert "NOT OK" in second
    assert "Metadata cache created" in taken, taken
    assert "Importing GPG key" in taken
    assert "failed:" in refused
    assert re.search("repomd.xml GPG signature verification error|Bad GPG signature", refused)
    assert json.loads(again)["installers"][0]["outcome"] == "unchanged"
    assert json.loads(verified)["exit"] == 0
    assert "PGP PRIVATE KEY BLOCK" in sabotaged
    assert json.loads(removed)["exit"] == 0
    assert "package gpg-pubkey is not installed" in left
    assert "airlock" not in left
