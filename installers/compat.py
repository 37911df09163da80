"""Which kernels take module signing keys from UEFI ``db``: a table, and the question to it.

Mainline Linux does not do it; distributions carry patches, and no package says so. Asked on the
node for the kernel that will boot, and on the control side for an image before anything is built.
"""

from __future__ import annotations

import json
import pkgutil
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional


@dataclass(frozen=True)
class Trust:
    """The answer for one kernel. ``trusts_db`` None: nobody has measured it."""

    trusts_db: Optional[bool]
    kernel: str
    reason: str = ""
    remedy: str = ""
    evidence: str = ""


def load_data(name: str) -> Any:
    """A JSON file of ``installers/data``, also from inside the ``.pyz``."""
    data = pkgutil.get_data("installers", f"data/{name}")
    if data is None:
        raise FileNotFoundError(f"installers/data/{name}")
    return json.loads(data)


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    table: dict[str, Any] = load_data("kernel_trust.json")
    return table


def numbers(version: str) -> tuple[int, ...]:
    """The leading dotted numbers of a version or kernel release, for comparisons."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def within(version: str, span: list[Optional[str]]) -> bool:
    """Whether a version lies in ``[from, below)``; null on either side means no limit."""
    lowest, below = span
    here = numbers(version)
    if lowest is not None and here < numbers(lowest):
        return False
    return below is None or here < numbers(below)


def db_trust(os_id: str, kernel: str) -> Trust:
    """Does this kernel (a release such as ``6.1.0-56-cloud-amd64``) trust UEFI db for modules?"""
    for rule in _table()["rules"]:
        if rule["os"] == os_id and numbers(kernel) and within(kernel, rule["kernel"]):
            return Trust(
                rule["trusts_db"],
                kernel,
                rule.get("reason", ""),
                rule.get("remedy", ""),
                rule["evidence"],
            )
    return Trust(None, kernel)


def image_trust(os_id: str, version_id: str) -> Trust:
    """The same for an image that does not exist yet, by the kernel its release ships."""
    for release in _table()["releases"]:
        if (release["os"], release["version_id"]) == (os_id, version_id):
            return db_trust(os_id, release["kernel"])
    return Trust(None, "")
