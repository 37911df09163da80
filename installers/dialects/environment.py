"""Environment variables: PAM logins, shells, and everything that systemd starts."""

from __future__ import annotations

import re
import shlex
import time

from installers.dialects.base import Block, OwnFile, Wanted
from installers.errors import CommandError
from installers.host import Host

VARIABLES = tuple(
    name for lower in ("http_proxy", "https_proxy", "no_proxy") for name in (lower, lower.upper())
)
_REEXEC_PATIENCE = 60.0
HEADER = "# Written by airlock; change the metadata instead.\n"


class EtcEnvironment(Block):
    """``/etc/environment``, read by PAM at login and cron: ``NAME=value``, ``#`` ends a value.

    Percent-encoded URLs hold no ``#``, so nothing needs quotes. systemd units never see this file.
    """

    name = "environment"
    path = "/etc/environment"
    keep_empty = True

    def settings(self, want: Wanted) -> dict[str, str]:
        return dict(want.environment)

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in text.splitlines():
            line = line.split("#", 1)[0].strip()
            key, equals, value = line.removeprefix("export ").strip().partition("=")
            if equals and key.strip() in VARIABLES:
                found[key.strip()] = value.strip().strip("\"'")
        return found

    def render(self, settings: dict[str, str]) -> str:
        return "".join(f"{key}={value}\n" for key, value in settings.items())


class Profile(OwnFile):
    """``/etc/profile.d``: login shells, also those that do not come through PAM."""

    name = "profile"
    path = "/etc/profile.d/airlock-proxy.sh"

    def settings(self, want: Wanted) -> dict[str, str]:
        return dict(want.environment)

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in text.splitlines():
            if line.startswith("export "):
                for word in shlex.split(line)[1:]:
                    key, _, value = word.partition("=")
                    found[key] = value
        return found

    def render(self, settings: dict[str, str]) -> str:
        lines = (f"export {key}={shlex.quote(value)}\n" for key, value in settings.items())
        return HEADER + "".join(lines)


class SystemdManager(OwnFile):
    """``DefaultEnvironment=`` of the system manager: every service started after it is read.

    systemd expands ``%`` in the value, and an unknown one makes it ignore the whole line: doubled.
    """

    name = "systemd"
    path = "/etc/systemd/system.conf.d/airlock-proxy.conf"
    secret_mode = 0o600

    def settings(self, want: Wanted) -> dict[str, str]:
        return dict(want.environment)

    def read(self, text: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in text.splitlines():
            match = re.fullmatch(r'DefaultEnvironment="(\w+)=(.*)"', line)
            if match:
                found[match[1]] = match[2].replace("%%", "%")
        return found

    def render(self, settings: dict[str, str]) -> str:
        lines = (
            f'DefaultEnvironment="{key}={value.replace("%", "%%")}"\n'
            for key, value in settings.items()
        )
        return f"{HEADER}[Manager]\n{''.join(lines)}"


def manager_environment(host: Host) -> dict[str, str]:
    """The proxy variables that the running system manager gives to services."""
    found: dict[str, str] = {}
    for line in host.run(["systemctl", "show-environment"], timeout=60).out.splitlines():
        key, _, value = line.partition("=")
        if key in VARIABLES:
            # A value with unusual characters comes as $'...'.
            quoted = value.startswith("$'") and value.endswith("'")
            found[key] = value[2:-1] if quoted else value
    return found


def reexec(host: Host) -> None:
    """Only a re-executed manager reads ``DefaultEnvironment=`` again; services go on running.

    systemctl returns when the old manager closes the connection, and nothing says when the new one
    listens: it is asked until it answers.
    """
    host.run(["systemctl", "daemon-reexec"], timeout=120)
    deadline = time.monotonic() + _REEXEC_PATIENCE
    while True:
        try:
            manager_environment(host)
            return
        except CommandError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
