"""One instance, from its request to its end."""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.applied import judge
from harness.cloud.api import resolve
from harness.deadline import Deadline, DeadlinePassed
from harness.errors import InfraError
from harness.providers import gce_bodies as bodies
from harness.providers.base import Job
from harness.providers.gce_api import CloudError, NoCapacity, NotThere
from harness.providers.gce_config import Config, Source
from harness.providers.gce_iap import ENDED, IapTransport, Place, own_key, state_of
from harness.providers.gce_money import Reserved
from harness.providers.gce_reap import Ledger, end_instance
from harness.state import cache_dir
from harness.transports.base import AgentOperations, RemoteError, TransportError
from harness.transports.sshsays import HOST_KEY

if TYPE_CHECKING:
    from harness.cells import Cell
    from harness.providers.gce import Gce
    from harness.transports.base import Transport

#: Seconds for the installers: a driver built on a small machine.
APPLY = 9000.0
#: For one try to log in through the tunnel.
LOGIN = 45.0


class GceNode:
    """One instance, from its request to its end."""

    def __init__(self, provider: Gce, job: Job) -> None:
        self._provider, self._job = provider, job
        self._config = provider.config
        self._api = provider.api
        self._run = job.owned.path.parent.name
        self._name = f"airlock-{secrets.token_hex(6)}"
        self._place: Place | None = None
        self._reserved: Reserved | None = None
        self._until = 0.0
        self._transport: AgentOperations | None = None
        self.expect: Mapping[str, Any] = {}

    @property
    def simulated(self) -> bool:
        """See Running: what a double of the API made proves nothing of Google Cloud."""
        return self._api.double

    @property
    def transport(self) -> Transport:
        """See Running."""
        return self._channel()

    def _channel(self) -> AgentOperations:
        if self._transport is None:
            raise InfraError(f"{self._name}: is not up")
        return self._transport

    def start(self) -> None:
        """Make it; raises."""
        job = self._job
        with job.phase("instance", self._provider.budget.describe(self._provider.zones()[0])):
            self._insert()
        assert self._place is not None
        with job.phase("boot", f"{self._place.text}: waiting for its host keys"):
            keys = self._host_keys(self._place)
        with job.phase("login", "through IAP"):
            self._transport = self._provider.connect(self._provider, job, self._place, keys)
        self.expect = expected(job.cell, self._config)
        if job.cell.profile.installers:
            with job.phase("install", ", ".join(job.cell.profile.installers)):
                self._install()

    def exercise(self) -> None:
        """Probes of other ways out, and the cards; see Running."""
        channel = self._channel()
        with contextlib.suppress(RemoteError):  # its facts say that nobody tried them
            channel.probe()
        if self._config.gpu:
            with contextlib.suppress(RemoteError):
                channel.cards()

    def ledger(self) -> dict[str, Any]:
        """Nobody recorded its packets: the proxy's log is the network's, not the node's."""
        return {}

    def symptom(self) -> str:
        """Scenarios with symptoms of their own are not made here."""
        return ""

    def keep_evidence(self, capsule: Path) -> None:
        """The serial console by the API, the journal by ssh; each may be all that there is."""
        if self._place is None:
            return
        with contextlib.suppress(InfraError):
            (capsule / "serial.log").write_bytes(self._api.serial(self._place.zone, self._name))
        if self._transport is not None:
            with contextlib.suppress(InfraError):
                command = ["journalctl", "--boot", "--no-pager", "--output=short-precise"]
                (capsule / "journal.log").write_bytes(self._transport.run(command, timeout=60).out)

    def down(self) -> None:
        """Hang up and delete the instance; what refuses to die goes into the ledger."""
        transport, self._transport = self._transport, None
        if transport is not None:
            with contextlib.suppress(Exception):
                transport.close()
        place, self._place = self._place, None
        gone = place is None or self._delete(place)
        reserved, self._reserved = self._reserved, None
        # What lives on may cost all that was set aside for it.
        if reserved is not None and gone:
            cost = self._provider.budget.settle(reserved)
            if reserved.price is not None:
                said = f"{cost:.4f} {reserved.price.currency}"
                self._job.record.provenance["cost"] = said

    def _insert(self) -> None:
        """In the first zone that has room. Raises NoCapacity if none has, NoQuota at once."""
        image, full = self._image(), []
        for zone in self._provider.zones():
            if trouble := self._provider.budget.trouble(zone):
                full.append(trouble)
                continue
            try:
                self._insert_in(zone, image)
            except NoCapacity as error:
                self._provider.dried_up(zone)
                if not error.unmade:
                    raise
                self._abandon()
                full.append(f"{zone}: {', '.join(error.codes)}")
                self._job.say("instance", f"{zone} has none left")
            except CloudError as error:
                if error.unmade:
                    self._abandon()
                raise
            else:
                return
        raise InfraError(
            f"no zone can have a {self._config.machine_type}: {'; '.join(full)}",
            hint=f"{self._config.path}: name more zones, or try later",
        )

    def _insert_in(self, zone: str, image: Source) -> None:
        job, config, budget = self._job, self._config, self._provider.budget
        self._reserved = budget.reserve(self._name, zone)
        job.say("instance", f"{zone}: {budget.describe(zone)}")
        marks = bodies.labels(self._run, job.cell.id, config.seconds)
        body = bodies.instance(
            config,
            zone,
            self._name,
            image,
            marks,
            ssh_key=self._provider.key.public,
            secure_boot=job.cell.scenario.secure_boot,
        )
        self._until = float(marks[bodies.UNTIL])
        # Written down first: from here on it may exist, whatever becomes of us.
        self._place = Place(config.project, zone, self._name)
        job.owned.instance(config.project, zone, self._name)
        budget.started(self._reserved)
        self._api.insert(zone, body, job.check)
        price = self._reserved.price
        job.record.provenance |= {
            "instance": self._place.text,
            "machine_type": config.machine_type,
            "provisioning": config.provisioning,
            "price": None
            if price is None
            else f"{price.per_hour:g} {price.currency}/h ({price.source}, {price.date})",
        }

    def _abandon(self) -> None:
        """An instance that was refused: there is none to delete, and nothing to pay."""
        place, self._place = self._place, None
        if place is not None:
            self._job.owned.instance_gone(place.project, place.zone, place.name)
        if self._reserved is not None:
            self._reserved.began = None
            self._provider.budget.settle(self._reserved)
            self._reserved = None

    def _delete(self, place: Place) -> bool:
        """Whether it is gone; does not raise."""
        job = self._job
        try:
            why = end_instance(place, self._api, Ledger(), self._until)
        except Exception as error:  # the pool must get its room back whatever happens
            why = f"{type(error).__name__}: {error}"
            with contextlib.suppress(Exception):
                Ledger().add(place, why, self._until)
        if why:
            when = time.strftime("%H:%M UTC", time.gmtime(self._until))
            said = f"{place.text} REFUSED TO DIE: {why}; Google ends it by {when} (airlock reap)"
            job.say("ending", said)
            job.record.provenance["left"] = said
        else:
            job.owned.instance_gone(place.project, place.zone, place.name)
        return not why

    def _image(self) -> Source:
        name = self._job.cell.image.name
        try:
            source = self._config.images[name]
        except KeyError:
            raise InfraError(f"{self._config.path} has no [images.{name}]") from None
        if source.source.startswith("dataproc:"):
            facts = resolve(self._api, source.source)
            self._job.record.provenance |= {"image": facts.link, "image_id": facts.id}
            source = replace(source, source=facts.link)
        return source

    def _host_keys(self, place: Place) -> dict[str, str]:
        """Those that the guest publishes when it is up; raises if it never comes up."""
        look = self._api.pace.look
        deadline = Deadline(self._api.pace.boot, f"{place.name}: its host keys")
        check = self._job.check
        tries = 0
        while True:
            check()
            tries += 1
            keys = self._api.host_keys(place.zone, place.name, check)
            if keys:
                return keys
            # Hundreds of nodes may wait at a time, and the project's questions are counted.
            if tries % 4 == 0 or deadline.passed:
                self._still_there(place)
            if deadline.passed:
                deadline.check(hint=f"its console ends: {self._last_line(place)}")
            time.sleep(min(look, deadline.remaining() + 0.01))

    def _still_there(self, place: Place) -> None:
        """Raises if nobody will come up there any more."""
        try:
            status = self._api.instance(place.zone, place.name, self._job.check).status
        except NotThere as error:
            raise InfraError(
                f"{place.text}: somebody deleted it while it booted", hint=error.message
            ) from error
        if status in ENDED:
            raise InfraError(f"{place.text} is {status}: it was preempted while it booted")

    def _last_line(self, place: Place) -> str:
        with contextlib.suppress(InfraError):
            lines = self._api.serial(place.zone, place.name).decode(errors="replace").split("\n")
            return next((line.strip() for line in reversed(lines) if line.strip()), "it is empty")
        return "it cannot be read"

    def _install(self) -> None:
        """What its metadata asks for, as on any node of Google's: see installers."""
        job = self._job
        done = self._channel().apply(only=job.cell.profile.installers, timeout=APPLY)
        (job.capsule / "apply.json").write_text(json.dumps(done["summary"], indent=1))
        judge(job, done["code"], done["summary"], "see apply.json")


