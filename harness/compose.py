"""From what became of the cells to the report."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.cells import Cell
from reports import model
from reports.summary import build_report, cell_verdict, standing

if TYPE_CHECKING:
    from harness.patterns import Sighting
    from harness.shards import Shard
    from harness.station import Station

VERSION = "0.1.0"
#: Lines of a serial console that go into a report; the whole of it is in the capsule.
TAIL_LINES = 60
#: Rows of the proxy's log that go into the report of a cell that is not fine.
LEDGER_ROWS = 40


def compose(
    run_id: str,
    started: datetime,
    matrix: str,
    cells: list[model.Cell],
    whole: bool,
    shard: Shard | None = None,
) -> model.Report:
    """The report of a run. ``whole``: it was not cut off."""
    pyz = {cell.provenance.pyz_sha256 for cell in cells} - {""}
    run = model.Run(
        id=run_id,
        started=started,
        finished=datetime.now(UTC) if whole else None,
        airlock_version=VERSION,
        matrix=matrix,
        host=host_machine(),
        pyz_sha256=pyz.pop() if len(pyz) == 1 else "",
        shard=msgspec.convert(shard, model.Shard, from_attributes=True) if shard else None,
    )
    return build_report(run, cells)


def untried_cell(
    cell: Cell, verdict: model.CellVerdict, reason: str, remedy: str = ""
) -> model.Cell:
    """A cell that was never attempted: refused before anything, or impossible on this machine."""
    return model.Cell(
        id=cell.id,
        image=model.Image(name=cell.image.name),
        scenario=cell.scenario.name,
        profile=cell.profile.name,
        provider=cell.provider,
        verdict=verdict,
        expected=cell.expected.value,
        named_by=cell.scenario.named_by,
        reason=reason,
        remedy=remedy,
    )


def compose_cell(station: Station, cause: str = "", lost: Sequence[str] = ()) -> model.Cell:
    """What became of a cell in the pool.

    ``cause`` explains checks that were promised and never reported: they did not run.
    ``lost`` are checks that could not be collected, in words.
    """
    checks = [_check(said) for said in station.checks.values()]
    missing = [
        _check({**promise, "outcome": "error", "message": f"did not run: {cause or 'unknown'}"})
        for nodeid, promise in station.promised.items()
        if nodeid not in station.checks
    ]
    checks += missing
    checks += [_lost(number, what) for number, what in enumerate(lost)]
    # What the lab broke may well have made the node say it: then it is shown, and fails nothing.
    fails = station.trouble is None
    checks += [
        _seen(sighting, station.simulated)
        for sighting in station.sightings
        if sighting.fails and fails
    ]
    verdict, reason, remedy = _verdict(station, checks, bool(missing), cause)
    record = station.record
    cell = model.Cell(
        id=station.cell.id,
        image=model.Image(name=station.cell.image.name, digest=record.image_digest or ""),
        scenario=station.cell.scenario.name,
        profile=station.cell.profile.name,
        provider=station.cell.provider,
        verdict=verdict,
        expected=station.cell.expected.value,
        named_by=station.cell.scenario.named_by,
        cause=station.refusal.code if station.refusal else station.cause,
        reason=reason,
        remedy=remedy,
        simulated=station.simulated,
        phases=[
            msgspec.convert(
                {"name": phase.name, "seconds": phase.seconds, "outcome": phase.outcome},
                model.Phase,
            )
            for phase in record.phases
        ],
        installers=[_lenient(found, model.InstallerResult) for found in record.installers],
        checks=checks,
        ledger=_lenient(station.ledger, model.Ledger) if station.ledger else None,
        provenance=_provenance(record.provenance),
    )
    evidence = [
        model.Evidence(
            kind="text",
            title=f"console.{sighting.pattern.name} ({sighting.pattern.severity})",
            text="\n".join(sighting.lines),
            simulated=station.simulated,
        )
        for sighting in station.sightings
        if not (sighting.fails and fails)
    ]
    if standing(cell) != "fine":
        evidence += _evidence(station.capsule)
    return msgspec.structs.replace(cell, evidence=evidence) if evidence else cell


def host_machine() -> model.HostMachine:
    """The machine that this runs on."""
    names = platform.freedesktop_os_release()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return model.HostMachine(
        os=names.get("PRETTY_NAME", ""),
        kernel=platform.release(),
        arch=platform.machine(),
        cpus=os.cpu_count() or 0,
        memory_mib=memory >> 20,
    )


def _verdict(
    station: Station, checks: list[model.CheckResult], missing: bool, cause: str
) -> tuple[model.CellVerdict, str, str]:
    """Verdict, reason, remedy. A known failure outweighs what could not be told."""
    trouble = station.trouble
    told = cell_verdict(checks)
    if told == "fail":
        failed = [check.id for check in checks if check.outcome == "fail"]
        return "fail", f"failed: {', '.join(failed)}", ""
    if trouble is not None:
        verdicts: dict[str, model.CellVerdict] = {
            "failed": "fail",
            "refused": "refused",
            "stopped": "not-run",
        }
        return verdicts.get(trouble.kind, "error"), trouble.message, trouble.hint
    if missing or not checks:
        done = len(station.checks)
        why = cause or "the checks did not run"
        return "not-run" if not done else "error", f"{why} ({done} checks ran)", ""
    if told == "error":
        broken = next(check for check in checks if check.outcome == "error")
        return "error", f"{broken.id}: {broken.message}", ""
    if told == "not-run":
        return "not-run", "no check applied to this cell, so nothing was proved", ""
    return told, "", ""


def _check(said: Mapping[str, Any]) -> model.CheckResult:
    evidence = [
        {"text": str(line), "simulated": said.get("simulated", False)}
        for line in said.get("evidence", ())
    ]
    return msgspec.convert({**said, "evidence": evidence}, model.CheckResult)


def _seen(sighting: Sighting, simulated: bool) -> model.CheckResult:
    """What the console showed, as a check that failed."""
    pattern = sighting.pattern
    return model.CheckResult(
        id=f"console.{pattern.name}",
        title=pattern.title,
        severity=pattern.severity,
        outcome="fail",
        message=sighting.message,
        remedy=pattern.remedy,
        simulated=simulated,
        evidence=[
            model.Evidence(kind="serial", text=line, simulated=simulated) for line in sighting.lines
        ],
    )


def _lost(number: int, what: str) -> model.CheckResult:
    return model.CheckResult(
        id="harness.collection",
        instance=str(number or ""),
        title="Every check could be collected",
        severity="blocker",
        outcome="error",
        message=what,
        remedy="mend the check's file",
    )


def _lenient(found: Mapping[str, Any], kind: Any) -> Any:
    """``found`` as a type of the report; keys that the report has no field for are left out.

    The report's types refuse strangers, so that a reader is safe; what an installer says of
    itself may hold more than a report tells.
    """
    known = _names(kind)
    kept = {key: value for key, value in found.items() if key in known}
    if isinstance(kept.get("build"), Mapping):
        kept["build"] = _lenient(kept["build"], model.BuildLedger)
        kept["build"] = msgspec.to_builtins(kept["build"])
    return msgspec.convert(kept, kind)


@cache
def _names(kind: Any) -> frozenset[str]:
    """The names of a type's fields; msgspec works them out anew each time it is asked."""
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind))


