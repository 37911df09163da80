"""The installer on a root: what it writes, what others' programs read of it, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from installers import cli
from installers.collect import registries, resolver
from installers.collect.reader import Reader
from installers.config import from_attributes
from installers.dialects.base import wanted
from installers.dialects.services import ServiceEnvironment
from installers.errors import ConfigError
from tests.unit.installers_engine import crash
from tests.unit.installers_engine.root import MEMORY, tree
from tests.unit.installers_engine.rounds import Order
from tests.unit.installers_kubernetes.conftest import ATTRIBUTES, CONFIG, KUBELET, furnish

REPOSITORY = Path(__file__).parents[3]


def run(verb: str, root: Path, metadata: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    code = cli.main(
        [verb, f"--root={root}", f"--metadata={metadata}", "--only=kubernetes", "--json"]
    )
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit"] == code
    return answer


def test_apply_reads_back_and_comes_back(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = tree(root)
    (planned,) = run("plan", root, metadata, capsys)["installers"]
    assert planned["outcome"] == "planned"
    assert tree(root) == before
    assert run("apply", root, metadata, capsys)["exit"] == 0
    made = tree(root)

    assert str((root / "etc/resolv.conf").readlink()) == "../run/systemd/resolve/resolv.conf"
    assert resolver.stub_listener(Reader(str(root))) == "no"
    with (root / "etc/containerd/config.toml").open("rb") as file:
        config = tomllib.load(file)
    cri = config["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri == {
        "containerd": {"default_runtime_name": "runc"},
        "registry": {"config_path": "/etc/containerd/certs.d"},
        "cni": {"bin_dir": "/opt/cni/bin"},
    }
    with (root / "etc/containerd/certs.d/nvcr.io/hosts.toml").open("rb") as file:
        hosts = tomllib.load(file)
    mirror = "https://registry.corp.example/v2/nvcr"
    entry = {"capabilities": ["pull", "resolve"], "override_path": True}
    assert hosts == {"server": mirror, "override_path": True, "host": {mirror: entry}}
    with (root / "etc/containerd/certs.d/_default/hosts.toml").open("rb") as file:
        assert tomllib.load(file)["server"] == "https://registry.corp.example:8443"
    settings = yaml.safe_load((root / "var/lib/kubelet/config.yaml").read_text())
    assert settings["resolvConf"] == "/run/systemd/resolve/resolv.conf"
    assert settings["maxPods"] == 110
    settings = json.loads((root / "etc/kubernetes/kubelet/config.json").read_text())
    assert settings["resolvConf"] == "/run/systemd/resolve/resolv.conf"
    facts = registries.collect(Reader(str(root)))
    assert facts is not None
    assert facts["config_path"] == "/etc/containerd/certs.d"
    assert facts["mirrors"]["nvcr.io"]["hosts"][0]["url"] == mirror

    (again,) = run("apply", root, metadata, capsys)["installers"]
    assert (again["outcome"], again["changes"]) == ("unchanged", [])
    assert tree(root) == made
    assert run("verify", root, metadata, capsys)["exit"] == 0
    assert run("remove", root, metadata, capsys)["exit"] == 0
    left = {k: v for k, v in tree(root).items() if not k.startswith("/var/lib/airlock")}
    assert {k: v for k, v in before.items() if k not in left or left[k] != v} == {}
    assert (root / "var/lib/kubelet/config.yaml").read_text() == KUBELET
    assert (root / "etc/containerd/config.toml").read_text() == CONFIG


def test_a_mirror_that_is_no_longer_wanted_goes(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    foreign = root / "etc/containerd/certs.d/ghcr.io/hosts.toml"
    foreign.parent.mkdir(parents=True)
    foreign.write_text('server = "https://ghcr.io"\n')
    run("apply", root, metadata, capsys)
    few = {**ATTRIBUTES, "airlock-registry-mirrors": "nvcr.io=https://other.example"}
    metadata.write_text(json.dumps({"instance": {"attributes": few}}))
    run("apply", root, metadata, capsys)
    assert sorted(p.name for p in (root / "etc/containerd/certs.d").iterdir()) == [
        *("ghcr.io", "nvcr.io"),
    ]
    run("remove", root, metadata, capsys)
    assert foreign.exists()


def test_nothing_is_done_unasked(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata.write_text(json.dumps({"instance": {"attributes": {}}}))
    before = tree(root)
    (one,) = run("apply", root, metadata, capsys)["installers"]
    assert (one["outcome"], one["changes"]) == ("unchanged", [])
    after = {k: v for k, v in tree(root).items() if k in before and k != "/var/lib"}
    assert {k: v for k, v in before.items() if k != "/var/lib"} == after


def test_version_3_and_no_configuration(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = root / "etc/containerd/config.toml"
    config.write_text("version = 3\n")
    assert run("apply", root, metadata, capsys)["exit"] == 0
    plugins = tomllib.loads(config.read_text())["plugins"]
    assert plugins["io.containerd.cri.v1.images"]["registry"] == {
        "config_path": "/etc/containerd/certs.d"
    }
    run("remove", root, metadata, capsys)
    assert config.read_text() == "version = 3\n"
    config.unlink()
    assert run("apply", root, metadata, capsys)["exit"] == 0
    assert tomllib.loads(config.read_text())["version"] == 2
    run("remove", root, metadata, capsys)
    assert not config.exists()


def test_an_imported_file_with_the_plugin_in_it(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As nvidia-ctk writes it since 1.18: the whole plug-in, in place of the main file's."""
    extra = root / "etc/containerd/conf.d/99-nvidia.toml"
    extra.parent.mkdir()
    text = '[plugins."io.containerd.grpc.v1.cri".containerd]\n  default_runtime_name = "nvidia"\n'
    extra.write_text(text)
    assert run("apply", root, metadata, capsys)["exit"] == 0
    cri = tomllib.loads(extra.read_text())["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["registry"]["config_path"] == "/etc/containerd/certs.d"
    assert cri["containerd"]["default_runtime_name"] == "nvidia"
    run("remove", root, metadata, capsys)
    assert extra.read_text() == text


@pytest.mark.parametrize(
    ("path", "text", "code"),
    [
        ("etc/resolv.conf", "nameserver 127.0.0.53\n", "kubernetes.resolv-conf"),
        ("etc/containerd/config.toml", 'root = "/data"\n', "kubernetes.containerd-version"),
        (
            "etc/containerd/config.toml",
            'version = 2\ndisabled_plugins = ["cri"]\n',
            "kubernetes.cri-disabled",
        ),
        (
            "etc/containerd/config.toml",
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."docker.io"]\n'
            'endpoint = ["https://x.example"]\n',
            "kubernetes.old-mirrors",
        ),
        ("etc/rancher/k3s/config.yaml", "", "kubernetes.distribution"),
    ],
)
def test_refused_before_anything_is_touched(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str], path: str, text: str, code: str
) -> None:
    place = root / path
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.write_text(text)
    before = tree(root)
    answer = run("apply", root, metadata, capsys)
    assert answer["exit"] == 1
    assert [one["code"] for one in answer["installers"][0]["refusals"]] == [code]
    assert {k: v for k, v in tree(root).items() if "airlock" not in k and k in before} == {
        k: v for k, v in before.items() if "airlock" not in k
    } | {k: v for k, v in tree(root).items() if k == "/var/lib"}


