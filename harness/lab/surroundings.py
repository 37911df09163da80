"""What a scenario puts around a node: its proxies, the doubles of Google, and what is done to it.

The proxy of record is squid. Faults that squid cannot do come from a proxy of our own.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import socket
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from fixtures import origin as origins
from fixtures.google import NAMES, STORAGE
from fixtures.relay import Relay
from harness.errors import InfraError
from harness.lab import addresses as at
from harness.lab import firmware, renamed

if TYPE_CHECKING:
    from fixtures.daemons import SquidInstall
    from fixtures.google import Google
    from fixtures.origin import Origin
    from fixtures.pki import Authority, Identity
    from fixtures.scenarios import Scenario
    from harness.lab.vm import Machine, VirtualMachine
    from harness.transports.agent import AgentTransport

USER = "airlock"
#: What the double of Cloud Storage holds, and where a node finds it.
OBJECT = "airlock-lab/hello"
OBJECT_URL = f"https://{STORAGE}/storage/v1/b/airlock-lab/o/hello?alt=media"
_SCRIPT_SECONDS = 180.0
_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"


class Serving(Protocol):
    """Whatever listens on the host's loopback."""

    @property
    def port(self) -> int: ...


class AnyProxy(Protocol):
    """A proxy of the lab, as the node's side of it needs it. A context manager."""

    port: int

    def __enter__(self) -> AnyProxy: ...

    def __exit__(self, *_: Any) -> None: ...

    def rows(self) -> list[dict[str, Any]]:
        """Its ledger; see Squid.rows."""


def make_proxy(
    scenario: Scenario,
    directory: Path,
    install: SquidInstall,
    authority: Authority,
    origin: Origin,
    password: str,
) -> AnyProxy:
    """The scenario's proxy, with a ledger of its own in ``directory``; not yet started.

    ``password``: the one of USER, where the scenario wants one.
    """
    from fixtures.faultproxy import FaultProxy
    from fixtures.squid import Squid

    hosts = {origins.NAME: origin.address}
    ports = [origin.https_port, origin.http_port]
    ca = authority.signing_ca(scenario.trust.ca)
    if scenario.fault:
        return FaultProxy(
            directory,
            authority,
            scenario.fault,
            hosts,
            scenario.intercept,
            ca=ca,
            connect_ports=ports,
        )
    return Squid(
        directory,
        install,
        authority,
        hosts=hosts,
        intercept=scenario.intercept,
        users={USER: password} if scenario.auth == "basic" else {},
        connect_ports=ports,
        ca=ca,
        allow=scenario.proxy.allow,
    )


def proxy_password(directory: Path) -> str:
    """The lab's proxy password: random, kept, and full of what breaks careless software."""
    path = directory / "proxy-password"
    with contextlib.suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(f"p@:/%#{secrets.token_hex(8)}")
    return path.read_text()


def proxy_value(scenario: Scenario, password: str) -> str | None:
    """The value of the metadata keys: what a customer writes there. Secret with a password."""
    if not scenario.proxied:
        return None
    if scenario.auth != "basic":
        return f"{at.PROXY}:{at.PROXY_PORT}"
    return f"http://{USER}:{quote(password, safe='')}@{at.PROXY}:{at.PROXY_PORT}"


def script(text: str, origin: Origin) -> str:
    """A scenario's script, which finds our origin in its environment."""
    named = {"ORIGIN_URL": origin.url, "ORIGIN_HTTP_URL": origin.http_url}
    exports = "".join(f"export {name}={shlex.quote(url)}\n" for name, url in named.items())
    return exports + textwrap.dedent(text)


def symptom(scenario: Scenario, transport: AgentTransport, origin: Origin) -> bytes:
    """What the symptom's script prints on the node, errors and all."""
    said = transport.run(
        f"exec 2>&1\n{script(scenario.scripts.symptom, origin)}", timeout=_SCRIPT_SECONDS
    )
    return said.out


