"""Every Java runtime on the node, found by looking, not by guessing one ``JAVA_HOME``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Optional
from weakref import WeakKeyDictionary

from installers.host import Host

_TOPS = ("/usr/lib", "/usr/lib64", "/usr/java", "/usr/local", "/opt", "/srv", "/root", "/home")
# Large trees in which no runtime is, and caches whose copies nobody runs.
_PRUNED = {
    *("__pycache__", "site-packages", "dist-packages", "node_modules", "include", "man"),
    *("doc", "locale", "modules", "firmware", "terminfo", "pkgs"),
    *("containers", "overlay2", ".git", ".cache", "gcc", "ruby"),
    *("perl5", "python3", "systemd"),
}
_DEPTH = 5
# Half a second of a run, and two installers ask.
_WALKED: WeakKeyDictionary[Host, set[str]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Jvm:
    """A runtime. All node paths, links resolved; ``keytool`` and ``net_properties`` may lack."""

    home: str
    cacerts: str
    keytool: Optional[str]
    net_properties: Optional[str]


def find(host: Host) -> list[Jvm]:
    """The runtimes, each once, in the order of their homes."""
    if host not in _WALKED:
        _WALKED[host] = {home for top in _TOPS for home in _walk(host, top)}
    homes = set(_WALKED[host])
    if host.root == Path("/"):
        homes.update(_running())
    found = {home: _read(host, home) for home in sorted(homes)}
    return [runtime for runtime in found.values() if runtime is not None]


def _walk(host: Host, top: str) -> Iterator[str]:
    # Strings and no Paths: these are thousands of directories.
    root = str(host.root).rstrip("/")
    below = [(str(host.path(top)), 0)]
    while below:
        directory, depth = below.pop()
        try:
            with os.scandir(directory) as entries:
                names = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
        except OSError:
            continue
        if "lib" in names and os.path.lexists(f"{directory}/lib/security/cacerts"):
            yield directory[len(root) :]
        if depth < _DEPTH:
            below += [(f"{directory}/{name}", depth + 1) for name in names if name not in _PRUNED]


def _running() -> Iterator[str]:
    """Homes of the Java processes that run now."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                program = str((entry / "exe").readlink())
            except OSError:
                continue
            if program.endswith("/bin/java"):
                yield program.rsplit("/bin/", 1)[0]


def _read(host: Host, home: str) -> Optional[Jvm]:
    store = next(
        (
            f"{home}/{lib}/security/cacerts"
            for lib in ("lib", "jre/lib")
            if host.exists(f"{home}/{lib}/security/cacerts")
        ),
        None,
    )
    if store is None:
        return None
    # A JDK 8 keeps its runtime in jre/, with a keytool in both places.
    outer = home.rsplit("/jre", 1)[0]
    tools = (f"{base}/bin/keytool" for base in (home, outer))
    files = (f"{home}/conf/net.properties", f"{home}/lib/net.properties")
    return Jvm(
        home=home,
        cacerts=host.real(store),
        keytool=next((path for path in tools if host.exists(path)), None),
        net_properties=next((host.real(path) for path in files if host.exists(path)), None),
    )
