"""Images that nodes are made of: built on a machine of Google Cloud, once in a run.

A machine is made of the base image, the installers run on it as on a node (with
``invocation-type=custom-images``), it is stopped, and an image is made of its disk, whose signature
databases have our certificates and Microsoft's. Modules are signed from here: the key's socket is
led to the machine through ssh. The machine goes at once; the image goes with the run, or stays, and
then it loses the label by which ``airlock reap`` would end it.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from harness import keydb
from harness.applied import judge
from harness.cloud import images
from harness.errors import InfraError, UsageError
from harness.providers import gce_bodies as bodies
from harness.providers.base import Job, NodeFailed, Refused
from harness.providers.gce_config import Build
from harness.providers.gce_iap import GLOBAL, Place
from harness.providers.gce_machine import Machine
from harness.providers.gce_reap import Ledger, end
from harness.providers.gce_traffic import Traffic, installed
from harness.signers.base import OneKey, certificate_of
from harness.transports.base import AgentOperations

if TYPE_CHECKING:
    from harness.providers.gce import Gce
    from harness.state import Owned
    from installers.asn1 import Certificate

#: Seconds for the installers: a driver built on a small machine.
APPLY = 9000.0
#: For which an image is another machine's to leave alone: longer than runs are.
SPARED = 86400


@runtime_checkable
class Forwarding(Protocol):
    """A way in that can lead a socket of ours to the node; see ``SshTransport.forward``."""

    def forward(self, there: str, here: Path) -> None:
        """Have ``here`` appear as ``there`` on the node."""


@dataclass(frozen=True)
class Built:
    """A built image, and what its building showed. ``signer``: whose modules it has, if any."""

    facts: images.Facts
    signer: Certificate | None
    installers: list[dict[str, Any]]
    ledger: dict[str, Any]
    said: dict[str, Any]

    @property
    def date(self) -> str:
        """When it was made, for people and for reports."""
        return self.facts.created.astimezone(dt.UTC).isoformat(timespec="seconds")


@dataclass
class _Slot:
    """An image of a run: being built by who holds the lock, there, or impossible."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    built: Built | None = None
    failed: NodeFailed | Refused | None = None


