"""One QEMU virtual machine: UEFI Secure Boot, cards that lead to the proxy only, a channel.

User networking with ``restrict=on`` needs no root: the guest reaches the proxy and the metadata
server through forwards that start one relay per connection, and nothing else
(https://www.qemu.org/docs/master/system/invocation.html, ``-netdev user``).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from fixtures import keeper
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.lab import addresses as at
from harness.lab.firmware import Firmware
from harness.lab.namespace import host_env, last_words
from reports.text import plain

#: Seconds for what takes a fraction of one on a quiet host. Whether QEMU lives is seen meanwhile,
#: so patience with a host that is overcommitted costs nothing.
PATIENCE = 120.0


@dataclass(frozen=True)
class Machine:
    """What a virtual machine is made of. Sizes in MiB; ports are on the host's loopback."""

    directory: Path
    root: Path  # qcow2 overlay
    esp: Path | None  # raw, read only; None where the root disk has one of its own
    firmware: Firmware
    variables: Path  # this machine's own variable store
    proxy_port: int | None
    metadata_port: int | None
    google_port: int | None = None
    # Unix sockets that lead to those ports, by name: with them the machine gets a network whose
    # every other way is dropped without a word, where restrict=on refuses at once.
    outlets: Mapping[str, str] | None = None
    open: bool = False  # the guest's connections go out as this machine's own
    volume_mb: int = 0  # a second disk, empty
    seed: Path | None = None  # raw, read only: a volume for cloud-init
    # More ports: their name in the machine -> a unix socket of ours that somebody listens on.
    ports: Mapping[str, Path] = field(default_factory=dict)
    accelerator: str = "tcg"
    kind: str = "q35"
    memory: int = 1024
    cores: int = 1
    # Guest memory in a file: shared while the machine is prepared, copy-on-write in its forks.
    ram: Path | None = None
    # From the firmware up; or waiting for a state that comes in; or stopped, for a snapshot.
    start: Literal["boot", "incoming", "stopped"] = "boot"
    # qcow2 where it has to be in a snapshot.
    variables_format: Literal["raw", "qcow2"] = "raw"

    @property
    def cpu(self) -> str:
        """The model of its processor.

        Translated it is a simple one: with all that QEMU can translate (``max``) a boot takes a
        fifth longer, and as an Intel it would isolate its page tables: two thirds longer.
        Without cmpxchg16b, after which QEMU 7.2 may leave wrong flags: kernels of 6.12 use it for
        every allocation, and sooner or later die in kmem_cache_alloc_noprof.
        """
        return _TRANSLATED if self.accelerator == "tcg" else "max"

    @property
    def console(self) -> Path:
        return self.directory / "console.log"

    @property
    def channel(self) -> Path:
        return self.directory / "agent.sock"

    @property
    def monitor(self) -> Path:
        return self.directory / "qmp.sock"

    @property
    def capture(self) -> Path:
        return self.directory / "card.pcap"

    def arguments(self) -> list[str]:
        """QEMU's command line."""
        # smm=off is no choice here: the secure firmware keeps its variables in SMM.
        accel = "tcg,thread=multi" if self.accelerator == "tcg" else self.accelerator
        proxy = self._forward(at.PROXY, at.PROXY_PORT, "proxy", self.proxy_port)
        proxy += self._forward(at.GOOGLE, at.GOOGLE_PORT, "google", self.google_port)
        metadata = self._forward(at.METADATA, at.METADATA_PORT, "metadata", self.metadata_port)
        restrict = "off" if self.open or self.outlets is not None else "on"
        # The same id in a file and out of it: a saved state names its memory by it.
        ram = f"id=ram,size={self.memory}M"
        if self.ram is not None:
            share = "on" if self.start == "boot" else "off"
            ram = f"memory-backend-file,{ram},mem-path={self.ram},share={share}"
        else:
            ram = f"memory-backend-ram,{ram}"
        second = f"host={at.METADATA_HOST},dhcpstart={at.METADATA_NODE}{metadata}"
        return [
            "qemu-system-x86_64",
            *["-name", "airlock", "-nodefaults", "-no-user-config", "-display", "none"],
            *["-no-reboot", "-machine", f"{self.kind},smm=on,memory-backend=ram"],
            *["-accel", accel, "-cpu", self.cpu],
            *["-m", str(self.memory), "-smp", str(self.cores), "-object", ram],
            *["-global", "driver=cfi.pflash01,property=secure,value=on"],
            *["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={self.firmware.code}"],
            *["-drive", f"if=pflash,format={self.variables_format},unit=1,file={self.variables}"],
            *["-drive", f"if=none,id=root,format=qcow2,discard=unmap,file={self.root}"],
            *self._disks(),
            *["-object", "rng-random,id=rng,filename=/dev/urandom"],
            *["-device", "virtio-rng-pci,rng=rng"],
            *["-netdev", f"user,id=net0,restrict={restrict},ipv4=on,ipv6=on{proxy}"],
            *["-device", f"virtio-net-pci,netdev=net0,mac={at.MAC},romfile="],
            *["-object", f"filter-dump,id=dump0,netdev=net0,file={self.capture}"],
            *["-netdev", f"user,id=net1,restrict=on,net={at.METADATA_NET},{second}"],
            *["-device", f"virtio-net-pci,netdev=net1,mac={at.METADATA_MAC},romfile="],
            *["-chardev", f"socket,id=agent,path={self.channel},server=on,wait=off"],
            *["-device", "virtio-serial-pci"],
            *["-device", "virtserialport,chardev=agent,name=airlock.0"],
            *self._more_ports(),
            *["-chardev", f"file,id=console,path={self.console}"],
            *["-serial", "chardev:console"],
            *["-qmp", f"unix:{self.monitor},server=on,wait=off"],
            *_START[self.start],
        ]

    def _forward(self, address: str, port: int, name: str, target: int | None) -> str:
        """What leads connections of the guest to ``address`` to a port of ours."""
        if target is None:
            return ""
        place = f"TCP:127.0.0.1:{target}" if self.outlets is None else f"UNIX:{self.outlets[name]}"
        return f",guestfwd=tcp:{address}:{port}-cmd:{_relay(place)}"

    def _more_ports(self) -> list[str]:
        devices = []
        for number, (name, path) in enumerate(self.ports.items()):
            devices += ["-chardev", f"socket,id=port{number},path={path}"]
            devices += ["-device", f"virtserialport,chardev=port{number},name={name}"]
        return devices

    def _disks(self) -> list[str]:
        """The devices of its disks. The firmware looks at those alone that have a bootindex."""
        boots = "bootindex=0"
        if self.esp is None:
            devices = ["-device", f"virtio-blk-pci,drive=root,{boots}"]
        else:
            devices = ["-device", "virtio-blk-pci,drive=root"]
            devices += ["-drive", f"if=none,id=esp,format=raw,readonly=on,file={self.esp}"]
            devices += ["-device", f"virtio-blk-pci,drive=esp,{boots}"]
        if self.seed is not None:
            devices += ["-drive", f"if=none,id=seed,format=raw,readonly=on,file={self.seed}"]
            devices += ["-device", "virtio-blk-pci,drive=seed"]
        return devices + self._volume()

    def _volume(self) -> list[str]:
        if not self.volume_mb:
            return []
        path = self.directory / "volume.raw"
        with path.open("ab") as file:
            file.truncate(self.volume_mb << 20)
        drive = f"if=none,id=volume,format=raw,file={path}"
        return ["-drive", drive, "-device", "virtio-blk-pci,drive=volume,serial=airlock-volume"]


