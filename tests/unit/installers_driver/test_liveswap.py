"""550 to 570 and back on a node that runs. The module loader is a double: no GPU is here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from installers import driver, kernels, liveswap
from installers.config import Config
from installers.driver import Driver
from installers.errors import NodeError
from installers.host import Host
from installers.journal import Journal, recall
from installers.liveswap import Swapped

KERNEL = "6.1.0-56-cloud-amd64"
PLACE = kernels.module_directory(KERNEL)
# modprobe as far as it matters: takes out what is loaded, loads what stands on disk, or refuses.
MODPROBE = """\
#!/bin/sh
root={root}
echo "$@" >> $root/log
if [ "$1" = -r ]; then
  shift
  test -e $root/busy && {{ echo "modprobe: FATAL: Module nvidia is in use." >&2; exit 1; }}
  for one; do rm -rf $root/sys/module/$one; done
  exit 0
fi
version=$(cat $root/{place}/nvidia.ko)
test "$version" = broken && {{ echo "modprobe: ERROR: Key was rejected by service" >&2; exit 1; }}
mkdir -p $root/sys/module/$1
echo "$version" > $root/sys/module/$1/version
"""


class _Live(Host):
    """A running system in a directory; programs are run outside, from its ``bin``."""

    is_running_system = True

    def run(self, argv, **options):  # type: ignore[no-untyped-def]
        outside = Host("/")
        outside.env = {"PATH": f"{self.root}/bin:/usr/bin:/bin"}
        return outside.run(argv, **options)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    host = _Live(tmp_path)
    host.write("/proc/sys/kernel/osrelease", f"{KERNEL}\n")
    for name in ("nvidia", "nvidia_uvm", "nvidia_modeset"):
        host.write(f"/sys/module/{name}/version", "550.142\n")
    host.write(f"{PLACE}/nvidia.ko", "550.142")
    programs = {
        "modprobe": MODPROBE.format(root=tmp_path, place=PLACE.lstrip("/")),
        "depmod": "#!/bin/sh\n",
        "systemctl": f'#!/bin/sh\necho systemctl "$@" >> {tmp_path}/log\n'
        'test "$1" = is-active && test "$3" != nvidia-persistenced.service && exit 3\nexit 0\n',
    }
    for name, text in programs.items():
        host.write(f"/bin/{name}", text, mode=0o755)
    return host


def _replace(host: Host, version: str) -> None:
    """What the installer does on disk, then the change of what is loaded."""
    one = Driver(Config())
    host.path(liveswap.BEFORE).parent.mkdir(parents=True, exist_ok=True)
    host.move(PLACE, liveswap.BEFORE)
    host.write(f"{PLACE}/nvidia.ko", version)
    try:
        one._swap(host, KERNEL, {"driver": version}, Journal(host).log("driver"))
    finally:
        host.remove(liveswap.BEFORE)


def _log(host: Host) -> list[str]:
    text = host.read("/log") or ""
    host.remove("/log")
    return [line for line in text.splitlines() if "is-active" not in line]


def test_there_and_back(host: Host) -> None:
    for version in ("570.211.01", "550.142"):
        _replace(host, version)
        assert liveswap.loaded(host) == version
        assert _log(host) == [
            "systemctl stop nvidia-persistenced.service",
            "-r nvidia_modeset nvidia_uvm nvidia",
            "nvidia",
            "nvidia_uvm",
            "nvidia_modeset",
            "systemctl start nvidia-persistenced.service",
        ]
        assert recall(host, driver.REBOOT)["needed"] == ""


def test_somebody_uses_it(host: Host, tmp_path: Path) -> None:
    device = tmp_path / "proc/4711/fd"
    device.mkdir(parents=True)
    (device / "3").symlink_to("/dev/nvidia0")
    host.write("/proc/4711/comm", "python\n")
    _replace(host, "570.211.01")
    assert liveswap.loaded(host) == "550.142"
    assert "modprobe" not in " ".join(_log(host))
    assert recall(host, driver.REBOOT)["needed"] == "in use by python (4711)"
    record = {"schema": 1, "provenance": {"driver": "570.211.01"}}
    host.write(f"{PLACE}/airlock-modules.json", json.dumps(record))
    host.write(f"/lib/modules/{KERNEL}/modules.builtin", "")
    assert Driver(Config()).provenance(host)["reboot"] == "in use by python (4711)"
    host.write("/sys/module/nvidia/version", "570.211.01\n")  # after the reboot
    assert "reboot" not in Driver(Config()).provenance(host)


def test_the_kernel_does_not_give_it_up(host: Host) -> None:
    host.write("/busy", "")
    _replace(host, "570.211.01")
    assert "in use" in recall(host, driver.REBOOT)["needed"]
    assert liveswap.loaded(host) == "550.142"


def test_what_does_not_load_is_taken_back(host: Host) -> None:
    with pytest.raises(NodeError, match=r"Key was rejected.*the driver that was here is back"):
        _replace(host, "broken")
    assert host.read(f"{PLACE}/nvidia.ko") == "550.142"
    assert liveswap.loaded(host) == "550.142"
    assert not host.exists(liveswap.BEFORE)
    assert _log(host)[-1] == "nvidia_modeset"


def test_nothing_to_swap(host: Host) -> None:
    log = Journal(host).log("driver")
    assert liveswap.swap(host, "550.142", KERNEL, log) == Swapped("550.142", "550.142")
    assert liveswap.swap(host, "570.1", "6.1.0-other", log) == Swapped("550.142", "550.142")
    host.remove("/sys/module/nvidia")
    assert liveswap.swap(host, "570.1", KERNEL, log) == Swapped(None, None)
    assert _log(host) == []


def test_users_are_found_by_their_open_files(tmp_path: Path) -> None:
    """The real /proc of a real process; the device's name is all that is not real."""
    link = tmp_path / "nvidia-test"
    link.write_text("")
    words = [
        sys.executable,
        "-c",
        "import sys; f = open(sys.argv[1]); print(1, flush=True); input()",
    ]
    with subprocess.Popen(
        [*words, str(link)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        opened = [str(entry.readlink()) for entry in Path(f"/proc/{process.pid}/fd").iterdir()]
        assert str(link) in opened
        assert not any(f"({process.pid})" in user for user in liveswap.users(Host("/")))
        process.terminate()
