"""The installers and their order. Modules are loaded when they are used: boot must be quick."""

from __future__ import annotations

import difflib
import importlib
from typing import Optional

from installers.config import Config
from installers.engine import Installer
from installers.errors import ConfigError

# What others left comes first, the proxy before anything may use the network, sources before apt is
# asked for anything, the CA before anything speaks TLS,
# the mirrors before the container toolkit copies containerd's configuration, sealing last.
ORDER = {
    "adopt": "installers.adopt.installer:Adopt",
    "proxy": "installers.proxy:Proxy",
    "archives": "installers.archives:Archives",
    "trust": "installers.trust:Trust",
    "keyrings": "installers.keyrings:Keyrings",
    "kubernetes": "installers.kubernetes.installer:Kubernetes",
    "driver": "installers.driver:Driver",
    "cuda": "installers.cuda:Cuda",
    "environments": "installers.environments:Environments",
    "deferred": "installers.deferred.installer:Deferred",
    "seal": "installers.seal:Seal",
}
# Their sessions surround every run, also when ``--only`` leaves them out.
SESSIONS = ("proxy",)


def select(only: Optional[str]) -> list[str]:
    """Names from ``--only a,b`` in the right order; all of them for None. Raises ConfigError."""
    if only is None:
        return list(ORDER)
    asked = [name.strip() for name in only.split(",") if name.strip()]
    for name in asked:
        if name not in ORDER:
            near = difflib.get_close_matches(name, ORDER, 1)
            raise ConfigError(
                f"there is no installer {name!r}",
                where="--only",
                remedy=f"did you mean {near[0]}?" if near else f"choose from {', '.join(ORDER)}",
            )
    if not asked:
        raise ConfigError("names no installer", where="--only")
    return [name for name in ORDER if name in asked]


def load(names: list[str], config: Config) -> list[Installer]:
    """Instances of the named installers. Raises ConfigError where one refuses its keys."""
    found: list[Installer] = []
    for name in names:
        module, _, cls = ORDER[name].partition(":")
        found.append(getattr(importlib.import_module(module), cls)(config))
        found[-1].beside = tuple(names)
    return found
