"""The build stage of a vendor's image: booted with its seed in the scenario's network, and set up.

What a chamber does in a tree of files happens in a machine here, because a vendor's root may be of
any file system and only its own kernel reads it: the installers run by the agent's channel, behind
the proxy. The machine is then switched off, and its disk is the built image.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.metadata import MetadataServer
from fixtures.repository import Repository
from fixtures.signer import SignerServer
from harness.cached import used
from harness.deadline import Deadline, DeadlinePassed
from harness.errors import InfraError
from harness.lab import (
    applying,
    build,
    consolewords,
    disk,
    environment,
    firmware,
    foreign,
    kvm,
    packages,
    provenance,
    scripted,
    seam,
    seed,
    surroundings,
    tools,
    vm,
)
from harness.lab.base import canonical
from harness.providers.base import Job, NodeFailed, Refused
from harness.state import cache_dir, exclusive
from harness.transports.agent import AgentTransport
from harness.transports.base import CommandTimeout, TransportError

if TYPE_CHECKING:
    from fixtures.origin import Origin
    from fixtures.pki import Authority
    from harness.lab.build import Built
    from harness.lab.cloud import Disk
    from harness.lab.surroundings import AnyProxy
    from harness.pack import Packed

# cloud-init comes on top of a boot: half an hour where the machine is emulated on a busy host.
_READY_SECONDS = 1800.0
_OFF_SECONDS = 300.0
_COPY_SECONDS = 600.0
#: MiB of cached things that go in and out by the channel.
_MOST_STORE = 1024
_ENV = [f"{key}={value}" for key, value in build.ENV.items()]
#: The port whose other end is the signer; see :data:`_RELAY`.
_SIGN = "airlock.sign"
# Between the signing socket, where the installers look for it, and the port: one client at a time,
# as the protocol wants it (requests and answers, see installers.signing).
_RELAY = f"""\
import os, select, socket
port = os.open("/dev/virtio-ports/{_SIGN}", os.O_RDWR)
server = socket.socket(socket.AF_UNIX)
server.bind("{build.SOCKET}")
os.chmod("{build.SOCKET}", 0o600)
server.listen(1)
while True:
    client = server.accept()[0]
    while True:
        ready = select.select([client, port], [], [])[0]
        if port in ready:
            client.sendall(os.read(port, 65536))
        if client in ready:
            data = client.recv(65536)
            if not data:
                break
            while data:
                data = data[os.write(port, data):]
