"""A hundred facts of a running node: one exchange, against those who ask one by one."""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.hundred import AREAS, by_testinfra, ours
from bench.lab import lab
from bench.record import Measurement, against, command, timed
from harness.lab.door import ssh_command
from harness.lab.node import QemuNode

LIMIT = 1.0
GOSS, GOSS_VERSION = "github.com/goss-org/goss", "v0.4.8"
#: As the checksum database has it, which is not asked: a mirror of modules need not carry it.
GOSS_SUM = "h1:TotR4OrWurnsuFkBYi4rjDtWu5rAB5YiBuEKuVpNFmU="


def _exchange(node: QemuNode) -> tuple[float, dict[str, str]]:
    nonce = secrets.token_hex(8)
    began = time.perf_counter()
    facts = node.transport.facts(nonce, only=AREAS)
    took = time.perf_counter() - began
    assert facts["nonce"] == nonce
    values = ours(facts)
    assert len(values) == 100, len(values)
    return took, values


def bench_facts_exchange() -> Measurement:
    """100 facts over a connection that is open: under 1 s."""
    with lab() as ready, ready.node() as (node, _, _):
        samples = [_exchange(node)[0] for _ in range(9)]
    return against("facts_exchange", samples, [LIMIT], "limit", "s", ["the agent's facts, by area"])


@contextmanager
def _entered() -> Iterator[tuple[QemuNode, list[str], Path]]:
    """A node, the ssh that enters it over a warm multiplexed connection, and a private directory.

    The connection is opened, and used once, before anything is measured.
    """
    with (
        lab() as ready,
        ready.node() as (node, _, capsule),
        tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as short,
    ):
        ssh = ssh_command(node.ssh(capsule))
        keep = ["-o", "ControlMaster=auto", "-o", "ControlPersist=600"]
        ssh[1:1] = [*keep, "-o", f"ControlPath={short}/c"]
        command([*ssh, "true"])
        try:
            yield node, ssh, capsule
        finally:
            subprocess.run([*ssh, "-O", "exit"], capture_output=True, check=False)


def _ours(node: QemuNode) -> tuple[list[float], dict[str, str]]:
    took = [_exchange(node) for _ in range(9)]
    return [seconds for seconds, _ in took], took[-1][1]


def bench_facts_vs_testinfra() -> Measurement:
    """The same 100 values by pytest-testinfra over ssh with a warm ControlPersist connection."""
    import testinfra

    with _entered() as (node, ssh, capsule):
        samples, values = _ours(node)
        config = capsule / "ssh-config"
        config.write_text(_config(ssh))
        host = testinfra.get_host("ssh://node", ssh_config=str(config))
        began = time.perf_counter()
        theirs = by_testinfra(host, list(values))
        peer = time.perf_counter() - began
    wrong = {name: (values[name], theirs[name]) for name in values if values[name] != theirs[name]}
    if wrong:
        sys.exit(f"facts_vs_testinfra: the values differ (ours, theirs): {wrong}")
    measured = against(
        "facts_vs_testinfra",
        samples,
        [peer],
        "pytest-testinfra, ssh with ControlPersist, warm",
        "s",
        ["100 values, equal on both sides"],
        {"pytest-testinfra": _version("pytest-testinfra")},
    )
    if measured.ratio < 50:
        print("OVER THE LIMIT: 50 times", file=sys.stderr)
    return measured


