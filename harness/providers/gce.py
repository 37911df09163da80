"""Nodes on Google Cloud: in a closed network, reached through IAP, gone by themselves.

Where and how is in ``gce.toml`` (``harness.providers.gce_config``); the network is the user's, or
of ``airlock gce up``. A node is an instance without an external address whose name, labels and time
limit say whose it is. It is written down before it is asked for, and whatever goes wrong, it is
deleted; what refuses to die is kept in a ledger (``harness.providers.gce_reap``).
"""

from __future__ import annotations

import contextlib
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from harness.cloud import ledger
from harness.cloud.api import Google
from harness.cloud.journal import opened
from harness.errors import AirlockError, InfraError
from harness.providers.base import Job, Needs, Refusal
from harness.providers.gce_build import Images
from harness.providers.gce_config import Config, read_config
from harness.providers.gce_iap import Place, RunKey
from harness.providers.gce_machine import Machine, log_in
from harness.providers.gce_money import Budget
from harness.providers.gce_node import GceNode
from harness.providers.gce_traffic import Traffic
from harness.refusals import known_refusal
from harness.requirements import Offer
from harness.transports.base import AgentOperations

if TYPE_CHECKING:
    from fixtures.scenarios import Scenario
    from harness.cells import Cell
    from harness.cloud.network import Site

#: Seconds for which a zone that had none left is asked last.
DRY = 600.0

#: Gets into a node whose host keys are known: provider, job, where it is, its keys.
Connect = Callable[["Gce", Job, Place, Mapping[str, str]], AgentOperations]


