"""What is installed on a node, as a CycloneDX 1.6 bill of materials, made of the node's facts.

Everything in it was read on the node: packages in its package manager's database, the driver's and
the modules' bytes, conda packages in the record of what was unpacked. It is text from a node, so
nothing in it is believed: what has the wrong shape is left out, and the JSON is plain ASCII.

The same facts give the same bytes, serial number included (RFC 9562, version 5, of the content).
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclonedx.model import Property
    from cyclonedx.model.component import Component

    from harness.station import Station
    from reports.model import Report

#: The file of a capsule. CycloneDX 1.6, "Recognized file patterns".
NAME = "sbom.cdx.json"
#: Package manager of an os-release ID; every other has dpkg. Package URL types "deb" and "rpm".
_RPM = frozenset({"rhel", "rocky", "almalinux", "centos", "fedora", "amzn", "ol", "sles"})
#: What of the driver installer's provenance says where the modules come from.
_DRIVER = ("kernel", "signed", "certificate", "cache", "cache_key", "built")


def keep(station: Station, facts: Mapping[str, Any]) -> None:
    """Write the bill of a cell's node into its capsule."""
    image, digest = station.cell.image.name, station.record.image_digest or ""
    text = bill(station.cell.id, image, digest, facts)
    (station.capsule / NAME).write_text(text, encoding="ascii")


def of_report(report: Report, directory: Path, cell_id: str) -> str:
    """The bill of one cell of a run, made again from its facts. ``directory``: of the report.

    UsageError for a cell that the report does not have, or that left no facts.
    """
    from harness.errors import UsageError
    from harness.names import nearest

    cells = {cell.id: cell for cell in report.cells}
    if cell_id not in cells:
        raise UsageError(f"--sbom: no cell {cell_id!r} in this run", hint=nearest(cell_id, cells))
    cell = cells[cell_id]
    run = directory / cell.inherited.report if cell.inherited else directory
    capsule = run / "cells" / cell.id
    # A report may come from anywhere, and ids are open words.
    if not capsule.resolve().is_relative_to((run / "cells").resolve()):
        raise UsageError(f"--sbom: {cell_id!r} is no name of a directory")
    path = capsule / "facts.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = f"{path}: {error.strerror}"
        raise UsageError(why, hint="a cell whose node never came up has no facts") from error
    except ValueError as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    if not isinstance(facts, dict):
        raise UsageError(f"{path}: not the facts of a node")
    return bill(cell.id, cell.image.name, cell.image.digest, facts)


