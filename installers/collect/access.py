"""How an operator gets into a node when something is wrong with it: looked for before it is."""

from __future__ import annotations

import re
from typing import Any, Optional

from installers.collect import network
from installers.collect.reader import Reader
from installers.collect.running import Processes, words

#: Name as in /proc/PID/comm -> the agent that lets somebody in through its vendor's service.
AGENTS = {
    "amazon-ssm-agen": "amazon-ssm-agent",
    "ssm-agent-worke": "amazon-ssm-agent",
    "google_guest_ag": "google-guest-agent",
    "google-guest-ag": "google-guest-agent",
    "waagent": "walinuxagent",
}
_SERIAL = re.compile(r"\bconsole=((?:ttyS|ttyAMA|hvc|ttyUSB)\d+)")
_HOMES = ("/root", "/home")


def collect(reader: Reader, processes: Processes) -> dict[str, Any]:
    """{"ssh": {"listening", "keys"}, "serial": {"consoles", "logins", "passwords"}, "agents"}.

    ``listening``: addresses with ports; ``keys``: accounts that have authorized keys;
    ``consoles``: serial lines the kernel writes to; ``logins``: those where somebody can log in;
    ``passwords``: accounts with a password, without which a login there is of no use;
    ``agents``: running agents of AGENTS.
    """
    ports = re.findall(r"^\s*Port\s+(\d+)", reader.text("/etc/ssh/sshd_config") or "", re.M | re.I)
    wanted = {int(port) for port in ports} or {22}
    listening = [
        f"{socket.address}:{socket.port}"
        for socket in network.waiting(reader)
        if socket.protocol == "tcp" and socket.port in wanted
    ]
    consoles = _SERIAL.findall(reader.text("/proc/cmdline") or "") if reader.live else []
    terminals = [words(reader, pid) for pid, name in processes if name in ("agetty", "getty")]
    return {
        "ssh": {"listening": sorted(set(listening)), "keys": _keys(reader)},
        "serial": {
            "consoles": sorted(set(consoles)),
            "logins": sorted({line for line in consoles for seen in terminals if line in seen}),
            "passwords": _passwords(reader),
        },
        "agents": sorted({AGENTS[name] for _, name in processes if name in AGENTS}),
    }


def _keys(reader: Reader) -> list[str]:
    found = []
    for home in _HOMES:
        below = ["/root"] if home == "/root" else [f"{home}/{name}" for name in reader.names(home)]
        for place in below:
            text = reader.text(f"{place}/.ssh/authorized_keys") or ""
            if any(line.strip() and not line.startswith("#") for line in text.splitlines()):
                found.append(place.rpartition("/")[2])
    return found


def _passwords(reader: Reader) -> Optional[list[str]]:
    """Accounts of /etc/shadow whose second field is a hash (shadow(5)): only root can tell."""
    text = reader.text("/etc/shadow", "kubernetes.access.serial.passwords")
    if text is None:
        return None
    fields = (line.split(":") for line in text.splitlines())
    return [words[0] for words in fields if len(words) > 1 and words[1].startswith("$")]
