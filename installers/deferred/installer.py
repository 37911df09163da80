"""Deferred configuration: an image holds the unit alone; the node itself holds the rest.

With ``invocation-type=custom-images`` nothing of one cluster is put into the image. The unit runs
this same installer on each node (``airlock-node.pyz gpu-config``); on a node that runs already,
``apply`` configures at once and restarts the daemons that read it.
"""

from __future__ import annotations

import contextlib
import json
import stat
import time
from collections.abc import Iterator
from typing import Any, Optional, Union

from installers import nodefile
from installers.config import Config
from installers.deferred import (
    cgroups,
    gpus,
    hadoopxml,
    mig,
    scripts,
    sections,
    settings,
    spark,
    stamp,
    unit,
    wanted,
    yarn,
)
from installers.deferred.properties import SparkDefaults
from installers.dialects.base import put
from installers.engine import Change, Contract, Installer, Problem
from installers.errors import CommandError
from installers.host import Host
from installers.journal import Log

_STAMP = "stamp"
_PROGRAMS = (spark.SCRIPT, scripts.MIG_SMI)
_EXECUTOR_PROGRAM = "/usr/lib/hadoop-yarn/bin/container-executor"
# The native container-executor refuses a file that others than root may write.
_NOT_OTHERS = 0o755
_RESTART_SECONDS = 180.0


