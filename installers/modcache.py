"""Built modules, kept by what they were built from.

An entry is a directory named by the sha256 of its inputs (kernel, headers, source, compiler,
fix-ups, make flags), holding unsigned stripped modules and ``manifest.json``. It is verified each
time it is read: what does not verify is moved to ``quarantine/``, never used and never deleted.
Unsigned, because the same build serves every signing key.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from installers.errors import NodeError
from installers.host import sync_directory

MANIFEST = "manifest.json"
SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """One verified build. ``details`` is what its builder noted (fix-ups, seconds, date)."""

    key: str
    inputs: dict[str, Any]
    modules: dict[str, bytes]
    details: dict[str, Any]


def key_of(inputs: dict[str, Any]) -> str:
    """sha256 of the inputs as canonical JSON."""
    text = json.dumps(inputs, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


class ModuleCache:
    """A directory of entries; several processes may use it at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, inputs: dict[str, Any]) -> Optional[Entry]:
        """The entry for these inputs, every byte verified, or None. Quarantines a broken one."""
        key = key_of(inputs)
        place = self._directory / key
        if not place.is_dir():
            return None
        try:
            return self._read(key, place)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as wrong:
            self._quarantine(place, str(wrong))
            return None

    def _read(self, key: str, place: Path) -> Entry:
        manifest = json.loads((place / MANIFEST).read_bytes())
        if manifest["schema"] != SCHEMA or key_of(manifest["inputs"]) != key:
            raise ValueError("the manifest belongs to other inputs")
        modules = {}
        for name, facts in manifest["files"].items():
            data = (place / name).read_bytes()
            if hashlib.sha256(data).hexdigest() != facts["sha256"]:
                raise ValueError(f"{name} is not what was built")
            modules[name] = data
        if not modules:
            raise ValueError("the entry holds no module")
        return Entry(key, manifest["inputs"], modules, dict(manifest["details"]))

    def put(
        self, inputs: dict[str, Any], modules: dict[str, bytes], details: dict[str, Any]
    ) -> Entry:
        """Store a build; whole or not at all. An entry that is there already is left as it is."""
        key = key_of(inputs)
        place = self._directory / key
        files = {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            for name, data in modules.items()
        }
        manifest = {"schema": SCHEMA, "inputs": inputs, "files": files, "details": details}
        temporary = self._directory / f".{key[:16]}-{secrets.token_hex(4)}"
        try:
            temporary.mkdir(parents=True)
            for name, data in modules.items():
                _write(temporary / name, data)
            _write(temporary / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
            sync_directory(temporary)
            # Fails when somebody else was faster; both built the same.
            with contextlib.suppress(FileExistsError):
                _rename_new(temporary, place)
            sync_directory(self._directory)
        except OSError as error:
            raise NodeError(
                f"the built modules cannot be kept: {error.strerror}", where=str(self._directory)
            ) from error
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return Entry(key, inputs, modules, details)

    def _quarantine(self, place: Path, why: str) -> None:
        """Move a broken entry out of the way, with the reason beside it."""
        aside = self._directory / "quarantine"
        aside.mkdir(exist_ok=True)
        target = aside / f"{place.name}-{int(time.time())}-{secrets.token_hex(2)}"
        with contextlib.suppress(FileNotFoundError):  # somebody else was faster
            place.rename(target)
            (target / "REASON").write_text(why + "\n", encoding="utf-8")


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _rename_new(source: Path, target: Path) -> None:
    """Rename a directory; FileExistsError when the target is there."""
    try:
        source.rename(target)
    except OSError:
        if target.is_dir():
            raise FileExistsError(str(target)) from None
        raise
