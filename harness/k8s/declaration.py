"""What a user wants on a cluster: one TOML file.

::

    [operator]
    chart = "oci://registry.corp.example/charts/gpu-operator"   # or a path, or a name with repo
    repo = ""                       # of an HTTP chart repository
    version = "v26.7.0"
    username = "robot"              # for the chart's source;
    password-env = "CHART_PASSWORD" # the password from here, or from password-file
    release = "gpu-operator"        # made short, and the same on every run
    namespace = "gpu-operator"
    values = ["ours.yaml"]          # laid over what we make

    [registry]
    to = "registry.corp.example/proxy"          # every image comes from below this
    map = { "registry.k8s.io" = "registry.corp.example/k8s" }
    pull-secrets = ["regcred"]
    docker-config = "config.json"   # logins: the pull secret is made of it, and we ask with it
    ca = "corp-ca.pem"

    [network]
    proxy = "http://proxy.corp.example:3128"
    no-proxy = ["10.0.0.0/8", ".svc", ".cluster.local"]
    ca = "corp-ca.pem"              # for what driver containers fetch
    package-repositories = "corp.list"

    [nodes]
    os = "ubuntu22.04"
    secure-boot = true
    host-driver = true              # signed and installed by the node's own installers

    [slicing]                       # see harness.k8s.slicing
    default = "four"

    [[slicing.group]]
    name = "four"
    resources = ["nvidia.com/gpu"]
    replicas = 4
    rename = false
    fail-requests-greater-than-one = true
    nodes = { "pool" = "inference" }

Paths are relative to the file.
"""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from harness.catalog import check_keys, line_of, read_toml
from harness.errors import UsageError
from harness.k8s.objectnames import release_name
from harness.k8s.slicing import Slicing, read_slicing


@dataclass(frozen=True)
class Operator:
    """``[operator]``: which chart, from where, and what it is called here."""

    chart: str
    repo: str = ""
    version: str = ""
    username: str = ""
    password_env: str = ""
    password_file: str = ""
    release: str = "gpu-operator"
    namespace: str = "gpu-operator"
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """``[registry]``: where images may come from. ``to`` empty: as the chart says."""

    to: str = ""
    map: dict[str, str] = field(default_factory=dict)
    pull_secrets: tuple[str, ...] = ()
    docker_config: str = ""
    ca: str = ""


@dataclass(frozen=True)
class Network:
    """``[network]``: what stands between driver containers and what they fetch."""

    proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    ca: str = ""
    package_repositories: str = ""


@dataclass(frozen=True)
class Nodes:
    """``[nodes]``: what the GPU nodes are."""

    os: str = ""
    secure_boot: bool = False
    host_driver: bool = False


@dataclass(frozen=True)
class Declaration:
    """The whole file. ``directory``: what its paths are relative to."""

    path: Path
    operator: Operator
    registry: Registry
    network: Network
    nodes: Nodes
    slicing: Slicing | None = None

    @property
    def release(self) -> str:
        """The release's name: short, and the same on every run."""
        return release_name(self.operator.release)

    def file(self, name: str, what: str) -> Path:
        """A file that it names; UsageError if it is not there."""
        found = self.path.parent / name
        if not found.is_file():
            raise UsageError(f"{self.path}: {what}: there is no file {found}")
        return found

    def text(self, name: str, what: str) -> str:
        """The content of a file that it names."""
        try:
            return self.file(name, what).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path}: {what}: {name}: {error}") from error


_TABLES: dict[str, type] = {
    "operator": Operator,
    "registry": Registry,
    "network": Network,
    "nodes": Nodes,
}


def read_declaration(path: Path) -> Declaration:
    """Read and check one. UsageError with the line and the nearest name."""
    text, data = read_toml(path)
    check_keys(path, text, data, [*_TABLES, "slicing"], "")
    made = {
        name: _table(path, text, name, kind, data.get(name, {})) for name, kind in _TABLES.items()
    }
    if "@" in made["network"].proxy:
        raise UsageError(
            f"{path}:{line_of(text, 'proxy', '[network]')}: proxy has a login in it, and would "
            "stand in the cluster for all to read",
            hint="let the node network's addresses through at the proxy without one",
        )
    slicing = read_slicing(path, text, data["slicing"]) if "slicing" in data else None
    return Declaration(path, **made, slicing=slicing)


def _table(path: Path, text: str, name: str, kind: Any, table: Any) -> Any:
    if not isinstance(table, dict):
        raise UsageError(f"{path}:{line_of(text, name)}: {name} is not a table")
    known = {one.name.replace("_", "-"): one for one in fields(kind)}
    check_keys(path, text, table, known, f"[{name}]")
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in table.items():
        wanted = known[key]
        if not _fits(value, hints[wanted.name]):
            line = line_of(text, key, f"[{name}]")
            says = _words(hints[wanted.name])
            raise UsageError(f"{path}:{line}: {key} = {value!r}: must be {says}")
        values[wanted.name] = tuple(value) if isinstance(value, list) else value
    for key, one in known.items():
        needed = one.default is MISSING and one.default_factory is MISSING
        if needed and one.name not in values:
            raise UsageError(f"{path}: [{name}] lacks {key!r}")
    return kind(**values)


def _fits(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind)
    if origin is tuple:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())
    return type(value) is kind


def _words(kind: Any) -> str:
    if isinstance(kind, types.GenericAlias):
        return "a list of texts" if typing.get_origin(kind) is tuple else "a table of texts"
    return "true or false" if kind is bool else "a text"
