"""The shape of ``report.json``.

``schema.json`` is generated from these types (see :mod:`reports.schema`). A reader of version N
reads every version up to N: a new field gets a default and raises ``SCHEMA_VERSION`` by one.
All times are RFC 3339 with a time zone, all durations are seconds.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

import msgspec

SCHEMA_VERSION = 3

Severity = Literal["blocker", "major", "minor"]
CheckOutcome = Literal["pass", "fail", "error", "skip", "not-verified"]
PhaseOutcome = Literal["ok", "cached", "failed", "error", "skipped"]
InstallerOutcome = Literal["ok", "unchanged", "refused", "failed"]
CellVerdict = Literal["pass", "fail", "error", "refused", "not-run"]
Expected = Literal["pass", "refused", "named"]
RunVerdict = Literal["pass", "fail", "error", "nothing"]

Seconds = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(min_length=1)]
Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class Record(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What every type of the report has in common: named fields, no change, no strangers."""


class Evidence(Record, frozen=True, gc=False):
    """Something to look at: a console tail, ledger rows, a command's output.

    ``kind`` is an open word: ``text``, ``serial``, ``ledger``, ``journal``, ``diff``, ``command``.
    ``path`` names the whole of it inside the cell's capsule, when ``text`` is only a part.
    """

    kind: Name = "text"
    title: str = ""
    text: str = ""
    path: str = ""
    simulated: bool = False


class CheckResult(Record, frozen=True, gc=False):
    """What one check said about one node.

    ``instance`` tells the parametrised instances of one check apart (one per module, say).
    ``message`` says why for every outcome but ``pass``. ``depends`` are the ids of the checks
    whose failure explains a failure of this one: renderers fold it under the one that failed.
    ``since`` is the day a check came to be, for the gate's grace period; null: long ago.
    """

    id: Name
    title: str
    severity: Severity
    outcome: CheckOutcome
    instance: str = ""
    seconds: Seconds = 0.0
    message: str = ""
    remedy: str = ""
    depends: list[str] = []
    simulated: bool = False
    evidence: list[Evidence] = []
    since: date | None = None


class Phase(Record, frozen=True):
    """One step of a cell's life: ``build``, ``boot``, ``facts``, ``checks`` ...

    ``started`` counts seconds from the cell's own start; null means "right after the last one".
    """

    name: Name
    seconds: Seconds
    outcome: PhaseOutcome
    started: Seconds | None = None
    detail: str = ""


class Change(Record, frozen=True):
    """One setting an installer changed; secrets are redacted before they come here."""

    key: Name
    before: Any = None
    after: Any = None


class Problem(Record, frozen=True):
    """Something an installer's ``verify`` found wrong."""

    what: str
    remedy: str = ""
    cause: str = ""


class Refusal(Record, frozen=True):
    """Why an installer would not start."""

    code: str
    reason: str
    remedy: str = ""


class InstallerResult(Record, frozen=True):
    """What one installer did; the same fields as in ``airlock-node.pyz apply --json``."""

    name: Name
    outcome: InstallerOutcome
    seconds: Seconds = 0.0
    changes: list[Change] = []
    problems: list[Problem] = []
    refusals: list[Refusal] = []
    provenance: dict[str, Any] = {}


class Violation(Record, frozen=True, gc=False):
    """Packets of one kind that left another way than the proxy; ``text`` says it for people.

    ``name`` is what a DNS question asked for, ``time`` the first packet's (unix seconds).
    """

    text: Name
    proto: str = ""
    dst: str = ""
    port: int | None = None
    name: str | None = None
    time: float | None = None
    count: Count = 1


class Egress(Record, frozen=True):
    """What the proxy and the capture saw of one stage.

    ``probes`` are packets of our own attempts to get out, which a capture must show;
    ``missing_probes`` names those that it does not: then it proves nothing. ``truncated``: the
    capture ends in the middle of a packet. ``first_request`` is unix seconds.
    ``clients_without_ca`` are hosts where a client refused the proxy's certificate.
    Without ``captured`` nobody saw the packets, and ``violations`` says nothing: there is the
    proxy's log alone, and ``probes`` are requests of our own that it must hold.
    """

    requests: Count = 0
    google_direct: Count = 0
    violations: list[Violation] = []
    metadata_via_proxy: Count = 0
    probes: Count = 0
    missing_probes: list[str] = []
    truncated: bool = False
    first_request: float | None = None
    bumped_apt_gets: Count = 0
    clients_without_ca: list[str] = []
    denied: Count = 0
    bytes: Count = 0
    captured: bool = True


class BuildLedger(Egress, frozen=True):
    """The egress of the build stage.

    ``proxy_step_end`` is unix seconds: ``first_request`` must be the later one. ``packages`` counts
    fetched packages and sources, none of which a driver from the cache needs.
    ``inherited`` is the date of the build when its result came from the cache: these numbers are
    then that build's, and nothing was fetched in this run.
    """

    proxy_step_end: float | None = None
    packages: Count = 0
    inherited: Moment | None = None


class Ledger(Egress, frozen=True):
    """The egress of the running node. ``hosts`` counts its requests by host."""

    hosts: dict[str, Count] = {}
    build: BuildLedger | None = None


class CacheUse(Record, frozen=True):
    """One content-addressed thing a cell needed: ``hit`` means that nothing was built for it."""

    name: Name
    hit: bool
    key: str = ""
    created: Moment | None = None
    bytes_fetched: Count = 0