class Deferred(Installer):
    """Settings ``<file>:<property>``, and those of cards, owners, groups, unit and stamp.

    ``at_boot``: the unit runs it, before the daemons start; then none of them is restarted.
    """

    name = "deferred"

    def __init__(self, config: Config, *, at_boot: bool = False) -> None:
        super().__init__(config)
        self.settings = settings.from_attributes(config.raw)
        self.at_boot = at_boot
        #: What apply did: ``{"name", "outcome", "seconds"}`` each.
        self.steps: list[dict[str, Any]] = []
        self._node: Optional[wanted.Node] = None

    def inspect(self, host: Host) -> dict[str, Any]:
        if not wanted.has_hadoop(host):
            return {}
        found: dict[str, Any] = {**nodefile.inspect(host), **unit.inspect(host)}
        should = None if self.config.image_build else self._wanted(host)
        for path in yarn.XML_FILES:
            data = host.read_bytes(path) or b""
            if data.strip():
                current, own = hadoopxml.read(data, path), hadoopxml.ours(data, path)
                found.update(_named(path, current, own, should.xml[path] if should else {}))
        found.update(self._texts(host, should))
        for path in _PROGRAMS:
            text = host.read(path)
            if text is not None:
                program = should.programs.get(path) if should else None
                current_ones = (scripts.DISCOVERY, scripts.MIG_AS_CARDS)
                if text == program and self._executable(host, path):
                    found[path] = "current"
                elif program is not None or text in current_ones:
                    found[path] = "differs"
        if should is None:
            if host.exists(stamp.STAMP) or host.exists(stamp.RESULT):
                found[_STAMP] = "of the builder"
            return found
        found.update(mig.inspect(host, self.settings, should.gpus))
        if should.hierarchy is not None:
            found[f"cgroup:{should.hierarchy.directory}"] = cgroups.state(host, should.hierarchy)
        for path in should.local_dirs:
            found[f"owner:{path}"] = cgroups.owner(host, path)
        for group in should.groups:
            found[f"group:{group}"] = yarn.USER in wanted.members(host, group)
        seen = stamp.read(host)
        if seen is not None:
            found[_STAMP] = [seen.instance, seen.fingerprint]
        return found

    def desired(self, host: Host) -> dict[str, Any]:
        if not wanted.has_hadoop(host):
            return {}
        should: dict[str, Any] = {**nodefile.desired(), **unit.desired()}
        if self.config.image_build:
            return should
        node = self._wanted(host)
        for path, properties in node.xml.items():
            should.update({f"{path}:{key}": value for key, value in properties.items()})
        for key, value in sections.flat(node.executor).items():
            should[f"{yarn.EXECUTOR}:{key}"] = value
        should.update({f"{spark.CONF}:{key}": value for key, value in node.spark.items()})
        should.update(dict.fromkeys(node.programs, "current"))
        should.update(mig.desired(self.settings, node.gpus))
        if node.hierarchy is not None:
            should[f"cgroup:{node.hierarchy.directory}"] = f"{yarn.USER}:{yarn.GROUP}"
        should.update(dict.fromkeys((f"owner:{p}" for p in node.local_dirs), "yarn:yarn"))
        should.update(dict.fromkeys((f"group:{group}" for group in node.groups), True))
        should[_STAMP] = [node.stamp.instance, node.stamp.fingerprint]
        return should

    def contract(self, host: Host) -> Contract:
        """Nothing is fetched: what a node needs is on it already."""
        notes = list(self.settings.notes)
        if not wanted.has_hadoop(host):
            notes.append(f"{yarn.CONF} is not there: nothing is configured for YARN and Spark")
        elif self.config.image_build:
            notes.append(f"{unit.NAME} configures each node; this image gets none of it")
        return Contract(disk={"/etc": 1 << 16}, notes=notes)

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        keys = {change.key for change in changes}
        if any(key == nodefile.SETTING or key.startswith("unit:") for key in keys):
            with self._step(log, "install the unit"):
                nodefile.install(host)
                unit.install(host)
        if self.config.image_build:
            with self._step(log, "take out what belongs to one node"):
                self._clear(host)
            return
        # A run that is killed from here on leaves no stamp, so nobody believes that it ended.
        stamp.clear(host)
        node = self._wanted(host)
        if self.settings.mig is not None or self.settings.compute_mode is not None:
            with self._step(log, "set up the cards"):
                mig.apply(host, self.settings, node.gpus)
            self._node = None
            node = self._wanted(host)
        with self._step(log, "write YARN's files"):
            self._write_yarn(host, node.xml, node.executor)
        with self._step(log, "write Spark's files"):
            self._write_spark(host, node)
        if node.hierarchy is not None:
            with self._step(log, "give YARN its devices"):
                cgroups.make(host, node.hierarchy)
                self._owners(host, node)
        if not self.at_boot and host.is_running_system and _read_by_daemons(keys):
            with self._step(log, "restart YARN"):
                restart(host)
        stamp.write(host, node.stamp)

    def verify(self, host: Host) -> list[Problem]:
        """Ask the programs that will be asked later, as those who will ask them."""
        if self.config.image_build or not wanted.has_hadoop(host):
            return []
        node = self._wanted(host)
        problems = []
        if node.gpus and host.exists(_EXECUTOR_PROGRAM):
            found = host.path(_EXECUTOR_PROGRAM).stat().st_mode
            group = cgroups.owner(host, _EXECUTOR_PROGRAM)
            if group != f"root:{yarn.GROUP}" or not found & stat.S_ISUID:
                problems.append(
                    Problem(
                        f"{_EXECUTOR_PROGRAM} is not root's with the group yarn and setuid",
                        f"chown root:yarn {_EXECUTOR_PROGRAM} && chmod 6050 {_EXECUTOR_PROGRAM}",
                    )
                )
        if spark.SCRIPT in node.programs:
            problems += self._asked(host, node)
        return problems

    def remove(self, host: Host) -> None:
        unit.remove(host)
        self._clear(host)
        nodefile.remove(host)

    def provenance(self, host: Host) -> dict[str, Any]:
        """``gpus`` and ``fingerprint`` of a configured node."""
        if self.config.image_build or not wanted.has_hadoop(host):
            return {}
        node = self._wanted(host)
        return {
            "gpus": [gpu.as_json() for gpu in node.gpus],
            "instance": node.stamp.instance,
            "fingerprint": node.stamp.fingerprint,
            "cgroup": node.hierarchy.version if node.hierarchy else None,
        }

    def _wanted(self, host: Host) -> wanted.Node:
        """Looked at once: nvidia-smi may take seconds. The cards change in apply only."""
        if self._node is None:
            self._node = wanted.node(host, self.config, self.settings)
        return self._node

    def _texts(self, host: Host, should: Optional[wanted.Node]) -> dict[str, Any]:
        """The settings of container-executor.cfg and spark-defaults.conf."""
        text = host.read(yarn.EXECUTOR) or ""
        own = sections.flat(sections.ours(text, yarn.EXECUTOR))
        wish = sections.flat(should.executor) if should else {}
        found = _named(yarn.EXECUTOR, sections.flat(sections.read(text)), own, wish)
        defaults = SparkDefaults(spark.CONF)
        text = host.read(spark.CONF) or ""
        wish = should.spark if should else {}
        found.update(_named(spark.CONF, defaults.read(text), defaults.ours(text), wish))
        return found

    def _write_yarn(
        self, host: Host, xml: dict[str, dict[str, str]], executor: sections.Settings
    ) -> None:
        for path in yarn.XML_FILES:
            old = host.read_bytes(path) or b""
            _put(host, path, old, hadoopxml.write(old, xml.get(path, {}), path))
        text = host.read(yarn.EXECUTOR) or ""
        new = sections.write(text, executor, yarn.EXECUTOR)
        _put(host, yarn.EXECUTOR, text.encode("utf-8", "surrogateescape"), new)

    def _write_spark(self, host: Host, node: wanted.Node) -> None:
        put(host, SparkDefaults(spark.CONF), node.spark, secret=False)
        for path in _PROGRAMS:
            if path in node.programs:
                host.write(path, node.programs[path], mode=0o755)
            elif host.read(path) in (scripts.DISCOVERY, scripts.MIG_AS_CARDS):
                host.remove(path)

    def _owners(self, host: Host, node: wanted.Node) -> None:
        for path in node.local_dirs:
            if cgroups.owner(host, path) != f"{yarn.USER}:{yarn.GROUP}":
                host.run(["chown", "-R", f"{yarn.USER}:{yarn.GROUP}", path], timeout=120)
        missing = [g for g in node.groups if yarn.USER not in wanted.members(host, g)]
        if missing:
            host.run(["usermod", "-a", "-G", ",".join(missing), yarn.USER], timeout=60)

    def _clear(self, host: Host) -> None:
        """Our part of every file, our programs, stamp and result."""
        stamp.clear(host)
        if not wanted.has_hadoop(host):
            return
        self._write_yarn(host, {}, {})
        put(host, SparkDefaults(spark.CONF), {}, secret=False)
        for path in _PROGRAMS:
            if host.read(path) in (scripts.DISCOVERY, scripts.MIG_AS_CARDS):
                host.remove(path)

    def _asked(self, host: Host, node: wanted.Node) -> list[Problem]:
        """Run Spark's discovery as the user that containers run as."""
        # setpriv, not su: no PAM session, and a service account's shell is nologin.
        become = ["setpriv", "--reuid", yarn.USER, "--regid", yarn.GROUP, "--init-groups", "--"]
        try:
            answer = host.run([*become, spark.SCRIPT], timeout=150).out
        except CommandError as error:
            return [
                Problem(
                    f"{spark.SCRIPT}, run by {yarn.USER}, {error.what}",
                    f"make the GPUs' device files usable for {yarn.USER}",
                )
            ]
        count = len(json.loads(answer)["addresses"])
        if count != gpus.devices(node.gpus):
            return [
                Problem(
                    f"{spark.SCRIPT} names {count} GPUs to {yarn.USER}, not "
                    f"{gpus.devices(node.gpus)}",
                    "somebody changes the cards at this moment; apply it again",
                )
            ]
        return []

    def _executable(self, host: Host, path: str) -> bool:
        return host.path(path).stat().st_mode & 0o777 == 0o755

    @contextlib.contextmanager
    def _step(self, log: Log, name: str) -> Iterator[None]:
        started = time.monotonic()
        record: dict[str, Any] = {"name": name, "outcome": "failed"}
        self.steps.append(record)
        try:
            with log.step(name):
                yield
            record["outcome"] = "ok"
        finally:
            record["seconds"] = round(time.monotonic() - started, 3)


