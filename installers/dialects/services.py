"""Services that start before anyone logs in, sudo, podman and R.

The drop-ins hold no secret: they name one file, which does. ``EnvironmentFile=`` wins over every
``Environment=`` of the unit and of other drop-ins, so a proxy that was baked in cannot stay. They
are written where the unit is not there yet as well: systemd does not look at a drop-in of a unit it
does not have, and a container runtime is often installed later than the proxy is set.
"""

from __future__ import annotations

import re
from typing import Optional

from installers import noproxy
from installers.dialects.base import Block, OwnFile, Wanted
from installers.dialects.environment import HEADER, VARIABLES, EtcEnvironment
from installers.host import Host

ENV_FILE = "/etc/airlock/proxy.env"
UNITS = (
    "docker",
    "containerd",
    "crio",
    "kubelet",
    "google-dataproc-agent",
    # snapd reads its proxy from the environment; `snap set` would show the password to everyone
    # who lists processes, and writes into /etc/environment behind our back.
    "snapd",
)
_UNIT_DIRS = ("/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")


class ServiceEnvironment(OwnFile):
    """The variables for the drop-ins. No specifiers here: ``%`` stays single."""

    name = "services"
    path = ENV_FILE
    secret_mode = 0o600

    def settings(self, want: Wanted) -> dict[str, str]:
        """With the networks of the cluster: runtimes and kubelet are programs in Go."""
        found = dict(want.environment)
        if want.asserted and want.networks:
            for key in ("no_proxy", "NO_PROXY"):
                found[key] = noproxy.join([*want.no_proxy, *want.networks])
        return found

    def read(self, text: str) -> dict[str, str]:
        return EtcEnvironment().read(text)

    def render(self, settings: dict[str, str]) -> str:
        return HEADER + "".join(f"{key}={value}\n" for key, value in settings.items())


class DropIn(OwnFile):
    """``EnvironmentFile=`` for one service; ``-``: a missing file is no reason not to start."""

    credentials = False

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self.name = f"unit {unit}"
        self.path = f"/etc/systemd/system/{unit}.service.d/zz-airlock-proxy.conf"

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"EnvironmentFile": f"-{ENV_FILE}"} if want.asserted else {}

    def read(self, text: str) -> dict[str, str]:
        found = re.findall(r"^EnvironmentFile=(.*)$", text, re.MULTILINE)
        return {"EnvironmentFile": found[-1]} if found else {}

    def render(self, settings: dict[str, str]) -> str:
        return f"{HEADER}[Service]\nEnvironmentFile={settings['EnvironmentFile']}\n"


def present(host: Host) -> list[str]:
    """Units of :data:`UNITS` that the node has."""
    return [unit for unit in UNITS if any(host.exists(f"{d}/{unit}.service") for d in _UNIT_DIRS)]


class Sudo(OwnFile):
    """sudo hands the variables on. The file is constant, so it cannot lock anybody out."""

    name = "sudo"
    path = "/etc/sudoers.d/airlock-proxy"
    mode = 0o440
    secret_mode = 0o440
    credentials = False

    def applies(self, host: Host) -> bool:
        return host.exists("/etc/sudoers.d")

    def settings(self, want: Wanted) -> dict[str, str]:
        return {"env_keep": " ".join(VARIABLES)} if want.asserted else {}

    def read(self, text: str) -> dict[str, str]:
        found = re.findall(r'^Defaults env_keep \+= "([^"]*)"$', text, re.MULTILINE)
        return {"env_keep": found[-1]} if found else {}

    def render(self, settings: dict[str, str]) -> str:
        return f'{HEADER}Defaults env_keep += "{settings["env_keep"]}"\n'


class Podman(OwnFile):
    """``[engine] env`` for podman, buildah and skopeo, which nobody's service manager starts."""

    name = "podman"
    path = "/etc/containers/containers.conf.d/zz-airlock-proxy.conf"
    # Rootless containers read it as their user.
    secret_mode = 0o644

    def applies(self, host: Host) -> bool:
        return any(host.find_program(name) for name in ("podman", "buildah", "skopeo"))

    def settings(self, want: Wanted) -> dict[str, str]:
        return dict(want.environment)

    def read(self, text: str) -> dict[str, str]:
        return dict(re.findall(r'^  "(\w+)=([^"]*)",$', text, re.MULTILINE))

    def render(self, settings: dict[str, str]) -> str:
        lines = "".join(f'  "{key}={value}",\n' for key, value in settings.items())
        return f"{HEADER}[engine]\nenv = [\n{lines}]\n"


class Renviron(Block):
    """``Renviron.site``: variables of every R session, over those it was started with."""

    name = "r"

    def __init__(self, path: str) -> None:
        self.name = f"r {path}"
        self.path = path

    def settings(self, want: Wanted) -> dict[str, str]:
        return dict(want.environment)

    def read(self, text: str) -> dict[str, str]:
        return EtcEnvironment().read(text)

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key}={value}\n" for key, value in settings.items())


def renviron_file(host: Host) -> Optional[str]:
    """Where the R on the path looks, as its start script says."""
    program = host.find_program("R")
    match = re.search(r"^R_HOME_DIR=(/\S+)", host.read(program) or "", re.M) if program else None
    return host.real(f"{match[1]}/etc/Renviron.site") if match else None
