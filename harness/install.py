"""Runs the installers on a machine or a mounted image, by the node file and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import pack
from harness.errors import InfraError, UsageError
from harness.state import cache_dir
from harness.targets import connect, parse_target
from harness.transports.base import AgentOperations

#: Seconds for a driver built on a small machine.
TIMEOUT = 9000.0
#: A folder in memory: metadata may hold a password.
FOLDER = "umask 077; mktemp -d /run/airlock-install.XXXXXX"


@dataclass(frozen=True)
class Order:
    """What is to be run: ``verb`` is plan, apply, verify or remove of the node file."""

    verb: str
    metadata: str = ""
    only: str = ""
    json: bool = False

    def words(self, metadata: str) -> list[str]:
        """The node file's arguments, with the metadata where the node has them."""
        words = [self.verb]
        if metadata:
            words += ["--metadata", metadata]
        if self.only:
            words += ["--only", self.only]
        return [*words, "--json"] if self.json else words


def install_here(order: Order, root: Path | None) -> int:
    """On this machine, or on an image mounted at ``root``. Returns the node file's exit code."""
    if root is not None and not root.is_dir():
        raise UsageError(f"--root {root}: is not a directory")
    node_file = pack.pack(cache_dir("node-file")).path
    words = [sys.executable, str(node_file), *order.words(order.metadata)]
    if root is not None:
        words += ["--root", str(root.absolute())]
    return subprocess.run(words, check=False).returncode


def install_there(order: Order, target: str) -> int:
    """On a machine behind SSH, as the user that SSH logs in as, who must be root there."""
    place = parse_target(target)
    transport = connect(place)
    if not isinstance(transport, AgentOperations):
        raise InfraError(f"{target}: cannot be written to")
    try:
        folder = _run(transport, FOLDER).decode().strip()
        try:
            node_file = f"{folder}/{pack.NAME}"
            transport.put(pack.pack(cache_dir("node-file")).path.read_bytes(), node_file)
            metadata = order.metadata
            if metadata and "://" not in metadata:
                transport.put(_read(Path(metadata)), f"{folder}/metadata.json", mode=0o600)
                metadata = f"{folder}/metadata.json"
            ran = transport.run(["python3", node_file, *order.words(metadata)], timeout=TIMEOUT)
        finally:
            _run(transport, ["rm", "-rf", "--", folder])
    finally:
        transport.close()
    sys.stdout.write(ran.out.decode(errors="replace"))
    sys.stderr.write(ran.err.decode(errors="replace"))
    return ran.code


def _run(transport: AgentOperations, command: str | Sequence[str]) -> bytes:
    ran = transport.run(command, timeout=60)
    if ran.code:
        said = ran.err.decode(errors="replace").strip()
        raise InfraError(f"{transport.name}: {said[-300:]}", hint="the installers need root there")
    return ran.out


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"--metadata {path}: {error.strerror}") from error
