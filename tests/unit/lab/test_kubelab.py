"""What builds the Kubernetes of the lab: what it is called, and what is told where it cannot."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.kubelab import __main__ as command
from harness.kubelab import build
from harness.lab import base
from harness.state import cache_dir
from installers.exits import Exit


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path))
    monkeypatch.setattr(build, "NEEDED", 0)


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("kubernetes_1.20.5+really1.20.2-1.1+deb12u1.dsc", "1.20.2"),
        ("kubernetes_1.20.15-2.dsc", "1.20.15"),
    ],
)
def test_the_sources_tell_the_version(name: str, version: str) -> None:
    assert build.version_of({"kubernetes.orig.tar.gz": "", name: ""}) == version
    with pytest.raises(InfraError, match=r"no \.dsc tells no version"):
        build.version_of({"kubernetes.orig.tar.gz": ""})


def test_a_mirror_that_nobody_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(base.VARIABLE, raising=False)
    monkeypatch.setattr(base, "configured", lambda _: {})
    with pytest.raises(InfraError, match=r"nobody has said where") as caught:
        build.build(lambda _: None)
    assert f"{base.VARIABLE}=URL" in caught.value.hint


def test_a_mirror_that_cannot_be_asked_leaves_nothing_that_looks_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(base.VARIABLE, "http://127.0.0.1:1/debian")
    monkeypatch.setattr("sys.argv", ["kubelab"])
    monkeypatch.setattr("harness.doctor.fix", lambda *_: None)
    assert command.main() == Exit.UNKNOWN
    assert "airlock: apt-get update: " in capsys.readouterr().err
    assert build.find() is None
    left = [path.suffix for path in cache_dir("kubernetes").iterdir()]
    assert sorted(left) == [".lock", ".work"]


def test_too_little_space_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "NEEDED", 1 << 60)
    with pytest.raises(InfraError, match="MiB are free") as caught:
        build.build(lambda _: None)
    assert "AIRLOCK_STATE" in caught.value.hint


def test_a_build_that_left_a_program_out_is_no_build(tmp_path: Path) -> None:
    made = tmp_path / "work/tree/_output/bin"
    made.mkdir(parents=True)
    (made / "kube-apiserver").touch()  # as an interrupted one leaves it
    with pytest.raises(InfraError, match="left no kube-apiserver"):
        build.gather(tmp_path / "work", tmp_path)


def test_what_make_says_is_passed_on_and_its_end_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    argv = ["/bin/sh", "-c", "echo '    cmd/kube-apiserver'; echo other; exit 3"]
    with pytest.raises(InfraError, match=r"make ended with 3: .*other"):
        build.make(argv, tmp_path, {}, tmp_path / "log", said.append)
    assert [line.rpartition(" ")[2] for line in said] == ["cmd/kube-apiserver"]
