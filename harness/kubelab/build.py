"""Programs of a Kubernetes control plane, compiled once from a distribution's source package.

Nobody packages kube-apiserver. Debian's source package of its ``kubectl`` holds the whole tree with
everything that is vendored; the compiler of its time is in an older suite. The compiler matters:
with a later one it builds, and then gives other verdicts (the vendored reflect2 1.0.1 reads Go's
own structures, which changed with Go 1.18). The first of the lab's tests asks for one of those.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fixtures import keeper
from fixtures.daemons import drop_setuid, library_path
from fixtures.kubereal.server import PROGRAMS
from harness.errors import InfraError
from harness.kubelab.archive import Archive
from harness.lab import base
from harness.lab.namespace import host_env
from harness.space import free
from harness.state import cache_dir, exclusive

Say = Callable[[str], None]
_SUITES = ("bookworm", "bullseye")
_SOURCE = "kubernetes/bookworm"
_PACKAGES = (
    *("golang-1.15-go/bullseye", "golang-1.15-src/bullseye", "etcd-server/bookworm"),
    # What the build's scripts call, and what that needs.
    *("rsync/bookworm", "libpopt0/bookworm", "libxxhash0/bookworm"),
)
#: Everything that decides what is built, but for the archive's updates of these packages.
RECIPE = {
    "source": _SOURCE,
    "packages": list(_PACKAGES),
    "programs": sorted(PROGRAMS),
    "format": 1,
}
#: What the build takes on its disk while it lasts: sources, compiler, its cache, what it links.
NEEDED = 5 << 30
_COMPILED = tuple(name for name in PROGRAMS if name != "etcd")
_GO = "usr/lib/go-1.15"
_BUILD_SECONDS = 5400
_REALLY = re.compile(r"_[\d.]+\+really([\d.]+)-|_([\d.]+)-")


@dataclass(frozen=True)
class Built:
    """``programs``: the directory that holds PROGRAMS. ``version``: Kubernetes' own."""

    programs: Path
    version: str
    built: str
    cached: bool


def find() -> Built | None:
    """What was built, if it was; asks nobody."""
    try:
        kept = json.loads((_place() / "manifest.json").read_text())
        return Built(_place(), kept["version"], kept["built"], cached=True)
    except (OSError, ValueError, KeyError):
        return None


def build(say: Say, *, fresh: bool = False) -> Built:
    """From the cache, or made now: about 10 minutes of a processor. InfraError says what lacks.

    A build that was interrupted goes on: what was downloaded and compiled stays beside the place
    until all is there. ``fresh`` begins anew.
    """
    place = _place()
    with exclusive(place):
        if not fresh and (found := find()):
            return found
        work = place.with_name(f"{place.name}.work")
        if fresh:
            shutil.rmtree(work, ignore_errors=True)
        work.mkdir(exist_ok=True)
        if (there := free(work)) < NEEDED:
            raise InfraError(
                f"{work}: {there >> 20} MiB are free, {NEEDED >> 20} needed",
                hint="set AIRLOCK_STATE to a larger disk",
            )
        files = _fetched(work, say)
        version = version_of(files)
        _compile(work, files, version, say)
        out = work / "programs"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        gather(work, out)
        built = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        manifest = {"version": version, "built": built, "recipe": RECIPE, "files": files}
        manifest["sha256"] = {name: base.sha256_file(out / name) for name in PROGRAMS}
        (out / "manifest.json").write_text(json.dumps(manifest, indent=1))
        if place.exists():
            shutil.rmtree(place)
        out.rename(place)
        shutil.rmtree(work)
    return Built(place, version, built, cached=False)


def _place() -> Path:
    return cache_dir("kubernetes") / base.canonical(RECIPE)[:32]


def _fetched(work: Path, say: Say) -> dict[str, str]:
    """Packages and sources below ``work/files``; name -> SHA-256."""
    mirror = os.environ.get(base.VARIABLE) or base.configured("Debian").get("main")
    if not mirror:
        raise InfraError(
            "nobody has said where Debian's packages are",
            hint=f"{base.VARIABLE}=URL of a mirror with {' and '.join(_SUITES)}",
        )
    archive = Archive(mirror.rstrip("/"), _SUITES, work / "apt")
    say("asking the archive")
    archive.update()
    say("fetching the compiler, the sources and etcd: about 105 MB")
    return archive.fetch(_PACKAGES, _SOURCE, work / "files")


