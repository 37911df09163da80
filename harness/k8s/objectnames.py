"""Names: the release's, short and always the same, and the limits of every object's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from harness.errors import UsageError

Object = dict[str, Any]
#: Sub-charts put up to 35 characters behind a release's name, and a Job may have 63. Below this
#: every name of the operator's chart is within its limit.
LONGEST_RELEASE = 28
_DIGITS = 6
#: The API server's limits. A Job's name becomes a label of its pods, a CronJob's gets 11 more.
_LIMITS = {"Service": 63, "Job": 63, "CronJob": 52, "Namespace": 63}
_OTHER = 253
_LABEL = 63
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
#: A DNS subdomain, as names of most objects, of releases and of resources are.
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_PATH_NAMES = "rbac.authorization.k8s.io/"


class Breach(NamedTuple):
    """A name that the API server would refuse: of which object, where, and why."""

    object: str
    where: str
    why: str


def release_name(wanted: str, limit: int = LONGEST_RELEASE) -> str:
    """``wanted`` if it is short and valid; else its beginning and a hash of the whole.

    The same text gives the same name on every run and machine, and texts that differ give names
    that differ. UsageError if there is nothing in it that a name could be made of.
    """
    if len(wanted) <= limit and SUBDOMAIN.fullmatch(wanted):
        return wanted
    plain = re.sub(r"[^a-z0-9]+", "-", wanted.lower()).strip("-")
    if not plain:
        raise UsageError(f"release = {wanted!r}: no name can be made of it", hint="use a-z and 0-9")
    digest = hashlib.sha256(wanted.encode()).hexdigest()[:_DIGITS]
    return f"{plain[: limit - _DIGITS - 1].rstrip('-')}-{digest}"


def is_label_value(text: str) -> bool:
    """Whether a label may have this value; it may be empty."""
    return len(text) <= _LABEL and _LABEL_VALUE.fullmatch(text) is not None


def breaches(objects: Iterable[Object]) -> list[Breach]:
    """Names, label values and keys that are over the limits or badly formed."""
    found: list[Breach] = []
    for item in objects:
        meta = item.get("metadata") or {}
        kind, name = str(item.get("kind")), str(meta.get("name") or "")
        label = f"{kind}/{name}"
        found += (Breach(label, where, why) for where, why in _of(item, kind, name, meta))
    return found


def _of(item: Object, kind: str, name: str, meta: Object) -> list[tuple[str, str]]:
    limit = _LIMITS.get(kind, _OTHER)
    found = []
    if not name:
        return [] if meta.get("generateName") else [("metadata.name", "is missing")]
    if len(name) > limit:
        found.append(("metadata.name", f"has {len(name)} characters, a {kind} may have {limit}"))
    shape = _LABEL_NAME if kind in ("Service", "Namespace") else SUBDOMAIN
    if not str(item.get("apiVersion", "")).startswith(_PATH_NAMES) and not shape.fullmatch(name):
        found.append(("metadata.name", "may have a-z, 0-9 and - only, and dots in most kinds"))
    spec = item.get("spec") if isinstance(item.get("spec"), dict) else {}
    assert isinstance(spec, dict)
    template = spec.get("template") if isinstance(spec.get("template"), dict) else {}
    assert isinstance(template, dict)
    for where, labels in (
        ("metadata.labels", meta.get("labels")),
        ("spec.template.metadata.labels", (template.get("metadata") or {}).get("labels")),
        ("spec.selector.matchLabels", _selector(spec)),
    ):
        for key, value in (labels or {}).items():
            if not isinstance(value, str):
                found.append((f"{where}.{key}", f"{value!r} is not a text: quote it"))
            elif not is_label_value(value):
                found.append((f"{where}.{key}", f"{value!r} is no label's value (63 characters)"))
    return found


def _selector(spec: Object) -> Any:
    selector = spec.get("selector")
    return selector.get("matchLabels") if isinstance(selector, dict) else None
