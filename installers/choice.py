"""Which driver this node is to have, where its source is, and what speaks against it."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from typing import Any, Optional

from installers import build, debian, gpudecide, gpus, kernels, upstream
from installers.config import Config
from installers.engine import Refusal
from installers.errors import NodeError
from installers.gpudecide import Decision
from installers.host import Host


class Choice:
    """The metadata's wishes, held against this node. Nothing here needs the network but fetch."""

    def __init__(self, config: Config, attributes: Optional[Mapping[str, str]] = None) -> None:
        self._config = config
        self._asked = gpudecide.read(config.raw if attributes is None else attributes)

    @property
    def nothing(self) -> bool:
        """Whether no driver is wanted at all (gpu-driver-provider=NONE)."""
        return self._asked.source == "none"

    def words(self, host: Host) -> str:
        """The version that is wanted, in words where only apt can say."""
        return self._asked.driver or f"that of {self.package(host)}"

    def package(self, host: Host) -> str:
        """The package with the modules' source; empty for a file of NVIDIA's."""
        made = self.decide(host)
        return debian.SOURCE_PACKAGES.get(made.source, {}).get(made.flavour, "")

    def decide(self, host: Host, driver: Optional[str] = None) -> Decision:
        """The decision here; with the distribution's ``driver`` once that is known.

        The machine that builds an image has other GPUs than the nodes: airlock-gpu names theirs.
        """
        asked = gpudecide.with_driver(self._asked, driver) if driver else self._asked
        system = host.os_release()
        return gpudecide.decide(
            asked,
            os_id=system.get("ID", ""),
            os_version=system.get("VERSION_ID", ""),
            kernel=kernels.boot_kernel(host, self._config),
            machine=platform.machine(),
            present=[] if self._config.image_build else gpus.present(host),
            image=_dataproc_image(host),
        )

    def _upstream(self, host: Host) -> Optional[upstream.Upstream]:
        made = self.decide(host)
        return upstream.of(made, self._config) if made.source in upstream.KINDS else None

    def from_distribution(self, host: Host) -> bool:
        """Whether the source is a package of the distribution."""
        return self.decide(host).source == "distribution"

    def refuse(self, host: Host) -> list[Refusal]:
        """What cannot go together, and what a source of NVIDIA's lacks."""
        made, found = self.decide(host), self._upstream(host)
        refusals = list(made.refusals)
        if found is not None:
            refusals += upstream.refuse(found)
            refusals += gpudecide.unaccepted(self._asked, {"nvidia-driver": found.version})
        elif made.source != "distribution":
            whose = {"nvidia-driver": made.driver or f"of {self.package(host)}"}
            refusals += gpudecide.unaccepted(self._asked, whose)
        return refusals

    def notes(self, host: Host) -> list[str]:
        """The decision's reasons, and what nobody knows, for a plan."""
        made = self.decide(host)
        return [f"decided: {text}" for text in made.reasons] + [
            f"not known: {text}" for text in made.unknown
        ]

    def hosts(self, host: Host) -> list[str]:
        """Names that are contacted besides apt's."""
        found = self._upstream(host)
        return [] if found is None else [found.host]

    def wishes(self, host: Host) -> dict[str, str]:
        """What of the metadata decides which driver is built; empty where nothing was asked."""
        found = self._upstream(host)
        if found is not None:
            return {"source": found.kind, "pin": found.sha256, "flavour": found.flavour}
        # Debian's own open modules are what is meant where nothing is said.
        usual = debian.SOURCE_PACKAGES["distribution"]["open"]
        package = self.package(host)
        other = {"package": package} if package != usual else {}
        return {**other, **({"driver": self._asked.driver} if self._asked.driver else {})}

    def fits(self, host: Host, record: Mapping[str, Any]) -> bool:
        """Whether what an installation noted is what is wanted now."""
        noted, wishes = record.get("wishes") or {}, self.wishes(host)
        if self._upstream(host) is not None:
            return bool(noted == wishes)
        same = all(noted.get(key) == wishes.get(key) for key in ("source", "package"))
        return same and self._asked.driver in (None, record.get("driver"))

    def source(self, host: Host) -> debian.Package:
        """The driver's source; NodeError when it does not go with the GPUs or the CUDA here."""
        found = self._upstream(host)
        if found is not None:
            return found.package()
        made = self.decide(host)
        package = debian.driver_source(host, made.source, made.flavour, self._asked.driver)
        for refusal in self.decide(host, debian.upstream_version(package.version)).refusals:
            raise NodeError(refusal.reason, where="driver", remedy=refusal.remedy)
        return package

    def fetch(self, host: Host, source: debian.Package, into: str) -> str:
        """The unpacked source of the modules, below ``into``; where make is run."""
        found = self._upstream(host)
        if found is not None:
            return upstream.fetch(host, found, self._config, into)
        return build.source_tree(host, debian.fetch_source(host, source, f"{into}/download"))


def _dataproc_image(host: Host) -> Optional[str]:
    """The version of the Dataproc image, as its builder left it for logins; None elsewhere."""
    found = re.search(
        r'(?m)^DATAPROC_IMAGE_VERSION="?([\d.]+)', host.read("/etc/environment") or ""
    )
    return found[1] if found else None
