"""What the files of a node tell of GPUs in containers: the toolkit, CDI, the runtimes' settings.

Formats: the Container Device Interface's specification (JSON, or YAML as nvidia-ctk writes it);
dockerd(8), daemon.json; containerd's config.toml and crio.conf(5) as nvidia-ctk writes into them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from typing import Any, Optional

from installers import tomltext
from installers.collect import gpu
from installers.collect.reader import Reader

PROGRAMS = ("nvidia-ctk", "nvidia-container-runtime", "nvidia-container-cli", "nvidia-cdi-hook")
CDI = ("/etc/cdi", "/var/run/cdi")
KIND = "nvidia.com/gpu"
FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin")
#: Runtime -> its program, its settings, and the folder of more of them.
RUNTIMES = {
    "docker": ("dockerd", "/etc/docker/daemon.json", ""),
    "containerd": ("containerd", "/etc/containerd/config.toml", "/etc/containerd/conf.d"),
    "crio": ("crio", "/etc/crio/crio.conf", "/etc/crio/crio.conf.d"),
}


def collect(reader: Reader) -> dict[str, Any]:
    """``programs``: name -> path or None. ``library``: libnvidia-container's path, or None.

    ``cdi``: [{"path", "devices", "missing", "releases", "why"}] of every specification of NVIDIA's
    cards: names of devices, files on the host that it names and that are not there, the driver
    releases in names of libraries, and why it cannot be read. ``runtimes``: name -> {"path",
    "files", "runtimes" (name -> program), "missing" (programs that are not there), "cdi", "why"};
    ``path`` is None where the runtime is not installed.
    """
    return {
        "programs": {name: program(reader, name) for name in PROGRAMS},
        "library": gpu.library(reader, "libnvidia-container.so.1"),
        "cdi": [
            found
            for folder in CDI
            for name in reader.names(folder)
            if name.endswith((".yaml", ".yml", ".json"))
            for found in _spec(reader, f"{folder}/{name}")
        ],
        "runtimes": {name: _runtime(reader, *where) for name, where in RUNTIMES.items()},
    }


def program(reader: Reader, name: str) -> Optional[str]:
    """Where a program lies; None where it is in no folder of programs."""
    paths = (f"{folder}/{name}" for folder in FOLDERS)
    return next((path for path in paths if _there(reader, path)), None)


def _there(reader: Reader, path: str) -> bool:
    return os.path.exists(reader.path(path))  # noqa: PTH110 - below a root


def _spec(reader: Reader, path: str) -> Iterator[dict[str, Any]]:
    """One specification, if it is of NVIDIA's cards or cannot be read."""
    text = reader.text(path) or ""
    try:
        kind, devices, files = _json(text) if path.endswith(".json") else _yaml(text)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        if "nvidia" in path or KIND in text:
            yield _found(path, why=f"{type(error).__name__}: {error}")
        return
    if kind != KIND:
        return
    releases = {
        match.group(1) for file in files if (match := re.search(r"\.so\.(\d{3,}\.[\d.]+)$", file))
    }
    missing = sorted(file for file in set(files) if not _there(reader, file))
    yield _found(path, devices=devices, missing=missing, releases=sorted(releases))


def _found(path: str, **more: Any) -> dict[str, Any]:
    return {"path": path, "devices": [], "missing": [], "releases": [], "why": None, **more}


def _json(text: str) -> tuple[str, list[str], list[str]]:
    """Kind, names of devices, files of the host that they need."""
    spec = json.loads(text)
    edits = [spec.get("containerEdits") or {}]
    edits += [device.get("containerEdits") or {} for device in spec["devices"]]
    files = []
    for edit in edits:
        files += [mount["hostPath"] for mount in edit.get("mounts") or ()]
        nodes = edit.get("deviceNodes") or ()
        files += [node.get("hostPath") or node["path"] for node in nodes]
    return spec["kind"], [str(device["name"]) for device in spec["devices"]], files


def _yaml(text: str) -> tuple[str, list[str], list[str]]:
    """The same of a specification in YAML's block style, which is what nvidia-ctk writes."""
    kind, devices, files = "", [], []
    section, nodes = "", False
    for raw in text.splitlines():
        line = raw.split(" #")[0].rstrip()
        words = re.match(r"^(\s*)(- )?([A-Za-z]+):\s*(.*)$", line)
        if not words:
            continue
        indent, dash, key, value = words.groups()
        value = value.strip("\"'")
        if not indent and not dash:
            section = key
            kind = value if key == "kind" else kind
        if key in ("deviceNodes", "mounts", "hooks"):
            nodes = key == "deviceNodes"
        if section == "devices" and key == "name" and len(indent) + 2 * bool(dash) <= 4:
            devices.append(value)
        elif key == "hostPath" or (nodes and key == "path" and dash):
            files.append(value)
    if not kind:
        raise ValueError("it names no kind")
    return kind, devices, files


def _runtime(reader: Reader, name: str, path: str, more: str) -> dict[str, Any]:
    """What one runtime is told of others that it may start containers with."""
    extra = [f"{more}/{file}" for file in reader.names(more)] if more else []
    texts = {file: reader.text(file) for file in (path, *extra)}
    runtimes: dict[str, str] = {}
    cdi, why = None, None
    for file, text in texts.items():
        if text is None:
            continue
        try:
            told, switch = _docker(text) if file.endswith(".json") else _toml(text)
        except (ValueError, AttributeError) as error:
            why = f"{file}: {type(error).__name__}: {error}"
            continue
        runtimes.update(told)
        cdi = switch if switch is not None else cdi
    return {
        "path": program(reader, name),
        "files": [file for file, text in texts.items() if text is not None],
        "runtimes": runtimes,
        "missing": sorted(
            {other for other in runtimes.values() if other and not _there_or_named(reader, other)}
        ),
        "cdi": cdi,
        "why": why,
    }


def _there_or_named(reader: Reader, name: str) -> bool:
    """A program by its path, or by its name in the folders of programs."""
    return _there(reader, name) if name.startswith("/") else program(reader, name) is not None


def _docker(text: str) -> tuple[dict[str, str], Optional[bool]]:
    settings = json.loads(text)
    told = {name: str(one.get("path", "")) for name, one in settings.get("runtimes", {}).items()}
    return told, settings.get("features", {}).get("cdi")


def _toml(text: str) -> tuple[dict[str, str], Optional[bool]]:
    """Tables named ``...runtimes.NAME`` and ``...runtimes.NAME.options``, and the switch of CDI."""
    told: dict[str, str] = {}
    cdi = None
    for names, values in tomltext.tables(text).items():
        cdi = values.get("enable_cdi", cdi)
        own = names[:-1] if names[-1:] == ("options",) else names
        if own[-2:-1] != ("runtimes",):
            continue
        told.setdefault(own[-1], "")
        for key in ("BinaryName", "runtime_path"):
            if key in values:
                told[own[-1]] = str(values[key])
    return told, cdi
