"""What apt offers for the driver, in exact versions, and a build environment that goes away again.

Everything is asked of apt and dpkg on the node, through the proxy that the node has.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Optional
from urllib.parse import urlsplit

from installers import build
from installers.build import DriverBuildError
from installers.errors import CommandError, NodeError
from installers.host import APT_CONF, Host
from installers.journal import Log, recall, remember

#: Where a driver comes from and the flavour of its modules -> the package with their source.
SOURCE_PACKAGES = {
    "distribution": {"open": "nvidia-open-kernel-source", "proprietary": "nvidia-kernel-source"},
    "nvidia-repository": {"open": "nvidia-kernel-open-dkms", "proprietary": "nvidia-kernel-dkms"},
}
_HOW_TO_HAVE = {
    "distribution": "add the components contrib and non-free to apt's sources",
    "nvidia-repository": "set airlock-repositories=cuda, which brings NVIDIA's repository",
}
LISTS = "/var/lib/apt/lists"
AUTO_MARKS = "/var/lib/apt/extended_states"
LISTS_MEMORY = "driver-lists"
MEMORY = "driver-build"  # what must be purged, should we be killed before we did it


@dataclass(frozen=True)
class Package:
    """One package in one version; ``sha256`` of its archive, ``size`` in bytes."""

    name: str
    version: str
    sha256: str
    size: int = 0
    depends: str = ""

    @property
    def pin(self) -> str:
        """For apt-get: this version and no other."""
        return f"{self.name}={self.version}"

    def identity(self) -> dict[str, str]:
        """What a cache key and a report hold of it."""
        return {"name": self.name, "version": self.version, "sha256": self.sha256}


@dataclass(frozen=True)
class Resolved:
    """Everything that a build for ``kernel`` will use."""

    kernel: str
    driver: str  # upstream version of the driver, e.g. 535.261.03
    source: Package
    headers: list[Package]  # the exact headers first, then what they consist of
    compiler: Package


@dataclass(frozen=True)
class AptSource:
    """One repository. ``components`` of its binary packages: none if it has sources only."""

    uri: str
    components: list[str]


def apt_sources(host: Host) -> list[AptSource]:
    """The enabled repositories, from both formats of sources.list(5)."""
    found = []
    for path in ["/etc/apt/sources.list", *host.glob("/etc/apt/sources.list.d", "*.list")]:
        for line in (host.read(path) or "").splitlines():
            words = re.sub(r"\[[^\]]*\]", "", line.split("#")[0]).split()
            if len(words) >= 3 and words[0] in ("deb", "deb-src"):
                found.append(AptSource(words[1], words[3:] if words[0] == "deb" else []))
    for path in host.glob("/etc/apt/sources.list.d", "*.sources"):
        for stanza in re.split(r"\n\s*\n", host.read(path) or ""):
            field = parse_stanza(re.sub(r"(?m)^#.*\n?", "", stanza))
            if field.get("enabled", "yes").lower() in ("no", "false", "0"):
                continue
            binary = "deb" in field.get("types", "").split()
            components = field.get("components", "").split() if binary else []
            found += [AptSource(uri, components) for uri in field.get("uris", "").split()]
    return found


def apt_hosts(host: Host) -> list[str]:
    """The names that apt will contact, sorted; an update asks source repositories too."""
    names = {urlsplit(source.uri).hostname for source in apt_sources(host)}
    return sorted(name for name in names if name)


def parse_stanza(text: str) -> dict[str, str]:
    """One deb822 paragraph: lower-case field name → value; continuation lines are joined."""
    found: dict[str, str] = {}
    key = ""
    for line in text.splitlines():
        if line[:1] in (" ", "\t"):
            if key:
                found[key] += " " + line.strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            found.setdefault(key, value.strip())
    return found


def show(host: Host, name: str, version: str = "") -> Optional[Package]:
    """The candidate of a package, or one version of it, as the archive's index has it."""
    wanted = f"{name}={version}" if version else name
    said = host.run(["apt-cache", "show", "--no-all-versions", wanted], check=False).out
    for text in re.split(r"\n\s*\n", said):
        field = parse_stanza(text)
        if field.get("package") != name or (version and field.get("version") != version):
            continue
        if not field.get("sha256"):  # installed, and no longer in any archive
            return _installed_only(host, name, field)
        size = int(field.get("size", "0"))
        depends = field.get("depends", "")
        return Package(name, field["version"], field["sha256"], size, depends)
    return None


