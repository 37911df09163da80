"""A user's own set-up in a profile, in place of ours or before it: a script, cloud-init, Ansible.

In ``profiles.toml``, the path relative to that file::

    [ours-alone]
    title = "What our clusters run today"
    script = "install_gpu_driver.sh"     # an init action: run as root, by its #! line
    # cloud_init = "user-data.yaml"      # or this: user-data for the image's own cloud-init
    # playbook = "site.yml"              # or this: for the image's own ansible-playbook, on itself;
                                         # the folder that it lies in is given to it

    installers = ["seal"]                # of ours, which run after it; may be left out
    driver = true                        # it brings NVIDIA's driver: then its modules are judged
    hosts = ["mirror.example.org"]       # what it will ask, as a firewall's list would have it
    minutes = 30                         # it must end in this time
    metadata = { cuda-version = "12.6" } # more attributes of the instance
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UsageError

#: Key of a profile -> what it is called in reports, and the packages one of which the image must
#: have: what runs it is the image's own.
KINDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "script": ("script", ()),
    "cloud_init": ("cloud-init", ("cloud-init",)),
    "playbook": ("playbook", ("ansible-core", "ansible")),
}
#: Keys that only such a profile may have.
KEYS = ("driver", "hosts", "minutes", "metadata")
MINUTES = 40
#: What cloud-init takes for user-data by its first line (its documentation, "User-Data formats").
_USER_DATA = (
    *("#cloud-config", "#!", "#cloud-boothook", "#include", "#cloud-config-archive"),
    *("#part-handler", "## template:", "#cloud-config-jsonp", "Content-Type:", "MIME-Version:"),
)
#: What the harness itself says of the environment; a profile that said it too would change it.
_RESERVED = ("http-proxy", "https-proxy", "no-proxy", "http-proxy-pem-uri", "invocation-type")
_MOST_FILES, _MOST_BYTES = 2000, 32 << 20


@dataclass(frozen=True)
class Foreign:
    """One such installer. ``sha256`` is over the names and contents of all its files.

    ``driver``: it brings the driver. ``hosts`` None: nobody has said what it asks.
    """

    kind: str
    packages: tuple[str, ...]
    path: Path
    sha256: str
    driver: bool = False
    hosts: tuple[str, ...] | None = None
    minutes: int = MINUTES
    metadata: Mapping[str, str] = field(default_factory=dict)

    def files(self) -> dict[str, bytes]:
        """What it is given, by name below its folder. UsageError if that has changed meanwhile."""
        found = _files(self.kind, self.path)
        if _digest(found) != self.sha256:
            raise UsageError(
                f"{self.path}: has changed since the profile was read", hint="run it again"
            )
        return found


class _Place:
    """Where in a profiles file something is wrong."""

    def __init__(self, path: Path, text: str, name: str) -> None:
        self.path, self.text, self.header = path, text, f"[{name}]"

    def error(self, key: str, what: str, hint: str = "") -> UsageError:
        from harness.catalog import line_of

        line = line_of(self.text, key, self.header)
        return UsageError(f"{self.path}:{line}: {self.header} {key}: {what}", hint=hint)


def read_foreign(path: Path, text: str, name: str, table: Mapping[str, Any]) -> Foreign | None:
    """What the profile ``name`` of the file ``path`` says of an installer that is not ours.

    None where it says nothing. UsageError names file, line and key.
    """
    place = _Place(path, text, name)
    named = [key for key in KINDS if key in table]
    if not named:
        for key in KEYS:
            if key in table:
                raise place.error(key, f"is for profiles with {', '.join(KINDS)}")
        return None
    if len(named) > 1:
        raise place.error(named[1], f"there is {named[0]} already", "make a profile of each")
    kind, packages = KINDS[named[0]]
    value = table[named[0]]
    if not isinstance(value, str) or not value:
        raise place.error(named[0], "must be the path of a file")
    file = (path.parent / value).resolve()
    try:
        files = _files(kind, file)
        _inspect(kind, file, files[file.name])
    except UsageError as error:
        raise place.error(named[0], error.message, error.hint) from error
    return Foreign(kind, packages, file, _digest(files), **_options(place, table))


def _options(place: _Place, table: Mapping[str, Any]) -> dict[str, Any]:
    found = {key: table[key] for key in KEYS if key in table}
    if not isinstance(found.get("driver", False), bool):
        raise place.error("driver", "must be true or false")
    if found.get("driver") and "driver" in table.get("installers", ()):
        raise place.error("driver", "the installer driver brings it: only one of them can")
    minutes = found.get("minutes", MINUTES)
    if isinstance(minutes, bool) or not isinstance(minutes, int) or not 0 < minutes <= 600:
        raise place.error("minutes", "must be a whole number from 1 to 600")
    if "hosts" in found:
        hosts = found["hosts"]
        if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
            raise place.error("hosts", "must be a list of names")
        found["hosts"] = tuple(hosts)
    metadata = found.get("metadata", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise place.error("metadata", "must be a table of texts")
    for key in metadata:
        if key in _RESERVED or key.startswith("airlock-"):
            raise place.error("metadata", f"{key} is the environment's", "a scenario sets it")
    return found


def _files(kind: str, path: Path) -> dict[str, bytes]:
    """Name below the folder -> content: of a playbook all that lies beside it, else one file."""
    try:
        if kind != "playbook":
            return {path.name: path.read_bytes()}
        found: dict[str, bytes] = {}
        size = 0
        for file in sorted(path.parent.rglob("*")):
            name = file.relative_to(path.parent)
            if any(part.startswith(".git") for part in name.parts) or not file.is_file():
                continue
            size += file.stat().st_size
            if len(found) == _MOST_FILES or size > _MOST_BYTES:
                raise UsageError(
                    f"{path.parent} holds more than {_MOST_FILES} files or {_MOST_BYTES >> 20} MiB",
                    hint="a playbook gets the whole folder it lies in: give it one of its own",
                )
            found[str(name)] = file.read_bytes()
        if path.name not in found:
            raise UsageError(f"{path} is not there")
        return found
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def _inspect(kind: str, path: Path, data: bytes) -> None:
    """What is certain to fail is refused at once. UsageError."""
    first = data.split(b"\n", 1)[0].decode(errors="replace")
    if kind == "script":
        if not first.startswith("#!"):
            raise UsageError(f"{path}:1: is no script: there is no #! line")
        if first.endswith("\r"):
            raise UsageError(
                f"{path}:1: its lines end with CR LF, and no shell is called {first[2:]!r}",
                hint="convert it (dos2unix)",
            )
    if kind == "cloud-init" and not first.startswith(_USER_DATA):
        raise UsageError(
            f"{path}:1: {first[:60]!r} is no user-data, and cloud-init would ignore it",
            hint="the first line of a configuration is '#cloud-config'",
        )
    if kind == "playbook" and not data.strip():
        raise UsageError(f"{path}: is empty")


def _digest(files: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, data in sorted(files.items()):
        total.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    return total.hexdigest()


def installers_of(
    path: Path, text: str, name: str, table: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[str, ...]:
    """The profile's installers of ours, of those ``known``. UsageError with the nearest name."""
    from harness.names import nearest

    place = _Place(path, text, name)
    value = table.get("installers", [])
    if not isinstance(value, list):
        raise place.error("installers", "must be a list of names")
    for each in value:
        if each not in known:
            raise place.error(
                "installers", f"there is no installer {each!r}", nearest(str(each), known)
            )
    return tuple(value)
