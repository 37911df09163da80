"""Helm, by its command where there is one, else by the SDK in Python; both are Helm itself.

Which: ``AIRLOCK_HELM`` (a path, or ``sdk``), else ``helm`` from PATH if it is 3.8 or later, else
the SDK. The objects that both make of one chart are the same for the same version of Helm.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from harness.errors import InfraError, UsageError
from harness.k8s.yamltext import dump, load_all

Object = dict[str, Any]
_OLDEST = (3, 8)
_RENDER_SECONDS = 60.0
#: Beyond Helm's own timeout, for what it does before and after.
_SLACK_SECONDS = 60.0
# What API servers, proxies and broken connections say in passing, as client-go words it.
_PASSING = re.compile(
    r"too many requests|service ?unavailable|bad gateway|gateway timeout|"
    r"server is currently unable|unable to return a response in the time|"
    r"connection re(fused|set)|unexpected eof|: eof\b|no route to host|server closed|"
    r"etcdserver|broken pipe|tls handshake timeout|i/o timeout",
    re.IGNORECASE,
)
_LATE = re.compile(r"timed out|timeout|deadline exceeded", re.IGNORECASE)
_HOOK = re.compile(r"hooks? failed|resource (Job|Pod)/|Job in progress")


class HelmError(InfraError):
    """Helm could not do it. ``passing``: it may if it is asked again."""

    @property
    def passing(self) -> bool:
        """Whether the cause is one that goes away by itself. A hook that hangs does not."""
        late = bool(_LATE.search(self.message)) and not self.of_hook
        return late or bool(_PASSING.search(self.message))

    @property
    def of_hook(self) -> bool:
        """Whether a hook did not end well."""
        return bool(_HOOK.search(self.message))


@dataclass(frozen=True)
class Target:
    """The cluster and namespace of a release. Empty: as kubectl would take it."""

    namespace: str
    kubeconfig: Path | None = None
    context: str = ""


class Helm(Protocol):
    """What we ask of Helm. Times are in seconds; errors are UsageError and HelmError."""

    version: str

    def render(self, chart: Path, values: Object, release: str, namespace: str) -> list[Object]:
        """Objects of an installation, hooks with them, definitions (``crds/``) not."""
        ...

    def install(
        self, target: Target, chart: Path, release: str, values: Object, seconds: int
    ) -> None:
        """A release that is not there yet."""
        ...

    def upgrade(
        self, target: Target, chart: Path, release: str, values: Object, seconds: int
    ) -> None:
        """One that is."""
        ...

    def uninstall(self, target: Target, release: str, seconds: int) -> None:
        """Nothing to do is no error."""
        ...


def find_helm() -> Helm:
    """The command if there is one that will do, else the SDK. UsageError if there is neither."""
    wanted = os.environ.get("AIRLOCK_HELM", "")
    if wanted != "sdk" and (path := shutil.which(wanted or "helm")):
        command = Command(path)
        if wanted or command.numbers >= _OLDEST:
            return command
    elif wanted not in ("", "sdk"):
        raise UsageError(f"AIRLOCK_HELM={wanted}: there is no such program")
    try:
        return Sdk()
    except ImportError as error:
        raise UsageError(
            "there is no Helm: neither the command helm (3.8 or later) nor helm-python-sdk",
            hint="pip install 'gpu-airlock[k8s]'",
        ) from error
    except OSError as error:
        raise UsageError(
            f"helm-python-sdk cannot be loaded here: {error}", hint="install the command helm"
        ) from error


class Command:
    """The command ``helm``."""

    def __init__(self, path: str) -> None:
        self._path = path
        text = self._run(["version", "--short"], None, _RENDER_SECONDS)
        self.version = text.strip().partition("+")[0].lstrip("v")
        numbers = re.findall(r"\d+", self.version)[:2]
        self.numbers = tuple(int(number) for number in numbers)

    def render(self, chart: Path, values: Object, release: str, namespace: str) -> list[Object]:
        arguments = ["template", release, str(chart), "-n", namespace]
        text = self._run(arguments, values, _RENDER_SECONDS, usage=True)
        return _objects({"": text}, chart)

    def install(
        self, target: Target, chart: Path, release: str, values: Object, seconds: int
    ) -> None:
        self._change("install", target, chart, release, values, seconds)

    def upgrade(
        self, target: Target, chart: Path, release: str, values: Object, seconds: int
    ) -> None:
        self._change("upgrade", target, chart, release, values, seconds)

    def uninstall(self, target: Target, release: str, seconds: int) -> None:
        arguments = ["uninstall", release, "--ignore-not-found", f"--timeout={seconds}s"]
        self._run([*arguments, *_where(target)], None, seconds + _SLACK_SECONDS)

    def _change(
        self, verb: str, target: Target, chart: Path, release: str, values: Object, seconds: int
    ) -> None:
        arguments = [verb, release, str(chart), f"--timeout={seconds}s", *_where(target)]
        self._run(arguments, values, seconds + _SLACK_SECONDS)

    def _run(
        self, arguments: list[str], values: Object | None, seconds: float, *, usage: bool = False
    ) -> str:
        with _file(values) as file:
            more = ["--values", str(file)] if file else []
            try:
                done = subprocess.run(
                    [self._path, *arguments, *more],
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=seconds,
                    check=False,
                    stdin=subprocess.DEVNULL,
                )
            except subprocess.TimeoutExpired as error:
                raise HelmError(f"helm {arguments[0]}: timed out after {seconds:.0f} s") from error
            except OSError as error:
                raise UsageError(f"{self._path}: {error}") from error
        if done.returncode:
            raise _failed(arguments[0], done.stderr, usage)
        return done.stdout


class Sdk:
    """Helm's own Go code as a library (PyPI: helm-python-sdk)."""

    def __init__(self) -> None:
        import helm_python

        self._helm: Any = helm_python
        helm_python.validate_release_name("airlock")  # loads the library
        self.version = str(getattr(helm_python, "HELM_VERSION", "sdk"))

    def render(self, chart: Path, values: Object, release: str, namespace: str) -> list[Object]:
        try:
            with self._helm.Chart.load(str(chart)) as loaded:
                loaded.validate_schema(values)
                texts = loaded.render(values, name=release, namespace=namespace)
        except self._helm.HelmError as error:
            raise _failed("template", str(error), usage=True) from error
        return _objects(texts, chart)

    def install(
        self, target: Target, chart: Path, release: str, values: Object, seconds: int
    ) -> None:
        with self._config(target) as config:
            config.install(str(chart), release, values, timeout=seconds)

    def upgrade(
        self, target: Target, chart: Path, release: str, values: Object, seconds: int
    ) -> None:
        with self._config(target) as config:
            config.upgrade(str(chart), release, values, timeout=seconds)

    def uninstall(self, target: Target, release: str, seconds: int) -> None:
        with self._config(target) as config:
            config.uninstall(release, timeout=seconds, ignore_not_found=True)

    @contextmanager
    def _config(self, target: Target) -> Iterator[Any]:
        where = str(target.kubeconfig) if target.kubeconfig else None
        try:
            with self._helm.Config(
                kubeconfig_path=where,
                kube_context=target.context or None,
                namespace=target.namespace,
            ) as config:
                yield config
        except self._helm.HelmError as error:
            raise _failed("install", str(error), usage=False) from error