class Subject(Record, frozen=True):
    """Exactly which image was tested, so that a release can be held against it.

    ``disk_sha256`` is the disk file's, where there is one. On Google Cloud an image has no digest:
    ``project``, ``id`` (the number, not the name, which may be given again) and ``created`` are
    one. ``db_sha256``: the certificates (DER) in the firmware's db. Empty or null: not known.
    """

    disk_sha256: str = ""
    project: str = ""
    id: str = ""
    created: Moment | None = None
    db_sha256: list[str] = []


class Provenance(Record, frozen=True):
    """What the node was made of. An empty string means: not known, or not used.

    ``fixups`` are the edits to NVIDIA's source that this kernel needed, in words.
    ``pyz_sha256`` is the node-side file's; ``certificate_sha256`` the module-signing
    certificate's (DER); ``ca_sha256`` the proxy CA's (DER).
    """

    pyz_sha256: str = ""
    kernel: str = ""
    driver_version: str = ""
    fixups: list[str] = []
    certificate_sha256: str = ""
    ca_sha256: str = ""
    cache: list[CacheUse] = []
    extra: dict[str, str] = {}
    subject: Subject | None = None


class Image(Record, frozen=True):
    """The image under test; ``digest`` is ``sha256:<hex>`` of what was booted (or empty)."""

    name: Name
    digest: str = ""


class Inherited(Record, frozen=True):
    """Where a result comes from that was not made in this run: an earlier one, with its end.

    ``report`` is the path of that run's directory, relative to this report's.
    """

    run: Name
    finished: Moment
    report: str = ""


class Cell(Record, frozen=True):
    """image × scenario × profile: the unit that gets a verdict.

    ``reason`` and ``remedy`` say why the verdict is not ``pass``, and the way out.
    ``evidence`` belongs to the whole cell: the serial console's tail has kind ``serial``.
    ``inherited``: nothing of the cell has changed since an earlier run, whose result this is.
    Where ``expected`` is ``named`` the environment is faulty, and the right end is that the check
    ``named_by`` fails, or that an installer stops with that ``cause``.
    """

    id: Name
    image: Image
    scenario: Name
    profile: Name
    provider: Name
    verdict: CellVerdict
    expected: Expected = "pass"
    named_by: str = ""
    cause: str = ""
    reason: str = ""
    remedy: str = ""
    simulated: bool = False
    phases: list[Phase] = []
    installers: list[InstallerResult] = []
    checks: list[CheckResult] = []
    ledger: Ledger | None = None
    provenance: Provenance = Provenance()
    evidence: list[Evidence] = []
    inherited: Inherited | None = None


class HostMachine(Record, frozen=True):
    """The machine the run was made on. ``accelerator`` is ``kvm``, ``tcg`` or empty."""

    name: str = ""
    os: str = ""
    kernel: str = ""
    arch: str = ""
    cpus: Count = 0
    memory_mib: Count = 0
    accelerator: str = ""
    tools: dict[str, str] = {}


class Shard(Record, frozen=True):
    """Which part of a matrix a run was: number ``index``, from one, of ``count``.

    ``positions`` say where each of its cells is in the whole, from zero, in the order of ``cells``;
    the whole has ``total`` cells. ``division`` (hex) names the way they were divided
    (:mod:`reports.division`): only shards of one division make a whole.
    """

    index: Annotated[int, msgspec.Meta(ge=1)]
    count: Annotated[int, msgspec.Meta(ge=1)]
    total: Annotated[int, msgspec.Meta(ge=1)]
    positions: list[Count]
    division: Name


class Merged(Record, frozen=True):
    """A run that a merged report was made of: one whole shard.

    ``report_sha256`` is that report's. ``instead_of`` names the runs of the same shard that were
    cut off before.
    """

    run: Name
    shard: Annotated[int, msgspec.Meta(ge=1)]
    started: Moment
    finished: Moment
    report_sha256: Name
    host: HostMachine = HostMachine()
    instead_of: list[Name] = []


class Run(Record, frozen=True):
    """One ``airlock run`` (or ``check``, ``install``). ``finished`` is null when it was cut off.

    ``shard`` is null of a run that was the whole matrix. ``merged``: the runs that this was put
    together from, by ``airlock merge``; it ``started`` with the first and ``finished`` with the
    last of them, and says of the host what holds for all.
    """

    id: Name
    started: Moment
    finished: Moment | None
    airlock_version: str
    matrix: str
    host: HostMachine = HostMachine()
    pyz_sha256: str = ""
    shard: Shard | None = None
    merged: list[Merged] = []


class CellCounts(Record, frozen=True):
    """Cells by verdict; ``fine`` counts those that are what the matrix expects."""

    total: Count = 0
    passed: Count = 0
    failed: Count = 0
    error: Count = 0
    refused: Count = 0
    not_run: Count = 0
    fine: Count = 0
    simulated: Count = 0
    inherited: Count = 0


class CheckCounts(Record, frozen=True):
    """Checks by outcome, over all cells or in one."""

    total: Count = 0
    passed: Count = 0
    failed: Count = 0
    error: Count = 0
    skipped: Count = 0
    not_verified: Count = 0
    simulated: Count = 0


class Summary(Record, frozen=True):
    """What the cells add up to; always computed (:mod:`reports.summary`), never written by hand."""

    verdict: RunVerdict
    cells: CellCounts
    checks: CheckCounts
    violations: Count = 0


class Report(Record, frozen=True):
    """The machine-readable result of a run."""

    schema_version: Annotated[int, msgspec.Meta(ge=1)]
    run: Run
    summary: Summary
    cells: list[Cell]
