"""Files of certificates that programs bring along: conda's, and certifi's in every environment.

An update of their package overwrites them; the next run puts ours back. They are often hard links
into a package cache: a new file takes their place, so the cache stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable

from installers import asn1, pem
from installers.dialects import packages
from installers.dialects.base import marks, split
from installers.host import Host

_LABEL = "ca"
# Debian's certifi reads the system's bundle; it has no file of its own here.
_SYSTEM = ("/usr/local/lib",)


def find(host: Host) -> list[str]:
    """Node paths of the bundles, each once."""
    libraries = list(_SYSTEM)
    found: list[str] = []
    for root in packages.conda_roots(host):
        environments = f"{root}/envs"
        prefixes = [root, *(host.glob(environments, "*") if host.exists(environments) else [])]
        found += [f"{prefix}/ssl/cacert.pem" for prefix in prefixes]
        libraries += [f"{prefix}/lib" for prefix in prefixes]
    for library in libraries:
        for version in host.glob(library, "python3.*") if host.exists(library) else []:
            for packages_ in ("site-packages", "dist-packages"):
                found.append(f"{version}/{packages_}/certifi/cacert.pem")
                found.append(f"{version}/{packages_}/pip/_vendor/certifi/cacert.pem")
    # A link leads to a bundle that is looked after elsewhere.
    kept = [path for path in found if host.exists(path) and host.readlink(path) is None]
    return list(dict.fromkeys(host.real(path) for path in kept))


def ours(host: Host, path: str) -> set[str]:
    """SHA-256 of the certificates in our part of a bundle."""
    return pem.fingerprints(split(host.read(path) or "", path, _LABEL)[1].encode())


def trusted(host: Host, path: str) -> set[str]:
    """SHA-256 of every certificate of a bundle."""
    return pem.fingerprints(host.read_bytes(path) or b"")


def make(host: Host, path: str, wanted: Iterable[asn1.Certificate]) -> None:
    """Let our part hold exactly those of the certificates that the bundle does not have."""
    foreign = split(host.read(path) or "", path, _LABEL)[0]
    known = pem.fingerprints(foreign.encode("utf-8", "surrogateescape"))
    added = [
        pem.encode(certificate).decode()
        for certificate in wanted
        if certificate.sha256 not in known
    ]
    if added:
        begin, end = marks(_LABEL)
        if foreign and not foreign.endswith("\n"):
            foreign += "\n"
        foreign += f"{begin}\n{''.join(added)}{end}\n"
    mode = host.path(path).stat().st_mode & 0o7777
    host.write(path, foreign, mode=mode)