def enrolled(scenario: Scenario, authority: Authority) -> list[Identity]:
    """Whose certificates the firmware's db holds besides Microsoft's; ours first."""
    ours = [authority.module] if scenario.firmware.certificate else []
    return [*ours, *([authority.stranger] if scenario.firmware.stranger else [])]


def firmware_of(scenario: Scenario, authority: Authority) -> dict[str, object]:
    """What :func:`enroll` writes, in short: for the key of what depends on it."""
    known = [identity.sha256 for identity in enrolled(scenario, authority)]
    enforced = not scenario.firmware.switched_off
    return {"certificates": known, "enforced": enforced, "besides": firmware.NEW_CA}


def enroll(scenario: Scenario, machine: Machine, authority: Authority, directory: Path) -> None:
    """Write the machine's variable store."""
    known = []
    for number, identity in enumerate(enrolled(scenario, authority)):
        known.append(directory / f"enrolled-{number}.pem")
        known[-1].write_bytes(identity.pem)
    enforced = not scenario.firmware.switched_off
    firmware.enroll(machine.firmware, known, machine.variables, enforced=enforced)


def outlets(
    stack: contextlib.ExitStack, directory: Path, servers: Mapping[str, Serving | None]
) -> dict[str, str]:
    """Name -> unix socket that leads to that server, for whoever has another network than it."""
    found = {}
    for name, server in servers.items():
        if server is None:
            continue
        path = directory / f"{name}.outlet"
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(128)
        stack.enter_context(Relay(listener, ("127.0.0.1", server.port)))
        found[name] = str(path)
    return found


def arrange(
    scenario: Scenario,
    machine: VirtualMachine,
    transport: AgentTransport,
    authority: Authority,
    origin: Origin,
) -> None:
    """Make a node that was in order what the scenario says. Raises InfraError if it cannot."""
    if scenario.google.direct:
        _google(transport, authority)
    if scenario.disk.size_mb or scenario.disk.free_mb:
        _disk(scenario, machine, transport)
    if scenario.module.name:
        renamed.load(transport, scenario.module.name, authority)
    if scenario.clock.offset_hours:
        seconds = round(scenario.clock.offset_hours * 3600)
        _must(transport, f"date -s @$(($(date +%s) + {seconds})) >/dev/null")
    if scenario.scripts.node:
        _must(transport, script(scenario.scripts.node, origin))


def _google(transport: AgentTransport, authority: Authority) -> None:
    """Names in the hosts file, as without a resolver; the lab's CA stands for public ones."""
    _must(transport, f"echo '{at.GOOGLE} {' '.join(NAMES)}' >>/etc/hosts")
    done = transport.run(f"cat >>{_BUNDLE}", stdin=b"\n" + authority.origin.pem)
    if done.code:
        raise InfraError(f"{_BUNDLE} of the node cannot be written")


def _disk(scenario: Scenario, machine: VirtualMachine, transport: AgentTransport) -> None:
    disk = scenario.disk
    if disk.size_mb:
        resize = ("block_resize", {"device": "root", "size": disk.size_mb << 20})
        machine.monitor(resize)
        _must(transport, "resize2fs /dev/vda")
    if disk.free_mb:
        # Without the share that is kept for root: what df shows is then what there is.
        _must(
            transport,
            "tune2fs -m 0 /dev/vda >/dev/null\n"
            "free=$(df --output=avail -BM / | tail -1 | tr -dc 0-9)\n"
            f"fallocate -l $((free - {disk.free_mb}))M /var/lib/images",
        )


def _must(transport: AgentTransport, text: str) -> None:
    done = transport.run(text, timeout=_SCRIPT_SECONDS)
    if done.code:
        said = (done.err or done.out).decode(errors="replace").strip()[-400:]
        raise InfraError(f"the scenario could not be arranged: {said or text[:200]}")


def make_google(authority: Authority) -> Google:
    """Our doubles of Google's services."""
    from fixtures.google import Google

    return Google(authority, {OBJECT: b"airlock object\n"})