def log_in(provider: Gce, job: Job, place: Place, keys: Mapping[str, str]) -> IapTransport:
    """A transport through IAP to a node that has let us in; whoever raises has closed it."""
    from harness import pack

    api, user = provider.api, provider.config.user
    transport = IapTransport(
        place,
        pack.pack(cache_dir("node-file")).path,
        own_key(provider.key.write(job.scratch / "key")),
        keys=keys,
        user=user,
        become=() if user == "root" else ("sudo", "-n"),
        state=lambda: state_of(api, place),
    )
    deadline = Deadline(api.pace.boot, f"{place.name}: to log in")
    while True:
        try:
            job.check()
            transport.run("true", timeout=LOGIN)
            return transport
        except (TransportError, DeadlinePassed) as error:
            # sshd and the user come a moment after the keys; another key never gets right.
            hopeless = HOST_KEY in error.message or state_of(api, place)
            if hopeless or deadline.passed:
                transport.close()
                raise
        except BaseException:
            transport.close()
            raise
        time.sleep(min(api.pace.look, deadline.remaining() + 0.01))


def expected(cell: Cell, config: Config) -> dict[str, Any]:
    """What holds on a good node of this cell; see ``harness.lab.expected``."""
    proxied = cell.scenario.proxied and config.proxy is not None
    return {
        "ca_sha256": (config.proxy.ca_sha256 or None) if config.proxy and proxied else None,
        "proxy_url_redacted": config.proxy.url if config.proxy and proxied else None,
        "secure_boot": cell.scenario.secure_boot,
        "intercept": cell.scenario.intercept,
        "auth": False,
        "gpu": config.gpu,
        "foreign": False,
        "deferred": "deferred" in cell.profile.installers,
        "refuses": cell.scenario.proxied,
    }
