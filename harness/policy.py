"""Reading what a gate is given: a policy, waivers, and the image that is to be released."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from harness.catalog import MATRICES, check_keys, line_of, read_toml
from harness.errors import UsageError
from harness.names import nearest
from reports.model import Subject
from reports.policy import Policy, Waiver

POLICIES = MATRICES / "policies"
T = TypeVar("T")


@dataclass(frozen=True)
class PolicyFile:
    """A policy, and the SHA-256 of its file (lower-case hex; empty without one)."""

    policy: Policy
    sha256: str = ""


def load_policy(name: str | None) -> PolicyFile:
    """A policy by path, or by the name of one that ships (``release``); None: the default.

    UsageError with file, line and nearest name.
    """
    if name is None:
        return PolicyFile(Policy())
    path = _find(name)
    text, data = read_toml(path)
    tables = {
        field.encode_name: field.type
        for field in msgspec.structs.fields(Policy)
        if field.name != "name"
    }
    check_keys(path, text, data, tables, "")
    for table, kind in tables.items():
        if table not in data:
            continue
        if not isinstance(data[table], dict):
            raise UsageError(f"{path}:{line_of(text, table)}: {table} must be written [{table}]")
        _convert(path, text, data[table], kind, f"[{table}]")
    policy = msgspec.convert({**data, "name": path.stem}, Policy)
    return PolicyFile(policy, hashlib.sha256(text.encode()).hexdigest())


def load_waivers(path: Path | None) -> list[Waiver]:
    """The waivers of a file, in its order. UsageError with file, line and nearest name."""
    if path is None:
        return []
    text, data = read_toml(path)
    check_keys(path, text, data, {"waiver"}, "")
    tables = data.get("waiver", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        line = line_of(text, "waiver")
        raise UsageError(f"{path}:{line}: waivers must be written [[waiver]]")
    return [
        _convert(path, text, table, Waiver, "[[waiver]]", nth) for nth, table in enumerate(tables)
    ]


def load_subject(text: str) -> Subject:
    """The image that is to be released: ``sha256:HEX``, a disk file, or a JSON file of a Subject.

    UsageError for what is none of these.
    """
    scheme, _, value = text.partition(":")
    if scheme == "sha256":
        if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
            raise UsageError(f"--subject {text}: sha256: is followed by 64 lower-case hex digits")
        return Subject(disk_sha256=value)
    path = Path(text)
    try:
        if path.suffix != ".json":
            return Subject(disk_sha256=sha256_of(path))
        return msgspec.json.decode(path.read_bytes(), type=Subject)
    except OSError as error:
        raise UsageError(f"--subject {text}: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        known = [field.name for field in msgspec.structs.fields(Subject)]
        hint = f"an object of {', '.join(known)}"
        raise UsageError(f"--subject {text}: {error}", hint=hint) from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find(name: str) -> Path:
    path = Path(name)
    if path.exists() or path.suffix == ".toml":
        return path
    shipped = POLICIES / f"{name}.toml"
    if shipped.exists():
        return shipped
    names = [found.stem for found in POLICIES.glob("*.toml")]
    raise UsageError(f"no policy {name!r}", hint=nearest(name, names))


def _convert(
    path: Path, text: str, table: dict[str, Any], kind: type[T], header: str, nth: int = 0
) -> T:
    """A table as a type; UsageError names the line of what does not fit."""
    fields = msgspec.structs.fields(kind)  # type: ignore[arg-type]
    check_keys(path, text, table, [field.encode_name for field in fields], header, nth)
    for field in fields:
        if field.required and field.encode_name not in table:
            line = line_of(text, "", header, nth)
            raise UsageError(f"{path}:{line}: {header} lacks {field.encode_name!r}")
    for field in fields:
        if field.encode_name in table:
            try:
                msgspec.convert(table[field.encode_name], field.type)
            except msgspec.ValidationError as error:
                line = line_of(text, field.encode_name, header, nth)
                what = str(error).partition(" - at ")[0]
                raise UsageError(f"{path}:{line}: {field.encode_name}: {what}") from error
    return msgspec.convert(table, kind)
