"""One node in a virtual machine, with the proxy and the metadata server of its scenario."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.deadline import DeadlinePassed
from harness.errors import InfraError
from harness.lab import addresses as at
from harness.lab import (
    build,
    canary,
    cloudbuild,
    disk,
    door,
    evidence,
    expected,
    firmware,
    frozen,
    intake,
    kvm,
    provenance,
    rehearsal,
    restart,
    saved,
    surroundings,
    vm,
)
from harness.providers.base import Job, NodeFailed
from harness.state import cache_dir, keys_dir, state_dir
from harness.transports.agent import AgentTransport
from harness.transports.base import RemoteError, TransportError

if TYPE_CHECKING:
    from fixtures.daemons import SquidInstall
    from fixtures.google import Google
    from fixtures.metadata import MetadataServer
    from fixtures.origin import Origin
    from fixtures.pki import Authority
    from fixtures.scenarios import Scenario
    from harness.lab.surroundings import AnyProxy

# A cold boot takes 50 s without KVM, many times that on a machine that is overcommitted.
_READY_SECONDS = 900.0
_WARM_SECONDS = 300.0


class QemuNode:
    """One virtual machine with its proxy and metadata server."""

    simulated = False

    def __init__(self, job: Job, authority: Authority, origin: Origin) -> None:
        self._job = job
        self._authority = authority
        self._origin = origin
        self._stack = contextlib.ExitStack()
        self._built: build.Built | None = None
        self._vm: vm.VirtualMachine | None = None
        self._proxy: AnyProxy | None = None
        self._google: Google | None = None
        self._metadata: MetadataServer | None = None
        self._transport: AgentTransport | None = None
        self._install: SquidInstall | None = None
        self._rest: frozen.Frozen | None = None
        self._outlets: dict[str, str] | None = None
        self._state = ""  # systemd's word when the machine was ready
        self._rehearsal = rehearsal.Rehearsal(job)
        self._own_rows = 0  # rows before these belong to the boot of the frozen machine
        self.name = "airlock-node"
        self._macs = [at.MAC]
        self._door: dict[str, Any] | None = None

    def start(self) -> None:
        """Everything up to a node that says it is ready."""
        from harness import pack

        found = intake.image_of(self._job)
        with self._job.phase("tools", "proxy and node file"):
            node_file = pack.pack(cache_dir("node-file"))
            self._tools()
        self._build(found, node_file)
        self._boot()

    def resume(self, rest: saved.Saved) -> None:
        """Bring a saved node back, as it was; only its clock is set."""
        job = self._job
        kept = rest.manifest["build"]
        self._built = build.Built(rest.directory, kept, cached=True)
        self._macs = rest.manifest["macs"]
        job.record.installers, job.record.build = kept["installers"], kept["ledger"]
        job.record.provenance["saved"] = rest.manifest["saved"]
        scenario = job.cell.scenario
        self._tools()
        self._serve(scenario)
        self._close_in()
        if rest.manifest["ca_sha256"] != self._authority.proxy.sha256:
            job.say("resume", "the node trusts the CA of another lab: TLS by our proxy will fail")
        with job.phase("resume", f"as it was saved {rest.manifest['saved']}"):
            saved.resume(self._start(saved.wake(rest, self._machine(job.scratch))), rest)
            now = time.time() + scenario.clock.offset_hours * 3600
            self.transport.run(["date", "-u", "-s", f"@{now:.3f}"])

    def save(self, target: Path) -> str:
        """Write the node as it is now to a directory, or to a tar file; returns its path."""
        if self._vm is None or self._built is None:
            raise InfraError("the node is not up")
        cell = self._job.cell
        notes = {
            "cell": [cell.image.name, cell.scenario.name, cell.profile.name, cell.provider],
            "build": self._built.manifest,
            "macs": self._macs,
            "ca_sha256": self._authority.proxy.sha256,
            "certificate_sha256": self._authority.module.sha256,
        }
        return str(saved.save(self._vm, target, notes).directory)

    def ssh(self, directory: Path) -> dict[str, Any]:
        """A way in for people; see ``harness.lab.door``. Asked again it is the same one."""
        if self._vm is None:
            raise InfraError("the node is not up")
        if self._door is None:
            self._door = door.open_door(self._vm, self.transport, directory)
        return self._door

    def _tools(self) -> None:
        from fixtures import daemons

        if self._job.cell.scenario.proxied:
            self._install = daemons.squid(state_dir() / "daemons")

    def _make_proxy(self, directory: Path, scenario: Scenario) -> AnyProxy:
        """A proxy of this cell, with a ledger of its own."""
        if self._install is None:
            raise InfraError("no proxy was unpacked")
        return surroundings.make_proxy(
            scenario, directory, self._install, self._authority, self._origin, self._password
        )

    @property
    def _password(self) -> str:
        return surroundings.proxy_password(keys_dir())

    def _build(self, found: Any, node_file: Any) -> None:
        job = self._job
        make = cloudbuild.build_machine if job.cell.image.cloud else build.build
        self._built = make(
            job,
            found,
            node_file=node_file,
            authority=self._authority,
            start_proxy=lambda where: self._make_proxy(where, job.cell.scenario.while_built),
            origin=self._origin,
            proxy=surroundings.proxy_value(job.cell.scenario, self._password),
            secrets=self._secrets(),
        )
        manifest = self._built.manifest
        inherited = manifest["built"] if self._built.cached else None
        job.record.installers = manifest["installers"]
        job.record.build = manifest["ledger"] | {"inherited": inherited}
        job.record.provenance |= provenance.of_build(found, self._built, node_file, self._authority)
        for name in ("journal.jsonl", "requests.jsonl", "facts.json", "build.pcap"):
            shutil.copy(self._built.directory / name, job.capsule / f"build-{name}")

    def _boot(self) -> None:
        """A machine that is ready: booted now, or a fork of one that was booted before."""
        job, scenario = self._job, self._job.cell.scenario
        if job.options.boot_anew:
            self._serve(scenario)
            self._close_in()
            running = self._power_on(self._machine(job.scratch))
        else:
            rest = self._frozen(self._serve(scenario.ordered))
            if scenario != scenario.ordered:
                self._proxy, self._own_rows = self._start_proxy("faulty", scenario), 0
            self._close_in()
            running = self._fork(rest)
        job.record.provenance["proxy_address"] = f"{at.PROXY}:{at.PROXY_PORT}"
        with job.phase("arrange", scenario.title):
            surroundings.arrange(scenario, running, self.transport, self._authority, self._origin)

    def _serve(self, scenario: Scenario) -> dict[str, str]:
        """Start what surrounds the node; returns the metadata."""
        from fixtures.metadata import MetadataServer

        if scenario.proxied:
            self._proxy = self._start_proxy("proxy", scenario)
        values = build.attributes(self._job, surroundings.proxy_value(scenario, self._password))
        self._metadata = self._stack.enter_context(MetadataServer(values)).serve()
        if scenario.google.direct:
            self._google = self._stack.enter_context(surroundings.make_google(self._authority))
        return values

    def _start_proxy(self, name: str, scenario: Scenario) -> AnyProxy:
        directory = self._job.owned.directory(self._job.scratch / name, "proxy")
        return self._stack.enter_context(self._make_proxy(directory, scenario))

    def _close_in(self) -> None:
        """In a network that drops, sockets that lead to our services are the machine's only way."""
        servers = {"proxy": self._proxy, "metadata": self._metadata, "google": self._google}
        if self._job.cell.scenario.network == "dropped":
            self._outlets = surroundings.outlets(self._stack, self._job.scratch, servers)

    def _machine(self, place: Path) -> vm.Machine:
        """What the virtual machine is made of; what it writes lies in ``place``."""
        if self._built is None or self._metadata is None:
            raise InfraError("nothing was built")
        accelerator = kvm.accelerator()
        self._job.record.provenance["accelerator"] = accelerator
        return vm.Machine(
            directory=self._job.scratch,
            root=place / "root.qcow2",
            esp=self._built.esp,
            seed=self._built.seed,
            firmware=firmware.find(),
            variables=place / "vars.fd",
            proxy_port=self._proxy.port if self._proxy else None,
            metadata_port=self._metadata.port,
            google_port=self._google.port if self._google else None,
            outlets=self._outlets,
            open=not self._job.cell.scenario.proxied,
            volume_mb=self._job.cell.scenario.volume.size_mb,
            accelerator=accelerator,
            memory=self._job.cell.image.memory_mb,
        )

    def _start(self, machine: vm.Machine) -> vm.VirtualMachine:
        running = self._stack.enter_context(vm.VirtualMachine(machine))
        self._job.owned.process(running.pid, "virtual machine")
        self._transport = AgentTransport(machine.channel, name=self._job.cell.id)
        self._stack.callback(self._transport.close)
        self._vm = running
        return running

    def _power_on(self, machine: vm.Machine) -> vm.VirtualMachine:
        """Boot, and once more if that got stuck; both are phases of the report.

        A translator of instructions has its faults, and a slow host its races: seen were panics,
        and an initramfs whose udev was gone (``udevadm control --exit``: Broken pipe).
        """
        try:
            return self._boot_machine(machine)
        except vm.BootStuck as first:
            self._job.say("boot", f"{first.message}; once more")
            self.transport.close()
            if self._vm is not None:
                self._vm.stop()
        try:
            return self._boot_machine(machine)
        except vm.BootStuck as second:
            raise NodeFailed(f"twice: {second.message}") from second

    def _boot_machine(self, machine: vm.Machine) -> vm.VirtualMachine:
        """From the firmware up, until the node says that it is ready."""
        job, built = self._job, self._image
        with job.phase("boot", "firmware, boot chain, units"):
            surroundings.enroll(job.cell.scenario, machine, self._authority, job.scratch)
            if machine.variables_format == "qcow2":
                disk.to_qcow2(machine.variables)
            disk.make_overlay(built.root, machine.root)
            running = self._start(machine)
            try:
                ready = self.transport.wait_ready(
                    timeout=_READY_SECONDS, alive=running.check_booting, check=job.check
                )
            except (TransportError, DeadlinePassed) as e:
                raise running.explain(e) from e
            self._state = str(ready.get("state"))
            job.say("boot", f"ready: {self._state}")
        self._rehearsal.booted(self.transport)
        if job.cell.scenario.boot.again:
            with job.phase("restart", "by systemd, from the firmware up"):
                ready = restart.restart(running, self.transport, ready, job.check, _READY_SECONDS)
                self._state = str(ready["state"])
            self._rehearsal.booted(self.transport)
        self._rehearsal.live_through(self.transport, self._metadata)
        return running

    def _frozen(self, values: Mapping[str, str]) -> frozen.Frozen:
        """The ready machine at rest, from the cache or booted now."""
        job, built = self._job, self._image
        machine = self._machine(job.scratch)
        again = ["restarted"] if job.cell.scenario.boot.again else []
        directory = frozen.place_of(
            machine,
            # Built anew it is another disk, though it be made of the same things.
            [built.directory.name, built.manifest["built"], *again],
            values,
            surroundings.firmware_of(job.cell.scenario, self._authority),
        )
        with frozen.making(directory) as place:
            if (found := frozen.find(directory)) is not None:
                return found
            running = self._power_on(frozen.prepare(machine, place))
            # A boot that went wrong, on a busy host for one, is not for others to inherit.
            kept = directory if self._state == "running" else frozen.beside(directory)
            with job.phase("freeze", "once its agent has looked at every file"):
                # Else each fork would hash modules and search files again: seconds, emulated.
                self.transport.facts(timeout=_WARM_SECONDS)
                self._search()
                # What a fork does first it finds in memory, and nothing to write back.
                self.transport.thaw(self.name, at.MAC)
                self.transport.run(["sync"])
                rows = self._proxy.rows() if self._proxy else []
                frozen.keep_boot(place, running.machine, rows)
                notes = {"cell": job.cell.id, "rehearsal": self._rehearsal.seen}
                found = frozen.freeze(running, place, kept, notes)
            self.transport.close()
            self._own_rows = len(rows)
            return found

    def _fork(self, rest: frozen.Frozen) -> vm.VirtualMachine:
        job = self._job
        with job.phase("fork", f"of the machine frozen {rest.manifest['frozen']}"):
            running = self._start(frozen.fork(rest, self._machine(job.scratch)))
            # Before the guest runs: else it sees its host leave and come back, and waits between.
            self.transport.connect()
            frozen.thaw(running, rest)
            self.name = f"airlock-{secrets.token_hex(3)}"
            self._macs.append("52:54:00:" + secrets.token_bytes(3).hex(":"))
            self.transport.thaw(self.name, self.mac, timeout=vm.PATIENCE)
        self._rest, self._rehearsal.seen = rest, rest.manifest["rehearsal"]
        job.record.provenance["frozen"] = rest.manifest["frozen"]
        return running

    @property
    def mac(self) -> str:
        """The address of its first card, as it is now."""
        return self._macs[-1]

    @property
    def _image(self) -> build.Built:
        if self._built is None:
            raise InfraError("nothing was built")
        return self._built

    @property
    def transport(self) -> AgentTransport:
        if self._transport is None:
            raise InfraError("the node is not up")
        return self._transport

    @property
    def expect(self) -> Mapping[str, Any]:
        built = self._image.manifest
        known = expected.expected(self._job.cell, self._authority, self._origin, built)
        return {**known, "rehearsed": self._rehearsal.seen}

    def exercise(self) -> None:
        """The three controls (where our socket signed a driver), probes, the canary search."""
        if "driver" in self._job.cell.profile.parts:
            with contextlib.suppress(RemoteError, FileNotFoundError):  # its facts then lack them
                stranger = self._image.stranger("nvidia.ko").read_bytes()
                self.transport.controls(stranger=stranger, module="nvidia")
        self.transport.probe()
        self._search()

    def _search(self) -> None:
        if not self._job.options.reproducing:
            self.transport.hygiene(list(self._secrets().values()))

    def symptom(self) -> str:
        """What a customer sees, on this node; without the secrets in it."""
        said = surroundings.symptom(self._job.cell.scenario, self.transport, self._origin)
        return canary.blackened(said, self._secrets()).decode(errors="replace")

    def _secrets(self) -> dict[str, bytes]:
        """Name -> bytes that must be nowhere in the image."""
        return expected.canaries(self._job.cell.scenario, self._authority, self._password)

    def ledger(self) -> dict[str, Any]:
        from fixtures import capture
        from fixtures.ledger import summarise

        if self._vm is None:
            raise InfraError("the node is not up")
        rows = self._proxy.rows()[self._own_rows :] if self._proxy else []
        files = [self._vm.machine.capture]
        if self._rest is not None:
            rows = json.loads((self._rest.directory / "boot-requests.json").read_text()) + rows
            files.append(self._rest.directory / "boot.pcap")
        allowed = at.peers(*self._macs)
        seen = [capture.classify(capture.read(file), allowed) for file in files]
        direct = len(self._google.requests) if self._google else 0
        return summarise(rows, seen, google_direct=direct) | {"build": self._job.record.build}

    def keep_evidence(self, capsule: Path) -> None:
        """Serial console, journal of the node, QEMU's log, the proxy's log, the capture."""
        evidence.keep(capsule, self._transport, self._vm, self._rest, self._proxy)
        canary.blacken(capsule, self._secrets())

    def down(self) -> None:
        self._transport = self._vm = self._proxy = None
        with contextlib.suppress(Exception):  # the pool must get its room back whatever happens
            self._stack.close()