def _where(target: Target) -> list[str]:
    found = ["--namespace", target.namespace]
    found += ["--kubeconfig", str(target.kubeconfig)] if target.kubeconfig else []
    return found + (["--kube-context", target.context] if target.context else [])


@contextmanager
def _file(values: Object | None) -> Iterator[Path | None]:
    """Values in a file of our own (0600): they may hold a proxy's password."""
    if values is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="airlock-helm-") as directory:
        file = Path(directory) / "values.yaml"
        file.touch(0o600)
        file.write_text(dump(values))
        yield file


def _failed(verb: str, text: str, usage: bool) -> HelmError | UsageError:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("WARN")]
    words = " ".join(" ".join(lines[-6:]).split()).removeprefix("Error: ")
    if usage:
        return UsageError(f"helm {verb}: {words}", hint="the chart, or values for it, are wrong")
    return HelmError(f"helm {verb}: {words}")


def _objects(texts: dict[str, str], chart: Path) -> list[Object]:
    found: list[Object] = []
    for name, text in sorted(texts.items()):
        if name.endswith("NOTES.txt") or not text.strip():
            continue
        for item in load_all(text, f"{chart}: {name or 'rendered'}"):
            if not isinstance(item, dict) or not item.get("kind") or not item.get("apiVersion"):
                raise UsageError(f"{chart}: {name or 'rendered'}: not a Kubernetes object")
            found.append(item)
    return sorted(found, key=order)


#: What others need comes first, as in Helm's own order.
_FIRST = (
    "Namespace",
    "NetworkPolicy",
    "PriorityClass",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "CustomResourceDefinition",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Service",
    "DaemonSet",
    "Deployment",
    "Job",
)


def order(item: Object) -> tuple[int, str, str, str]:
    """The place of an object among others: by need, then by name."""
    kind, meta = str(item["kind"]), item.get("metadata") or {}
    rank = _FIRST.index(kind) if kind in _FIRST else len(_FIRST)
    return rank, kind, str(meta.get("namespace") or ""), str(meta.get("name") or "")


def hooks_of(item: Object) -> frozenset[str]:
    """When Helm runs it (``pre-upgrade``); empty for an object that is no hook."""
    notes = (item.get("metadata") or {}).get("annotations") or {}
    text = notes.get("helm.sh/hook")
    return (
        frozenset(one.strip() for one in text.split(",")) if isinstance(text, str) else frozenset()
    )
