"""A kernel that comes later: the real hook marks it, and the verb provides for it or says no."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from fixtures.signer import SignerServer
from installers import cli, driver, newkernel
from installers.config import Config
from installers.engine import Problem
from installers.host import Host
from tests.unit.installers_driver.test_driver import KERNEL, SOURCES, _installed

LATER = "6.1.0-60-cloud-amd64"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = Host(tmp_path / "root")
    host.write("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')
    host.write("/etc/apt/sources.list", SOURCES)
    host.write(f"/lib/modules/{KERNEL}/modules.builtin", "")
    newkernel.install(host)
    return host


def _hook(host: Host, path: str, *words: str) -> None:
    text = (host.read(path) or "").replace("/var/lib", f"{host.root}/var/lib")
    subprocess.run(["sh", "-c", text, path, *words], check=True)


def _new_kernel(host: Host, **attributes: str) -> int:
    file = host.root.parent / "metadata.json"
    file.write_text(json.dumps({"instance": {"attributes": attributes}}))
    return cli.main(["new-kernel", "--root", str(host.root), "--metadata", str(file)])


def test_both_hooks_leave_a_mark(host: Host) -> None:
    debian, others = newkernel.HOOKS
    _hook(host, debian, LATER, f"/boot/vmlinuz-{LATER}")
    _hook(host, others, "add", "6.12.1", "/boot/x", "/boot/vmlinuz")
    _hook(host, others, "remove", "6.1.0-1", "/boot/x")
    assert host.glob(newkernel.MARKS, "*") == [
        f"{newkernel.MARKS}/{LATER}",
        f"{newkernel.MARKS}/6.12.1",
    ]
    for path in newkernel.HOOKS:
        assert host.path(path).stat().st_mode & 0o111


def test_the_mark_stays_until_there_are_modules(
    host: Host,
    server: SignerServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _hook(host, newkernel.HOOKS[0], LATER)
    _hook(host, newkernel.HOOKS[0], KERNEL)
    _hook(host, newkernel.HOOKS[0], "6.1.0-1-gone")
    host.write(f"/lib/modules/{LATER}/modules.builtin", "")
    _installed(host, server)
    # The kernel whose modules are there needs nothing; there is nobody to sign the other's.
    verified: list[str] = []

    def verify(self: driver.Driver, host: Host) -> list[Problem]:
        assert host.exists("/lib/modules")
        verified.append(self.config.boot_kernel or "")
        return []

    # modinfo and depmod, which the real one asks, are not in this root.
    monkeypatch.setattr(driver.Driver, "verify", verify)
    assert _new_kernel(host) == 1
    assert verified == [KERNEL]
    assert host.glob(newkernel.MARKS, "*") == [f"{newkernel.MARKS}/{LATER}"]
    assert f"{LATER} has no GPU modules: do not boot it" in capsys.readouterr().out


def test_removed_with_the_driver(host: Host) -> None:
    assert newkernel.inspect(host) == "ours"
    host.write(newkernel.HOOKS[1], "other")
    assert newkernel.inspect(host) == "differs"
    driver.Driver(Config()).remove(host)
    assert newkernel.inspect(host) == "absent"