def test_a_resolv_conf_of_somebody_else_stays(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "etc/resolv.conf").unlink()
    (root / "etc/resolv.conf").write_text("nameserver 10.0.0.2\n")
    assert run("apply", root, metadata, capsys)["exit"] == 0
    assert (root / "etc/resolv.conf").read_text() == "nameserver 10.0.0.2\n"
    assert not (root / "etc/resolv.conf").is_symlink()


def test_without_resolved_there_is_nothing_to_free(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "etc/systemd/system/sysinit.target.wants/systemd-resolved.service").unlink()
    run("apply", root, metadata, capsys)
    assert str((root / "etc/resolv.conf").readlink()) == "../run/systemd/resolve/stub-resolv.conf"
    assert not (root / "etc/systemd/resolved.conf.d").exists()


@pytest.mark.parametrize("text", ["[1", '{"kind": ', "[plugins\n"])
def test_files_that_are_damaged(
    root: Path, metadata: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    for path in ("etc/kubernetes/kubelet/config.json", "etc/containerd/config.toml"):
        good = (root / path).read_text()
        (root / path).write_text(text)
        code = cli.main(["apply", f"--root={root}", f"--metadata={metadata}", "--only=kubernetes"])
        said = capsys.readouterr()
        assert code == 1
        assert path in said.out + said.err
        assert "Traceback" not in said.err
        assert (root / path).read_text() == text
        (root / path).write_text(good)


BAD = [
    ({"airlock-kubernetes": "yes"}, "neither true nor false"),
    ({"airlock-kubernetes": "false", "airlock-pod-cidr": "10.0.0.0/8"}, "of no use without"),
    ({"airlock-service-cidr": "172.20.0.1/16"}, "is no network"),
    ({"airlock-pod-cidr": "here"}, "is no network"),
    ({"airlock-pod-cidr": "10.0.0.0/31"}, "too small"),
    ({"airlock-cluster-domain": "a b"}, "airlock-cluster-domain"),
    ({"airlock-registry-mirrors": "nvcr.io"}, "no registry or no URL"),
    ({"airlock-registry-mirrors": "nvcr.io=registry.example"}, "not one of http or https"),
    ({"airlock-registry-mirrors": "a.io=https://u:p@r.example"}, "more than a host"),
    ({"airlock-registry-mirrors": "a.io=https://r.example/?x=1"}, "more than a host"),
    ({"airlock-registry-mirrors": "a.io=https://r.example,a.io=https://s.example"}, "named twice"),
    ({"airlock-registry-mirrors": "a.io:x=https://r.example"}, "not a port"),
    ({"airlock-registry-mirrors": "../x=https://r.example"}, "airlock-registry-mirrors"),
    ({"airlock-registry-mirrors": "a.io=https://r.example:99999"}, "is none"),
]


@pytest.mark.parametrize(("wrong", "words"), BAD, ids=range(len(BAD)))
def test_metadata_that_cannot_be_meant(wrong: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_attributes({"airlock-kubernetes": "true", **wrong})
    assert words in str(caught.value)
    assert "u:p" not in str(caught.value)


def test_the_cluster_bypasses_the_proxy() -> None:
    """Names and the API server's own address for all programs, networks for those in Go alone."""
    config = from_attributes({"http-proxy": "proxy.example:3128", **ATTRIBUTES})
    assert {".svc", ".cluster.local", "172.20.0.1"} <= set(config.proxy.no_proxy)
    assert not any("/" in entry for entry in config.proxy.no_proxy)
    services = ServiceEnvironment().settings(wanted(config.proxy, credentials=True))
    assert services["NO_PROXY"].endswith(",172.20.0.0/16,10.244.0.0/16")
    assert services["NO_PROXY"] == services["no_proxy"]
    assert config.proxy.environment(True)["NO_PROXY"] in services["NO_PROXY"]


EVERY_WAY = [
    pytest.param(
        way,
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(os.geteuid() != 0, reason="needs root to make a device"),
        ]
        if way != "killed"
        else [],
    )
    for way in crash.WAYS
]


@pytest.mark.parametrize("way", EVERY_WAY)
def test_every_step(tmp_path_factory: pytest.TempPathFactory, metadata: Path, way: str) -> None:
    """Killed or without power anywhere: the next run makes it right, and remove undoes it all."""
    work = Path(MEMORY or tmp_path_factory.mktemp("x")) / f"kubernetes-{os.getpid()}-{way}"
    work.mkdir()
    try:
        order = Order(
            prepared=str(furnish(work / "prepared")),
            work=str(work / "work"),
            metadata=str(metadata),
            only="kubernetes",
            way=way,
            # Every second point is enough for each run; a release tries them all, in two ways.
            shares=2 if way == "killed" else 1,
        )
        Path(order.work).mkdir()
        (work / "order.json").write_text(json.dumps(asdict(order)))
        argv = [sys.executable, "-m", "tests.unit.installers_engine.rounds", f"{work}/order.json"]
        done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        whole, *died = json.loads(done.stdout)
        assert {one["died"] for one in died} == {-9}
    finally:
        subprocess.run(["rm", "-rf", str(work)], check=True)
    wrong = [
        one
        for one in (whole, *died)
        if one["apply"] or one["verify"] or one["remove"] or one["wrong"] or one["not_undone"]
    ]
    assert not wrong
    assert len(died) * order.shares > 20, "every step of the installer"
