"""The doctor: what it finds, and how it says to mend it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from harness import doctor
from harness.cli import main
from harness.errors import InfraError


def found(name: str) -> doctor.Finding:
    """One finding of a whole examination."""
    return next(finding for finding in doctor.examine() if finding.name == name)


def test_it_looks_at_everything_a_run_needs() -> None:
    names = {finding.name for finding in doctor.examine()}
    assert {*doctor.PROGRAMS, "OVMF", "namespaces", "KVM", "memory", "disk for state"} <= names
    for finding in doctor.examine():
        assert finding.why
        assert finding.level in ("ok", "note", "missing")


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PATH", "/nowhere")
    finding = found("mmdebstrap")
    assert finding.level == "missing"
    assert finding.packages == ("mmdebstrap",)
    assert "apt-get install" in finding.fix
    assert found("KVM").level == "note"


@pytest.mark.parametrize(("system", "packages"), [("debian", 2), ("ubuntu", 0)])
def test_a_browser_is_for_tests_only(
    system: str, packages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ubuntu's package of that name installs a snap: it is not asked for."""
    monkeypatch.setattr(doctor, "PATH", "/nowhere")
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": system})
    finding = doctor._browser()
    assert finding.level == "note"
    assert len(finding.packages) == packages
    assert "no chromium and no chromedriver" in finding.what
    assert finding in doctor.examine(tests=True)
    assert finding not in doctor.examine()


def test_without_root_what_is_only_noted_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(
        "harness.doctor.shutil.which", lambda name, **_: name if name == "apt-get" else None
    )
    note = doctor.Finding("x", "note", "", "", packages=("some-package",))
    doctor.fix([note], lambda line: pytest.fail(line))
    with pytest.raises(InfraError, match="needs root"):
        doctor.fix([note, doctor.Finding("y", "missing", "", "", packages=("b",))], lambda _: None)


def test_a_full_disk_is_said_before_anything_is_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "STATE_BYTES", 1 << 60)
    assert main(["doctor", "--quiet"]) == 3
    printed = capsys.readouterr().out
    assert "disk for state" in printed
    assert "AIRLOCK_STATE" in printed


def test_ubuntus_restriction_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = Path

    def path(*parts: str) -> Path:
        return real(tmp_path if parts == ("/proc/sys",) else real(*parts))

    switch = tmp_path / "kernel" / "apparmor_restrict_unprivileged_userns"
    switch.parent.mkdir()
    switch.write_text("1\n")
    monkeypatch.setattr(doctor, "Path", path)
    assert "kernel.apparmor_restrict_unprivileged_userns=0" in doctor._namespace_fix()


def test_it_installs_with_sudo_only_when_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[list[str]] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[bytes]:
        calls.append(words)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr("harness.doctor.subprocess.run", run)
    monkeypatch.setattr("harness.doctor.shutil.which", lambda name, **_: f"/usr/bin/{name}")
    finding = doctor.Finding("x", "missing", "", "", packages=("some-package",))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    doctor.fix([finding], lambda _: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    doctor.fix([finding], lambda _: None)
    doctor.fix([], lambda _: None)
    assert [words[0] for words in calls] == ["sudo", "sudo", "apt-get", "apt-get"]
    assert "--no-remove" in calls[1]
    assert calls[1][-1] == "some-package"


def test_without_root_and_sudo_it_says_what_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(
        "harness.doctor.shutil.which",
        lambda name, **_: None if name == "sudo" else f"/usr/bin/{name}",
    )
    finding = doctor.Finding("x", "missing", "", "", packages=("some-package",))
    with pytest.raises(InfraError, match="as root: apt-get install some-package"):
        doctor.fix([finding], lambda _: None)


def test_findings_are_there_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    assert {"name", "level", "what", "why", "fix", "packages"} <= set(
        json.loads(capsys.readouterr().out)[0]
    )