class Images:
    """The images of one run. Thread-safe: cells that need the same one wait for it."""

    def __init__(self, provider: Gce) -> None:
        self._provider = provider
        self._lock = threading.Lock()
        self._slots: dict[tuple[str, str], _Slot] = {}
        self._made: list[tuple[Owned, Place, float]] = []

    def of(self, job: Job) -> Built:
        """The image of a cell, built now or by another cell.

        What an installer did wrong is not tried twice in a run. Raises as ``Provider.up``.
        """
        cell = job.cell
        with self._lock:
            slot = self._slots.setdefault((cell.image.name, cell.profile.name), _Slot())
        while not slot.lock.acquire(timeout=0.5):
            job.check()
        try:
            if slot.failed is not None:
                raise slot.failed
            if slot.built is None:
                try:
                    slot.built = self._build(job)
                except (NodeFailed, Refused) as error:
                    slot.failed = error
                    raise
                inherited = None
            else:
                with job.phase("build", f"the image built {slot.built.date}") as phase:
                    phase.outcome = "cached"
                job.record.installers = list(slot.built.installers)
                inherited = slot.built.date
        finally:
            slot.lock.release()
        if slot.built.ledger:
            job.record.build = {**slot.built.ledger, "inherited": inherited}
        job.record.provenance |= slot.built.said
        return slot.built

    def close(self) -> None:
        """End the images that do not stay. Does not raise; what refuses to die is remembered."""
        with self._lock:
            made, self._made = self._made, []
        for owned, place, until in made:
            with contextlib.suppress(Exception):
                if not end(place, self._provider.api, Ledger(), until):
                    owned.instance_gone(place.project, place.zone, place.name)

    def _build(self, job: Job) -> Built:
        provider, build = self._provider, self._provider.config.build
        if build is None:
            raise UsageError(f"{provider.config.path}: has no [build]")
        source = provider.config.images[job.cell.image.name]
        base = provider.api.image(source.source)
        if why := images.refusal(base):
            raise InfraError(why, hint=f"{provider.config.path}: name another image")
        machine = Machine(provider, job, provider.config.builder, "build ")
        with _signer(build, job.scratch / "sign.sock") as signer:
            ours = [*([signer] if signer else []), *_certificates(build, provider.config.path)]
            socket = f"/tmp/{machine.name}.sock"  # noqa: S108 - where its own login may make one
            more = {"invocation-type": "custom-images"}
            if signer is not None:
                more |= {"airlock-signer": socket, "airlock-signer-fingerprint": signer.sha256}
            # A base that does not know our certificate would not load what is signed by us.
            trusted = not images.trusts(base, ours)
            try:
                channel = machine.up(replace(source, source=base.link), more, secure_boot=trusted)
                if signer is not None:
                    _forward(channel, socket, job.scratch / "sign.sock")
                with job.phase("install", ", ".join(job.cell.profile.installers)):
                    ledger = install(job, channel, provider.watch(machine))
            except BaseException:
                with contextlib.suppress(Exception):
                    machine.keep_evidence(job.capsule, "build-")
                machine.down()
                raise
        try:
            machine.keep_evidence(job.capsule, "build-")
            made = self._image(job, machine, base, ours)
        finally:
            machine.down()
        said = {
            "image": made.link,
            "image_id": made.id,
            "image_base": f"{base.link}, id {base.id}",
            "build_secure_boot": "on" if trusted else "off: its base does not know our certificate",
            "subject": images.subject(made),
            **({"certificate_sha256": signer.sha256} if signer else {}),
        }
        return Built(made, signer, list(job.record.installers), ledger, said)

    def _image(
        self, job: Job, machine: Machine, base: images.Facts, ours: list[Certificate]
    ) -> images.Facts:
        """Stop the machine and make an image of its disk, which is then looked at."""
        api, config = self._provider.api, self._provider.config
        build, place = config.build or Build(), machine.there
        disk = api.instance(place.zone, place.name, job.check).disks[0].source
        machine.hang_up()
        with job.phase("stop", f"{place.text}: so that its disk is whole"):
            api.stop(place, job.check)
        run = job.owned.path.parent.name
        word = re.sub(r"[^a-z0-9]+", "-", job.cell.image.name.lower())[:40].strip("-")
        name = f"airlock-{word}-{secrets.token_hex(4)}"
        marks = bodies.labels(run, job.cell.id, SPARED)
        body = images.of_disk(
            base, disk, name, images.initial_state(ours), marks, family=build.family
        )
        # Written down first: from here on it may exist, whatever becomes of us.
        image = Place(config.project, GLOBAL, name)
        job.owned.instance(image.project, image.zone, image.name)
        with self._lock:
            self._made.append((job.owned, image, float(marks[bodies.UNTIL])))
        with job.phase("image", f"{image.text}: kept, and paid for, until it is removed"):
            made = api.make_image(body, job.check)
            wanted = [*ours, *keydb.microsoft().values()]
            if lacking := images.trusts(made, wanted):
                raise InfraError(f"{made.link} does not have {', '.join(lacking)} in its db")
            if build.keep:
                stays = {key: text for key, text in body["labels"].items() if key not in marks}
                stays |= {**bodies.OURS, bodies.BUILT_BY: marks[bodies.RUN]}
                api.relabel_image(name, stays)
                self._leave(image)
                job.owned.instance_gone(image.project, image.zone, image.name)
        return made

    def _leave(self, image: Place) -> None:
        """It is the user's from now on."""
        with self._lock:
            self._made = [row for row in self._made if row[1] != image]


def install(job: Job, channel: AgentOperations, traffic: Traffic | None) -> dict[str, Any]:
    """Run the profile's installers by what the metadata asks for; the ledger of that, if any.

    Raises Refused and NodeFailed as ``judge`` does.
    """
    done = channel.apply(only=job.cell.profile.installers, timeout=APPLY)
    (job.capsule / "apply.json").write_text(json.dumps(done["summary"], indent=1))
    judge(job, done["code"], done["summary"], "see apply.json")
    return {} if traffic is None else installed(job, channel, traffic, done["summary"])


@contextlib.contextmanager
def _signer(build: Build, socket: Path) -> Iterator[Certificate | None]:
    """Serve the key at a socket; its certificate. None: no key was given."""
    if not build.key:
        yield None
        return
    from fixtures.signer import SignerServer
    from harness.signers.spec import open_key

    with open_key(build.key) as key, SignerServer(OneKey(key), socket):
        yield key.certificate


def _forward(channel: AgentOperations, there: str, here: Path) -> None:
    if not isinstance(channel, Forwarding):
        raise InfraError(f"{channel.name}: no socket can be led there, and modules must be signed")
    channel.forward(there, here)


def _certificates(build: Build, beside: Path) -> Iterator[Certificate]:
    for name in build.certificates:
        path = beside.parent / name
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror or error}", hint=str(beside)) from error
        yield certificate_of(data, str(path))
