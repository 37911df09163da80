"""Which of the programs are here, and getting those that can be had as packages."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fixtures.daemons import library_path, unpack_debs
from fixtures.errors import FixtureError
from harness.errors import InfraError
from harness.proving.tools import ELSEWHERE, HERE, JAVA, PATH, PYTHON, Found
from harness.state import cache_dir

#: Distributions of Python that ``--fetch`` puts into an environment of our own.
WHEELS = {
    "requests": "requests",
    "httpx": "httpx",
    "aiohttp": "aiohttp",
    "rattler": "py-rattler",
    "uv": "uv",
}
#: Packages of the distribution that ``--fetch`` unpacks privately, and the program in them.
DEBS = {
    "curl": ("curl", "usr/bin/curl"),
    "wget": ("wget", "usr/bin/wget"),
    "git": ("git", "usr/bin/git"),
    "Java": ("openjdk-17-jdk-headless", "usr/lib/jvm/java-17-openjdk-amd64/bin/java"),
    "Java-http": ("openjdk-17-jdk-headless", "usr/lib/jvm/java-17-openjdk-amd64/bin/java"),
    "dnf": ("dnf", "usr/bin/dnf-3"),
}
_VERSIONS = """
import importlib.metadata, json, sys
found = {"urllib": "Python %d.%d.%d" % sys.version_info[:3]}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Missing:
    """A program that is not here, and why not."""

    tool: str
    why: str


def find(
    names: Sequence[str], *, fetch: bool, say: Callable[[str], None]
) -> tuple[list[Found], list[Missing]]:
    """The programs that are here, and those that are not. ``fetch`` gets what can be got."""
    found: list[Found] = []
    missing: list[Missing] = []
    pythons = _pythons(names, fetch=fetch, say=say)
    for name in names:
        try:
            one = _find(name, pythons, fetch=fetch, say=say)
        except (FixtureError, InfraError) as error:
            missing.append(Missing(name, error.message))
            continue
        found += [one] if one else []
        if one is None:
            can = name in WHEELS or name in DEBS
            hint = "; --fetch gets it" if can and not fetch else ""
            missing.append(Missing(name, f"not here{hint}"))
    return found, missing


def _find(
    name: str,
    pythons: Mapping[str, Mapping[str, str]],
    *,
    fetch: bool,
    say: Callable[[str], None],
) -> Found | None:
    if name in ELSEWHERE:
        return None
    if name in PYTHON:
        wheel = WHEELS.get(name, name)
        for python, versions in pythons.items():
            if wheel in versions:
                return Found(name, versions[wheel], python)
        return None
    if name == "uv":
        return _uv(pythons)
    root = None
    program = _which({"apt": "apt-get", "Go": "go", **dict.fromkeys(JAVA, "java")}.get(name, name))
    if program is None and fetch and name in DEBS:
        package, inside = DEBS[name]
        say(f"unpacking {package}")
        root = unpack_debs([package], cache_dir("prover"))
        repoint(root)
        program = str(root / inside)
    if program is None:
        return None
    if name in JAVA:
        return _java(name, program, root)
    env = _unpacked(root) if root else {}
    if name == "Go":
        return _go(program)
    if name == "apt":
        helper = "/usr/lib/apt/apt-helper"
        return Found(name, _version([program, "--version"]), helper) if _is(helper) else None
    if name == "dnf" and root:
        program = f"/usr/bin/python3 {program}"
        return Found(name, _version([*program.split(), "--version"], env), program, env=env)
    return Found(name, _version([program, "--version"], env), program, env=env)


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:{PATH}")


def _is(path: str) -> bool:
    return os.access(path, os.X_OK)


