"""What the driver's modules were taken from: the cache's entry that lies beside them.

The record beside it is the installer's own word. The entry is not: it is signed, and the hashes in
it are those of the modules before they were signed.
"""

from __future__ import annotations

import json
from typing import Any, Optional

from installers import audit
from installers.cache import manifest
from installers.cache.manifest import Trust
from installers.collect.reader import Reader
from installers.errors import NodeError
from installers.kernels import ENTRY, module_directory

_TREE = "/lib/modules"


def collect(reader: Reader) -> list[dict[str, Any]]:
    """One object for each kernel with modules of ours, by release.

    ``outcome`` is hit or miss, ``store`` where a hit came from, ``files`` name -> SHA-256 in the
    entry. ``driver`` and ``made_for`` are the release and the kernel that the record names.
    ``signer`` is the fingerprint of the certificate in it, None when it is not signed, and
    ``against`` why the signature is not that certificate's, or why there is no entry; else empty.
    """
    found = []
    for kernel in reader.names(_TREE):
        text = reader.text(f"{module_directory(kernel)}/{audit.RECORD}")
        if text is not None:
            found.append({"kernel": kernel, **_recorded(text), **_entry(reader, kernel, text)})
    return found


def _recorded(text: str) -> dict[str, Optional[str]]:
    provenance = _provenance(text)
    fields = {
        "key": "cache_key",
        "outcome": "cache",
        "store": "cache_store",
        "driver": "driver",
        "made_for": "kernel",
    }
    return {name: provenance.get(field) for name, field in fields.items()}


def _provenance(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)["provenance"]
        return found if isinstance(found, dict) else {}
    except (ValueError, LookupError, TypeError):
        return {}


def _entry(reader: Reader, kernel: str, text: str) -> dict[str, Any]:
    nothing: dict[str, Any] = {"signer": None, "files": {}}
    data = reader.data(f"{module_directory(kernel)}/{ENTRY}")
    if data is None:
        return {**nothing, "against": f"there is no {ENTRY} beside the modules"}
    try:
        entry, signature = manifest.decode(data, str(_provenance(text).get("cache_key")))
    except NodeError as wrong:
        return {**nothing, "against": wrong.what}
    signer = manifest.fingerprint(signature) if signature is not None else None
    why = Trust(frozenset({signer or ""})).against(entry, signature)
    files = {name: content.sha256 for name, content in entry.files.items()}
    return {"signer": signer, "files": files, "against": why or ""}
