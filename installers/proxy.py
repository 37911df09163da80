"""Every tool of the node knows the proxy, or none does.

In an image the files hold no credentials: ``airlock-proxy.service`` asks the metadata server at
boot and writes them then. While installers work, children get them by environment, and apt by a
private file below ``/run``.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import installers
from installers import units
from installers.config import Config
from installers.dialects import apt, clients, environment
from installers.dialects.base import Dialect, wanted
from installers.engine import Change, Contract, Installer, Problem, run_directory
from installers.errors import CommandError
from installers.host import APT_CONF, Host
from installers.journal import Log, recall, remember

_REEXEC = "systemd-manager:reexec"
_REEXEC_PATIENCE = 60.0


def dialects() -> list[Dialect]:
    """All translators, environment first: nothing may use the network before it is set."""
    return [
        environment.EtcEnvironment(),
        environment.Profile(),
        environment.SystemdManager(),
        apt.Apt(),
        clients.Curl(),
        clients.Wget(),
        clients.Git(),
        clients.Pip(),
    ]


class Proxy(Installer):
    """Settings ``<tool>:<setting>``, the unit that refreshes them at boot, and this program."""

    name = "proxy"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.want = wanted(config.proxy, credentials=not config.image_build)

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
            found.update({f"{dialect.name}:{key}": value for key, value in current.items()})
        if host.is_running_system:
            if recall(host, self.name).get("reexec"):
                found[_REEXEC] = "pending"
            if self.want.asserted:
                manager = environment.manager_environment(host)
                found.update({f"systemd-manager:{key}": value for key, value in manager.items()})
        installed = host.read_bytes(units.NODE_FILE)
        if installed is not None and running_pyz() is not None:
            found["node-file"] = _sha256(installed)
        found["unit"] = units.inspect(host, units.PROXY, units.PROXY_TEXT)
        return found

    def desired(self, host: Host) -> dict[str, Any]:
        should: dict[str, Any] = {}
        for dialect in self._dialects(host):
            settings = dialect.settings(self.want)
            should.update({f"{dialect.name}:{key}": value for key, value in settings.items()})
        if host.is_running_system:
            values = dict(self.want.environment)
            should.update({f"systemd-manager:{key}": value for key, value in values.items()})
        pyz = running_pyz()
        if pyz is not None:
            should["node-file"] = _sha256(pyz.read_bytes())
        should["unit"] = "enabled"
        return should

    def contract(self, host: Host) -> Contract:
        notes = list(self.config.proxy.notes) if self.want.asserted else []
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
            notes.append(
                f"these files will hold credentials: {', '.join(self._secret_files(host))}"
            )
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
                self._write(host, dialect, dialect.settings(self.want))
        if "node-file" in keys:
            pyz = running_pyz()
            if pyz is not None:
                with log.step("install the node file", path=units.NODE_FILE):
                    host.write(units.NODE_FILE, pyz.read_bytes(), mode=0o755)
        if "unit" in keys:
            with log.step("install the unit", unit=units.PROXY):
                units.install(host, units.PROXY, units.PROXY_TEXT)
        if host.is_running_system and keys & {"systemd", "systemd-manager"}:
            with log.step("re-execute the system manager"):
                _reexec(host)
            remember(host, self.name, {})

    def verify(self, host: Host) -> list[Problem]:
        problems = []
        for dialect in self._dialects(host):
            for key, (found, value) in dialect.verify(host, self.want).items():
                problems.append(
                    Problem(
                        host.redact(f"{dialect.name} reads {key} as {found!r}, not {value!r}"),
                        f"another file overrides {dialect.path}: remove the setting there",
                    )
                )
        return problems

    def remove(self, host: Host) -> None:
        for dialect in dialects():
            self._write(host, dialect, {})
        units.remove(host, units.PROXY)
        host.remove(units.NODE_FILE)
        host.remove(APT_CONF)
        if host.is_running_system:
            _reexec(host)
        remember(host, self.name, {})

    def provenance(self, host: Host) -> dict[str, Any]:
        """``credential_files``: the files that hold a password, by path."""
        proxy = self.config.proxy
        return {
            "http": proxy.http.redacted if proxy.http else None,
            "https": proxy.https.redacted if proxy.https else None,
            "no_proxy": proxy.no_proxy if proxy.asserted else [],
            "credential_files": self._secret_files(host),
            "node_file_sha256": _sha256(host.read_bytes(units.NODE_FILE)) or None,
        }

    def _dialects(self, host: Host) -> list[Dialect]:
        return [dialect for dialect in dialects() if dialect.applies(host)]

    def _secret_files(self, host: Host) -> list[str]:
        if not self.want.credentials:
            return []
        return [d.path for d in self._dialects(host) if d.settings(self.want)]

    def _write(self, host: Host, dialect: Dialect, settings: dict[str, str]) -> None:
        old = host.read(dialect.path)
        new = dialect.write(old or "", settings)
        if not new and (old is None or not dialect.keep_empty):
            if old is not None and dialect.ours(old):
                host.remove(dialect.path)
            return
        mode = dialect.secret_mode if self.want.credentials and settings else dialect.mode
        if old is not None:
            # A file of others keeps its mode, unless that would show root's secret to everyone.
            present = host.path(dialect.path).stat().st_mode & 0o7777
            foreign = dialect.write(old, {})
            mode = present & mode if mode == 0o600 and foreign else (present if foreign else mode)
        host.write(dialect.path, new, mode=mode)


def running_pyz() -> Optional[Path]:
    """The packed file this program runs from, None when it runs from a source tree."""
    archive = getattr(getattr(installers.__spec__, "loader", None), "archive", None)
    return Path(archive) if archive else None


def _sha256(data: Optional[bytes]) -> str:
    return hashlib.sha256(data).hexdigest() if data is not None else ""


def _reexec(host: Host) -> None:
    """Only a re-executed manager reads ``DefaultEnvironment=`` again; services go on running.

    systemctl returns when the old manager closes the connection, and nothing says when the new one
    listens: it is asked until it answers.
    """
    host.run(["systemctl", "daemon-reexec"], timeout=120)
    deadline = time.monotonic() + _REEXEC_PATIENCE
    while True:
        try:
            environment.manager_environment(host)
            return
        except CommandError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)