def bench_facts_vs_ansible_setup() -> Measurement:
    """Ansible's ``setup`` over the same kind of connection; reported, no limit."""
    with _entered() as (node, ssh, capsule), tempfile.TemporaryDirectory(prefix="ab-") as folder:
        samples, _ = _ours(node)
        venv = Path(folder) / "venv"
        command([sys.executable, "-m", "venv", str(venv)])
        command([str(venv / "bin/pip"), "install", "-q", "ansible-core"])
        (capsule / "ssh-config").write_text(_config(ssh))
        environment = {
            **os.environ,
            "ANSIBLE_SSH_ARGS": f"-F {capsule / 'ssh-config'}",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_HOME": folder,
        }
        python = "ansible_python_interpreter=/usr/bin/python3"
        argv = [str(venv / "bin/ansible"), "-i", "node,", "all", "-m", "setup", "-e", python]
        peer = [timed(lambda: command(argv, env=environment)) for _ in range(3)]
        said = command([str(venv / "bin/ansible"), "--version"]).stdout.split("\n")[0]
    return against(
        "facts_vs_ansible_setup", samples, peer, "ansible -m setup", "s", [" ".join(argv[1:])],
        {"ansible": said},
    )  # fmt: skip


def bench_facts_vs_goss() -> Measurement:
    """goss over the same ssh connection, with the packages among the 100 facts; reported."""
    with _entered() as (node, ssh, _), tempfile.TemporaryDirectory(prefix="ab-") as folder:
        samples, values = _ours(node)
        _build_goss(Path(folder) / "goss")
        node.transport.put_file(Path(folder) / "goss", "/run/goss", timeout=300)
        node.transport.run("mount -o remount,exec /run && chmod 755 /run/goss")
        node.transport.put(json.dumps(_gossfile(values)).encode(), "/run/goss.json")
        argv = [*ssh, "/run/goss -g /run/goss.json validate --format json"]
        done = command(argv)
        summary: dict[str, Any] = json.loads(done.stdout)["summary"]
        assert summary["failed-count"] == 0, summary
        peer = [timed(lambda: command(argv)) for _ in range(3)]
    return against(
        "facts_vs_goss", samples, peer, f"goss, {summary['test-count']} tests", "s",
        ["goss validate --format json"], {"goss": GOSS_VERSION},
    )  # fmt: skip


def _build_goss(program: Path) -> None:
    """What its own go.sum pins is built; the module itself is held against its sum here."""
    go = shutil.which("go")
    if go is None:
        sys.exit("facts_vs_goss: no go to build goss with")
    env = {**os.environ, "GONOSUMDB": GOSS, "CGO_ENABLED": "0"}
    got = json.loads(
        command([go, "mod", "download", "-json", f"{GOSS}@{GOSS_VERSION}"], env=env).stdout
    )
    if got["Sum"] != GOSS_SUM:
        sys.exit(f"facts_vs_goss: {GOSS} {GOSS_VERSION} is {got['Sum']}, not {GOSS_SUM}")
    command([go, "build", "-o", str(program), "./cmd/goss"], cwd=got["Dir"], env=env)


def _gossfile(values: dict[str, str]) -> dict[str, Any]:
    """The values that goss has a resource for."""
    packages = {
        name.removeprefix("package "): {"installed": True, "versions": [version]}
        for name, version in values.items()
        if name.startswith("package ")
    }
    files = {
        "/etc/machine-id": values["machine_id"],
        "/proc/sys/kernel/random/boot_id": values["boot_id"],
        "/sys/class/net/eth0/address": values["mac0"],
        "/sys/class/net/eth1/address": values["mac1"],
    }
    return {
        "package": packages,
        "file": {path: {"exists": True, "contents": [text]} for path, text in files.items()},
        "kernel-param": {
            "kernel.osrelease": {"value": values["kernel"]},
            "kernel.tainted": {"value": values["tainted"]},
        },
    }


def _config(ssh: list[str]) -> str:
    """An ssh configuration that says what the command line says, for the host ``node``."""
    lines = ["Host node", "HostName 127.0.0.1", "User root"]
    for flag, value in itertools.pairwise(ssh):
        if flag == "-o":
            lines.append(value.replace("=", " ", 1))
        elif flag == "-i":
            lines.append(f"IdentityFile {value}")
        elif flag == "-p":
            lines.append(f"Port {value}")
    return "\n  ".join(lines) + "\n"


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)
