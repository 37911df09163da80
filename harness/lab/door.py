"""A way into a virtual machine for people: ssh on the host's loopback, with a key of its own.

The channel tells us the machine's host key, so nothing has to be trusted on first use; the forward
is QEMU's, which ``restrict=on`` does not forbid.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from fixtures.daemons import free_port
from harness.errors import InfraError
from harness.lab import addresses as at
from harness.lab.namespace import host_env
from harness.lab.vm import VirtualMachine
from harness.transports.base import AgentOperations

_SECONDS = 90.0
# A sealed image has no host keys, and its ssh is not started before it has them.
_OPEN = """\
set -e
umask 077
mkdir -p /root/.ssh
printf '%s\\n' {key} >> /root/.ssh/authorized_keys
host=/etc/ssh/ssh_host_ed25519_key
[ -s $host ] || ssh-keygen -q -t ed25519 -N '' -f $host
mkdir -p -m 755 /run/sshd
systemctl is-active -q ssh || systemctl start ssh || systemctl start sshd
cat $host.pub
"""


def open_door(vm: VirtualMachine, transport: AgentOperations, directory: Path) -> dict[str, Any]:
    """Let the key in ``directory`` in, and forward a port to the machine's ssh.

    Returns {"port", "user", "key", "known_hosts"}; the files are in ``directory``, which only its
    owner may enter. Raises :class:`InfraError` when the machine has no ssh to start, or its network
    drops what is not ours: then QEMU's own ports are out of reach too.
    """
    if vm.machine.outlets is not None:
        raise InfraError(
            "ssh does not get into a network that drops everything",
            hint="airlock reproduce SCENARIO --shell goes by the agent's channel",
        )
    key, known_hosts = directory / "ssh-key", directory / "known-hosts"
    if not key.exists():
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "airlock", "-f", str(key)]
        done = subprocess.run(argv, capture_output=True, text=True, env=host_env(), check=False)
        if done.returncode:
            raise InfraError(f"ssh-keygen failed: {done.stderr.strip()}")
    public = key.with_suffix(".pub").read_text().strip()
    ran = transport.run(_OPEN.format(key=shlex.quote(public)), timeout=_SECONDS)
    if ran.code:
        said = ran.err.decode(errors="replace").strip()[-300:]
        raise InfraError(f"the machine's ssh could not be started: {said}")
    kind, host_key = ran.out.decode().split()[:2]
    port = _forward(vm)
    known_hosts.write_text(f"[127.0.0.1]:{port} {kind} {host_key}\n")
    return {"port": port, "user": "root", "key": str(key), "known_hosts": str(known_hosts)}


def _forward(vm: VirtualMachine) -> int:
    for _ in range(5):
        port = free_port()
        # Another program may take the port before QEMU does: then QEMU says so.
        said = vm.human(f"hostfwd_add net0 tcp:127.0.0.1:{port}-{at.NODE}:22")
        if not said:
            return port
    raise InfraError(f"QEMU could not forward a port to the machine: {said}")


def ssh_command(door: dict[str, Any]) -> list[str]:
    """The ssh that enters by a door; nobody's configuration or agent has a part in it."""
    options = {
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": door["known_hosts"],
        "StrictHostKeyChecking": "yes",
        "LogLevel": "ERROR",
    }
    words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    words += ["-F", os.devnull, "-i", door["key"], "-p", str(door["port"])]
    return ["ssh", *words, f"{door['user']}@127.0.0.1"]