"""


def key(
    job: Job,
    found: Disk,
    node_file: Packed,
    authority: Authority,
    given: Mapping[str, str],
    added: tools.Added,
) -> str:
    """Key of an image that is built in a machine: what build.key has, and the seed."""
    return canonical(
        [build.key(job, found, node_file, authority, given, added), seed.texts(), seed.OPEN]
    )


def build_machine(
    job: Job,
    found: Disk,
    *,
    node_file: Packed,
    authority: Authority,
    start_proxy: Callable[[Path], AnyProxy],
    origin: Origin,
    proxy: str | None,
    secrets: Mapping[str, bytes],
) -> Built:
    """As :func:`harness.lab.build.build`, of a vendor's disk."""
    given = build.build_attributes(job, proxy, authority, origin)
    added = tools.added(job.cell, environment.files(job.cell, authority, cache_dir(build.STORE)))
    directory = cache_dir("images") / key(job, found, node_file, authority, given, added)[:32]
    with exclusive(directory):
        used(directory)
        if (ready := build.find(directory)) is not None:
            with job.phase("build", f"the image built {ready.manifest['built']}") as phase:
                phase.outcome = "cached"
            return provenance.bound(job, ready)
        partial = directory.with_name(f"partial-{directory.name}")
        job.owned.directory(partial, "half-made image")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            seed.make(partial / "seed.img", node_file)
            seed.make(job.scratch / "first.img", node_file, silent=True)
            site = _Site(job, found, partial, authority, origin, start_proxy, given)
            manifest = site.build(added)
            with job.phase("disk", "writing the disk"):
                disk.flatten(site.overlay, partial / "root.img", "raw")
                site.overlay.unlink()
                applying.search(partial / "root.img", secrets, manifest["ledger"])
            (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
            shutil.rmtree(directory, ignore_errors=True)
            partial.rename(directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return provenance.bound(job, build.Built(directory, manifest, cached=False))


class Channel:
    """Runs programs in the machine as a chamber does in its tree; standard error goes to a log."""

    def __init__(self, transport: AgentTransport, log: Path) -> None:
        self.transport = transport
        self._log = log
        log.touch()

    def run(self, argv: Sequence[str], *, timeout: float) -> tuple[int, str]:
        """See Workplace."""
        done = self.transport.run(["env", *_ENV, *argv], timeout=timeout)
        with self._log.open("ab") as log:
            log.write(done.err)
        return done.code, done.out.decode(errors="replace")

    def must(self, text: str, *, timeout: float = 60) -> None:
        """Run a script that the lab needs. InfraError with its last words."""
        code, said = self.run(["/bin/sh", "-c", f"exec 2>&1\n{text}"], timeout=timeout)
        if code:
            raise InfraError(f"the machine could not be prepared: {said.strip()[-400:]}")


class _Site:
    """One machine that is built in, and what surrounds it."""

    def __init__(
        self,
        job: Job,
        found: Disk,
        out: Path,
        authority: Authority,
        origin: Origin,
        start_proxy: Callable[[Path], AnyProxy],
        given: Mapping[str, str],
    ) -> None:
        self._job, self._found, self._out = job, found, out
        self._authority, self._origin = authority, origin
        self._start_proxy, self._given = start_proxy, given
        self._place = job.owned.directory(job.scratch / "b", "machine of a build")
        self._place.mkdir()
        self.overlay = out / "build.qcow2"

    def build(self, added: tools.Added) -> dict[str, Any]:
        """Boot, install, switch off; returns the manifest. See build.build for what it raises."""
        job = self._job
        scenario = job.cell.scenario.while_built
        stranger = self._out / "stranger"
        stranger.mkdir()
        socket = self._place / "sign.sock"
        with contextlib.ExitStack() as stack:
            squid = None
            if "http-proxy" in self._given:
                where = job.owned.directory(job.scratch / "build-squid", "proxy of a build")
                squid = stack.enter_context(self._start_proxy(where))
            metadata = MetadataServer(self._given, overrides=foreign.BUILDER)
            stack.enter_context(metadata).serve()
            signer = stack.enter_context(SignerServer(self._authority, socket, stranger))
            machine = self._machine(squid.port if squid else None, metadata.port, socket)
            with job.phase("first boot", "firmware, boot chain, cloud-init with its seed"):
                surroundings.enroll(scenario, machine, self._authority, self._place)
                running = stack.enter_context(vm.VirtualMachine(machine))
                job.owned.process(running.pid, "virtual machine of a build")
                # Whatever happens, the console says most.
                stack.callback(self._keep_console, machine)
                transport = AgentTransport(machine.channel, name=f"{job.cell.id} (build)")
                stack.callback(transport.close)
                self._wait(running, transport)
            place = Channel(transport, job.capsule / applying.LOG)
            with job.phase("prepare", "what the lab gives to a build"):
                self._prepare(place, added)
            with (
                exclusive(cache_dir(build.STORE) / f"base-{self._found.digest[:16]}"),
                job.phase("install", "plan, apply, verify behind the proxy"),
            ):
                stack.enter_context(scripted.broken(job, place, self._origin))
                results = self._install(place)
                fetched = len(squid.rows()) if squid else 0
                scripted.run(job, place, self._origin)
            last = applying.look(job, place, results)
            kernel = self._kernel(place)
            with job.phase("switch off", "cloud-init forgets this instance"):
                self._end(place, running)
            requests = squid.rows() if squid else []
        shutil.copy(machine.capture, self._out / applying.CAPTURE)
        named = provenance.step_end(last.journal, "proxy")
        traffic = applying.Traffic(requests, fetched, named)
        manifest = applying.manifest(job, self._out, results, last, traffic, signer.signatures)
        return {**manifest, "kernel": kernel, "inspected": list(self._found.inspection.lines())}

    def _machine(self, proxy: int | None, metadata: int, signer: Path) -> vm.Machine:
        job = self._job
        disk.make_overlay(self._found.raw, self.overlay)
        disk.grow(self.overlay, job.cell.image.disk_mb)
        return vm.Machine(
            directory=self._place,
            root=self.overlay,
            esp=None,
            seed=job.scratch / "first.img",
            firmware=firmware.find(),
            variables=self._place / "vars.fd",
            proxy_port=proxy,
            metadata_port=metadata,
            open=not job.cell.scenario.proxied,
            accelerator=kvm.accelerator(),
            memory=job.cell.image.memory_mb,
            ports={_SIGN: signer},
        )

    def _wait(self, running: vm.VirtualMachine, transport: AgentTransport) -> None:
        """Until the agent says ready. NodeFailed where the console says why it never will."""
        watch = consolewords.Watch(running, lambda: transport.heard)
        try:
            transport.wait_ready(timeout=_READY_SECONDS, alive=watch, check=self._job.check)
        except (TransportError, DeadlinePassed) as error:
            raise running.explain(error) from error

    def _prepare(self, place: Channel, added: tools.Added) -> None:
        """The CA, the repository's key, files of the profile, the signer, the cache."""
        job = self._job
        store = build.STORE_PLACE if self._caches else ""
        place.must(f"{seed.OPEN}mkdir -p -m 755 /run/airlock {store}")
        ca = build.given_ca(job, self._authority)
        place.transport.put(ca.pem, build.CA_FILE)
        place.transport.put(Repository(self._authority).armored, packages.KEY_FILE)
        if added.files or added.links:
            archive = seam.packed(
                {path: text.encode() for path, text in added.files.items()},
                executable=added.programs,
                pointing=added.links,
            )
            place.transport.put(archive, "/run/airlock/added.tar")
            place.must("tar -x -f /run/airlock/added.tar -C / --no-same-owner --no-overwrite-dir")
        if "driver" in job.cell.profile.installers:
            relay = ["systemd-run", "--quiet", "--unit=airlock-sign", "/usr/bin/python3", "-c"]
            code, said = place.run([*relay, _RELAY], timeout=60)
            if code:
                raise InfraError(f"the signer cannot be reached from the machine: {said[-300:]}")
        self._bring_store(place)

    def _install(self, place: Channel) -> dict[str, Any]:
        job = self._job
        try:
            results = applying.apply(job, place) if job.cell.profile.installers else {}
        except CommandTimeout as error:
            slow = kvm.accelerator() == "tcg" and "driver" in job.cell.profile.installers
            hint = "an emulated machine compiles for hours: this needs KVM" if slow else ""
            raise InfraError(error.message, hint=hint) from error
        except (NodeFailed, Refused):
            if job.options.reproducing:
                scripted.show_symptom(job, place, self._origin)
            raise
        self._take_store(place)
        return results

    @property
    def _caches(self) -> bool:
        """Whether an installer asks for the cache."""
        return bool({"driver", "environments"} & {*self._job.cell.profile.installers})

    def _bring_store(self, place: Channel) -> None:
        """What is in the cache goes in, where an installer asks for it."""
        store = cache_dir(build.STORE)
        files = [path for path in store.rglob("*") if path.is_file() and path.suffix != ".lock"]
        if not self._caches or not files:
            return
        if sum(path.stat().st_size for path in files) >> 20 > _MOST_STORE:
            self._job.say("prepare", f"the cache is larger than {_MOST_STORE} MiB: left out")
            return
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for path in files:
                tar.add(path, arcname=str(path.relative_to(store)))
        place.transport.put(out.getvalue(), "/var/cache/airlock/store.tar", timeout=_COPY_SECONDS)
        place.must(
            "cd /var/cache/airlock && tar -x -f store.tar -C store --no-same-owner && "
            "rm store.tar && touch /run/airlock/brought",
            timeout=_COPY_SECONDS,
        )

    def _take_store(self, place: Channel) -> None:
        """What was built comes out, and is not built again; the image keeps nothing of it."""
        if not self._caches:
            return
        place.must(
            f"cd {build.STORE_PLACE} && "
            "find . -type f ! -name '*.lock' $(test ! -e /run/airlock/brought || "
            "echo -newer /run/airlock/brought) -print0 | "
            "tar -c --null -T - -f /var/cache/airlock/store.tar && "
            f"cd / && rm -rf {build.STORE_PLACE}",
            timeout=_COPY_SECONDS,
        )
        data = place.transport.get("/var/cache/airlock/store.tar", timeout=_COPY_SECONDS)
        place.must(
            "rm /var/cache/airlock/store.tar && rmdir --ignore-fail-on-non-empty /var/cache/airlock"
        )
        store = cache_dir(build.STORE)
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                _unpack(tar, member, store)

    def _kernel(self, place: Channel) -> str:
        """The release that boots next: the newest with modules, as boot loaders choose."""
        _, said = place.run(["ls", "-1v", "/lib/modules"], timeout=20)
        if not said.split():
            raise NodeFailed("the image has no kernel under /lib/modules")
        return said.split()[-1]

    def _end(self, place: Channel, running: vm.VirtualMachine) -> None:
        """As a vendor ends the build of an image: the next boot is that of a new instance."""
        place.must("cloud-init clean --logs && rm -rf /run/airlock && sync", timeout=120)
        with contextlib.suppress(TransportError):  # it may be gone before it has answered
            place.transport.run(["systemctl", "poweroff"], timeout=60)
        deadline = Deadline(_OFF_SECONDS, "the end of the machine")
        while running.runs:
            deadline.check(hint=f"serial console: {running.console_tail(4)}")
            self._job.check()
            time.sleep(0.2)

    def _keep_console(self, machine: vm.Machine) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(machine.console, self._job.capsule / "build-console.log")


def _unpack(tar: tarfile.TarFile, member: tarfile.TarInfo, store: Path) -> None:
    """One entry that the machine made; it names no place but one in the store."""
    target = store / member.name
    file = tar.extractfile(member) if member.isreg() else None
    if file is None or not target.resolve().is_relative_to(store.resolve()):
        raise InfraError(f"the machine's cache holds {member.name}, which no cache has")
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(file.read())
    partial.rename(target)