def restart(host: Host) -> None:
    """Restart the daemons that run, and only those. CommandError where one does not come back.

    Without their dependencies: they would start our unit, which waits for this very run to end.
    """
    for daemon in unit.DAEMONS:
        active = host.run(["systemctl", "is-active", daemon], check=False, timeout=60)
        if active.out.strip() == "active":
            again = ["systemctl", "--job-mode=ignore-dependencies", "restart", daemon]
            host.run(again, timeout=_RESTART_SECONDS)
            host.run(["systemctl", "is-active", daemon], timeout=60)


def _read_by_daemons(keys: set[str]) -> bool:
    ours = (spark.CONF, spark.SCRIPT, "unit:", nodefile.SETTING, _STAMP)
    return any(not key.startswith(ours) for key in keys)


def _named(
    path: str, current: dict[str, str], own: dict[str, str], wish: dict[str, str]
) -> dict[str, Any]:
    """``<path>:<key>`` → value, of what should be there and of what we once put there."""
    keys = [key for key in current if key in wish or key in own]
    return {f"{path}:{key}": current[key] for key in keys}


def _put(host: Host, path: str, old: bytes, new: Union[bytes, str]) -> None:
    """Write a file that others may own, or take away one that holds nothing but ours."""
    content = new.encode("utf-8", "surrogateescape") if isinstance(new, str) else new
    if content:
        mode = host.path(path).stat().st_mode & _NOT_OTHERS if old else 0o644
        host.write(path, content, mode=mode)
    elif old:
        host.remove(path)
