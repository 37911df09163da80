"""The seed of a vendor's image, read back by mtools, tar and sh; what comes out of its cache."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

from harness import pack
from harness.errors import InfraError
from harness.lab import addresses as at
from harness.lab import cloudbuild, seed
from harness.lab.namespace import host_env


def read(volume: Path, name: str) -> bytes:
    argv = ["mtype", "-i", str(volume), f"::/{name}"]
    return subprocess.run(argv, check=True, capture_output=True, env=host_env()).stdout


def test_the_volume_holds_what_cloud_init_looks_for(tmp_path: Path) -> None:
    node_file = pack.pack(tmp_path)
    volume = tmp_path / "seed.img"
    seed.make(volume, node_file)
    label = subprocess.run(
        ["mlabel", "-i", str(volume), "-s", "::"],
        check=True,
        capture_output=True,
        text=True,
        env=host_env(),
    )
    # https://docs.cloud-init.io: cidata, in either case.
    assert "CIDATA" in label.stdout
    assert read(volume, "user-data").startswith(b"#cloud-config\n")
    told = yaml.safe_load(read(volume, "user-data"))
    assert told["bootcmd"][-1] == "sh /run/airlock-seed/airlock.sh"
    assert told["package_upgrade"] is False
    assert yaml.safe_load(read(volume, "meta-data"))["local-hostname"] == "airlock-node"
    network = json.loads(read(volume, "network-config"))
    first, second = (network["ethernets"][card] for card in ("eth0", "eth1"))
    assert first["match"] == {"macaddress": at.MAC}
    assert first["routes"][0] == {"to": "0.0.0.0/0", "via": at.GATEWAY}
    assert "routes" not in second
    with tarfile.open(fileobj=io.BytesIO(read(volume, "airlock.tar"))) as tar:
        agent = tar.extractfile("usr/lib/airlock/airlock-node.pyz")
        assert agent is not None
        assert agent.read() == node_file.path.read_bytes()
        assert "etc/systemd/system/airlock-agent.service" in tar.getnames()
        assert {member.uid for member in tar} == {0}


def test_a_first_boot_has_no_way_out_until_it_is_opened() -> None:
    silent = json.loads(seed.texts(silent=True)["network-config"])["ethernets"]["eth0"]
    assert "routes" not in silent
    assert "nameservers" not in silent
    assert silent["addresses"][0].startswith(at.NODE)
    for way in (at.GATEWAY, at.GATEWAY6, at.NAMESERVER):
        assert way in seed.OPEN


@pytest.mark.parametrize("text", [seed.texts()["airlock.sh"], seed.OPEN])
def test_a_shell_can_read_its_scripts(text: str) -> None:
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("name", ["../escaped", "/etc/escaped", "a/../../escaped"])
def test_nothing_of_the_machine_is_written_beside_the_cache(name: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, data in (("modules/one", b"first"), (name, b"bad")):
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        one, bad = tar.getmembers()
        cloudbuild._unpack(tar, one, store)
        with pytest.raises(InfraError, match="escaped"):
            cloudbuild._unpack(tar, bad, store)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["one"]
