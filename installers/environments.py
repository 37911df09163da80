# ruff: noqa: ARG002 - the base class names arguments that only some installers use
"""Conda environments from locks: restored from the cache, verified, repaired where they lie.

A node asks the cache for what the lock says. Only what the cache lacks is built here, by the mamba
or conda that the image has. Built or restored, it is made beside its place, tried, and appears by
one rename. What was changed later is repaired from the cache, file by file, before anything else.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

from installers import envbuild, envfiles, envmanifest, envpack, retired
from installers.cache import settings
from installers.cache.cache import Cache, Entry
from installers.cache.store import TamperedError
from installers.collect.environments import KERNELS, RECORDS
from installers.config import Config
from installers.engine import Change, Contract, Installer, Problem, Refusal
from installers.envfiles import Lock
from installers.errors import CommandError, ConfigError, NodeError
from installers.host import Host
from installers.journal import Log

KEY, LOCKS, ROOT = (
    "airlock-environments",
    "airlock-environment-locks",
    "airlock-environments-root",
)
_DEFAULT_ROOT = "/opt/airlock/envs"
_BUNDLED_LOCKS = "/usr/lib/airlock/environments"
_YES = frozenset({"1", "yes", "true"})
#: Unpacked PyTorch or RAPIDS environments, rounded up, and what is fetched of them.
_UNPACKED, _FETCHED = 12 << 30, 5 << 30
_IMPORT = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"


def wanted(attributes: Mapping[str, str]) -> list[str]:
    """Names of environments, from our key and from today's. Raises ConfigError."""
    names = [word for word in re.split(r"[\s,]+", attributes.get(KEY, "")) if word]
    for key, name in (("include-pytorch", "pytorch"), ("include-tensorflow", "tensorflow")):
        if attributes.get(key, "").strip().lower() in _YES:
            names.append(name)
    for name in names:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name):
            raise ConfigError(f"{name!r} is not a short lower-case word", where=KEY)
    return list(dict.fromkeys(names))


