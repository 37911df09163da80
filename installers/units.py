"""The systemd units that the installers bring."""

from __future__ import annotations

from installers.host import Host

NODE_FILE = "/usr/lib/airlock/airlock-node.pyz"
_UNIT_DIR = "/etc/systemd/system"

PROXY = "airlock-proxy.service"
PROXY_TEXT = f"""\
# Written by airlock.
[Unit]
Description=Apply the proxy settings of the metadata server
Wants=network-online.target
After=network-online.target
# Whatever uses the network must find the settings, not race them.
Before=google-guest-agent.service google-startup-scripts.service google-dataproc-agent.service
Before=docker.service containerd.service kubelet.service snapd.service
Before=apt-daily.service apt-daily-upgrade.service unattended-upgrades.service
Before=dnf-makecache.service cloud-config.service cloud-final.service
ConditionPathExists={NODE_FILE}

[Service]
Type=oneshot
RemainAfterExit=yes
TimeoutStartSec=90
ExecStart=/bin/sh {NODE_FILE} apply --only proxy --metadata http://169.254.169.254

[Install]
WantedBy=multi-user.target
"""

HOST_KEYS = "airlock-ssh-hostkeys.service"
HOST_KEYS_TEXT = """\
# Written by airlock: an image must not carry the keys of its builder.
[Unit]
Description=Make SSH host keys that this machine does not have yet
Before=ssh.service sshd.service ssh.socket
ConditionFileIsExecutable=/usr/bin/ssh-keygen
ConditionPathExists=/etc/ssh

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=multi-user.target
"""


def unit_path(name: str) -> str:
    """Where a unit of ours is."""
    return f"{_UNIT_DIR}/{name}"


def _link(name: str) -> str:
    return f"{_UNIT_DIR}/multi-user.target.wants/{name}"


def inspect(host: Host, name: str, text: str) -> str:
    """``enabled``, ``disabled``, ``differs`` or ``absent``."""
    found = host.read(unit_path(name))
    if found is None:
        return "absent"
    if found != text:
        return "differs"
    return "enabled" if host.readlink(_link(name)) == unit_path(name) else "disabled"


def install(host: Host, name: str, text: str) -> None:
    """Write the unit and enable it by its link, which works on an image that is not running."""
    host.write(unit_path(name), text)
    host.symlink(_link(name), unit_path(name))
    reload(host)


def remove(host: Host, name: str) -> None:
    """Disable and remove the unit."""
    gone = [host.remove(_link(name)), host.remove(unit_path(name))]
    if any(gone):
        reload(host)


def reload(host: Host) -> None:
    """Tell a running systemd that units changed."""
    if host.is_running_system:
        host.run(["systemctl", "daemon-reload"], timeout=120)