class Gce:
    """The provider ``gce``. One per run: its key, its money, and which zones are empty."""

    name = "gce"

    def __init__(
        self,
        config: Config | None = None,
        *,
        api: Google | None = None,
        connect: Connect | None = None,
        connect_proxy: ledger.Connect = ledger.connect,
    ) -> None:
        """``config``: read when it is needed, if not given. The others are for doubles."""
        self._given = config
        self._given_api = api
        self.connect: Connect = connect or log_in
        self._connect_proxy = connect_proxy
        self._dry: dict[str, float] = {}
        self._lock = threading.Lock()

    @cached_property
    def config(self) -> Config:
        """Raises UsageError for a file that is missing or wrong."""
        return self._given or read_config()

    @cached_property
    def api(self) -> Google:
        return self._given_api or Google(self.config.project)

    @cached_property
    def key(self) -> RunKey:
        return RunKey()

    @cached_property
    def budget(self) -> Budget:
        return Budget(self.config)

    @cached_property
    def images(self) -> Images:
        """What is built in this run."""
        return Images(self)

    @cached_property
    def _watched(self) -> tuple[Site | None, str]:
        """The network whose proxy's log is the nodes' ledger; or why it cannot be."""
        proxy = self.config.proxy
        if proxy is None or not proxy.network:
            return None, ""
        with opened(self.config.project, proxy.network) as journal:
            site = journal.site
        what = f"{self.config.path}: [proxy] network {proxy.network!r}"
        if site is None:
            return None, f"{what} was not made from here, and its log cannot be fetched"
        if site.proxy_url != proxy.url.rstrip("/"):
            return None, f"{what} has the proxy {site.proxy_url}, not {proxy.url}"
        return site, f"{what}: {trouble}" if (trouble := ledger.unreadable(site)) else ""

    @cached_property
    def log(self) -> ledger.ProxyLog | None:
        """The proxy's log, where it is ours to read."""
        site = self._watched[0]
        return None if site is None else ledger.ProxyLog(self.api, site, self._connect_proxy)

    def watch(self, machine: Machine) -> Traffic | None:
        """What an instance asks the proxy for, from its beginning on; None: nobody keeps that."""
        if self.log is None or self.config.proxy is None:
            return None
        return Traffic(self.log, self.config.proxy.url, *machine.known_as())

    def reasons_not(self, cell: Cell) -> list[str]:
        """What cannot be made there, by the file alone; whether Google has room is tried."""
        config = self.config
        reasons = scenario_reasons(cell.scenario, config)
        image = config.images.get(cell.image.name)
        if image is None:
            reasons.append(f"{config.path} has no [images.{cell.image.name}]")
        elif (
            cell.scenario.secure_boot
            and "driver" in cell.profile.parts
            and not (image.own_keys or image.build)
        ):
            reasons.append(
                f"{config.path}: [images.{cell.image.name}] has not our certificate among its "
                "keys (own_keys), and the driver's modules would not load"
            )
        if cell.profile.foreign is not None:
            reasons.append("gce does not run set-up of others")
        if self._watched[1]:
            reasons.append(self._watched[1])
        if image and image.build and not cell.profile.installers:
            reasons.append("the profile installs nothing, and so there is no image to build")
        troubles = [self.budget.trouble(zone, *self._machines(cell)) for zone in config.zones]
        if all(troubles):
            reasons.append(troubles[0])
        return reasons

    def offers(self) -> Offer:
        """By the file: cards, Secure Boot, a console; a recorded network is the proxy's to keep."""
        config = self.config
        features = {"console", "secure-boot", *({"gpu"} if config.gpu else ())}
        disk = max((image.disk_gb for image in config.images.values()), default=0) * 1024
        return Offer(frozenset(features), frozenset({config.arch}), disk, 1 << 40)

    def inputs(self, cell: Cell) -> None:
        """Unknown: an image family is another image tomorrow."""
        del cell

    def refusal(self, cell: Cell) -> Refusal | None:
        """Refused by what is known of the image's kernel, before anything is paid for."""
        return known_refusal(cell)

    def needs(self, cell: Cell) -> Needs:
        """Of this machine: an ssh and a tunnel."""
        del cell
        return Needs(memory_mb=120, cores=0)

    def minutes(self, cell: Cell) -> float:
        """An estimate, not measured here: 2 to boot, the installers; 8 for an image and its end."""
        built = 8.0 * (len(self._machines(cell)) - 1)
        return (
            2.0
            + built
            + (15.0 if "driver" in cell.profile.parts else 3.0 * bool(cell.profile.installers))
        )

    def price(self, cell: Cell) -> str:
        """What it costs, and at most, for people, before it is made."""
        zone = self.zones()[0]
        prices = [self.budget.describe(zone, config) for config in self._machines(cell)]
        return "; to build its image ".join(reversed(prices))

    def _machines(self, cell: Cell) -> list[Config]:
        """The kinds of machines that a cell takes, one after the other."""
        image = self.config.images.get(cell.image.name)
        built = image is not None and image.build
        return [self.config.builder, self.config] if built else [self.config]

    def up(self, job: Job) -> GceNode:
        """Instance, host keys, login, installers. Whoever raises leaves nothing behind."""
        node = GceNode(self, job)
        try:
            node.start()
        except BaseException as error:
            with contextlib.suppress(Exception):
                node.keep_evidence(job.capsule)
            node.down()
            if isinstance(error, AirlockError) or not isinstance(error, Exception):
                raise
            (job.capsule / "traceback.log").write_text(traceback.format_exc())
            raise InfraError(str(error) or type(error).__name__) from error
        return node

    def close(self) -> None:
        """End what was built and leave the proxy; the key is in memory alone."""
        if "images" in self.__dict__:
            self.images.close()
        if "log" in self.__dict__ and self.log is not None:
            self.log.close()

    def zones(self) -> list[str]:
        """In the order in which to try them: those that had none left a moment ago come last."""
        now = time.monotonic()
        with self._lock:
            return sorted(self.config.zones, key=lambda zone: self._dry.get(zone, 0.0) > now)

    def dried_up(self, zone: str) -> None:
        """A zone has none left."""
        with self._lock:
            self._dry[zone] = time.monotonic() + DRY


def scenario_reasons(scenario: Scenario, config: Config) -> list[str]:
    """Which of a scenario's tables Google Cloud, or this network, cannot be made to match."""
    from fixtures.scenarios import Scenario as Plain

    plain = Plain(name="", title="")
    tables = ("trust", "boot", "clock", "disk", "volume", "google", "needs", "module", "fault")
    reasons = [
        f"the scenario's [{table}] is the lab's own: gce does not make it"
        for table in tables
        if getattr(scenario, table) != getattr(plain, table)
    ]
    if scenario.network == "dropped":
        reasons.append("gce does not drop packets of a scenario")
    if scenario.proxied and config.proxy is None:
        reasons.append(f"{config.path} has no [proxy], and the scenario has one")
    if scenario.proxied and (scenario.auth != "none" or scenario.proxy.allow):
        reasons.append("the scenario's proxy is the lab's own: gce does not make it")
    if config.proxy and scenario.proxied and scenario.intercept != config.proxy.intercept:
        word = "opens TLS" if config.proxy.intercept else "does not open TLS"
        reasons.append(f"the proxy of {config.path} {word}")
    if not scenario.proxied and config.proxy is not None:
        reasons.append(f"the network of {config.path} has a proxy, and the scenario has none")
    firmware = scenario.firmware
    if firmware.stranger or firmware.switched_off or not firmware.certificate:
        reasons.append("the scenario's [firmware] is the lab's own: gce does not make it")
    return reasons