class Environments(Installer):
    """Settings are ``environment NAME`` → digest of its lock, ``kernel NAME`` → registered."""

    name = "environments"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._names = wanted(config.raw)
        self._root = (config.raw.get(ROOT) or _DEFAULT_ROOT).rstrip("/")
        if not self._root.startswith("/"):
            raise ConfigError("is not an absolute path", where=ROOT)
        self._cache = settings.parse(config)
        # Environments whose every file was compared a moment ago.
        self._compared: set[str] = set()

    def _lock(self, host: Host, name: str) -> Optional[Lock]:
        """The lock of an environment: a file on the node, named or shipped with the image."""
        folder = (self.config.raw.get(LOCKS) or _BUNDLED_LOCKS).removeprefix("file://").rstrip("/")
        path = f"{folder}/{name}.lock.json"
        text = host.read(path)
        return None if text is None else envfiles.lock_of(text, path)

    def _prefix(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _record(self, host: Host, name: str) -> dict[str, Any]:
        """What was installed: lock, prefix, digests; empty when nothing or damaged."""
        with contextlib.suppress(ValueError):
            found = json.loads(host.read(f"{RECORDS}/{name}.json") or "{}")
            if isinstance(found, dict) and found.get("schema") == 1:
                return found
        return {}

    def refuse(self, host: Host) -> list[Refusal]:
        """An environment without a lock, or a prefix too long to rewrite to."""
        found = []
        for name in self._names:
            if self._lock(host, name) is None:
                reason = f"there is no lock for the environment {name}: nothing says what is in it"
                remedy = (
                    f"make one: airlock env lock {name}, and put {name}.lock.json where {LOCKS} "
                    f"says (default {_BUNDLED_LOCKS})"
                )
                found.append(Refusal("environments.no-lock", reason, remedy))
            if len(self._prefix(name)) > envpack.PREFIX_LENGTH:
                reason = f"{self._prefix(name)} is longer than {envpack.PREFIX_LENGTH} characters"
                found.append(Refusal("environments.prefix", reason, f"choose a shorter {ROOT}"))
        return found

    def inspect(self, host: Host) -> dict[str, Any]:
        """Which locks are installed; kernels by what they start."""
        state = {}
        for path in host.glob(RECORDS, "*.json"):
            name = path.rpartition("/")[2][: -len(".json")]
            record = self._record(host, name)
            if record and host.exists(record["prefix"]):
                state[f"environment {name}"] = f"{record['lock']} at {record['prefix']}"
                kernel = host.read(f"{KERNELS}/airlock-{name}/kernel.json")
                if kernel is not None:
                    state[f"kernel {name}"] = _starts(kernel)
        return state

    def desired(self, host: Host) -> dict[str, Any]:
        """The same as the locks have it."""
        state = {}
        for name in self._names:
            lock = self._lock(host, name)
            if lock is None:
                continue
            state[f"environment {name}"] = f"{lock.digest} at {self._prefix(name)}"
            if any(package.name == "ipykernel" for package in lock.packages):
                state[f"kernel {name}"] = f"{self._prefix(name)}/bin/python"
        return state

    def contract(self, host: Host) -> Contract:
        """The cache's hosts, the lock's where that has to be built, bytes and disk."""
        missing = [name for name in self._names if not self._record(host, name)]
        retired_notes = retired.notes(self.config.raw, retired.ENVIRONMENTS)
        if not missing:
            return Contract(notes=retired_notes)
        locks = [lock for name in missing if (lock := self._lock(host, name)) is not None]
        sizes = [sum(package.size for package in lock.packages) for lock in locks]
        fetched = sum(size or _FETCHED for size in sizes)
        disk = {self._root: sum(4 * size or _UNPACKED for size in sizes)}
        hosts = set(self._cache.hosts)
        notes = [f"{', '.join(missing)}: from the cache, else built here", *self._cache.notes]
        notes += retired_notes
        if not self._cache.offline:
            hosts.update(envbuild.hosts(locks))
        return Contract(sorted(hosts), fetched, disk, [], notes)

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        """Repair what is there, restore or build what is not, remove what is not wanted."""
        for path in host.glob(RECORDS, "*.json"):
            name = path.rpartition("/")[2][: -len(".json")]
            if name not in self._names:
                self._remove_one(host, name)
        with self._cache.open(lambda note: log("cache", note=note)) as cache:
            for name in self._names:
                lock = self._lock(host, name)
                if lock is None:
                    raise NodeError("there is no lock", where=f"environment {name}")
                self._one(host, name, lock, cache, log)

    def _one(self, host: Host, name: str, lock: Lock, cache: Cache, log: Log) -> None:
        record, prefix = self._record(host, name), self._prefix(name)
        fits = record.get("lock") == lock.digest and record.get("prefix") == prefix
        if fits and host.exists(prefix) and self._repair(host, name, record, lock, cache, log):
            self._register(host, name, lock)
            return

        def build_it() -> envbuild.Built:
            offline = self._cache.offline
            return envbuild.build(host, lock, self._root, self.config, log, offline=offline)

        def use(entry: Entry) -> None:
            log("environment-cache", name=name, key=entry.key, result=entry.hit or "built")
            self._restore(host, name, lock, entry, prefix)

        def obtain(unread: bool) -> Entry:
            return cache.obtain(envfiles.KIND, lock.inputs, build_it, unread=unread)

        try:
            with log.step("environment", name=name, lock=lock.digest):
                _used(cache, obtain, use)
        finally:
            envbuild.clear(host, self._root, lock.name)
        self._register(host, name, lock)

    def _restore(self, host: Host, name: str, lock: Lock, entry: Entry, prefix: str) -> None:
        """Beside its place, then into it; tried before anybody can see it as installed."""
        manifest = envmanifest.read_manifest(entry.read(envmanifest.MANIFEST).decode())
        beside = f"{self._root}/.{name}.new"
        target = host.path(beside)
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            digests = envpack.unpack(entry.files, manifest, target, seen_as=prefix)
            host.remove(f"{RECORDS}/{name}.json")
            envpack.replace_directory(target, host.path(prefix))
        except OSError as error:
            raise NodeError(error.strerror or str(error), where=prefix) from error
        finally:
            shutil.rmtree(target, ignore_errors=True)
        record = {
            "schema": 1,
            "lock": lock.digest,
            "prefix": prefix,
            "imports": list(lock.imports),
            "files": digests,
            "links": dict(manifest.links),
        }
        host.write(f"{RECORDS}/{name}.json", json.dumps(record))
        self._compared.add(name)

    def _repair(
        self, host: Host, name: str, record: dict[str, Any], lock: Lock, cache: Cache, log: Log
    ) -> bool:
        """Put back what was changed or lost, from the cache; False when the cache lacks it."""
        place = host.path(record["prefix"])
        changed = envpack.differing(place, record["files"], record["links"])

        def put_back(entry: Entry) -> None:
            with log.step("repair", name=name, files=len(changed), first=changed[0]):
                manifest = envmanifest.read_manifest(entry.read(envmanifest.MANIFEST).decode())
                envpack.unpack(entry.files, manifest, place, seen_as=record["prefix"], only=changed)

        def get(unread: bool) -> Optional[Entry]:
            return cache.get(envfiles.KIND, lock.inputs, unread=unread)

        if changed and not _used(cache, get, put_back):
            return False
        self._compared.add(name)
        return True

    def _register(self, host: Host, name: str, lock: Lock) -> None:
        """A Jupyter kernel for every user of the machine."""
        folder = f"{KERNELS}/airlock-{name}"
        if not any(package.name == "ipykernel" for package in lock.packages):
            host.remove(folder)
            return
        python = f"{self._prefix(name)}/bin/python"
        words = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel = {"argv": words, "display_name": name, "language": "python"}
        host.write(f"{folder}/kernel.json", json.dumps(kernel, indent=1) + "\n")

    def verify(self, host: Host) -> list[Problem]:
        """Every file's hash, the imports, and pip's own check."""
        problems = []
        for name in self._names:
            record = self._record(host, name)
            if not record:
                problems.append(Problem(f"{name} is not installed", "apply again"))
                continue
            for what in self._wrong(host, name, record):
                problems.append(Problem(f"environment {name}: {what}", "apply again"))
        return problems

    def _wrong(self, host: Host, name: str, record: dict[str, Any]) -> list[str]:
        place, python = host.path(record["prefix"]), f"{record['prefix']}/bin/python"
        if name in self._compared:
            self._compared.discard(name)
        elif changed := envpack.differing(place, record["files"], record["links"]):
            return [f"{len(changed)} files are missing or changed, first {changed[0]}"]
        found = []
        # -B: what a check compiles would be files that no lock knows.
        imports = record.get("imports", [])
        for words, what in (
            (["-B", "-c", _IMPORT, *imports], "cannot import"),
            *([(["-B", "-m", "pip", "check"], "pip check")] if _has_pip(place) else []),
        ):
            try:
                host.run([python, *words], timeout=900)
            except CommandError as error:
                found.append(f"{what}: {error.what}")
        return found

    def _remove_one(self, host: Host, name: str) -> None:
        record = self._record(host, name)
        # The record first: what is half removed is then not installed.
        host.remove(f"{RECORDS}/{name}.json")
        host.remove(f"{KERNELS}/airlock-{name}")
        if record.get("prefix"):
            host.remove(record["prefix"])

    def remove(self, host: Host) -> None:
        """Every environment of ours, and its kernel."""
        for path in host.glob(RECORDS, "*.json"):
            self._remove_one(host, path.rpartition("/")[2][: -len(".json")])

    def provenance(self, host: Host) -> dict[str, Any]:
        """Lock and prefix of each."""
        found = {name: self._record(host, name) for name in self._names}
        return {name: {k: r[k] for k in ("lock", "prefix")} for name, r in found.items() if r}


def _used(
    cache: Cache,
    obtain: Callable[[bool], Optional[Entry]],
    use: Callable[[Entry], None],
) -> bool:
    """Use an entry whose archives nobody has hashed; False when there is none.

    Where what came out of them is not what its manifest says, another one is asked for, hashed.
    """
    entry = obtain(True)
    if entry is None:
        return False
    try:
        use(entry)
        return True
    except TamperedError as wrong:
        cache.refuse(entry, str(wrong))
    entry = obtain(False)
    if entry is None:
        return False
    use(entry)
    return True


def _has_pip(place: Path) -> bool:
    return any(place.glob("lib/python*/site-packages/pip"))


def _starts(kernel: str) -> str:
    """The program that a kernel starts; empty when its file is damaged."""
    with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
        return str(json.loads(kernel)["argv"][0])
    return ""
