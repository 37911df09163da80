"""apt itself: it takes the repository with our keyring, and no other; and what gpgv says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from installers.exits import Exit
from tests.unit.installers_keyrings.conftest import Keys
from tests.unit.installers_keyrings.workshop import (
    KEYRING,
    SOURCE,
    KeyServer,
    acme,
    apt_repository,
    attributes,
    can_overlay,
    engine,
    in_overlay,
    make_root,
)

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")
needs_overlay = pytest.mark.skipif(
    shutil.which("apt-get") is None or not can_overlay(), reason="needs apt, root and overlayfs"
)


def serve(server: KeyServer, files: dict[str, bytes]) -> None:
    for path, content in files.items():
        server.give(path, content)


@pytest.mark.skipif(shutil.which("gpgv") is None, reason="needs gpgv")
def test_gpgv_verifies_with_the_ring(tmp_path: Path, server: KeyServer, keys: Keys) -> None:
    host = make_root(tmp_path / "root", ca=server.ca)
    url = server.give("/key.asc", keys.file(keys.good, keys.other))
    definition = acme((keys.good, [url]), (keys.other, [url]))
    assert engine(host, attributes(definition, []))[0].apply().exit == Exit.PASS
    codes = {}
    for signer in (keys.good, keys.other, keys.stranger):
        signed = tmp_path / "signed"
        signed.write_bytes(keys.smith.gpg("--local-user", signer, "--clearsign", input=b"text\n"))
        command = ["gpgv", "--homedir", str(tmp_path), "--keyring", str(host.path(KEYRING))]
        codes[signer] = subprocess.run([*command, str(signed)], capture_output=True).returncode
    assert codes == {keys.good: 0, keys.other: 0, keys.stranger: 2}


@needs_apt
@pytest.mark.parametrize("signer", ["good", "stranger", "expired"])
def test_apt_takes_what_the_pinned_key_signed_and_nothing_else(
    tmp_path: Path, server: KeyServer, keys: Keys, signer: str
) -> None:
    """The machine's own apt on directories of its own; only the keyring's path is not absolute."""
    host = make_root(tmp_path / "root", ca=server.ca)
    url = server.give("/key.asc", keys.file(keys.good))
    definition = acme((keys.good, [url]), uris=f"{server.url}/deb")
    assert engine(host, attributes(definition, []))[0].apply().exit == Exit.PASS
    faked = ("--faked-system-time", "20200601T000000!") if signer == "expired" else ()
    then = keys.smith.gpg
    keys.smith.gpg = lambda *args, input=b"": then(*faked, *args, input=input)  # type: ignore[method-assign]
    try:
        serve(server, apt_repository(keys.smith, getattr(keys, signer)))
    finally:
        del keys.smith.gpg
    text = (host.read(SOURCE) or "").replace(KEYRING, str(host.path(KEYRING)))
    text = text.replace("Architectures: arm64", "Architectures: amd64")
    ran = private_apt(tmp_path / "apt", text, server, "update")
    assert (ran.returncode == 0) == (signer == "good"), ran.stdout + ran.stderr
    if signer != "good":
        assert "NO_PUBKEY" in ran.stderr + ran.stdout


def private_apt(
    base: Path, source: str, server: KeyServer, *args: str
) -> subprocess.CompletedProcess[str]:
    for name in ("etc/sources.list.d", "etc/preferences.d", "state/lists/partial", "cache/partial"):
        (base / name).mkdir(parents=True)
    (base / "etc/sources.list.d/acme.sources").write_text(source)
    (base / "ca.pem").write_bytes(server.ca.pem)
    options = {
        "Dir::Etc": f"{base}/etc/",
        "Dir::Etc::main": "/dev/null",
        "Dir::Etc::parts": "/dev/null",
        "Dir::State": f"{base}/state/",
        "Dir::Cache": f"{base}/cache/",
        "Dir::State::status": "/dev/null",
        "APT::Sandbox::User": "",
        "APT::Update::Error-Mode": "any",
        "Acquire::https::CaInfo": f"{base}/ca.pem",
        "Acquire::Languages": "none",
        "Acquire::https::Proxy": "DIRECT",
    }
    given = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "APT_CONFIG": "/dev/null"}
    return subprocess.run(
        ["apt-get", *given, *args], capture_output=True, text=True, env=environment
    )


@needs_overlay
def test_on_a_copy_of_this_machine(tmp_path: Path, server: KeyServer, keys: Keys) -> None:
    """Applied by the command, read back by gpg and apt, used by apt, sabotaged, removed."""
    release = dict(
        line.split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    system, suite = release["ID"].strip('"'), release["VERSION_CODENAME"].strip('"')
    url = server.give("/key.asc", keys.file(keys.good))
    definition = acme((keys.good, [url]), os=system, uris=f"{server.url}/deb")
    serve(server, apt_repository(keys.smith, keys.good, suite))
    metadata = tmp_path / "metadata.json"
    given = attributes(definition, [])
    metadata.write_text(json.dumps({"instance": {"attributes": given}}))
    (tmp_path / "ca.pem").write_bytes(server.ca.pem)
    tool = f"python3 -m installers %s --root $ROOT --metadata {metadata} --only keyrings --json"
    update = (
        "chroot $ROOT apt-get -q -o APT::Update::Error-Mode=any -o Acquire::https::Proxy=DIRECT "
        "-o Acquire::https::CaInfo=/etc/ssl/certs/ca-certificates.crt update"
    )
    others = "/usr/share/keyrings/debian-archive-keyring.gpg"
    rival = f"deb [signed-by={others}] {server.url}/deb {suite} main"
    outputs = in_overlay(
        tmp_path / "mount",
        # The machine's own sources are not what is tested here.
        "(cd $ROOT/etc/apt; rm -rf sources.list sources.list.d/* apt.conf.d/*)",
        f"cat {tmp_path}/ca.pem >> $ROOT/etc/ssl/certs/ca-certificates.crt",
        f"echo '{rival}' > $ROOT/etc/apt/sources.list.d/rival.list",
        tool % "apply",
        update,
        tool % "verify",
        f"sed -i 's/^#airlock:acme# //' $ROOT/etc/apt/sources.list.d/rival.list; {update}",
        tool % "verify",
        tool % "apply",
        f"cp $ROOT{others} $ROOT{KEYRING}; {update}",
        tool % "verify",
        tool % "remove",
        "cat $ROOT/etc/apt/sources.list.d/*; ls -a $ROOT/usr/share/keyrings $ROOT/run/airlock",
    )
    (*_, applied, updated, verified, torn, seen, mended, stranger, found, removed, left) = outputs
    assert json.loads(applied)["exit"] == 0, applied
    assert f"{server.url}/deb {suite} InRelease" in updated
    assert "failed:" not in updated, updated
    assert json.loads(verified.splitlines()[0])["installers"][0]["outcome"] == "ok", verified
    assert "Conflicting values set for option Signed-By" in torn
    assert "Conflicting values" in json.dumps(json.loads(seen.splitlines()[0])["installers"][0])
    assert json.loads(mended)["exit"] == 0
    assert "failed:" in stranger
    assert "NO_PUBKEY" in stranger
    assert "exactly the pinned keys" in found
    assert json.loads(removed)["exit"] == 0
    assert left.splitlines()[0] == rival
    assert "airlock-acme" not in left
    assert "gnupg" not in left
