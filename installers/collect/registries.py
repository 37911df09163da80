"""Where containerd gets images from: its configuration with what that imports, and hosts.toml.

Sources: containerd-config.toml(5); containerd's docs/hosts.md and docs/cri/registry.md.
"""

from __future__ import annotations

import fnmatch
from typing import Any, Optional

from installers import tomltext
from installers.collect.reader import Reader

CONFIG = "/etc/containerd/config.toml"
ROOT = "/var/lib/containerd"
#: The plug-in of the Container Runtime Interface; since containerd 2.0 (version = 3) it is two.
RUNTIME_PLUGINS = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime")
IMAGE_PLUGINS = ("io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images")


def collect(reader: Reader) -> Optional[dict[str, Any]]:
    """{"version", "imports", "root", "config_path", "default_runtime", "mirrors", "why"}.

    None where containerd has no configuration file. ``mirrors``: host, or "_default", ->
    {"path", "server", "hosts": [{"url", "capabilities", "override_path", "skip_verify", "ca"}]}
    of every hosts.toml below ``config_path``. ``why``: a file that cannot be read, and why.
    """
    text = reader.text(CONFIG)
    if text is None:
        return None
    found: dict[str, Any] = {
        "version": 1,
        "imports": [],
        "root": ROOT,
        "config_path": "",
        "default_runtime": "",
        "mirrors": {},
        "why": None,
    }
    try:
        _read(CONFIG, text, found)
        for file in imported(reader, found["imports"]):
            _read(file, reader.text(file) or "", found)
        for folder in found["config_path"].split(":"):
            if folder:
                _mirrors(reader, folder, found["mirrors"])
    except ValueError as error:
        found["why"] = str(error)
    return found


def imported(reader: Reader, imports: list[str]) -> list[str]:
    """The files that ``imports`` names, relative ones below /etc/containerd, expanded."""
    found: list[str] = []
    for pattern in imports:
        full = pattern if pattern.startswith("/") else f"{CONFIG.rpartition('/')[0]}/{pattern}"
        folder, _, name = full.rpartition("/")
        found += [f"{folder}/{one}" for one in fnmatch.filter(reader.names(folder), name)]
    return found


def _read(path: str, text: str, into: dict[str, Any]) -> None:
    """One file over those before it. ValueError where it is not TOML."""
    try:
        tables = tomltext.tables(text)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    top = tables[()]
    for key, kind in (("version", int), ("imports", list), ("root", str)):
        if isinstance(top.get(key), kind):
            into[key] = top[key]
    for names, values in tables.items():
        if names[:1] != ("plugins",) or len(names) < 2:
            continue
        if names[1] in IMAGE_PLUGINS and names[2:] == ("registry",):
            into["config_path"] = str(values.get("config_path", into["config_path"]))
        if names[1] in RUNTIME_PLUGINS and names[2:] == ("containerd",):
            into["default_runtime"] = str(
                values.get("default_runtime_name", into["default_runtime"])
            )


def _mirrors(reader: Reader, folder: str, into: dict[str, Any]) -> None:
    """What each host's own hosts.toml says; the first folder that has the host is taken."""
    for name in reader.names(folder):
        path = f"{folder}/{name}/hosts.toml"
        text = reader.text(path)
        if text is None or name in into:
            continue
        try:
            tables = tomltext.tables(text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        into[name] = {
            "path": path,
            "server": tables[()].get("server"),
            "hosts": [
                {
                    "url": names[1],
                    "capabilities": values.get("capabilities"),
                    "override_path": values.get("override_path", False),
                    "skip_verify": values.get("skip_verify", False),
                    "ca": values.get("ca"),
                }
                for names, values in tables.items()
                if names[:1] == ("host",) and len(names) == 2
            ],
        }