def version_of(files: dict[str, str]) -> str:
    """Of the file with the sources: ``kubernetes_1.20.5+really1.20.2-1.dsc`` is 1.20.2."""
    name = next((name for name in files if name.endswith(".dsc")), "")
    match = _REALLY.search(name)
    if match is None:
        raise InfraError(f"apt-get source: {name or 'no .dsc'} tells no version")
    return match[1] or match[2]


def _compile(work: Path, files: Mapping[str, str], version: str, say: Say) -> None:
    """The programs in ``work/tree/_output/bin``. Unpacked anew each time: a build that was cut off
    leaves empty generators, which it takes for whole ones. The compiler's own cache stays.
    """
    say(f"unpacking Kubernetes {version} and its compiler")
    tree, root = work / "tree", work / "root"
    for old in (tree, root):
        shutil.rmtree(old, ignore_errors=True)
    for name in sorted(files):
        if name.endswith(".deb"):
            _call(["dpkg-deb", "-x", f"files/{name}", str(root)], work)
        if name.endswith(".dsc"):
            # apt has verified it by the suite's signature; the uploader's own key is not here.
            _call(["dpkg-source", "--no-check", "-x", f"files/{name}", str(tree)], work)
    drop_setuid(root)
    go = root / _GO
    # Parts of it are links that lead to where the package would be installed.
    for name in ("src", "api", "misc", "test", "pkg/include"):
        link = go / name
        if link.is_symlink():
            link.unlink()
            link.symlink_to(root / "usr/share/go-1.15" / name)
    path = tree / ".go/src/k8s.io"
    path.mkdir(parents=True)
    (path / "kubernetes").symlink_to(tree)
    (tree / "home").mkdir()
    # Where its scripts put the compiler's cache, whatever GOCACHE says.
    own = tree / "_output/local/go"
    own.mkdir(parents=True)
    (work / "go-cache").mkdir(exist_ok=True)
    (own / "cache").symlink_to(work / "go-cache")
    facts = work / "version"
    major, minor, *_ = version.split(".")
    facts.write_text(
        "KUBE_GIT_COMMIT='debian'\nKUBE_GIT_TREE_STATE='archive'\n"
        f"KUBE_GIT_VERSION='v{version}'\nKUBE_GIT_MAJOR='{major}'\nKUBE_GIT_MINOR='{minor}'\n"
    )
    environment = {
        **host_env(),
        "PATH": f"{go / 'bin'}:{root / 'usr/bin'}:{os.defpath}",
        "LD_LIBRARY_PATH": library_path(root),
        "GOROOT": str(go),
        "GOPATH": str(tree / ".go"),
        "GOPROXY": "off",
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
        "HOME": str(tree / "home"),
        "KUBE_GIT_VERSION_FILE": str(facts),
    }
    say("compiling: 10 minutes of a processor, if nothing was compiled before")
    what = " ".join(f"cmd/{name}" for name in _COMPILED)
    make(["make", f"WHAT={what}"], tree, environment, work / "make.log", say)


def make(argv: list[str], tree: Path, env: Mapping[str, str], log: Path, say: Say) -> None:
    """Run it; say each program that it begins, with the time. InfraError with its last words.

    It is ended with us, and after _BUILD_SECONDS.
    """
    began = time.monotonic()
    with (
        log.open("w") as out,
        subprocess.Popen(
            keeper.command(argv),
            cwd=tree,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        late = threading.Timer(_BUILD_SECONDS, process.terminate)
        late.start()
        try:
            for line in process.stdout:
                out.write(line)
                if line.startswith("    ") and "/cmd/" in f"/{line.strip()}":
                    say(f"{time.monotonic() - began:4.0f} s: {line.strip()}")
        finally:
            late.cancel()
            process.terminate()
    if time.monotonic() - began >= _BUILD_SECONDS:
        why = f"make did not end within {_BUILD_SECONDS} s"
        raise InfraError(why, hint="run it again: it goes on")
    if process.returncode:
        words = " | ".join(log.read_text(errors="replace").splitlines()[-5:])
        raise InfraError(f"make ended with {process.returncode}: {words}", hint=f"see {log}")


def gather(work: Path, out: Path) -> None:
    made = {name: work / "tree/_output/bin" / name for name in _COMPILED}
    for name, path in {**made, "etcd": work / "root/usr/bin/etcd"}.items():
        if not path.is_file() or not path.stat().st_size:
            raise InfraError(f"the build left no {name}", hint=f"see {work / 'make.log'}")
        shutil.copy2(path, out / name)


def _call(argv: list[str], cwd: Path) -> None:
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InfraError(f"there is no {argv[0]} here", hint="apt-get install dpkg-dev") from error
    if done.returncode:
        raise InfraError(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