def _installed_only(host: Host, name: str, field: dict[str, str]) -> Package:
    """A package known to dpkg alone is identified by the checksums of its files."""
    listed = host.glob("/var/lib/dpkg/info", f"{name}*.md5sums")
    digest = hashlib.sha256(b"".join(host.read_bytes(path) or b"" for path in listed)).hexdigest()
    return Package(name, field["version"], f"md5sums:{digest}", 0, field.get("depends", ""))


def offered(host: Host, name: str) -> list[str]:
    """Every version of a package that apt's lists have, as apt orders them."""
    said = host.run(["apt-cache", "madison", name], check=False).out
    rows = [[word.strip() for word in line.split("|")] for line in said.splitlines()]
    return list(dict.fromkeys(row[1] for row in rows if len(row) == 3))


def upstream_version(version: str) -> str:
    """A driver's own version: without Debian's epoch and revision."""
    return re.sub(r"^\d+:|-[^-]*$", "", version)


def driver_source(host: Host, kind: str, flavour: str, driver: Optional[str] = None) -> Package:
    """The package with the source: the candidate, or in the version of ``driver``. Else NodeError.

    ``kind`` and ``flavour`` of SOURCE_PACKAGES. A version that was asked for is never replaced by
    another one.
    """
    name, chosen = SOURCE_PACKAGES[kind][flavour], ""
    if driver is not None:
        have = offered(host, name)
        fitting = [version for version in have if upstream_version(version) == driver]
        if have and not fitting:
            names = ", ".join(dict.fromkeys(upstream_version(version) for version in have))
            whose = "the distribution" if kind == "distribution" else "NVIDIA's repository"
            raise NodeError(
                f"{whose} has no driver {driver}, only {names}",
                where="gpu-driver-version",
                remedy="ask for one of these, or set airlock-driver-source",
            )
        chosen = fitting[0] if fitting else ""
    source = show(host, name, chosen)
    if source is None:
        raise NodeError(f"apt knows no package {name}", where="driver", remedy=_HOW_TO_HAVE[kind])
    return source


def resolve(host: Host, kernel: str, source: Package) -> Resolved:
    """Exact versions for a build of ``source`` for ``kernel``; apt's lists must be fresh.

    Raises DriverBuildError(headers-missing) when apt has no headers of exactly this kernel.
    """
    name = f"linux-headers-{kernel}"
    # Headers of another build of the same kernel ABI would do; those of the image's build are
    # better, and newer headers depend on a newer image.
    image = installed(host).get(f"linux-image-{kernel}")
    headers = (show(host, name, image) if image else None) or show(host, name)
    if headers is None:
        raise DriverBuildError(
            "headers-missing",
            f"apt knows no package {name}",
            remedy="upgrade the image's kernel to one whose headers the archive has, "
            "or add the archive that has them",
        )
    parts = [
        found
        for part in re.findall(r"\blinux-(?:headers|kbuild|compiler)-[\w.+~-]+", headers.depends)
        for found in [_part(host, part, headers)]
        if found is not None
    ]
    config = host.read(f"/boot/config-{kernel}")
    compiler_name = build.compiler_of(config) or _compiler_named(headers, parts)
    compiler = show(host, compiler_name)
    if compiler is None:
        raise DriverBuildError(
            "compiler-mismatch", f"apt knows no package {compiler_name}, which built this kernel"
        )
    return Resolved(
        kernel=kernel,
        driver=upstream_version(source.version),
        source=source,
        headers=[headers, *parts],
        compiler=compiler,
    )


def _part(host: Host, name: str, headers: Package) -> Optional[Package]:
    """What the headers consist of, in the version that goes with them."""
    return show(host, name, headers.version) or show(host, name)


def _compiler_named(headers: Package, parts: Sequence[Package]) -> str:
    """The compiler that the headers depend on."""
    for package in [headers, *parts]:
        found = re.search(r"\b(?:linux-compiler-)?(gcc-\d+)\b", f"{package.name} {package.depends}")
        if found:
            return found.group(1)
    raise DriverBuildError("compiler-mismatch", f"{headers.name} names no compiler")


def installed(host: Host) -> dict[str, str]:
    """Package → version of everything that is installed (configured or not)."""
    listing = host.run(
        ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}\t${binary:Package}\t${Version}\n"]
    ).out
    rows = (line.split("\t") for line in listing.splitlines())
    return {row[1].split(":")[0]: row[2] for row in rows if len(row) == 3 and row[0][1:2] != "n"}