def _run(
    argv: Sequence[str], env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def _version(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """The first thing in what a program says that looks like a version."""
    try:
        ran = _run(argv, {**os.environ, **(env or {})}, 60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfraError(f"{argv[0]} does not run: {error}") from error
    match = re.search(r"\d+(\.\d+)+", ran.stdout + ran.stderr)
    if ran.returncode or match is None:
        said = (ran.stderr or ran.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise InfraError(f"{argv[0]} does not run: {said[0]}")
    return match[0]


def _uv(pythons: Mapping[str, Mapping[str, str]]) -> Found | None:
    near = (str(Path(python).with_name("uv")) for python in pythons)
    for program in (_which("uv"), *near):
        if program and _is(program):
            env = {"UV_PYTHON": _which("python3") or sys.executable}
            return Found("uv", _version([program, "--version"]), program, env=env)
    return None


def _go(program: str) -> Found:
    """The probe is built once for each release of Go."""
    version = _version([program, "version"])
    source = HERE / "probe.go"
    made = _kept(f"go-{version}", source) / "probe"
    if not made.exists():
        env = {**os.environ, "GOCACHE": str(cache_dir("prover") / "go"), "CGO_ENABLED": "0"}
        env |= {"GO111MODULE": "off", "GOFLAGS": "", "GOTOOLCHAIN": "local"}
        _make([program, "build", "-o", f"{made}.new", str(source)], env)
        Path(f"{made}.new").replace(made)
    return Found("Go", version, str(made))


def _java(name: str, program: str, root: Path | None) -> Found:
    env = _unpacked(root) if root else {}
    home = str(Path(program).resolve().parents[1])
    version = _version([program, "-version"], env)
    source = HERE / "Probe.java"
    classes = _kept(f"java-{version}", source)
    if not (classes / "Probe.class").exists():
        compiler = Path(home) / "bin/javac"
        if not compiler.exists():
            raise InfraError("a JRE without a compiler is here; a JDK is needed")
        _make([str(compiler), "-d", str(classes), str(source)], {**os.environ, **env})
    files = (Path(home) / "conf/net.properties", Path(home) / "lib/net.properties")
    settings = next((str(path.resolve()) for path in files if path.exists()), "")
    if not settings:
        raise InfraError(f"{home} has no net.properties")
    return Found(name, version, program, {"classes": str(classes), "settings": settings}, env)


def _kept(kind: str, source: Path) -> Path:
    """A directory for what is made of this source."""
    digest = hashlib.sha256(source.read_bytes()).hexdigest()[:12]
    path = cache_dir("prover") / f"{kind}-{digest}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def _make(argv: Sequence[str], env: Mapping[str, str]) -> None:
    try:
        ran = _run(argv, env, 600)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InfraError(f"{argv[0]}: {error}") from error
    if ran.returncode:
        said = ran.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise InfraError(f"{argv[0]} failed: {said[0]}")


def _pythons(
    names: Iterable[str], *, fetch: bool, say: Callable[[str], None]
) -> dict[str, dict[str, str]]:
    """Each Python that may have the clients, and the versions of those that it has."""
    wanted = [name for name in names if name in PYTHON or name == "uv"]
    if not wanted:
        return {}
    own = cache_dir("prover") / "python/bin/python"
    found: dict[str, dict[str, str]] = {}

    def lacks() -> list[str]:
        there = {name for versions in found.values() for name in versions}
        there |= {"uv"} if _uv(found) else set()
        return [name for name in (WHEELS.get(one, one) for one in wanted) if name not in there]

    # What was fetched once is in our own.
    for python in (sys.executable, str(own), _which("python3"), "/usr/bin/python3"):
        if python and python not in found and _is(python) and lacks():
            found[python] = _asked(python)
    missing = [name for name in lacks() if name in WHEELS.values()]
    if fetch and missing:
        _environment(own, missing, say)
        found[str(own)] = _asked(str(own))
    return found


def _asked(python: str) -> dict[str, str]:
    """The releases of the clients that a Python has; none where it does not answer."""
    modules = [WHEELS.get(name, name) for name in PYTHON if name != "urllib"]
    try:
        ran = subprocess.run(
            [python, "-I", "-c", _VERSIONS, *modules],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    versions: dict[str, str] = json.loads(ran.stdout) if ran.returncode == 0 else {}
    return versions


def _environment(python: Path, wheels: Sequence[str], say: Callable[[str], None]) -> None:
    """A Python of our own with these, taken from the index that this machine's pip is set to."""
    if not python.exists():
        _make([sys.executable, "-m", "venv", str(python.parents[1])], os.environ)
    say(f"fetching {', '.join(wheels)}")
    pip = [str(python), "-m", "pip", "-q", "--disable-pip-version-check", "install"]
    for wheel in wheels:
        try:
            _make([*pip, wheel], os.environ)
        except InfraError as error:
            say(f"{wheel}: {error.message}")


def _unpacked(root: Path) -> dict[str, str]:
    return {
        "LD_LIBRARY_PATH": library_path(root),
        "GIT_EXEC_PATH": f"{root}/usr/lib/git-core",
        "PYTHONPATH": f"{root}/usr/lib/python3/dist-packages",
        "RPM_CONFIGDIR": f"{root}/usr/lib/rpm",
    }


def repoint(root: Path) -> None:
    """Make links to ``/etc`` and the like point into an unpacked root."""
    for directory, names, files in os.walk(root):
        for name in (*names, *files):
            path = Path(directory, name)
            if path.is_symlink() and (target := str(path.readlink())).startswith("/"):
                inside = root / target.lstrip("/")
                if os.path.lexists(inside):
                    path.unlink()
                    path.symlink_to(os.path.relpath(inside, path.parent))
