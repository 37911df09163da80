"""Reports to test with. The numbers are invented; the shapes are those of a real run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from reports.model import (
    BuildLedger,
    CacheUse,
    Cell,
    Change,
    CheckOutcome,
    CheckResult,
    Evidence,
    HostMachine,
    Image,
    InstallerResult,
    Ledger,
    Phase,
    Provenance,
    Refusal,
    Report,
    Run,
    Severity,
)
from reports.summary import build_report

STARTED = datetime(2025, 11, 21, 9, 30, tzinfo=UTC)
PYZ = "5f" * 32

CHECKS: list[tuple[str, Severity, str]] = [
    ("egress.no-violation", "blocker", "No packet left the node another way than the proxy"),
    ("egress.capture-alive", "blocker", "The capture saw our own probes"),
    ("proxy.apt", "major", "apt uses the proxy from metadata"),
    ("trust.os-store", "blocker", "The OS trust store holds the proxy's CA, by fingerprint"),
    ("trust.tls-through-proxy", "blocker", "An HTTPS request through the proxy succeeds"),
    ("secure-boot.enabled", "blocker", "Secure Boot is on and the kernel is locked down"),
    ("secure-boot.db-key", "major", "The certificate in db is in the kernel's keyring"),
    ("modules.signature", "blocker", "Every NVIDIA module has one signature, and it is ours"),
    ("modules.load-ours", "blocker", "The kernel loads a module that we signed"),
    ("modules.refuse-unsigned", "blocker", "The kernel refuses an unsigned module"),
    ("hygiene.no-private-key", "blocker", "The image holds no private key"),
    ("hygiene.machine-id", "minor", "The image has no machine-id of its own"),
]


def make_run(**changes: object) -> Run:
    """A finished run of 12 minutes; ``changes`` replace fields."""
    run = Run(
        id="20251121-093000-1f3a",
        started=STARTED,
        finished=STARTED + timedelta(minutes=12, seconds=31),
        airlock_version="0.1.0",
        matrix="/home/user/airlock/matrices/default.toml",
        pyz_sha256=PYZ,
        host=HostMachine(name="builder", os="Debian 12", cpus=2, accelerator="tcg"),
    )
    return msgspec.structs.replace(run, **changes)


def make_check(
    check_id: str = "modules.signature", outcome: CheckOutcome = "pass", **changes: object
) -> CheckResult:
    """One check; ``changes`` replace fields."""
    check = CheckResult(
        id=check_id, title=f"What {check_id} proves", severity="major", outcome=outcome
    )
    return msgspec.structs.replace(check, **changes)


def make_checks() -> list[CheckResult]:
    """Twelve checks that passed."""
    return [
        CheckResult(id=name, title=title, severity=severity, outcome="pass", seconds=0.01 * at)
        for at, (name, severity, title) in enumerate(CHECKS)
    ]


def make_cell(cell_id: str = "debian-12+proxy-intercept+gpu", **changes: object) -> Cell:
    """A cell that passed, with everything a real one has; ``changes`` replace fields."""
    image, scenario, profile = cell_id.split("+")
    cell = Cell(
        id=cell_id,
        image=Image(name=image, digest="sha256:" + "a1" * 32),
        scenario=scenario,
        profile=profile,
        provider="qemu",
        verdict="pass",
        phases=[
            Phase(name="base image", seconds=0.4, outcome="cached"),
            Phase(name="build", seconds=188.2, outcome="ok", detail="5 modules built and signed"),
            Phase(name="boot", seconds=61.5, outcome="ok"),
            Phase(name="facts", seconds=1.9, outcome="ok"),
            Phase(name="checks", seconds=9.4, outcome="ok"),
        ],
        installers=[
            InstallerResult(
                name="proxy",
                outcome="ok",
                seconds=0.8,
                changes=[
                    Change(key="apt.Acquire::http::Proxy", after="http://10.0.2.100:3128"),
                    Change(key="environment.NO_PROXY", before="", after=["169.254.169.254"]),
                ],
            ),
            InstallerResult(name="trust", outcome="unchanged", seconds=0.2),
            InstallerResult(
                name="driver",
                outcome="ok",
                seconds=151.0,
                provenance={"modules": 5, "certificate": "c0" * 32},
            ),
        ],
        checks=make_checks(),
        ledger=Ledger(
            requests=14,
            bytes=48_211,
            probes=3,
            hosts={"origin.airlock.test": 9, "mirror.airlock.test": 5},
            build=BuildLedger(
                requests=212,
                bytes=371_402_118,
                probes=3,
                bumped_apt_gets=198,
                proxy_step_end=1763717400.0,
                first_request=1763717401.3,
                inherited=STARTED - timedelta(days=2),
            ),
        ),
        provenance=Provenance(
            pyz_sha256=PYZ,
            kernel="6.1.0-42-amd64",
            driver_version="535.261.03",
            certificate_sha256="c0" * 32,
            ca_sha256="ca" * 32,
            fixups=["conftest-gcc: the compile probe for drm_gem needs -std=gnu11"],
            cache=[
                CacheUse(name="base image", hit=True, key="b5" * 32, created=STARTED),
                CacheUse(name="modules", hit=False, key="d7" * 32, bytes_fetched=61_234_112),
            ],
            extra={"firmware": "OVMF 2024.11"},
        ),
        evidence=[
            Evidence(
                kind="serial",
                title="serial console, the end",
                text="[    0.000000] secureboot: enabled\r\n\x1b[32m[  OK  ]\x1b[0m up\r\n",
                path="serial.log",
            )
        ],
    )
    return msgspec.structs.replace(cell, **changes)


def failing_cell(cell_id: str = "debian-13+proxy-intercept+gpu") -> Cell:
    """A cell whose modules are not signed: one root cause and what follows from it."""
    checks = make_checks()
    by_id = {check.id: at for at, check in enumerate(checks)}
    at = by_id["modules.signature"]
    checks[at] = msgspec.structs.replace(
        checks[at],
        outcome="fail",
        message="nvidia.ko carries no signature",
        remedy="sign the module after strip and before compression",
        evidence=[
            Evidence(
                kind="command",
                title="the end of nvidia.ko",
                text="00000000  00 00 00 00 00 00 00 00  |........|",
            )
        ],
    )
    at = by_id["modules.load-ours"]
    checks[at] = msgspec.structs.replace(
        checks[at],
        outcome="fail",
        message="the kernel answered EKEYREJECTED",
        depends=["modules.signature"],
    )
    at = by_id["hygiene.machine-id"]
    checks[at] = msgspec.structs.replace(
        checks[at], outcome="not-verified", message="/etc/machine-id could not be read"
    )
    return make_cell(cell_id, verdict="fail", checks=checks)


def refused_cell(cell_id: str = "debian-11+proxy-intercept+gpu") -> Cell:
    """A cell that is refused before anything is fetched, as its matrix expects."""
    return Cell(
        id=cell_id,
        image=Image(name="debian-11"),
        scenario=cell_id.split("+")[1],
        profile="gpu",
        provider="qemu",
        verdict="refused",
        expected="refused",
        reason="Debian 11's kernel does not trust keys in the firmware's db",
        remedy="use debian-12, or enrol a machine owner key by hand",
        phases=[Phase(name="refusal", seconds=0.01, outcome="ok")],
        installers=[
            InstallerResult(
                name="driver",
                outcome="refused",
                refusals=[
                    Refusal(code="db-keys", reason="5.10 ignores db", remedy="use debian-12")
                ],
            )
        ],
    )


def error_cell(cell_id: str = "debian-12+proxy-auth+gpu") -> Cell:
    """A cell whose machine never came up."""
    return make_cell(
        cell_id,
        verdict="error",
        reason="the VM was not ready after 300 s",
        remedy="look at the end of the serial console",
        checks=[],
        ledger=None,
        phases=[Phase(name="boot", seconds=300.0, outcome="error", detail="no ready event")],
    )


def good_report() -> Report:
    """Two cells that passed and one that was rightly refused."""
    return build_report(
        make_run(),
        [make_cell(), make_cell("debian-13+proxy-intercept+gpu"), refused_cell()],
    )


def mixed_report() -> Report:
    """One cell of every kind."""
    return build_report(
        make_run(),
        [
            make_cell(),
            failing_cell(),
            refused_cell(),
            error_cell(),
            make_cell(
                "debian-13+proxy-auth+gpu",
                verdict="not-run",
                reason="the run was stopped",
                checks=[],
                phases=[],
                ledger=None,
                evidence=[],
            ),
            make_cell("debian-12+direct+gpu", provider="fake", simulated=True),
        ],
    )


def big_report(cells: int = 1000, checks: int = 200) -> Report:
    """A report of many cells that passed, with check names and titles of a usual length."""
    areas = [name.partition(".")[0] for name, _, _ in CHECKS]
    results = [
        CheckResult(
            id=f"{areas[at % len(areas)]}.a-check-number-{at}",
            title=f"What the check number {at} proves about a node, in words",
            severity="major",
            outcome="pass",
            seconds=0.012,
            remedy="what to do about it when it fails, said in one sentence of words",
        )
        for at in range(checks)
    ]
    return build_report(
        make_run(),
        [
            make_cell(f"image-{at % 40}+scenario-{at // 40}+gpu", checks=results)
            for at in range(cells)
        ],
    )
