"""Asking systemd: a real user manager in a namespace of its own, where one can be started."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installers.collect import dbus, systemd
from installers.collect.reader import Reader

SYSTEMD = "/lib/systemd/systemd"
# systemd starts only where it believes that a systemd booted the machine.
SCRIPT = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system && mkdir -m 700 -p /run/user/0 || exit 1
[ -d /sys/fs/cgroup/unified ] && mount --bind /sys/fs/cgroup/unified /sys/fs/cgroup
mkdir -p /run/user/0/systemd/user
printf '[Service]\\nType=oneshot\\nExecStart=/bin/false\\n' >/run/user/0/systemd/user/broken.service
exec env -i PATH="$PATH" XDG_RUNTIME_DIR=/run/user/0 HOME=/root http_proxy=http://u:p@h:1 \
  %s --user
""".replace("%s", SYSTEMD)


@pytest.fixture(scope="module")
def manager() -> Iterator[str]:
    """The private socket of a systemd user manager."""
    if os.geteuid() != 0 or not Path(SYSTEMD).exists() or shutil.which("unshare") is None:
        pytest.skip("needs root, systemd and unshare")
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", SCRIPT],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        path = Path(f"/proc/{process.pid}/root/run/user/0/systemd/private")
        deadline = time.monotonic() + 20
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.skip("systemd does not run here")
            time.sleep(0.02)
        yield str(path)
    finally:
        process.kill()
        process.wait()


def test_a_manager_is_asked_again_and_again(manager: str) -> None:
    for _ in range(10):
        reader = Reader()
        found = systemd.collect(reader, manager)
        assert reader.unreadable == {}
        assert found["state"] in ("initializing", "starting", "running", "degraded")
        assert found["environment"]["http_proxy"] == "http://u:p@h:1"
        assert found["version"]
        assert found["units"]["airlock-proxy.service"]["LoadState"] == "not-found"


def test_a_failed_unit_is_named(manager: str) -> None:
    with dbus.Bus(manager) as bus:
        bus.answer(bus.ask_manager("StartUnit", "ss", "broken.service", "replace"))
        path = dbus.unit_path("broken.service")
        deadline = time.monotonic() + 20
        while bus.answer(bus.ask_property(path, "Unit", "ActiveState")) != ["failed"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert systemd.collect(Reader(), manager)["failed"] == ["broken.service"]


def test_systemds_own_refusal_is_told(manager: str) -> None:
    with dbus.Bus(manager) as bus:
        refused = bus.ask_manager("StartUnit", "ss", "no-such.service", "replace")
        asked = bus.ask_property(dbus.MANAGER_PATH, "Manager", "Version")
        # An answer may be taken before one that came earlier, and a refusal spoils nothing.
        assert bus.answer(asked)[0]
        with pytest.raises(dbus.DBusError, match=r"Unit no-such\.service not found"):
            bus.answer(refused)


def test_nobody_there_is_unreadable(tmp_path: Path) -> None:
    reader = Reader()
    assert systemd.collect(reader, str(tmp_path / "none"))["state"] is None
    assert "systemd" in reader.unreadable


def test_unit_names_are_escaped_as_systemd_does() -> None:
    assert dbus.unit_path("airlock-proxy.service").endswith("/unit/airlock_2dproxy_2eservice")


@given(st.binary(max_size=300), st.sampled_from(["a{sv}", "a(ssssssouso)", "as", "v", "sub"]))
def test_bytes_that_are_no_message_are_an_error_and_end(data: bytes, signature: str) -> None:
    with contextlib.suppress(dbus.DBusError):
        dbus.decode(data, signature)
