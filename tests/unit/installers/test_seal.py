"""Sealing: nothing of the builder stays in the image, and only an image is sealed."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest

from installers import units
from installers.config import from_attributes
from installers.engine import Engine, Summary
from installers.exits import Exit
from installers.host import Host
from installers.seal import Seal

CANARY = "c@n:/%#ary-77aa"
BUILD = {
    "invocation-type": "custom-images",
    "proxy-uri": f"http://bob:{quote(CANARY, safe='')}@h:1",
}
GONE = (
    "var/lib/apt/lists/mirror_InRelease",
    "var/lib/apt/lists/partial/x",
    "var/cache/apt/archives/x.deb",
    "var/cache/apt/pkgcache.bin",
    "etc/ssh/ssh_host_ed25519_key",
    "etc/ssh/ssh_host_ed25519_key.pub",
    "tmp/build/x",
    "tmp/.hidden",
    "var/tmp/x",
    "root/.bash_history",
    "var/log/apt/term.log",
    "var/log/dpkg.log",
)
KEPT = (
    "var/lib/apt/lists/lock",
    "etc/ssh/sshd_config",
    "etc/hostname",
    "var/log/lastlog",
    "usr/sbin/sshd",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (*GONE, *KEPT):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x\n")
    (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "usr/sbin/policy-rc.d").write_text("#!/bin/sh\nexit 101\n")
    return tmp_path


def run(root: Path, verb: str = "apply", attributes: dict[str, str] | None = None) -> Summary:
    config = from_attributes(BUILD if attributes is None else attributes)
    summary: Summary = getattr(Engine(Host(root), [Seal(config)]), verb)()
    return summary


def test_seals_and_has_nothing_left_to_do(root: Path) -> None:
    assert run(root).exit == Exit.PASS
    assert [name for name in GONE if (root / name).exists()] == []
    assert [name for name in KEPT if not (root / name).exists()] == []
    assert (root / "etc/machine-id").read_text() == ""
    assert not (root / "usr/sbin/policy-rc.d").exists()
    assert units.inspect(Host(root), units.HOST_KEYS, units.HOST_KEYS_TEXT) == "enabled"
    assert run(root).installers[0].outcome == "unchanged"
    assert run(root, "verify").exit == Exit.PASS


def test_only_an_image_is_sealed(root: Path) -> None:
    summary = run(root, attributes={})
    assert summary.installers[0].outcome == "unchanged"
    assert (root / "etc/ssh/ssh_host_ed25519_key").exists()
    assert (root / "etc/machine-id").read_text()


def test_policy_of_somebody_else_stays(root: Path) -> None:
    (root / "usr/sbin/policy-rc.d").write_text('#!/bin/sh\n[ "$1" = x ] && exit 101\nexit 0\n')
    assert run(root).exit == Exit.PASS
    assert (root / "usr/sbin/policy-rc.d").exists()


@pytest.mark.parametrize(
    "form", [CANARY, quote(CANARY, safe=""), quote(CANARY, safe="").replace("%", "%%")]
)
def test_password_left_by_a_program_fails_the_image(root: Path, form: str) -> None:
    (root / "etc/other.conf").write_text(f"proxy={form}\n")
    summary = run(root)
    assert summary.exit == Exit.FAIL
    assert "/etc/other.conf holds the proxy password" in summary.installers[0].problems[0].what
    assert CANARY not in str(summary)


def test_password_in_a_log_goes_with_the_log(root: Path) -> None:
    (root / "var/log/apt/history.log").write_text(f"Commandline: apt {CANARY}\n")
    assert run(root).exit == Exit.PASS


def test_remove_takes_the_unit_back(root: Path) -> None:
    run(root)
    assert run(root, "remove").exit == Exit.PASS
    assert units.inspect(Host(root), units.HOST_KEYS, units.HOST_KEYS_TEXT) == "absent"


def test_plan_warns_of_passwords_on_the_images_own_disk(root: Path) -> None:
    assert any("tmpfs" in note for note in run(root, "plan").contract.notes)


def test_B49_no_disk_is_filled_with_zeros(root: Path) -> None:
    """Blocks that are free are the image maker's (fstrim, a sparse copy): nothing is written."""
    before = {path for path in root.rglob("*") if path.is_file()}
    assert run(root).exit == Exit.PASS
    new = {path for path in root.rglob("*") if path.is_file()} - before
    # The journal and the state, and the unit of the host keys.
    assert sum(path.stat().st_size for path in new) < 64 << 10
    assert run(root, "plan").contract.disk == {}
