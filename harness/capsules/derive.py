"""A customer's environment out of a capsule: a scenario, an image, a profile, and what is lacking.

Everything here is text from a node. Only numbers, known words and names of a strict shape get into
the scenario; what does not fit is told as not rebuilt.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.capsules import network
from harness.capsules.archive import Capsule
from harness.cells import Image

MIB = 1 << 20
#: The lab can make a disk larger, not smaller; and a host has no room for any size.
_LARGEST_MB = 512 * 1024
_CLOCK_SECONDS = 300
_LEAST_VOLUME_MB = 8 * 1024
#: A root that is fuller than this is filled in the lab too.
_FULL = 0.1
_LITTLE_MB = 1024
#: Modules that a renamed one can stand for; see harness.lab.renamed.
_MODULES = ("nouveau",)
DEFAULT_IMAGE, DEFAULT_PROFILE = "debian-12", "driver"


@dataclass
class Derived:
    """What a capsule becomes.

    ``tables``: a scenario's, as its file has them. ``known``: (what, value) that was rebuilt;
    ``lost``: (what, why) that was not. ``explains``: checks whose failure these conditions are made
    to show.
    """

    image: str = DEFAULT_IMAGE
    profile: str = DEFAULT_PROFILE
    tables: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: list[tuple[str, str]] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)
    explains: list[str] = field(default_factory=list)

    def put(self, table: str, **values: Any) -> None:
        """Adds keys to a table of the scenario."""
        self.tables.setdefault(table, {}).update(values)


def derive(capsule: Capsule, images: Mapping[str, Image]) -> Derived:
    """Everything that can be told from a capsule. Raises UsageError where it has no facts."""
    from harness.errors import UsageError

    facts = capsule.table("facts.json")
    if not facts:
        raise UsageError(f"{capsule.path} holds no facts", hint="check it, or capture again")
    found = Derived()
    _image(found, facts, images)
    _profile(found, facts)
    network.derive(found, facts, capsule.table("metadata.json"), capsule.table("expect.json"))
    _firmware(found, facts, capsule.table("expect.json"))
    _clock(found, facts)
    _disks(found, facts, images[found.image])
    _modules(found, facts)
    _rest(found, facts)
    return found


def scenario_text(found: Derived, title: str, failed: Sequence[str]) -> str:
    """The scenario as a file. ``failed``: checks that failed on the node, the gravest first."""
    named = next((check for check in failed if check in found.explains), next(iter(failed), ""))
    # On a node with an expired CA the installers stop before there is anything to check.
    stage = found.tables.get("scenario", {}).get("stage", "node")
    head = {
        "title": title,
        **found.tables.get("scenario", {}),
        "stage": stage,
        **({"named_by": named, "expected": "named"} if named else {}),
    }
    if stage == "build":
        head |= {"named_by": found.explains[0], "expected": "named"}
    tables = {"scenario": head, **{k: v for k, v in found.tables.items() if k != "scenario"}}
    return "\n".join(_toml(name, values) for name, values in tables.items())


def _toml(table: str, values: Mapping[str, Any]) -> str:
    lines = [f"{key} = {_value(value)}" for key, value in values.items()]
    return "\n".join([f"[{table}]", *lines, ""])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_value, value))}]"
    # A basic string of TOML: escapes are JSON's, but for what lies beyond the basic plane.
    escaped = "".join(_escaped(character) for character in str(value))
    return f'"{escaped}"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    plain = " " <= character < "\x7f"
    return character if plain else f"\\U{ord(character):08x}"


def table(value: Any) -> dict[str, Any]:
    """A part of facts that should be an object; ``{}`` where it is something else."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> Iterator[dict[str, Any]]:
    """Those of a list's things that are objects."""
    yield from (one for one in (value if isinstance(value, list) else ()) if isinstance(one, dict))


def _image(found: Derived, facts: Mapping[str, Any], images: Mapping[str, Image]) -> None:
    system, kernel = table(facts.get("os")), table(facts.get("kernel"))
    family, version = str(system.get("id")), str(system.get("version_id"))
    release = str(kernel.get("release") or "")
    fits = [one for one in images.values() if (one.family, one.version) == (family, version)]
    plain = [one for one in fits if not one.packages]
    backports = "+bpo" in release or "~bpo" in str(kernel.get("version") or "")
    chosen = [one for one in plain if bool(one.archives) is backports] or plain
    if not chosen:
        found.lost.append(
            ("image", f"there is none of {family} {version}; it is {found.image} (or --image)")
        )
    else:
        found.image = chosen[0].name
        found.known.append(("image", f"{found.image}, of {family} {version}"))
    if release:
        found.lost.append(("kernel", f"{release}: the lab takes the newest of its image"))


