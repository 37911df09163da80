"""How what today's scripts left is recognised in a file, and how it is cut out of files of others.

A finder says whether the thing at a node path is theirs; a cutter gives a text without their lines.
Both are careful: what they are not sure of stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from installers import keystore, openpgp, owned, pem
from installers.adopt import kept
from installers.host import Host

Finder = Callable[[Host, str], bool]
Cutter = Callable[[Host, str], str]

#: Where the scripts put the proxy's authority, by family.
CA_FILES = (
    "/usr/local/share/ca-certificates/proxy_ca.crt",
    "/etc/pki/ca-trust/source/anchors/proxy_ca.crt",
)
ALIAS = "swp_ca"
KEY_DIRECTORY = "ca_dir-"
_RINGS = (
    *("adoptium", "docker-keyring", "cloud.google", "cran-r", "mysql", "bigtop-keyring"),
    *("nvidia-container-toolkit", "cuda-archive-keyring"),
)
_CERTIFICATE = re.compile(
    r"-----BEGIN CERTIFICATE-----\n.*?-----END CERTIFICATE-----(?:\n|\Z)", re.S
)
_RAPIDS = "BEGIN : RAPIDS properties"
_RAPIDS_END = re.compile(r"#+ END\s+: RAPIDS properties")
_AMOUNT = "spark.executor.resource.gpu.amount=1"
_DISCOVERY = (
    "spark.executor.resource.gpu.discoveryScript=/usr/lib/spark/scripts/gpu/getGpusResources.sh"
)
_PROPERTY = re.compile(
    r"[ \t]*<property>\s*<name>([^<]*)</name>\s*<value>([^<]*)</value>\s*</property>[ \t]*\n?"
)
_GPU_PLUGIN = "yarn.nodemanager.resource-plugins"
_PROPERTIES = {
    "yarn.resource-types": {"yarn.io/gpu"},
    _GPU_PLUGIN: {"yarn.io/gpu"},
    f"{_GPU_PLUGIN}.gpu.allowed-gpu-devices": {"auto"},
    f"{_GPU_PLUGIN}.gpu.path-to-discovery-executables": {
        *("/usr/bin", "/usr/bin/nvidia-smi", "/usr/local/yarn-mig-scripts/"),
    },
}
_EXECUTOR = re.compile(
    r"\n?\[gpu\]\nmodule\.enabled=true\n(?:gpu\.major-device-number=\d*\n\n)?"
    r"\[cgroups\]\nroot=/sys/fs/cgroup\nyarn-hierarchy=yarn\n"
)
_SIGNED_BY = re.compile(r"^\s*deb(?:-src)?\s+\[[^\]]*\bsigned-by=([^\]\s,]+)", re.M)
_LOCAL = re.compile(r"^\s*deb\s+(?:\[[^\]]*\]\s*)?file:(?://)?(/\S+)", re.M)


def there(host: Host, path: str) -> bool:
    """By its path alone: nobody else writes it."""
    return host.readlink(path) is not None or host.exists(path)


def says(pattern: str) -> Finder:
    """A regular file in which the pattern is found."""
    compiled = re.compile(pattern, re.M)

    def find(host: Host, path: str) -> bool:
        return compiled.search(_text(host, path)) is not None

    return find


def only(*starts: str) -> Finder:
    """A file in which every line starts so; the last one may be cut off anywhere."""

    def find(host: Host, path: str) -> bool:
        text = _text(host, path)
        whole = [line for line in text.splitlines() if line.strip()]
        torn = whole.pop() if whole and not text.endswith("\n") else ""
        return (
            bool(whole or torn)
            and all(any(line.startswith(start) for start in starts) for line in whole)
            and any(torn.startswith(start) or start.startswith(torn) for start in starts)
        )

    return find


def has_no_key(host: Host, path: str) -> bool:
    """An apt source whose keyring is absent, empty or nothing that apt reads."""
    return any(not _is_ring(host, ring) for ring in _SIGNED_BY.findall(_text(host, path)))


def has_key(host: Host, path: str) -> bool:
    """An apt source whose keyring apt can read."""
    return bool(_SIGNED_BY.findall(_text(host, path))) and not has_no_key(host, path)


def has_no_directory(host: Host, path: str) -> bool:
    """An apt source of packages on a disk or in memory that are gone."""
    return any(not host.exists(place) for place in _LOCAL.findall(_text(host, path)))


def useless_ring(host: Host, path: str) -> bool:
    """A keyring of theirs that apt does not read: gpg's keybox, an error page, nothing."""
    name = path.rpartition("/")[2].removesuffix(".gpg")
    return name in _RINGS and not _is_ring(host, path)


def link_to_their_key(host: Host, path: str) -> bool:
    """A link into the directory in which they keep the signing key for a while."""
    return f"/{KEY_DIRECTORY}" in (host.readlink(path) or "")


def beside_their_key(host: Host, path: str) -> bool:
    """The certificate beside such a link, or beside one that they took away again."""
    keys = {"mok.pub": "mok.key", "MOK.der": "MOK.priv"}
    directory, _, name = path.rpartition("/")
    key = f"{directory}/{keys[name]}"
    return (
        host.readlink(path) is None
        and host.exists(path)
        and (link_to_their_key(host, key) or not there(host, key))
    )