def bill(cell: str, image: str, digest: str, facts: Mapping[str, Any]) -> str:
    """The bill as JSON. ``digest``: ``sha256:<hex>`` of what was booted, or empty. Never raises for
    what a node said.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.dependency import Dependency
    from cyclonedx.output.json import JsonV1Dot6

    from harness.compose import VERSION

    system = _table(facts.get("os"))
    root = Component(
        name=_text(system.get("id")) or "unknown",
        version=_text(system.get("version_id")) or None,
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref="node",
        hashes=_hashes(digest.removeprefix("sha256:")),
        properties=_properties({"cell": cell, "image": image}),
    )
    parts = {str(part.bom_ref.value): part for part in _parts(facts, system)}
    bom = Bom(components=parts.values())
    bom.metadata.component = root
    bom.metadata.timestamp = _moment(facts.get("received"))
    bom.metadata.tools.components.add(
        Component(name="airlock", version=VERSION, type=ComponentType.APPLICATION, bom_ref="tool")
    )
    # register_dependency() looks through all of them for each of them.
    held = [Dependency(part.bom_ref) for part in parts.values()]
    bom.dependencies = [Dependency(root.bom_ref, held)]
    bom.serial_number = uuid.UUID(int=0)
    content = JsonV1Dot6(bom).output_as_string(indent=1)
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, hashlib.sha256(content.encode()).hexdigest())
    # Only the serial number differs: to write it all a second time would take as long again.
    return content.replace(uuid.UUID(int=0).urn, bom.serial_number.urn, 1) + "\n"


def _parts(facts: Mapping[str, Any], system: Mapping[str, Any]) -> Iterator[Component]:
    """Everything that is installed, each with a reference of its own."""
    yield from _packages(_table(facts.get("packages")), system)
    for said in _tables(facts.get("installers")):
        if said.get("name") == "driver":
            yield from _driver(_table(said.get("provenance")))
    for module in _tables(facts.get("modules")):
        yield from _module(module)
    for name, environment in _table(facts.get("environments")).items():
        yield from _environment(_text(name), _table(environment))


def _packages(found: Mapping[str, Any], system: Mapping[str, Any]) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType

    distribution = _text(system.get("id"))
    kind = "rpm" if distribution in _RPM else "deb"
    release = f"{distribution}-{_text(system.get('version_id'))}"
    for key, version in found.items():
        name = _text(key)
        if name and _text(version):
            yield Component(
                name=name,
                version=_text(version),
                type=ComponentType.LIBRARY,
                bom_ref=f"package:{name}",
                purl=_purl(kind, distribution, name, _text(version), distro=release),
            )


def _driver(provenance: Mapping[str, Any]) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType

    if not _text(provenance.get("driver")):
        return
    source, compiler = _table(provenance.get("source")), _table(provenance.get("compiler"))
    yield Component(
        name="nvidia-kernel-modules",
        version=_text(provenance["driver"]),
        type=ComponentType.DEVICE_DRIVER,
        bom_ref="driver",
        properties=_properties(
            {f"driver:{key}": provenance.get(key) for key in _DRIVER}
            | {f"driver:source:{key}": source.get(key) for key in ("name", "version", "sha256")}
            | {f"driver:compiler:{key}": compiler.get(key) for key in ("name", "version")}
        ),
    )


def _module(module: Mapping[str, Any]) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType

    path = _text(module.get("path"))
    if not path:
        return
    signer = _table(module.get("signer"))
    told = ("kernel", "vermagic", "body_sha256", "signatures", "cert_sha256", "digest_ok", "owner")
    yield Component(
        name=path,
        version=_text(module.get("version")) or None,
        type=ComponentType.FILE,
        bom_ref=f"module:{path}",
        hashes=_hashes(_text(module.get("sha256"))),
        properties=_properties(
            {f"module:{key}": module.get(key) for key in told}
            | {f"module:signer:{key}": signer.get(key) for key in ("issuer_cn", "serial")}
        ),
    )


def _environment(name: str, environment: Mapping[str, Any]) -> Iterator[Component]:
    from cyclonedx.model.component import Component, ComponentType

    if not name or not environment:
        return
    yield Component(
        name=name,
        type=ComponentType.APPLICATION,
        bom_ref=f"environment:{name}",
        properties=_properties(
            {f"environment:{k}": environment.get(k) for k in ("lock", "prefix")}
        ),
    )
    for package in _list(environment.get("packages")):
        # conda's own way to name one: NAME-VERSION-BUILD, neither of the last two with a dash.
        found = _text(package).rsplit("-", 2)
        if len(found) == 3 and all(found):
            yield Component(
                name=found[0],
                version=found[1],
                type=ComponentType.LIBRARY,
                bom_ref=f"environment:{name}:{found[0]}",
                purl=_purl("conda", "", found[0], found[1], build=found[2]),
                properties=_properties({"environment": name}),
            )


def _purl(kind: str, namespace: str, name: str, version: str, **qualifiers: str) -> Any:
    """A package URL, None for a name that none can hold. Some are refused only when written."""
    from packageurl import PackageURL

    try:
        url = PackageURL(kind, namespace or None, name, version, qualifiers)
        url.to_string()
    except (TypeError, ValueError):
        return None
    return url


def _hashes(sha256: str) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType

    if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
        return []
    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]


def _properties(values: Mapping[str, Any]) -> list[Property]:
    """Properties of our own namespace; what is not known is left out."""
    from cyclonedx.model import Property

    known = {key: _text(value) for key, value in values.items()}
    return [Property(name=f"airlock:{key}", value=value) for key, value in known.items() if value]


def _moment(seconds: object) -> datetime:
    """When the facts were received; the epoch where that is not known."""
    try:
        return datetime.fromtimestamp(float(seconds), UTC)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _text(value: object) -> str:
    """A plain value as text; empty for what is no plain value. Half a character is spelled out."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        return ""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _tables(value: object) -> Iterable[Mapping[str, Any]]:
    return [item for item in _list(value) if isinstance(item, Mapping)]