def _relay(target: str) -> str:
    program = shutil.which("socat", path=host_env()["PATH"])
    if program is None:
        raise InfraError("socat is not installed", hint="airlock doctor --fix")
    return f"{program} STDIO {target}"


def _dropping() -> list[str]:
    """What starts a program in a network whose only card swallows what it is given.

    QEMU's user networking opens the guest's connections from there, and nobody ever answers.
    """
    program = shutil.which("unshare", path=host_env()["PATH"])
    if program is None:
        raise InfraError("unshare is not installed", hint="airlock doctor --fix")
    prepare = (
        "ip link set lo up && ip link add hole0 type veth peer name hole1 && "
        # Without ARP and its like nothing has to be asked before a packet can be lost.
        "ip link set hole0 arp off up && ip link set hole1 up && "
        "ip addr add 198.18.0.1/15 dev hole0 && ip addr add fd00:5::1/64 dev hole0 nodad && "
        "ip route add default dev hole0 && ip -6 route add default dev hole0 && "
    )
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [program, *user, "--net", "--", "/bin/sh", "-c", prepare + 'exec "$@"', "sh"]


_START = {"boot": [], "incoming": ["-incoming", "defer"], "stopped": ["-S"]}

Command = str | tuple[str, dict[str, Any]]


def _answer(name: str, stream: Iterable[bytes]) -> Any:
    for line in stream:
        answer = json.loads(line)
        if "error" in answer:
            raise InfraError(f"QEMU refused {name}: {answer['error']['desc']}")
        if "return" in answer:
            return answer["return"]
    raise InfraError(f"QEMU went away during {name}")


