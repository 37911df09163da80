"""A node on Google Cloud: an instance, what is installed on it, and what its checks may expect."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cloud import images
from harness.errors import InfraError
from harness.providers.base import Job
from harness.providers.gce_build import Built, install
from harness.providers.gce_config import Config, Source
from harness.providers.gce_machine import Machine
from harness.providers.gce_traffic import Traffic
from harness.transports.base import RemoteError

if TYPE_CHECKING:
    from harness.cells import Cell
    from harness.providers.gce import Gce
    from harness.transports.base import Transport


class GceNode:
    """A node of one cell."""

    def __init__(self, provider: Gce, job: Job) -> None:
        self._provider, self._job = provider, job
        self._config = provider.config
        self._machine = Machine(provider, job, provider.config)
        self._traffic: Traffic | None = None
        self._built: Built | None = None
        self.expect: Mapping[str, Any] = {}

    @property
    def simulated(self) -> bool:
        """See Running: what a double of the API made proves nothing of Google Cloud."""
        return self._provider.api.double

    @property
    def transport(self) -> Transport:
        """See Running."""
        return self._machine.channel

    def start(self) -> None:
        """Make it; raises."""
        job, cell = self._job, self._job.cell
        self._machine.up(self._image(), {}, secure_boot=cell.scenario.secure_boot)
        self.expect = expected(cell, self._config, self._built)
        self._traffic = self._provider.watch(self._machine)
        if cell.profile.installers and self._built is None:
            with job.phase("install", ", ".join(cell.profile.installers)):
                job.record.build = install(job, self._machine.channel, self._traffic)

    def exercise(self) -> None:
        """Probes of other ways out and at the proxy, the cards, a search; see Running."""
        channel = self._machine.channel
        with contextlib.suppress(RemoteError):  # its facts say that nobody tried them
            channel.probe()
        if self._traffic is not None:
            self._traffic.probe(channel)
        if self._config.gpu:
            with contextlib.suppress(RemoteError):
                channel.cards()
        # Of a machine on which nothing was done there is nothing to find, in minutes.
        if self._job.cell.profile.installers and not self._job.options.reproducing:
            with contextlib.suppress(RemoteError):
                channel.hygiene([self._provider.key.secret])

    def ledger(self) -> dict[str, Any]:
        """What the proxy's log holds of it; empty where that log is not ours to read."""
        return {} if self._traffic is None else self._traffic.ledger()

    def symptom(self) -> str:
        """Scenarios with symptoms of their own are not made here."""
        return ""

    def keep_evidence(self, capsule: Path) -> None:
        """Console, journal, and its requests."""
        self._machine.keep_evidence(capsule)
        if self._traffic is not None:
            self._traffic.keep(capsule / "requests.jsonl")

    def down(self) -> None:
        """End the instance; see Running."""
        self._machine.down()

    def _image(self) -> Source:
        """What it is made of: as the file says, or built on that."""
        name, job = self._job.cell.image.name, self._job
        try:
            source = self._config.images[name]
        except KeyError:
            raise InfraError(f"{self._config.path} has no [images.{name}]") from None
        if source.build:
            self._built = self._provider.images.of(job)
            return replace(source, source=self._built.facts.link)
        if source.source.startswith("dataproc:"):
            found = self._provider.api.image(source.source)
            said = {"image": found.link, "image_id": found.id, "subject": images.subject(found)}
            job.record.provenance |= said
            source = replace(source, source=found.link)
        return source


def expected(cell: Cell, config: Config, built: Built | None = None) -> dict[str, Any]:
    """What holds on a good node of this cell; see ``harness.lab.expected``."""
    signed = built.signer if built and "driver" in cell.profile.parts else None
    proxied = cell.scenario.proxied and config.proxy is not None
    return {
        "ca_sha256": (config.proxy.ca_sha256 or None) if config.proxy and proxied else None,
        "proxy_url_redacted": config.proxy.url if config.proxy and proxied else None,
        "secure_boot": cell.scenario.secure_boot,
        "intercept": cell.scenario.intercept,
        "fetches_packages": "driver" in cell.profile.parts,
        "auth": False,
        "gpu": config.gpu,
        "foreign": False,
        "deferred": "deferred" in cell.profile.installers,
        "refuses": cell.scenario.proxied,
        **({"image_built": built.facts.created.timestamp()} if built else {}),
        **({"cert_sha256": signed.sha256, "cert_cn": signed.subject_cn} if signed else {}),
    }
