"""Patterns of disaster: what they find, what they let pass, and what a run makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.scenarios import Scenario
from harness.cells import Cell, Image, Profile
from harness.errors import UsageError
from harness.patterns import look, read_patterns, shipped
from tests.unit.core.workbench import AUTH, BOOKWORM, Bench, outcomes

CELL = Cell(
    Image("debian-12", "", "debian", "12", "bookworm", "linux"),
    Scenario(name="direct", title="", network="direct"),
    Profile("plain", "", ()),
    "qemu",
)
#: Lines as kernels and systemd write them, and the pattern that each must meet.
LINES = {
    "kernel-panic": "[    1.2] Kernel panic - not syncing: VFS: Unable to mount root fs",
    "kernel-oops": "[   12.3] Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "kernel-bug": "[   12.3] kernel BUG at mm/slub.c:448!",
    "kernel-warning": "[    3.3] WARNING: CPU: 0 PID: 1 at lib/refcount.c:28 refcount_warn",
    "soft-lockup": "[   52.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [modprobe:312]",
    "rcu-stall": "[   61.0] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
    "hung-task": "[  242.1] INFO: task apt-get:522 blocked for more than 120 seconds.",
    "oom-killer": "Nov 21 20:00:00 node kernel: cc1plus invoked oom-killer: gfp_mask=0x140dca",
    "filesystem-error": "[    4.1] EXT4-fs error (device vda): ext4_lookup:1855: inode #12",
    "io-error": "[    4.0] I/O error, dev vda, sector 2048 op 0x0:(READ) flags 0x0",
    "ordering-cycle": "systemd[1]: a.service: Found ordering cycle on b.service/start",
    "emergency-mode": 'You are in emergency mode. After logging in, type "journalctl -xb"',
    "segfault": "[    9.9] nvidia-smi[412]: segfault at 10 ip 00007f12 sp 00007ffd error 4",
    "module-rejected": "[    8.8] Loading of unsigned module is rejected",
    "machine-check": "[    0.1] mce: [Hardware Error]: Machine check events logged",
    "gpu-xid": "[   77.7] NVRM: Xid (PCI:0000:00:04): 79, GPU has fallen off the bus.",
}
#: What good nodes say and looks like it.
HARMLESS = """
[    0.0] Linux version 6.1.0 (debian-kernel@lists.debian.org) #1 SMP
[    0.3] rcu: Hierarchical SRCU implementation.
[    0.4] EXT4-fs (vda): mounted filesystem with ordered data mode. Quota mode: none.
[    0.4] EXT4-fs (vda): re-mounted. Quota mode: none.
[    0.5] mce: CPU supports 10 MCE banks
[    0.5] I/O error, dev fd0, sector 0 op 0x0:(READ)
systemd[1]: Reached target local-fs.target - Local File Systems.
systemd[1]: Stopped target emergency.target.
systemd[1]: Listening on systemd-coredump.socket - Process Core Dump Socket.
[    0.1] BUG is not here, and no panic=30 either; oops=panic
"""


def capsule(path: Path, text: str, name: str = "console.log") -> Path:
    """A capsule whose console says this."""
    path.mkdir(exist_ok=True)
    (path / name).write_text(text)
    return path


def test_every_pattern_has_a_line_here() -> None:
    assert {pattern.name for pattern in shipped().patterns} == set(LINES)


@pytest.mark.parametrize("name", LINES)
def test_a_pattern_is_met_by_its_line_alone(tmp_path: Path, name: str) -> None:
    found = look(capsule(tmp_path / "c", f"{HARMLESS}\x1b[31m{LINES[name]}\x1b[0m\r\n"), CELL)
    assert [sighting.pattern.name for sighting in found.sightings] == [name]
    (sighting,) = found.sightings
    assert sighting.lines == (f"console.log: {LINES[name]}",)
    assert sighting.pattern.link in sighting.message


def test_what_good_nodes_say_is_let_pass(tmp_path: Path) -> None:
    found = look(capsule(tmp_path / "c", HARMLESS, "journal.txt"), CELL)
    assert found.sightings == []
    assert found.words.endswith("patterns looked for in journal.txt")
    assert "nothing" in look(tmp_path / "none", CELL).words
    build = capsule(tmp_path / "b", LINES["segfault"], "build.log")
    assert look(build, CELL).sightings == [], "a build's log is no node's"


def test_many_lines_are_counted_and_cut(tmp_path: Path) -> None:
    text = "\n".join(f"{LINES['io-error']} {number}" for number in range(500))
    (sighting,) = look(capsule(tmp_path / "c", text), CELL).sightings
    assert sighting.count == 500
    assert len(sighting.lines) == 12


def test_what_is_provoked_is_let_pass_where_it_is_provoked(tmp_path: Path) -> None:
    rejected = capsule(tmp_path / "c", LINES["module-rejected"])
    driver = Cell(CELL.image, CELL.scenario, Profile("any", "", ("driver",)), "qemu")
    assert look(rejected, driver).sightings == []
    assert look(rejected, CELL).sightings
    stuck = capsule(tmp_path / "s", LINES["soft-lockup"])
    assert look(stuck, CELL, accelerator="tcg").sightings == []
    assert look(stuck, CELL, accelerator="kvm").sightings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[pattern]]\nname = "a"\n', "lacks 'severity'"),
        ('[[allow]]\npattern = "a"\nregex = "a"\nwhy = "b"\n', "unknown pattern 'a'"),
        ('[[patern]]\nname = "a"\n', "unknown key 'patern'"),
    ],
)
def test_a_file_that_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "patterns.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=words):
        read_patterns(path)


def test_a_panic_fails_a_cell_that_is_green_otherwise(bench: Bench) -> None:
    lines = [LINES["kernel-oops"], LINES["kernel-warning"]]
    bench.script.write_text(f'["{AUTH}"]\nserial = {lines!r}\n')
    status, output = bench.run("-k", "proxy-auth or debian-12")
    assert status == 1, output
    cell = bench.cell(AUTH)
    assert (cell.verdict, cell.reason) == ("fail", "failed: console.kernel-oops")
    check = next(check for check in cell.checks if check.id == "console.kernel-oops")
    assert (check.severity, check.simulated) == ("blocker", True)
    assert check.evidence[0].text == f"serial.log: {LINES['kernel-oops']}"
    assert "console.kernel-warning (minor)" in [item.title for item in cell.evidence]
    assert bench.cell(BOOKWORM).verdict == "pass"
    assert "patterns looked for in serial.log" in bench.cell(BOOKWORM).provenance.extra["console"]


def test_what_a_broken_lab_makes_a_node_say_fails_nothing(bench: Bench) -> None:
    bench.script.write_text(f'["*"]\nbehaviour = "never-ready"\nserial = [{LINES["io-error"]!r}]\n')
    status, output = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 3, output
    cell = bench.cell(AUTH)
    assert cell.verdict == "error"
    assert "fail" not in outcomes(cell).values()
    assert "console.io-error (major)" in [item.title for item in cell.evidence]