_TRANSLATED = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,-cx16"
# The shell of an initramfs that gave up, or the last line of a kernel that did: neither ends.
_STUCK = re.compile(r"\(initramfs\)\s*$|end Kernel panic - not syncing")


class BootStuck(InfraError):
    """The machine will not boot by itself any more."""


class VirtualMachine:
    """A running machine. Use it as a context manager: leaving it ends QEMU."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._process: subprocess.Popen[bytes] | None = None
        self._log = machine.directory / "qemu.log"

    def __enter__(self) -> VirtualMachine:
        try:
            with self._log.open("ab") as log:
                # Under a keeper: should this process be killed, QEMU goes with it.
                self._process = subprocess.Popen(
                    keeper.command(self._command()),
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    env=host_env(),
                    start_new_session=True,
                )
        except FileNotFoundError as e:
            raise InfraError(f"{e.filename} is not installed", hint="airlock doctor --fix") from e
        return self

    def _command(self) -> list[str]:
        arguments = self.machine.arguments()
        return arguments if self.machine.outlets is None else [*_dropping(), *arguments]

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def runs(self) -> bool:
        """Whether QEMU is there."""
        return self._process is not None and self._process.poll() is None

    def check_alive(self) -> None:
        """Raise :class:`InfraError` with QEMU's own words and the console's tail if it is gone."""
        if self._process is None or self._process.poll() is None:
            return
        said = last_words(self._log)
        raise InfraError(
            f"QEMU ended with {self._process.returncode}: {said}",
            hint=f"serial console: {self.console_tail(3) or 'empty'}",
        )

    def check_booting(self) -> None:
        """check_alive, and :class:`BootStuck` if the console shows that it will not get further."""
        self.check_alive()
        if _STUCK.search(self.console_tail(1)):
            tail = self.console_tail(8).replace("\n", " | ")
            raise BootStuck(f"it does not boot; serial console: {tail}")

    def explain(self, error: InfraError) -> InfraError:
        """What broke the channel: in QEMU's words if it died, else in its console's.

        A dying QEMU takes its sockets first: its status is there a moment later.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process is not None:
                self._process.wait(1)
        try:
            self.check_alive()
        except InfraError as gone:
            return gone
        tail = self.console_tail(8).replace("\n", " | ")
        return InfraError(f"{error.message}; serial console: {tail or 'empty'}", hint=error.hint)

    def console_tail(self, lines: int = 12) -> str:
        """The last lines of the serial console, control sequences removed."""
        try:
            text = self.machine.console.read_bytes()[-16384:].decode(errors="replace")
        except FileNotFoundError:
            return ""
        return "\n".join([line for line in plain(text).splitlines() if line.strip()][-lines:])

    def monitor(self, *commands: Command, timeout: float = PATIENCE) -> list[Any]:
        """Send QMP commands, in order; return what each answered.

        A command is a name, or a name and its arguments
        (https://www.qemu.org/docs/master/interop/qemu-qmp-ref.html).
        """
        try:
            return self._ask(commands, Deadline(timeout, "QEMU's monitor"))
        except OSError as error:
            raise self.explain(InfraError(f"QEMU's monitor: {error}")) from error

    def _ask(self, commands: Sequence[Command], deadline: Deadline) -> list[Any]:
        answers = []
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(deadline.remaining())
            self._connect(sock, deadline)
            stream = sock.makefile("rwb")
            stream.readline()  # the greeting
            for command in ("qmp_capabilities", *commands):
                name, arguments = (command, {}) if isinstance(command, str) else command
                request = {"execute": name, "arguments": arguments}
                stream.write(json.dumps(request).encode() + b"\n")
                stream.flush()
                answers.append(_answer(name, stream))
        return answers[1:]

    def human(self, line: str, timeout: float = PATIENCE) -> str:
        """One command of the monitor for people; returns what it printed, "" for most that work.

        Snapshots and forwards have no other command in the QEMU releases that we support.
        """
        arguments = {"command-line": line}
        (text,) = self.monitor(("human-monitor-command", arguments), timeout=timeout)
        return str(text).strip()

    def _connect(self, sock: socket.socket, deadline: Deadline) -> None:
        """QEMU makes its monitor's socket a moment after it was started."""
        while True:
            try:
                sock.connect(str(self.machine.monitor))
            except (FileNotFoundError, ConnectionRefusedError):
                self.check_alive()
                deadline.check()
                time.sleep(0.005)
            else:
                return

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End QEMU. May be called twice."""
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        # The disk is thrown away with the node: nothing is gained by an orderly power-off. The
        # capture is complete: QEMU writes each frame as it passes (net/dump.c).
        if process.stdin is not None:
            process.stdin.close()
        process.wait(10)
