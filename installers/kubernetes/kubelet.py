"""``resolvConf`` of kubelet's configuration, in YAML or JSON: what pods get for their resolv.conf.

A node's own 127.0.0.53 in a pod is the pod itself: CoreDNS would ask itself ("Loop detected").
"""

from __future__ import annotations

import json
import re
from typing import Any, Optional

from installers import originals
from installers.collect.kubernetes import KUBELET_CONFIGS, RESOLV_CONF, kubelet_setting
from installers.collect.resolver import UPSTREAM
from installers.errors import NodeError
from installers.host import Host
from installers.journal import recall, remember

_MEMORY = "kubernetes-kubelet"
_LINE = re.compile(rf"^{RESOLV_CONF}:.*\n?", re.M)


def inspect(host: Host) -> dict[str, Any]:
    """``kubelet <path>`` -> its resolvConf, of every configuration there is."""
    return {
        f"kubelet {path}": _read(path, text)
        for path in KUBELET_CONFIGS
        if (text := host.read(path)) is not None
    }


def desired(host: Host) -> dict[str, Any]:
    """The same, with resolved's list."""
    return dict.fromkeys(inspect(host), UPSTREAM)


def apply(host: Host, path: str) -> None:
    """Set it in one file."""
    text = host.read(path) or ""
    before = _read(path, text)
    known = recall(host, _MEMORY)
    if path not in known:
        remember(host, _MEMORY, {**known, path: before})
        originals.keep(host, path, text, put(path, put(path, text, UPSTREAM), before))
    host.write(path, put(path, text, UPSTREAM), mode=host.path(path).stat().st_mode & 0o7777)


def remove(host: Host) -> None:
    """As it was before, in every file that we wrote into."""
    for path, before in recall(host, _MEMORY).items():
        text = host.read(path)
        if text is None or _read(path, text) != UPSTREAM:
            continue
        bare = put(path, text, before)
        if not originals.restore(host, path, bare):
            host.write(path, bare, mode=host.path(path).stat().st_mode & 0o7777)
    remember(host, _MEMORY, {})


def put(path: str, text: str, value: Optional[str]) -> str:
    """The configuration with another resolvConf; None takes it out."""
    if path.endswith(".json"):
        settings = json.loads(text)
        settings.pop(RESOLV_CONF, None)
        if value is not None:
            settings[RESOLV_CONF] = value
        return json.dumps(settings, indent=2) + "\n"
    line = "" if value is None else f"{RESOLV_CONF}: {value}\n"
    if _LINE.search(text):
        return _LINE.sub(line, text, count=1)
    return f"{text.rstrip(chr(10))}\n{line}" if line else text


def _read(path: str, text: str) -> Optional[str]:
    try:
        return kubelet_setting(path, text)
    except ValueError as error:
        raise NodeError(f"is no configuration of kubelet: {error}", where=path) from None