def key_directory(host: Host, path: str) -> bool:
    """The directory of the signing key, with something of it in it, or emptied."""
    names = {name.rpartition("/")[2] for name in host.glob(path, "*")}
    return host.path(path, follow=False).is_dir() and (
        not names or bool(names & {"db.rsa", "db.der"})
    )


def own_key(host: Host, path: str) -> bool:
    """A private key that is a file: of DKMS or of the distribution, or put there by somebody."""
    return host.readlink(path) is None and host.exists(path)


def zeros(host: Host, path: str) -> bool:
    """A file of zeros, as far as its first and its last MiB say."""
    target = host.path(path, follow=False)
    if target.is_symlink() or not target.is_file():
        return False
    with target.open("rb") as stream:
        first = stream.read(1 << 20)
        stream.seek(max(0, target.stat().st_size - (1 << 20)))
        return not (first + stream.read()).strip(b"\0")


def unowned_module(host: Host, path: str) -> bool:
    """A kernel module that no package brought."""
    module = host.path(path)
    system = owned.system_of(module.parent)
    return system is None or not system.owns(module)


def in_store(host: Host, path: str) -> bool:
    """A JVM's key store with their alias."""
    return ALIAS in (keystore.certificates(host.read_bytes(path) or b"") or {})


def their_unit(host: Host, path: str) -> bool:
    """Their unit by its program, since ours has the same name; its link, which ours has not."""
    if host.readlink(path) is not None or not path.endswith(".service"):
        return there(host, path)
    return "apply-dataproc-gpu-config.sh" in _text(host, path)


def lines(pattern: str) -> Cutter:
    """Without the lines of this form, outside our own blocks."""
    compiled = re.compile(pattern)

    def cut(_: Host, text: str) -> str:
        kept = [
            x for x in text.splitlines(keepends=True) if not compiled.fullmatch(x.rstrip("\r\n"))
        ]
        return "".join(kept)

    return cut


def section_lines(section: str, pattern: str) -> Cutter:
    """The same in one section of an INI file."""
    compiled = re.compile(pattern)

    def cut(_: Host, text: str) -> str:
        inside, kept = False, []
        for line in text.splitlines(keepends=True):
            header = re.match(r"\s*\[([^\]]+)\]", line)
            if header:
                inside = header[1].strip().lower() == section.lower()
            if not (inside and compiled.fullmatch(line.rstrip("\r\n"))):
                kept.append(line)
        return "".join(kept)

    return cut


def spark(_: Host, text: str) -> str:
    """Without the block of RAPIDS properties, also one that was cut off, and the discovery line.

    What somebody else has set inside the block stays.
    """
    kept: list[str] = []
    inside = ended = False
    rest = text.splitlines(keepends=True)
    for number, line in enumerate(rest):
        bare = line.strip()
        if _RAPIDS in bare:
            inside, ended = True, any(_RAPIDS_END.match(one.strip()) for one in rest[number:])
            continue
        if inside and _RAPIDS_END.match(bare):
            inside = False
            continue
        theirs = bare.startswith("#") or bare == _AMOUNT
        inside = inside and (ended or theirs)
        if not (inside and theirs) and bare != _DISCOVERY:
            kept.append(line)
    return "".join(kept)


def executor(_: Host, text: str) -> str:
    """Without the sections that each of their runs appends to container-executor.cfg."""
    return _EXECUTOR.sub("", text)


def properties(_: Host, text: str) -> str:
    """Without the properties of YARN that name the GPU and that they set to this very value."""

    def judged(found: re.Match[str]) -> str:
        theirs = found[2].strip() in _PROPERTIES.get(found[1].strip(), ())
        return "" if theirs else found[0]

    return _PROPERTY.sub(judged, text)


def packages_directory(_: Host, text: str) -> str:
    """Without conda's package cache on a disk in memory that is gone."""
    kept = re.sub(r"(?m)^[ \t]*- /mnt/shm(?:/\S*)?[ \t]*\n?", "", text)
    # A list with nothing left in it would be a null, which conda refuses.
    return re.sub(r"(?m)^pkgs_dirs:[ \t]*\n(?![ \t]*-)", "", kept)


def authorities(host: Host, text: str) -> str:
    """Without the certificates that are those of their authority's file, there or set aside."""
    theirs: set[str] = set()
    for path in CA_FILES:
        theirs |= pem.fingerprints(host.read_bytes(path) or b"")
        theirs |= pem.fingerprints(kept.first(host, path))

    def judged(found: re.Match[str]) -> str:
        return "" if pem.fingerprints(found[0].encode()) <= theirs else found[0]

    return _CERTIFICATE.sub(judged, text)


def _is_ring(host: Host, path: str) -> bool:
    try:
        return bool(openpgp.read(host.read_bytes(path) or b""))
    except openpgp.OpenPGPError:
        return False


def _text(host: Host, path: str) -> str:
    target = host.path(path)
    if not target.is_file():
        return ""
    return (host.read_bytes(path) or b"")[: 1 << 20].decode("utf-8", "surrogateescape")