def _profile(found: Derived, facts: Mapping[str, Any]) -> None:
    names = {str(one.get("name")) for one in rows(facts.get("installers"))}
    if {"deferred", "environments", "keyrings"} & names:
        found.profile = "full"
    if names:
        found.known.append(("profile", f"{found.profile}, of {', '.join(sorted(names))}"))
    else:
        found.lost.append(
            ("what is installed", f"not by our installers; the lab has its profile {found.profile}")
        )


def _firmware(found: Derived, facts: Mapping[str, Any], expect: Mapping[str, Any]) -> None:
    state = table(facts.get("secure_boot"))
    enabled = state.get("enabled")
    if enabled is None:
        found.lost.append(("Secure Boot", "the capsule does not say whether it was on"))
        return
    if not enabled:
        found.put("firmware", secure_boot=bool(expect.get("secure_boot")), switched_off=True)
        found.explains.append("secure-boot.enabled")
        found.known.append(("Secure Boot", "off"))
        return
    found.known.append(("Secure Boot", "on"))
    signing = table(facts.get("signing")).get("certificate_sha256") or expect.get("cert_sha256")
    db = [one.get("sha256") for one in rows(state.get("db"))]
    if signing and db and signing not in db:
        found.put("firmware", certificate=False)
        found.explains.append("secure-boot.db-certificate")
        found.known.append(("signing certificate", "not in the firmware's db"))


def _clock(found: Derived, facts: Mapping[str, Any]) -> None:
    clock, received = facts.get("clock"), facts.get("received")
    if not isinstance(clock, (int, float)) or not isinstance(received, (int, float)):
        return
    ahead = clock - received
    if abs(ahead) > _CLOCK_SECONDS:
        found.put("clock", offset_hours=round(ahead / 3600, 3))
        found.explains.append("system.clock")
        found.known.append(("clock", f"{ahead / 3600:+.1f} hours"))


def _disks(found: Derived, facts: Mapping[str, Any], image: Image) -> None:
    root = next((one for one in rows(facts.get("disk")) if one.get("path") == "/"), {})
    size, free = (_megabytes(root.get(key)) for key in ("size", "free"))
    if not size:
        found.lost.append(("disk", "the capsule does not tell its size"))
    elif size > _LARGEST_MB:
        found.lost.append(("disk", f"{size} MiB: the lab's are {_LARGEST_MB} MiB at most"))
    elif size <= image.disk_mb:
        found.lost.append(("disk", f"{size} MiB: the lab's have {image.disk_mb} MiB at least"))
    else:
        # A file system is smaller than its disk, by some percent of inodes and journal.
        found.put("disk", size_mb=_disk_of(size))
        found.known.append(("disk", f"{_disk_of(size)} MiB"))
    if size and free is not None and free < max(size * _FULL, _LITTLE_MB):
        found.put("disk", free_mb=max(free, 1))
        found.explains.append("system.disk")
        found.known.append(("free space", f"{free} MiB"))
    idle = [
        mb
        for one in rows(facts.get("volumes"))
        if not one.get("uses") and (mb := _megabytes(one.get("size")) or 0) >= _LEAST_VOLUME_MB
    ]
    if idle:
        found.put("volume", size_mb=min(idle[0], _LARGEST_MB))
        found.explains.append("system.volumes")
        found.known.append(("unused volume", f"{idle[0]} MiB"))
    if len(idle) > 1:
        found.lost.append(("volumes", f"{len(idle) - 1} more that nobody uses: the lab adds one"))


def _disk_of(size: int) -> int:
    """The disk of a file system of so many MiB: sold in whole GiB, and ext4 takes under 5 %."""
    return -(-round(size * 1.02) // 1024) * 1024


def _megabytes(value: Any) -> int | None:
    return value // MIB if isinstance(value, int) and value >= 0 else None


def _modules(found: Derived, facts: Mapping[str, Any]) -> None:
    loaded = facts.get("loaded_modules")
    for name in _MODULES:
        if isinstance(loaded, list) and name in loaded:
            found.put("module", name=name)
            found.explains.append(f"modules.{name}")
            found.known.append(("loaded module", f"{name}, by one of its name"))


def _rest(found: Derived, facts: Mapping[str, Any]) -> None:
    """What no lab of ours makes, if the node had it."""
    gpu = table(facts.get("gpu"))
    if gpu.get("cards") or gpu.get("devices") or gpu.get("pci"):
        found.lost.append(("cards", "the lab's machines have no GPU"))
    failed = table(facts.get("systemd")).get("failed")
    if isinstance(failed, list) and failed:
        units = ", ".join(re.sub(r"[^\w.@:-]", "?", str(unit)) for unit in failed[:5])
        found.lost.append(("failed units", units))
    packages = table(facts.get("packages"))
    if packages:
        found.lost.append(("packages", "the versions are those of the lab's mirrors today"))
    if rows_of := list(rows(facts.get("key_servers"))):
        found.lost.append(("scripts", f"{len(rows_of)} that ask key servers"))
