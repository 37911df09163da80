"""One instance, from its request to its end: a node, or what an image is built on."""

from __future__ import annotations

import contextlib
import datetime as dt
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from harness.deadline import Deadline, DeadlinePassed
from harness.errors import InfraError
from harness.providers import gce_bodies as bodies
from harness.providers.base import Job
from harness.providers.gce_api import CloudError, NoCapacity, NotThere
from harness.providers.gce_config import Config, Source
from harness.providers.gce_iap import ENDED, IapTransport, Place, own_key, state_of
from harness.providers.gce_money import Reserved
from harness.providers.gce_reap import Ledger, end
from harness.state import cache_dir
from harness.transports.base import AgentOperations, TransportError
from harness.transports.sshsays import HOST_KEY

if TYPE_CHECKING:
    from harness.providers.gce import Gce

#: For one try to log in through the tunnel.
LOGIN = 45.0


class Machine:
    """One instance. Whatever its methods raise, ``down`` leaves nothing of it behind.

    ``config`` says of which kind it is, ``what`` goes before the names of its phases.
    """

    def __init__(self, provider: Gce, job: Job, config: Config, what: str = "") -> None:
        self._provider, self._job, self._config = provider, job, config
        self._api = provider.api
        self._what = what
        self._run = job.owned.path.parent.name
        self.name = f"airlock-{secrets.token_hex(6)}"
        self.place: Place | None = None
        self._reserved: Reserved | None = None
        self._until = 0.0
        self._transport: AgentOperations | None = None

    def up(self, image: Source, more: Mapping[str, str], *, secure_boot: bool) -> AgentOperations:
        """Instance, host keys, login. ``more``: metadata besides. Raises."""
        job, budget = self._job, self._provider.budget
        first = budget.describe(self._provider.zones()[0], self._config)
        with job.phase(f"{self._what}instance", first):
            self._insert(image, more, secure_boot)
        place = self.there
        with job.phase(f"{self._what}boot", f"{place.text}: waiting for its host keys"):
            keys = self._host_keys(place)
        with job.phase(f"{self._what}login", "through IAP"):
            self._transport = self._provider.connect(self._provider, job, place, keys)
        return self._transport

    @property
    def there(self) -> Place:
        """Where it is; InfraError where there is none."""
        if self.place is None:
            raise InfraError(f"{self.name}: is not up")
        return self.place

    @property
    def channel(self) -> AgentOperations:
        """The way in; InfraError before and after."""
        if self._transport is None:
            raise InfraError(f"{self.name}: is not up")
        return self._transport

    def known_as(self) -> tuple[str, float]:
        """Its address in the network, and when it was made (unix seconds, by Google's clock)."""
        place = self.there
        found = self._api.instance(place.zone, place.name, self._job.check)
        made = dt.datetime.fromisoformat(found.creation_timestamp).timestamp()
        return found.network_interfaces[0].network_i_p, made

    def keep_evidence(self, capsule: Path, front: str = "") -> None:
        """The serial console by the API, the journal by ssh; each may be all that there is."""
        if self.place is None:
            return
        with contextlib.suppress(InfraError):
            said = self._api.serial(self.place.zone, self.name)
            (capsule / f"{front}serial.log").write_bytes(said)
        if self._transport is not None:
            with contextlib.suppress(InfraError):
                command = ["journalctl", "--boot", "--no-pager", "--output=short-precise"]
                said = self._transport.run(command, timeout=60).out
                (capsule / f"{front}journal.log").write_bytes(said)

    def hang_up(self) -> None:
        """Close the way in; does not raise."""
        transport, self._transport = self._transport, None
        if transport is not None:
            with contextlib.suppress(Exception):
                transport.close()

    def down(self) -> None:
        """Hang up and delete it; what refuses to die goes into the ledger. Does not raise."""
        self.hang_up()
        place, self.place = self.place, None
        gone = place is None or self._delete(place)
        reserved, self._reserved = self._reserved, None
        # What lives on may cost all that was set aside for it.
        if reserved is not None and gone:
            cost = self._provider.budget.settle(reserved)
            if reserved.price is not None:
                said = f"{cost:.4f} {reserved.price.currency}"
                self._job.record.provenance[f"{self._what}cost"] = said

    def _insert(self, image: Source, more: Mapping[str, str], secure_boot: bool) -> None:
        """In the first zone that has room. Raises NoCapacity if none has, NoQuota at once."""
        full = []
        for zone in self._provider.zones():
            if trouble := self._provider.budget.trouble(zone, self._config):
                full.append(trouble)
                continue
            try:
                self._insert_in(zone, image, more, secure_boot)
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

    def _insert_in(
        self, zone: str, image: Source, more: Mapping[str, str], secure_boot: bool
    ) -> None:
        job, config, budget = self._job, self._config, self._provider.budget
        self._reserved = budget.reserve(self.name, zone, config)
        job.say("instance", f"{zone}: {budget.describe(zone, config)}")
        marks = bodies.labels(self._run, job.cell.id, config.seconds)
        body = bodies.instance(
            config,
            zone,
            self.name,
            image,
            marks,
            ssh_key=self._provider.key.public,
            secure_boot=secure_boot,
            more=more,
        )
        self._until = float(marks[bodies.UNTIL])
        # Written down first: from here on it may exist, whatever becomes of us.
        self.place = Place(config.project, zone, self.name)
        job.owned.instance(config.project, zone, self.name)
        budget.started(self._reserved)
        self._api.insert(zone, body, job.check)
        price = self._reserved.price
        said = {
            "instance": self.place.text,
            "machine_type": config.machine_type,
            "provisioning": config.provisioning,
            "price": None
            if price is None
            else f"{price.per_hour:g} {price.currency}/h ({price.source}, {price.date})",
        }
        job.record.provenance |= {f"{self._what}{key}": value for key, value in said.items()}

    def _abandon(self) -> None:
        """An instance that was refused: there is none to delete, and nothing to pay."""
        place, self.place = self.place, None
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
            why = end(place, self._api, Ledger(), self._until)
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

    def _host_keys(self, place: Place) -> dict[str, str]:
        """Those that the guest publishes when it is up; raises if it never comes up."""
        # Guest attributes may be asked for ten times a minute and machine ("Setting and querying
        # guest attributes"), and none publishes its keys in the first seconds.
        look = 2 * self._api.pace.look
        deadline = Deadline(self._api.pace.boot, f"{place.name}: its host keys")
        check = self._job.check
        tries = 0
        while True:
            time.sleep(min(look, deadline.remaining() + 0.01))
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