def _provenance(found: Mapping[str, Any]) -> model.Provenance:
    known = _names(model.Provenance)
    extra = {
        key: value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in found.items()
        if key not in known
    }
    kept = {key: value for key, value in found.items() if key in known and value is not None}
    return msgspec.convert({**kept, "extra": {**kept.get("extra", {}), **extra}}, model.Provenance)


def _evidence(capsule: Path) -> list[model.Evidence]:
    """The tails of the consoles, of what else the capsule holds as a log, and of the ledger."""
    found = []
    for log in sorted(capsule.glob("*.log")):
        lines = log.read_text(errors="replace").splitlines()
        if lines:
            console = "serial" in log.name or "console" in log.name
            found.append(
                model.Evidence(
                    kind="serial" if console else "text",
                    title=log.name,
                    text="\n".join(lines[-TAIL_LINES:]),
                    path=log.name,
                )
            )
    for rows in sorted(capsule.glob("*requests.jsonl")):
        lines = rows.read_text(errors="replace").splitlines()
        if lines:
            stage = "the build" if rows.name.startswith("build") else "the running node"
            found.append(
                model.Evidence(
                    kind="ledger",
                    title=f"last requests of {stage} at the proxy",
                    text="\n".join(_request(line) for line in lines[-LEDGER_ROWS:]),
                    path=rows.name,
                )
            )
    return found


def _request(line: str) -> str:
    """A row of the proxy's log for people: when, what came of it, what was asked for, by whom.

    What may be secret in an address (a user, a signature in its query) stays in the capsule.
    """
    try:
        row = json.loads(line)
        when = datetime.fromtimestamp(float(row["ts"]), UTC).strftime("%H:%M:%S")
        address, asked, _ = str(row["url"]).partition("?")
        address = re.sub(r"//[^/]*@", "//", address) + ("?…" if asked else "")
        words = (when, row["status"], row["squid"], row["method"], address, row["ua"])
    except (ValueError, KeyError, TypeError, OverflowError, OSError):
        return "a row that cannot be read"
    return " ".join(str(word) for word in words if word not in (None, ""))
