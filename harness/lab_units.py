"""The unit that runs the node's agent in the lab's own machines."""

from __future__ import annotations

NODE_FILE = "/usr/lib/airlock/airlock-node.pyz"
PORT = "/dev/virtio-ports/airlock.0"
# systemd's name of the device (systemd-escape --path): udev announces it when the port is there.
DEVICE = r"dev-virtio\x2dports-airlock.0.device"

AGENT_UNIT = f"""\
[Unit]
Description=Airlock agent
# As early as its file system and its port are there: it must be able to tell why a boot is stuck.
DefaultDependencies=no
Requires={DEVICE}
After={DEVICE} local-fs.target systemd-tmpfiles-setup.service
Conflicts=shutdown.target
Before=shutdown.target

[Service]
Type=simple
ExecStart=/usr/bin/python3 {NODE_FILE} agent --port {PORT}
Restart=on-failure
RestartSec=1
# The host is slow when it emulates; a busy agent is not a stuck one.
TimeoutStopSec=5
OOMScoreAdjust=-900
# A fork wakes up to a new clock, name and card, and with it half of its daemons: we come first.
Nice=-20

[Install]
WantedBy=multi-user.target
"""
