"""What the lab puts into a node so that it can live here: its cards, its name, its channel.

Nothing of this belongs to the product: on a real machine the cloud or the operator supplies it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from harness.lab import addresses as at
from harness.lab_units import AGENT_UNIT, DEVICE

_UNITS = "/lib/systemd/system"
_WANTED = "etc/systemd/system"


#: What makes requests of its own accord: a node under test makes none, its ledger is the test's.
SILENT = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "motd-news.timer"),
    # Looks for LVM snapshots: half a minute of an emulated boot, and there are none.
    *("e2scrub_reap.service", "e2scrub_all.timer"),
)
#: The same of vendors' cloud images, and what sets the clock, which is the host's to set here.
SILENT_VENDOR = (
    *("unattended-upgrades.service", "update-notifier-download.timer", "ua-timer.timer"),
    *("apt-news.service", "esm-cache.service", "fwupd-refresh.timer", "snapd.service"),
    *("dnf-makecache.timer", "dnf-automatic.timer", "dnf-automatic-install.timer"),
    *("rhsmcertd.service", "insights-client.timer", "amazon-ssm-agent.service"),
    *("systemd-timesyncd.service", "chrony.service", "chronyd.service", "ntpsec.service"),
)


def hosts() -> str:
    """The lines of the hosts file that name the metadata server."""
    return f"{at.METADATA} metadata.google.internal metadata\n"


def files() -> dict[str, str]:
    """Path in the tree (no leading slash) -> text."""
    return {
        "etc/hostname": "airlock-node\n",
        "etc/hosts": (f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 airlock-node\n{hosts()}"),
        "etc/resolv.conf": f"nameserver {at.NAMESERVER}\noptions timeout:1 attempts:1\n",
        "etc/fstab": "/dev/vda / ext4 defaults 0 1\n",
        # A static default route and nameserver: attempts to get out must leave the card, or the
        # capture would be silent about them (QEMU's own DHCP offers no route under restrict=on).
        "etc/systemd/network/10-airlock-node.network": (
            "[Match]\nName=eth0\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\n"
            f"Address={at.NODE}/{at.NODE_PREFIX}\nGateway={at.GATEWAY}\n"
            f"Address={at.NODE6}/64\nGateway={at.GATEWAY6}\n"
        ),
        "etc/systemd/network/10-airlock-metadata.network": (
            "[Match]\nName=eth1\n\n[Network]\nDHCP=no\nIPv6AcceptRA=no\n"
            f"LinkLocalAddressing=no\nAddress={at.METADATA_NODE}/24\n"
        ),
        **units(),
    }


def units() -> dict[str, str]:
    """The agent's unit, and patience for a machine that is emulated: path -> text."""
    return {
        "etc/systemd/system/airlock-agent.service": AGENT_UNIT,
        # systemd gives a device 90 seconds; an emulated machine on a busy computer needs more.
        f"etc/systemd/system/{DEVICE}.d/lab.conf": "[Unit]\nJobRunningTimeoutSec=infinity\n",
        # 90 seconds are plenty for a machine, and few for one that is emulated on a busy computer.
        "etc/systemd/system/airlock-proxy.service.d/lab.conf": "[Service]\nTimeoutStartSec=600\n",
        # The prime numbers of an RSA key take a minute without hardware acceleration.
        "etc/systemd/system/airlock-ssh-hostkeys.service.d/lab.conf": (
            "[Service]\nExecStart=\n"
            "ExecStart=/bin/sh -c '[ -e $0 ] || exec ssh-keygen -q -t ed25519 -N \"\" -f $0' "
            "/etc/ssh/ssh_host_ed25519_key\n"
        ),
    }


def links() -> dict[str, str]:
    """Path in the tree -> what it points to."""
    return {
        f"{_WANTED}/multi-user.target.wants/systemd-networkd.service": (
            f"{_UNITS}/systemd-networkd.service"
        ),
        f"{_WANTED}/sockets.target.wants/systemd-networkd.socket": (
            f"{_UNITS}/systemd-networkd.socket"
        ),
        f"{_WANTED}/network-online.target.wants/systemd-networkd-wait-online.service": (
            f"{_UNITS}/systemd-networkd-wait-online.service"
        ),
        f"{_WANTED}/multi-user.target.wants/airlock-agent.service": (
            "/etc/systemd/system/airlock-agent.service"
        ),
        **{f"{_WANTED}/{unit}": "/dev/null" for unit in SILENT},
    }


def archive(
    more: Mapping[str, bytes] | None = None,
    *,
    executable: frozenset[str] = frozenset(),
    also: Mapping[str, str] | None = None,
) -> bytes:
    """The seam, ``more`` (path -> bytes) and links ``also``, as a tar file owned by root."""
    entries = {p: t.encode() for p, t in files().items()} | dict(more or {})
    return packed(entries, executable=executable, pointing=links() | dict(also or {}))


def packed(
    entries: Mapping[str, bytes], *, executable: frozenset[str], pointing: Mapping[str, str]
) -> bytes:
    """Files (path -> bytes) and links (path -> target), as a tar file owned by root."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        made: set[str] = set()
        for path, data in sorted(entries.items()):
            _parents(tar, path, made)
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(data), 0o755 if path in executable else 0o644
            tar.addfile(info, io.BytesIO(data))
        for path, target in sorted(pointing.items()):
            _parents(tar, path, made)
            info = tarfile.TarInfo(path)
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return out.getvalue()


def _parents(tar: tarfile.TarFile, path: str, made: set[str]) -> None:
    # Only directories that the base may lack: tar would change the mode of an existing one.
    parent = str(Path(path).parent)
    if parent.endswith((".wants", ".service.d", ".device.d")) and parent not in made:
        info = tarfile.TarInfo(parent)
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(info)
    made.add(parent)
