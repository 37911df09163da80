"""Virtual machines on this computer: the build stage, then a Secure Boot machine that shows it.

Needs no root, no cloud account and no KVM.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import secrets
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from harness.errors import AirlockError, InfraError
from harness.providers.base import Job, Needs, Refusal
from harness.refusals import known_refusal
from harness.state import cache_dir, keys_dir, state_dir

if TYPE_CHECKING:
    from fixtures.metadata import MetadataServer
    from fixtures.origin import Origin
    from fixtures.pki import Authority
    from fixtures.squid import Squid
    from harness.cells import Cell
    from harness.lab.build import Built
    from harness.lab.vm import VirtualMachine
    from harness.transports.agent import AgentTransport

_READY_SECONDS = 420.0  # a cold boot takes 50 s on a busy machine without KVM
_USER = "airlock"
_TOOLS = ("qemu-system-x86_64", "qemu-img", "mmdebstrap", "mkfs.ext4", "mformat", "mcopy", "socat")


class Qemu:
    """The provider ``qemu``. One per run; what the cells share is made on first use."""

    name = "qemu"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._authority: Authority | None = None
        self._origin: Origin | None = None

    def reasons_not(self, cell: Cell) -> list[str]:
        """What this machine lacks, by its files; whether KVM works is tried in ``up``."""
        from harness.lab.namespace import PATH

        missing = [tool for tool in _TOOLS if shutil.which(tool, path=PATH) is None]
        reasons = [f"{', '.join(missing)} not installed (airlock doctor --fix)"] if missing else []
        if cell.scenario.secure_boot:
            from harness.lab import firmware

            try:
                firmware.find()
            except InfraError as e:
                reasons.append(str(e))
        return reasons

    def refusal(self, cell: Cell) -> Refusal | None:
        """Refused by what is known of the image's kernel, before anything is fetched or built."""
        return known_refusal(cell)

    def needs(self, cell: Cell) -> Needs:
        return Needs(memory_mb=cell.image.memory_mb)

    def minutes(self, cell: Cell) -> float:
        """Measured on two quiet cores without KVM: base 1, build 4, boot and checks 1.5."""
        from harness.lab import base

        return 1.5 + (0.0 if base.find(cell.image) else 5.0)

    def shared(self, fresh: bool) -> tuple[Authority, Origin]:
        """Keys and origin of the lab; made on first use, kept between runs unless ``fresh``."""
        from fixtures.origin import Origin
        from fixtures.pki import Authority

        with self._lock:
            if self._authority is None or self._origin is None:
                self._authority = Authority(keys_dir(), fresh=fresh)
                self._origin = self._stack.enter_context(Origin(self._authority))
            return self._authority, self._origin

    def up(self, job: Job) -> QemuNode:
        """Base image, build stage, boot. Whoever raises leaves nothing behind."""
        node = QemuNode(job, *self.shared(job.options.fresh))
        try:
            node.start()
        except BaseException as e:
            node.keep_evidence(job.capsule)
            node.down()
            if isinstance(e, AirlockError) or not isinstance(e, Exception):
                raise
            raise InfraError(f"{type(e).__name__}: {e}") from e
        return node

    def close(self) -> None:
        self._stack.close()


def proxy_password(directory: Path) -> str:
    """The lab's proxy password: random, kept, and full of what breaks careless software."""
    path = directory / "proxy-password"
    with contextlib.suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)
        path.write_text(f"p@:/%#{secrets.token_hex(8)}")
    return path.read_text()


