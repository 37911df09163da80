"""Every tool of the node knows the proxy, or none does.

In an image the files hold no credentials: ``airlock-proxy.service`` asks the metadata server at
boot and writes them then. While installers work, children get them by environment, and apt by a
private file below ``/run``.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
from collections.abc import Iterator
from typing import Any, Optional

from installers import nodefile, noproxy, noproxy_lint, units
from installers.config import Config
from installers.dialects import apt, clients, cloud, environment, java, packages, services
from installers.dialects.base import Dialect, put, wanted
from installers.engine import Change, Contract, Installer, Problem, Refusal
from installers.host import APT_CONF, Host, run_directory
from installers.journal import Log, recall, remember

_REEXEC = "systemd-manager:reexec"

# Compares values that must not be shown; of no use to who reads the digests later.
_VEIL = secrets.token_bytes(16)
_FAMILIES = {"debian", "ubuntu", "rhel", "fedora", "centos", "rocky", "almalinux", "amzn"}


def dialects() -> list[Dialect]:
    """Translators with a fixed file, environment first: it is set before anything uses it."""
    return [
        environment.EtcEnvironment(),
        environment.Profile(),
        environment.SystemdManager(),
        services.ServiceEnvironment(),
        *(services.DropIn(unit) for unit in services.UNITS),
        services.Sudo(),
        apt.Apt(),
        packages.Dnf(),
        packages.Dnf("yum", "/etc/yum.conf"),
        packages.Dirmngr(),
        packages.Conda(),
        clients.Curl(),
        clients.Wget(),
        clients.Git(),
        clients.Pip(),
        cloud.Boto(),
        services.Podman(),
        java.Gradle(),
    ]


def found_dialects(host: Host) -> list[Dialect]:
    """Translators of tools that keep their file where they are installed."""
    renviron = services.renviron_file(host)
    return [
        *(clients.Npm(path) for path in clients.npm_files(host)),
        *(cloud.Gcloud(root, version) for root, version in cloud.gcloud_roots(host).items()),
        *(java.NetProperties(path) for path in java.net_properties(host)),
        *(java.Maven(path) for path in java.maven_files(host)),
        *([services.Renviron(renviron)] if renviron else []),
    ]


class Proxy(Installer):
    """Settings ``<tool>:<setting>``, the unit that refreshes them at boot, and this program."""

    name = "proxy"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.want = wanted(config.proxy, credentials=not config.image_build)
        self._present: Optional[list[Dialect]] = None

    def refuse(self, host: Host) -> list[Refusal]:
        release = host.os_release()
        family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()} - {""}
        if not self.want.asserted or not family or family & _FAMILIES:
            return []
        system = release.get("PRETTY_NAME", release.get("ID", "this system"))
        zypper = "; zypper and YaST keep the proxy in /etc/sysconfig/proxy, which we do not write"
        return [
            Refusal(
                "proxy.os",
                f"{system} is not supported{zypper if 'suse' in ' '.join(family) else ''}",
                "use Debian, Ubuntu or a member of the RHEL family",
            )
        ]

    @contextlib.contextmanager
    def session(self, host: Host) -> Iterator[None]:
        """Children of every installer reach the network through the proxy, with credentials."""
        host.hide(self.config.proxy.secrets)
        host.env.update(self.config.proxy.environment(credentials=True))
        if not self.config.proxy.asserted:
            yield
            return
        run_directory(host)
        whole = wanted(self.config.proxy, credentials=True)
        host.write(APT_CONF, apt.command_line_file(whole), mode=0o600)
        try:
            yield
        finally:
            host.remove(APT_CONF)

    def inspect(self, host: Host) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for dialect in self._dialects(host):
            text = host.read(dialect.path) or ""
            settings = dialect.settings(self.want)
            # Without a proxy foreign settings are not our business; with one they must not win.
            current = dialect.read(text) if settings else dialect.ours(text)
            found.update(_named(dialect, current))
        if host.is_running_system:
            if recall(host, self.name).get("reexec"):
                found[_REEXEC] = "pending"
            if self.want.asserted:
                manager = environment.manager_environment(host)
                found.update({f"systemd-manager:{key}": value for key, value in manager.items()})
        found.update(nodefile.inspect(host))
        found["unit"] = units.inspect(host, units.PROXY, units.PROXY_TEXT)
        return found

    def desired(self, host: Host) -> dict[str, Any]:
        should: dict[str, Any] = {}
        for dialect in self._dialects(host):
            should.update(_named(dialect, dialect.settings(self.want)))
        if host.is_running_system:
            values = dict(self.want.environment)
            should.update({f"systemd-manager:{key}": value for key, value in values.items()})
        should.update(nodefile.desired())
        should["unit"] = "enabled"
        return should

    def contract(self, host: Host) -> Contract:
        notes = list(self.config.proxy.notes) if self.want.asserted else []
        if self.want.asserted:
            notes += noproxy_lint.notes(self.config.raw.get(noproxy.KEY))
            running = services.present(host)
            if running:
                notes.append(f"read the proxy when they start, so restart them: {_list(running)}")
        for dialect in self._dialects(host):
            notes += dialect.notes(self.want)
            text = host.read(dialect.path) or ""
            if not self.want.asserted and dialect.read(text) and not dialect.ours(text):
                notes.append(f"{dialect.path} sets a proxy that is not ours; it is left alone")
        if self.config.image_build and self.config.proxy.has_credentials:
            notes.append(
                f"the image gets no credentials: {units.PROXY} writes them at boot from metadata"
            )
        elif self.want.credentials:
            notes.append(f"these files will hold credentials: {_list(self._secret_files(host))}")
        server = self.config.source
        return Contract(
            hosts=[server.split("://", 1)[1]] if "://" in server else [],
            disk={"/etc": 1 << 16, units.NODE_FILE: 1 << 20},
            notes=notes,
        )

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        keys = {change.key.split(":", 1)[0] for change in changes}
        for dialect in self._dialects(host):
            if dialect.name not in keys:
                continue
            with log.step(f"write {dialect.name}", path=dialect.path):
                if dialect.name == "systemd" and host.is_running_system:
                    # Remembered before the file is written: a kill in between must not lose it.
                    remember(host, self.name, {"reexec": True})
                self._write(host, dialect)
        if nodefile.SETTING in keys:
            with log.step("install the node file", path=units.NODE_FILE):
                nodefile.install(host)
        if "unit" in keys:
            with log.step("install the unit", unit=units.PROXY):
                units.install(host, units.PROXY, units.PROXY_TEXT)
        if any(key.startswith("unit ") for key in keys):
            with log.step("tell systemd of the drop-ins"):
                units.reload(host)
        if host.is_running_system and keys & {"systemd", "systemd-manager"}:
            with log.step("re-execute the system manager"):
                environment.reexec(host)
            remember(host, self.name, {})

    def verify(self, host: Host) -> list[Problem]:
        problems = []
        for dialect in self._dialects(host):
            for key, (found, value) in dialect.verify(host, self.want).items():
                if key in dialect.veiled:
                    found, value = _veil(found), _veil(value)
                problems.append(
                    Problem(
                        host.redact(f"{dialect.name} reads {key} as {found!r}, not {value!r}"),
                        f"another file overrides {dialect.path}: remove the setting there",
                    )
                )
        return problems

    def remove(self, host: Host) -> None:
        for dialect in [*dialects(), *found_dialects(host)]:
            put(host, dialect, {}, secret=False)
        units.remove(host, units.PROXY)
        nodefile.remove(host)
        host.remove(APT_CONF)
        if host.is_running_system:
            environment.reexec(host)
        remember(host, self.name, {})

    def provenance(self, host: Host) -> dict[str, Any]:
        """``credential_files`` hold a password; ``tools``: name -> the file that tells it."""
        proxy = self.config.proxy
        return {
            "http": proxy.http.redacted if proxy.http else None,
            "https": proxy.https.redacted if proxy.https else None,
            "no_proxy": proxy.no_proxy if proxy.asserted else [],
            "credential_files": self._secret_files(host),
            "tools": {d.name: d.path for d in self._dialects(host) if d.settings(self.want)},
            "node_file_sha256": nodefile.sha256(host),
        }

    def _dialects(self, host: Host) -> list[Dialect]:
        """Of the tools that are there, or whose file still has our part."""
        if self._present is None:
            self._present = [
                dialect
                for dialect in [*dialects(), *found_dialects(host)]
                if dialect.applies(host) or dialect.ours(host.read(dialect.path) or "")
            ]
        return self._present

    def _secret_files(self, host: Host) -> list[str]:
        if not self.want.credentials:
            return []
        return [d.path for d in self._dialects(host) if d.credentials and d.settings(self.want)]

    def _write(self, host: Host, dialect: Dialect) -> None:
        secret = self.want.credentials and dialect.credentials
        put(host, dialect, dialect.settings(self.want), secret)


def _named(dialect: Dialect, settings: dict[str, str]) -> dict[str, str]:
    """``<tool>:<setting>`` and its value, veiled where nobody may see it."""
    return {
        f"{dialect.name}:{key}": _veil(value) if key in dialect.veiled else value
        for key, value in settings.items()
    }


def _veil(secret: str) -> str:
    digest = hmac.new(_VEIL, secret.encode("utf-8", "surrogateescape"), hashlib.sha256)
    return f"*** ({digest.hexdigest()[:8]})"


def _list(names: list[str]) -> str:
    return ", ".join(names)
