"""What a file of others was before our first line came into it, so that it can be that again.

A translator takes its own lines out and leaves the rest; but a newline that was missing at the end,
doubled sections that it merged, and the mode before a password came in are not in the rest. So the
file is kept whole. It comes back only if nobody else has changed it since.
"""

from __future__ import annotations

import hashlib
from typing import Any, Optional

from installers.host import Host
from installers.journal import STATE_DIR, recall, remember

_DIRECTORY = f"{STATE_DIR}/originals"
_MEMORY = "originals"
# Every mark of ours has it. A file that says it by itself is not brought back whole, no more.
_NAME = "airlock"


def keep(host: Host, path: str, text: str, bare: str) -> None:
    """Keep ``text``, the file before us; ``bare`` is what it will be with our lines taken out."""
    known = recall(host, _MEMORY)
    if path in known or _NAME in text:
        return
    mode = host.path(path).stat().st_mode & 0o7777
    # It may hold what only its owner may read.
    host.write(_kept(path), text, mode=0o600)
    record = {"mode": mode, "sha256": _sha256(text), "bare": _sha256(bare)}
    remember(host, _MEMORY, {**known, path: record})


def restore(host: Host, path: str, bare: str) -> bool:
    """Put the file back. ``bare``: the present one without our lines. False: it is not the one."""
    known = recall(host, _MEMORY)
    record: dict[str, Any] = known.get(path, {})
    if not record or _NAME in bare:
        return False
    text = host.read(_kept(path))
    same = text is not None and _sha256(text) == record["sha256"]
    back = same and _sha256(bare) in (record["bare"], record["sha256"])
    host.write(path, text if back and text is not None else bare, mode=int(record["mode"]))
    remember(host, _MEMORY, {key: value for key, value in known.items() if key != path})
    host.remove(_kept(path))
    host.prune(_DIRECTORY)
    return True


def kept(host: Host, path: str) -> Optional[bytes]:
    """The file as it was before us, None where it is not kept."""
    return host.read_bytes(_kept(path)) if path in recall(host, _MEMORY) else None


def _kept(path: str) -> str:
    return f"{_DIRECTORY}/{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