class QemuNode:
    """One virtual machine with its proxy and metadata server."""

    simulated = False

    def __init__(self, job: Job, authority: Authority, origin: Origin) -> None:
        self._job = job
        self._authority = authority
        self._origin = origin
        self._stack = contextlib.ExitStack()
        self._built: Built | None = None
        self._vm: VirtualMachine | None = None
        self._squid: Squid | None = None
        self._metadata: MetadataServer | None = None
        self._transport: AgentTransport | None = None
        self._kernel = ""

    def start(self) -> None:
        """Everything up to a node that says it is ready."""
        from fixtures import daemons
        from harness import pack
        from harness.lab import base

        job = self._job
        scenario, image = job.cell.scenario, job.cell.image
        with job.phase("base", f"base image {image.name}") as phase:
            found = base.build(image, log=job.capsule / "base.log")
            phase.outcome = "cached" if found.cached else "ok"
            job.record.image_digest = f"sha256:{found.digest}"
        with job.phase("tools", "proxy and node file"):
            node_file = pack.pack(cache_dir("node-file"))
            self._install = daemons.squid(state_dir() / "daemons") if scenario.proxied else None
        self._build(found, node_file)
        self._boot()

    def _proxy(self, directory: Path) -> Squid:
        """A proxy of this cell, with a ledger of its own."""
        from fixtures import origin
        from fixtures.squid import Squid

        if self._install is None:
            raise InfraError("no proxy was unpacked")
        scenario = self._job.cell.scenario
        users = {_USER: proxy_password(keys_dir())} if scenario.auth == "basic" else {}
        return Squid(
            directory,
            self._install,
            self._authority,
            hosts={origin.NAME: "127.0.0.1"},
            intercept=scenario.intercept,
            users=users,
            connect_ports=[self._origin.https_port, self._origin.http_port],
        )

    def _proxy_value(self) -> str | None:
        """The value of the metadata keys: what a customer writes there."""
        from harness.lab import addresses as at

        scenario = self._job.cell.scenario
        if not scenario.proxied:
            return None
        if scenario.auth != "basic":
            return f"{at.PROXY}:{at.PROXY_PORT}"
        secret = quote(proxy_password(keys_dir()), safe="")
        return f"http://{_USER}:{secret}@{at.PROXY}:{at.PROXY_PORT}"

    def _build(self, found: Any, node_file: Any) -> None:
        from harness.lab import build

        job = self._job
        with job.phase("build", "image from the cache, or made now") as phase:
            self._built = build.build(
                job,
                found,
                node_file=node_file,
                authority=self._authority,
                start_proxy=self._proxy,
                proxy=self._proxy_value(),
                secrets=self._secrets(),
            )
            phase.outcome = "cached" if self._built.cached else "ok"
        manifest = self._built.manifest
        inherited = manifest["built"] if self._built.cached else None
        job.record.installers = manifest["installers"]
        job.record.build = manifest["ledger"] | {"inherited": inherited}
        job.record.provenance |= {
            "node_file_sha256": node_file.sha256,
            "image": job.record.image_digest,
            "base_built": found.built,
            "image_cached": self._built.cached,
            "certificate_sha256": self._authority.module.sha256,
            "kernel": manifest["kernel"],
            **manifest["provenance"],
        }
        for name in ("journal.jsonl", "requests.jsonl", "build.pcap"):
            shutil.copy(self._built.directory / name, job.capsule / f"build-{name}")

    def _boot(self) -> None:
        from fixtures.metadata import MetadataServer
        from harness.lab import addresses as at
        from harness.lab import build, disk, firmware, kvm, vm
        from harness.transports.agent import AgentTransport

        job, built = self._job, self._built
        if built is None:
            raise InfraError("nothing was built")
        with job.phase("boot", "firmware, boot chain, units") as phase:
            certificate = job.scratch / "signing.pem"
            certificate.write_bytes(self._authority.module.pem)
            code = firmware.find()
            firmware.enroll(code, [certificate], job.scratch / "vars.fd")
            disk.make_overlay(built.root, job.scratch / "root.qcow2")
            if job.cell.scenario.proxied:
                directory = job.owned.directory(job.scratch / "squid", "proxy")
                self._squid = self._stack.enter_context(self._proxy(directory))
            values = build.attributes(job, self._proxy_value(), build=False)
            self._metadata = self._stack.enter_context(MetadataServer(values)).serve()
            machine = vm.Machine(
                directory=job.scratch,
                root=job.scratch / "root.qcow2",
                esp=built.esp,
                firmware=code,
                variables=job.scratch / "vars.fd",
                proxy_port=self._squid.port if self._squid else None,
                metadata_port=self._metadata.port,
                accelerator=kvm.accelerator(),
                memory=job.cell.image.memory_mb,
            )
            self._vm = self._stack.enter_context(vm.VirtualMachine(machine))
            job.owned.process(self._vm.pid, "virtual machine")
            self._transport = AgentTransport(machine.channel, name=job.cell.id)
            self._stack.callback(self._transport.close)
            try:
                ready = self._transport.wait_ready(
                    timeout=_READY_SECONDS, alive=self._vm.check_alive, check=job.check
                )
            except InfraError as e:
                tail = self._vm.console_tail(8).replace("\n", " | ")
                raise InfraError(f"{e.message}; serial console: {tail}", hint=e.hint) from e
            self._kernel = str(built.manifest["kernel"])
            phase.outcome = "ok"
            job.say("boot", f"ready: {ready.get('state')}")
        job.record.provenance["accelerator"] = machine.accelerator
        job.record.provenance["proxy_address"] = f"{at.PROXY}:{at.PROXY_PORT}"

    @property
    def transport(self) -> AgentTransport:
        if self._transport is None:
            raise InfraError("the node is not up")
        return self._transport

    @property
    def expect(self) -> Mapping[str, Any]:
        from harness.lab import addresses as at

        scenario = self._job.cell.scenario
        proxied = scenario.proxied
        return {
            "ca_sha256": self._authority.proxy.sha256 if scenario.intercept else None,
            "cert_sha256": self._authority.module.sha256,
            "cert_cn": self._authority.module.common_name,
            "boot_kernel": self._kernel,
            "proxy_url_redacted": f"http://{at.PROXY}:{at.PROXY_PORT}" if proxied else None,
            "origin_url": self._origin.url,
            "origin_http_url": self._origin.http_url,
            "secure_boot": scenario.secure_boot,
            "intercept": scenario.intercept,
            "auth": scenario.auth == "basic",
            "gpu": False,
        }

    def exercise(self) -> None:
        """The three controls, the egress probes and the canary search."""
        if self._built is None:
            raise InfraError("nothing was built")
        if "driver" in self._job.cell.profile.installers:
            stranger = self._built.stranger("nvidia.ko").read_bytes()
            self.transport.controls(stranger=stranger, module="nvidia")
        self.transport.probe()
        self.transport.hygiene(list(self._secrets().values()))

    def _secrets(self) -> dict[str, bytes]:
        """Name -> bytes that must be nowhere in the image."""
        # One line of a key: it is the same in every form the key can be copied in.
        secrets = {
            "module signing key": self._authority.module.key_and_cert().splitlines()[2],
            "proxy CA key": self._authority.proxy.key_and_cert().splitlines()[1],
        }
        if self._job.cell.scenario.auth == "basic":
            secrets["proxy password"] = proxy_password(keys_dir()).encode()
        return secrets

    def ledger(self) -> dict[str, Any]:
        from fixtures import capture
        from fixtures.ledger import summarise
        from harness.lab import addresses as at

        if self._vm is None:
            raise InfraError("the node is not up")
        rows = self._squid.rows() if self._squid else []
        seen = capture.classify(capture.read(self._vm.machine.capture), at.PEERS)
        return summarise(rows, [seen]) | {"build": self._job.record.build}

    def keep_evidence(self, capsule: Path) -> None:
        """Serial console, journal of the node, QEMU's log, the proxy's log, the capture."""
        if self._transport is not None:
            with contextlib.suppress(AirlockError, OSError):
                journal = self._transport.run(["journalctl", "-b", "--no-pager"], timeout=60)
                (capsule / "journal.txt").write_bytes(journal.out)
        if self._vm is not None:
            m = self._vm.machine
            for path in (m.console, m.capture, m.directory / "qemu.log"):
                if path.exists():
                    shutil.copy(path, capsule / path.name)
        if self._squid is not None:
            rows = self._squid.rows()
            (capsule / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        stamp = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        (capsule / "kept.txt").write_text(f"kept {stamp}\n")

    def down(self) -> None:
        self._transport = None
        self._vm = None
        self._squid = None
        with contextlib.suppress(Exception):  # the pool must get its room back whatever happens
            self._stack.close()
