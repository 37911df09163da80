"""Reading a chart ourselves: what it is, its values with those of its sub-charts, its digest."""

from __future__ import annotations

import hashlib
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import UsageError
from harness.k8s.yamltext import load

#: More than this is no chart (Helm has the same limits).
_FILE_BYTES, _ALL_BYTES = 5 << 20, 100 << 20
_DEPTH = 8


@dataclass(frozen=True)
class Chart:
    """``path``: the directory or archive. ``values``: defaults, sub-charts' under their names.

    ``digest``: SHA-256 of all its files. ``kube_versions``: what it and its sub-charts ask of
    the cluster's version, by chart name.
    """

    path: Path
    name: str
    version: str
    values: dict[str, Any]
    kube_versions: dict[str, str]
    definitions: tuple[str, ...]
    digest: str


def read_chart(path: Path) -> Chart:
    """Read a directory or ``.tgz``. UsageError with the place if it is no chart."""
    files = _archive(path.read_bytes(), str(path)) if path.is_file() else _directory(path)
    if "Chart.yaml" not in files:
        raise UsageError(f"{path}: is no chart: it has no Chart.yaml")
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    metadata = _yaml(files, "Chart.yaml", path)
    for key in ("name", "version"):
        if not isinstance(metadata.get(key), str):
            raise UsageError(f"{path}: Chart.yaml: {key} is missing, or is not a text")
    versions: dict[str, str] = {}
    values = _values(files, path, versions, 0)
    crds = tuple(data.decode(errors="replace") for _, data in sorted(_crds(files).items()))
    return Chart(
        path, metadata["name"], metadata["version"], values, versions, crds, digest.hexdigest()
    )


def _values(
    files: dict[str, bytes], path: Path, versions: dict[str, str], depth: int
) -> dict[str, Any]:
    """Values of a chart over those of its sub-charts, and what each asks of the cluster."""
    if depth > _DEPTH:
        raise UsageError(f"{path}: charts within charts, {depth} deep")
    metadata = _yaml(files, "Chart.yaml", path)
    name = str(metadata.get("name"))
    if isinstance(metadata.get("kubeVersion"), str):
        versions[name] = metadata["kubeVersion"]
    own = _yaml(files, "values.yaml", path) if "values.yaml" in files else {}
    aliases = {
        str(one.get("name")): str(one.get("alias") or one.get("name"))
        for one in metadata.get("dependencies") or []
        if isinstance(one, dict)
    }
    result: dict[str, Any] = {}
    for inner in _subcharts(files, path):
        called = str(_yaml(inner, "Chart.yaml", path).get("name"))
        result[aliases.get(called, called)] = _values(inner, path, versions, depth + 1)
    return over(result, own)


def over(base: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``upper`` laid over it, as Helm does: maps merge, all else is replaced."""
    result = dict(base)
    for key, value in upper.items():
        old = result.get(key)
        both = isinstance(old, dict) and isinstance(value, dict)
        result[key] = over(old, value) if both and isinstance(old, dict) else value
    return result


def _subcharts(files: dict[str, bytes], path: Path) -> list[dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    for name, data in sorted(files.items()):
        parts = PurePosixPath(name).parts
        if parts[0] != "charts" or len(parts) < 2 or parts[1].startswith(("_", ".")):
            continue
        if len(parts) == 2 and name.endswith(".tgz"):
            found[parts[1]] = _archive(data, f"{path}: {name}")
        elif len(parts) > 2:
            found.setdefault(parts[1], {})["/".join(parts[2:])] = data
    return [inner for inner in found.values() if "Chart.yaml" in inner]


def _crds(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        name: data
        for name, data in files.items()
        if PurePosixPath(name).parent.name == "crds" and name.endswith((".yaml", ".yml"))
    }


def _yaml(files: dict[str, bytes], name: str, path: Path) -> dict[str, Any]:
    try:
        text = files[name].decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: {name}: is not UTF-8: {error}") from error
    return load(text, f"{path}: {name}")


def _directory(path: Path) -> dict[str, bytes]:
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such chart")
    found, size = {}, 0
    for file in sorted(path.rglob("*")):
        if file.is_file():
            size += file.stat().st_size
            if size > _ALL_BYTES:
                raise UsageError(f"{path}: is no chart: over {_ALL_BYTES >> 20} MiB")
            found[file.relative_to(path).as_posix()] = file.read_bytes()
    return found


def _archive(data: bytes, where: str) -> dict[str, bytes]:
    """The files of a ``.tgz`` below its one directory; nothing is unpacked to disk."""
    found: dict[str, bytes] = {}
    size = 0
    try:
        with tarfile.open(fileobj=BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                size += member.size
                if member.size > _FILE_BYTES or size > _ALL_BYTES:
                    raise UsageError(f"{where}: is no chart: {member.name} is too big")
                parts = PurePosixPath(member.name).parts
                if not member.isfile() or len(parts) < 2:
                    continue
                if ".." in parts or parts[0] == "/":
                    raise UsageError(f"{where}: {member.name} points out of the archive")
                read = archive.extractfile(member)
                found["/".join(parts[1:])] = read.read() if read else b""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UsageError(f"{where}: is no .tgz: {error}") from error
    return found