@contextlib.contextmanager
def build_environment(host: Host, resolved: Resolved, log: Log) -> Iterator[dict[str, Any]]:
    """Install what a build needs, and purge exactly what was added, whatever happens.

    Yields ``{"packages_added": [...], "packages_upgraded": [...]}``; ``dpkg_difference`` is filled
    in at the end with what could not be restored (an upgrade that a dependency forced).
    """
    wanted = [*(package.pin for package in resolved.headers), resolved.compiler.pin, "make"]
    arguments = ["install", "--no-install-recommends", "--no-remove", *wanted]
    added, upgraded = _simulate(host, arguments)
    before = installed(host)
    marks = host.read_bytes(AUTO_MARKS)
    added = sorted(set(added) - set(before))
    facts: dict[str, Any] = {"packages_added": added, "packages_upgraded": upgraded}
    # Written before the first package comes: a kill -9 must not leave a compiler in the image.
    remember(host, MEMORY, {"purge": added})
    try:
        with log.step("build-dependencies", packages=len(added), upgraded=upgraded):
            host.apt(*arguments)
        yield facts
    finally:
        with log.step("purge-build-dependencies", packages=len(added)):
            restore(host)
            # dpkg does not tell apt, which would keep marks for packages that are gone.
            if marks is None:
                host.remove(AUTO_MARKS)
            else:
                host.write(AUTO_MARKS, marks)
            after = installed(host)
            facts["dpkg_difference"] = sorted(
                name for name in {*before, *after} if before.get(name) != after.get(name)
            )


def _simulate(host: Host, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(names that apt would add, names it would replace by other versions)."""
    try:
        plan = host.apt("--simulate", *arguments).out
    except CommandError as error:
        raise DriverBuildError("headers-missing", f"apt: {error.what}") from error
    added: list[str] = []
    upgraded: list[str] = []
    for line in plan.splitlines():
        found = re.match(r"Inst (\S+) (\[)?", line)
        if found:
            (upgraded if found.group(2) else added).append(found.group(1).split(":")[0])
    return added, upgraded


def restore(host: Host) -> list[str]:
    """Purge what a build of ours added, also one that was killed. Returns the names."""
    pending = recall(host, MEMORY).get("purge", [])
    if not pending:
        return []
    # A kill in the middle of dpkg leaves packages half done, and purge refuses those.
    host.run(["dpkg", "--configure", "-a"], check=False, timeout=900)
    there = sorted(set(pending) & set(installed(host)))
    if there:
        host.run(["dpkg", "--purge", *there], timeout=900)
        host.apt("clean")
    remember(host, MEMORY, {})
    return there


def fetch_source(host: Host, source: Package, into: str) -> str:
    """Download and unpack the source package without installing it; the directory of its source.

    Installed, it would bring debhelper and fifty packages with it that no build of ours needs.
    Debian's hold an archive, NVIDIA's the files themselves.
    """
    host.path(into).mkdir(parents=True, exist_ok=True)
    config = [f"-c={APT_CONF}"] if host.exists(APT_CONF) else []
    # download writes into the current directory, which the user _apt could not.
    sandbox = ["-o", "APT::Sandbox::User=root"]
    command = ["apt-get", *config, "-q", *sandbox, "download", source.pin]
    host.run(command, cwd=into, timeout=1800)
    found = host.glob(into, f"{source.name}_*.deb")
    if len(found) != 1:
        raise NodeError(f"apt downloaded {len(found)} files of {source.pin}", where=into)
    archive = host.read_bytes(found[0]) or b""
    if hashlib.sha256(archive).hexdigest() != source.sha256:
        raise NodeError("is not what apt's signed index promises", where=found[0])
    host.run(["dpkg-deb", "-x", found[0], f"{into}/package"])
    host.remove(found[0])
    place = f"{into}/package/usr/src"
    for archive_path in host.glob(place, "*.tar.*")[:1]:
        build.unpack(host, archive_path, f"{into}/source")
        host.remove(f"{into}/package")
        return f"{into}/source"
    return place


def identities(resolved: Resolved) -> dict[str, Any]:
    """The packages of a build, for a cache key and for provenance."""
    return {
        "headers": [package.identity() for package in resolved.headers],
        "source": resolved.source.identity(),
        "compiler": {"name": resolved.compiler.name, "version": resolved.compiler.version},
    }


@contextlib.contextmanager
def apt_lists(host: Host) -> Iterator[None]:
    """Leave apt's lists as empty as they were: images are shipped without them."""
    had = any(host.path(LISTS).glob("*_Packages*")) and not recall(host, LISTS_MEMORY)
    if not had:  # a kill must not make the next run believe that the lists were there before
        remember(host, LISTS_MEMORY, {"empty": True})
    try:
        yield
    finally:
        if not had:
            for path in host.glob(LISTS, "*"):
                if not path.endswith(("/lock", "/partial", "/auxfiles")):
                    host.remove(path)
            for path in host.glob("/var/cache/apt", "*.bin"):
                host.remove(path)
            remember(host, LISTS_MEMORY, {})
