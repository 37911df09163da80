"""Port 53 free, and names still resolved: now, and after every boot.

systemd-resolved goes on: only its stub listener is switched off, and /etc/resolv.conf leads to the
list of servers that resolved itself keeps. To disable the service, as is often advised, leaves a
link that leads nowhere at the next boot.
"""

from __future__ import annotations

import re
from typing import Any, Optional

from installers.collect import network
from installers.collect.reader import Reader
from installers.collect.resolver import RESOLV_CONF, STUBS, UPSTREAM, stub_listener
from installers.engine import Problem, Refusal
from installers.host import Host
from installers.journal import Log, recall, remember
from installers.kubernetes.files import RESOLVED_FILE, RESOLVED_TEXT

LINK = "../run/systemd/resolve/resolv.conf"
STUB = "resolved:DNSStubListener"
RESOLV = "resolved:/etc/resolv.conf"
_MEMORY = "kubernetes-resolver"
_SERVICE = "systemd-resolved"
_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system")
_LINKED = re.compile(r"(?:\.\./|/)(?:run|usr/lib|lib)/systemd/(?:resolve/)?[\w-]*resolv\.conf")


def concerns(host: Host) -> bool:
    """Whether systemd-resolved is there and is started at boot: else it holds nothing."""
    if not any(host.exists(f"{folder}/{_SERVICE}.service") for folder in _UNITS):
        return False
    if host.is_running_system:
        return host.run(["systemctl", "is-active", "-q", _SERVICE], check=False).code == 0
    # By the link itself: what it names is the image's, and the link may be all there is.
    wants = "/etc/systemd/system"
    folders = host.glob(wants, "*.wants") if host.exists(wants) else []
    return any(host.readlink(f"{folder}/{_SERVICE}.service") for folder in folders)


def refuse(host: Host) -> list[Refusal]:
    """A file that somebody wrote is not ours to replace, and without the stub it may be wrong."""
    link = host.readlink(RESOLV_CONF)
    servers = network.resolvers(host.read(RESOLV_CONF) or "") if link is None else []
    if link is not None and not _LINKED.fullmatch(link):
        real = host.read(RESOLV_CONF) or ""
        servers = network.resolvers(real)
    named = sorted(set(servers) & set(STUBS))
    if not concerns(host):
        return []
    if named:
        return [
            Refusal(
                "kubernetes.resolv-conf",
                f"{RESOLV_CONF} is not systemd-resolved's link and names its stub {named[0]}, "
                "which is to be switched off: the node would resolve no names",
                f"write the real servers into it, or: ln -sf {LINK} {RESOLV_CONF}",
            )
        ]
    if host.is_running_system and not network.resolvers(host.read(UPSTREAM) or ""):
        return [
            Refusal(
                "kubernetes.no-nameserver",
                f"systemd-resolved knows no server ({UPSTREAM} names none): without its stub the "
                "node would resolve no names",
                "give the network a DNS server, by DHCP or by DNS= in resolved.conf",
            )
        ]
    return []


def inspect(host: Host) -> dict[str, Any]:
    """What resolved is told, and where /etc/resolv.conf leads where the link is resolved's."""
    if not concerns(host):
        return {}
    found: dict[str, Any] = {STUB: stub_listener(Reader(str(host.root)))}
    link = host.readlink(RESOLV_CONF)
    if link is not None and _LINKED.fullmatch(link):
        found[RESOLV] = link
    return found


def desired(host: Host) -> dict[str, Any]:
    """No stub, and resolved's own list."""
    found = inspect(host)
    should = {key: value for key, value in ((STUB, "no"), (RESOLV, LINK)) if key in found}
    if found.get(RESOLV) == f"/{LINK[3:]}":
        should[RESOLV] = found[RESOLV]  # the same file by its absolute name
    return should


def apply(host: Host, keys: set[str], log: Log) -> None:
    """First the link, whose list is there already; then the stub: names resolve all the time."""
    if RESOLV in keys:
        link = host.readlink(RESOLV_CONF)
        if "link" not in recall(host, _MEMORY):
            remember(host, _MEMORY, {"link": link})
        with log.step("lead resolv.conf to resolved's servers", before=link):
            host.symlink(RESOLV_CONF, LINK)
    if STUB in keys:
        with log.step("switch the stub off", path=RESOLVED_FILE):
            host.write(RESOLVED_FILE, RESOLVED_TEXT)
            _restart(host)


def verify(host: Host) -> list[Problem]:
    """On a running node: nobody of resolved's listens on port 53 any more."""
    if not host.is_running_system or not concerns(host):
        return []
    left = sorted(
        {
            socket.address
            for socket in network.waiting(Reader())
            if socket.port == 53 and socket.address in STUBS
        }
    )
    if not left:
        return []
    return [
        Problem(
            f"port 53 of {', '.join(left)} is still taken",
            "another file of /etc/systemd/resolved.conf.d switches the stub on, or "
            f"{_SERVICE} was not started again",
        )
    ]


def remove(host: Host) -> None:
    """First the stub, then the link to it."""
    if host.remove(RESOLVED_FILE):
        host.prune(RESOLVED_FILE.rpartition("/")[0])
        if concerns(host):
            _restart(host)
    link: Optional[str] = recall(host, _MEMORY).get("link")
    if link is not None:
        if host.readlink(RESOLV_CONF) == LINK:
            host.symlink(RESOLV_CONF, link)
        remember(host, _MEMORY, {})


def _restart(host: Host) -> None:
    if host.is_running_system:
        host.run(["systemctl", "restart", _SERVICE], timeout=120)
