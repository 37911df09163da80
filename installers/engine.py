# ruff: noqa: ARG002 - the base class names arguments that only subclasses use
"""Refuse, plan, apply, verify, remove: the same for every installer.

An installer says what is (``inspect``) and what should be (``desired``) as flat dictionaries; the
engine compares them by value and applies only differences. A step counts as done when ``verify``
finds no problem, so ``apply`` may be killed anywhere and run again. A state that was verified is
recorded by its digest: an apply that finds the same and nothing to change ends there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Optional

from installers import causes, space
from installers.config import Config
from installers.errors import NodeError, describe_defect
from installers.exits import Exit
from installers.host import Host
from installers.journal import Journal, Log, read_state, write_state
from installers.redact import redact

_HALF_DONE = "mend what is named above and apply again, which goes on; or remove, which goes back"


@dataclass(frozen=True)
class Refusal:
    """Why this node cannot be made right: a stable ``code``, the reason, the way out."""

    code: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Change:
    """One setting that is not what it should be. None stands for absent."""

    key: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Problem:
    """What is wrong, and how to mend it. ``cause``: a code of installers.causes, or empty."""

    what: str
    remedy: str
    cause: str = ""


@dataclass
class Contract:
    """What applying takes: ``hosts`` contacted, ``bytes`` fetched at most (None: not known),
    ``disk`` bytes needed per path, ``keys`` used, ``notes`` for the reader."""

    hosts: list[str] = field(default_factory=list)
    bytes: Optional[int] = 0
    disk: dict[str, int] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def merge(self, other: Contract) -> Contract:
        """Both together; space on the same path adds up."""
        disk = dict(self.disk)
        for path, size in other.disk.items():
            disk[path] = disk.get(path, 0) + size
        known = self.bytes is not None and other.bytes is not None
        return Contract(
            hosts=list(dict.fromkeys([*self.hosts, *other.hosts])),
            bytes=(self.bytes or 0) + (other.bytes or 0) if known else None,
            disk=disk,
            keys=list(dict.fromkeys([*self.keys, *other.keys])),
            notes=list(dict.fromkeys([*self.notes, *other.notes])),
        )


class Installer:
    """Makes one part of a node right. Subclasses override what they need.

    ``beside``: names of this run's installers; ``remains``: what a removal did not bring back.
    """

    name = ""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.beside: tuple[str, ...] = ()
        self.remains: list[str] = []

    def refuse(self, host: Host) -> list[Refusal]:
        """Reasons why nothing may be applied, found without any network."""
        return []

    @contextlib.contextmanager
    def session(self, host: Host) -> Iterator[None]:
        """What must hold around every apply, also when this installer itself is not selected."""
        yield

    def inspect(self, host: Host) -> dict[str, Any]:
        """What is: setting → JSON-able value."""
        raise NotImplementedError

    def desired(self, host: Host) -> dict[str, Any]:
        """What should be, in the same keys. With ``host.offline`` nothing may be fetched for it."""
        raise NotImplementedError

    def contract(self, host: Host) -> Contract:
        """What applying will take."""
        return Contract()

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        """Make the changes. May be called again after having been killed anywhere."""
        raise NotImplementedError

    def verify(self, host: Host) -> list[Problem]:
        """Whether the node really is as desired, read back by other means where there are any."""
        return []

    def remove(self, host: Host) -> None:
        """Undo what this installer did."""

    def provenance(self, host: Host) -> dict[str, Any]:
        """What a report should know about what is installed."""
        return {}


@dataclass
class Outcome:
    """What happened to one installer: ``outcome`` is ok, unchanged, refused, failed or planned."""

    name: str
    outcome: str
    changes: list[Change] = field(default_factory=list)
    seconds: float = 0.0
    problems: list[Problem] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what a removal did not bring back
    verified: str = field(default="", repr=False)  # digest of the state that verify found right


@dataclass
class Summary:
    """The answer of a verb; ``as_json`` is what ``--json`` prints."""

    installers: list[Outcome] = field(default_factory=list)
    contract: Contract = field(default_factory=Contract)
    not_run: list[str] = field(default_factory=list)
    exit: Exit = Exit.PASS

    def as_json(self, host: Host) -> dict[str, Any]:
        """``{"installers": [...], "contract": {...}, "not_run": [...], "exit": int}``, redacted."""
        shown = []
        for outcome in self.installers:
            record = asdict(outcome)
            del record["verified"]
            record["changes"] = [shown_change(change, host) for change in outcome.changes]
            shown.append(redact(record, host.secrets))
        return {
            "installers": shown,
            "contract": redact(asdict(self.contract), host.secrets),
            "not_run": self.not_run,
            "exit": int(self.exit),
        }


def shown_change(change: Change, host: Host) -> dict[str, Any]:
    """A change without secrets; says so when only a secret differs."""
    before, after = redact(change.before, host.secrets), redact(change.after, host.secrets)
    shown = {"key": redact(change.key, host.secrets), "before": before, "after": after}
    if before == after:
        shown["note"] = "only a secret differs"
    return shown


def diff(before: dict[str, Any], after: dict[str, Any]) -> list[Change]:
    """Settings whose values differ, in the order of ``after``, then what must go."""
    keys = [*after, *(key for key in before if key not in after)]
    return [
        Change(key, before.get(key), after.get(key))
        for key in keys
        if before.get(key) != after.get(key)
    ]


class Engine:
    """Runs verbs over installers, in their order, on one host."""

    def __init__(
        self, host: Host, installers: Sequence[Installer], sessions: Sequence[Installer] = ()
    ) -> None:
        self.host = host
        self.installers = list(installers)
        # Those whose session surrounds the work: the selected ones and, with --only, some others.
        self.sessions = list(dict.fromkeys([*sessions, *installers]))
        self.journal = Journal(host)

    def plan(self) -> Summary:
        """What apply would do, without network and without touching anything."""
        summary = Summary(contract=self._contract())
        for installer in self.installers:
            outcome = Outcome(installer.name, "planned")
            with self._caught(outcome, summary):
                outcome.refusals = installer.refuse(self.host)
                if outcome.refusals:
                    outcome.outcome = "refused"
                    summary.exit = summary.exit or Exit.FAIL
                else:
                    outcome.changes = diff(
                        installer.inspect(self.host), installer.desired(self.host)
                    )
                    outcome.outcome = "planned" if outcome.changes else "unchanged"
            summary.installers.append(outcome)
        return summary

    def apply(self) -> Summary:
        """Refuse before anything is fetched, else apply in order; stops at the first failure."""
        summary = Summary(contract=self._contract())
        if self._refused(summary):
            return summary
        with contextlib.ExitStack() as stack:
            for installer in self.sessions:
                stack.enter_context(installer.session(self.host))
            for position, installer in enumerate(self.installers):
                outcome = self._apply_one(installer, summary)
                summary.installers.append(outcome)
                self._store(outcome)
                if outcome.outcome == "failed":
                    summary.not_run = [later.name for later in self.installers[position + 1 :]]
                    break
        return summary

    def verify(self) -> Summary:
        """Compare and verify, change nothing."""
        summary = Summary()
        with contextlib.ExitStack() as stack:
            for installer in self.sessions:
                stack.enter_context(installer.session(self.host))
            for installer in self.installers:
                outcome = Outcome(installer.name, "ok")
                started = time.monotonic()
                with self._caught(outcome, summary):
                    outcome.changes = diff(
                        installer.inspect(self.host), installer.desired(self.host)
                    )
                    outcome.problems = installer.verify(self.host)
                    outcome.provenance = installer.provenance(self.host)
                    if outcome.changes or outcome.problems:
                        outcome.outcome = "failed"
                        summary.exit = summary.exit or Exit.FAIL
                if outcome.outcome == "failed":
                    self._doubt(installer.name)
                outcome.seconds = round(time.monotonic() - started, 3)
                summary.installers.append(outcome)
        return summary

    def remove(self) -> Summary:
        """Undo, last installer first; goes on after a failure."""
        summary = Summary()
        for installer in reversed(self.installers):
            outcome = Outcome(installer.name, "ok")
            started = time.monotonic()
            with self._caught(outcome, summary), self.journal.log(installer.name).step("remove"):
                installer.remove(self.host)
            outcome.notes = installer.remains
            outcome.seconds = round(time.monotonic() - started, 3)
            summary.installers.append(outcome)
            if outcome.outcome == "ok":
                state = read_state(self.host)
                state["installers"].pop(installer.name, None)
                write_state(self.host, state)
        return summary

    def _apply_one(self, installer: Installer, summary: Summary) -> Outcome:
        outcome = Outcome(installer.name, "unchanged")
        started = time.monotonic()
        log = self.journal.log(installer.name)
        with self._caught(outcome, summary), log.step("apply"):
            found = installer.inspect(self.host)
            outcome.changes = diff(found, installer.desired(self.host))
            known = read_state(self.host)["installers"].get(installer.name, {})
            if not outcome.changes and known.get("verified") == _digest(found):
                # Value for value what was verified; asking every program is for ``verify``.
                outcome.provenance = known["provenance"]
                outcome.verified = known["verified"]
            else:
                self._make_right(installer, outcome, log)
        if outcome.outcome == "failed" and log.done:
            steps = self.host.redact(", ".join(log.done))
            outcome.problems.append(Problem(f"half done; in place are: {steps}", _HALF_DONE))
        outcome.seconds = round(time.monotonic() - started, 3)
        return outcome

    def _make_right(self, installer: Installer, outcome: Outcome, log: Log) -> None:
        """Apply if anything differs or does not verify; raises NodeError for what is left."""
        outcome.problems = [] if outcome.changes else installer.verify(self.host)
        if outcome.changes or outcome.problems:
            outcome.outcome = "ok"
            log("diff", changes=[shown_change(change, self.host) for change in outcome.changes])
            installer.apply(self.host, outcome.changes, log)
            outcome.problems = self._still_wrong(installer)
        outcome.provenance = installer.provenance(self.host)
        if outcome.problems:
            first = outcome.problems[0]
            raise NodeError(first.what, remedy=first.remedy)
        outcome.verified = _digest(installer.inspect(self.host))

    def _still_wrong(self, installer: Installer) -> list[Problem]:
        left = diff(installer.inspect(self.host), installer.desired(self.host))
        words = [f"{change.key} is {change.before!r}, not {change.after!r}" for change in left]
        why = "something on the node changes it back, or the installer is wrong"
        problems = [Problem(redact(text, self.host.secrets), why) for text in words]
        return [*problems, *installer.verify(self.host)]

    def _doubt(self, name: str) -> None:
        """Let the next apply verify for itself."""
        if (state := read_state(self.host))["installers"].get(name, {}).pop("verified", ""):
            write_state(self.host, state)

    def _contract(self) -> Contract:
        contract = Contract()
        for installer in self.installers:
            contract = contract.merge(installer.contract(self.host))
        return contract

    def _refused(self, summary: Summary) -> bool:
        outcomes = [Outcome(i.name, "ok", refusals=i.refuse(self.host)) for i in self.installers]
        space = self._no_space(summary.contract)
        if space and outcomes:
            outcomes[-1].refusals.extend(space)
        refused = [outcome for outcome in outcomes if outcome.refusals]
        for outcome in refused:
            outcome.outcome = "refused"
            for refusal in outcome.refusals:
                self.journal.write(outcome.name, "refuse", "fail", **asdict(refusal))
            self._store(outcome)
        summary.installers = refused
        if refused:
            summary.not_run = [o.name for o in outcomes if not o.refusals]
            summary.exit = Exit.FAIL
        return bool(refused)

    def _no_space(self, contract: Contract) -> list[Refusal]:
        return [
            Refusal(
                "disk.space",
                f"{', '.join(one.paths)}: {one.need >> 20} MiB needed, {one.free >> 20} MiB free",
                "make room, or give the image a larger disk",
            )
            for one in space.shortages(self.host, contract.disk)
        ]

    def _store(self, outcome: Outcome) -> None:
        state = read_state(self.host)
        state["installers"][outcome.name] = {
            "outcome": outcome.outcome,
            "t": round(time.time(), 3),
            "problems": [asdict(problem) for problem in outcome.problems],
            "refusals": [asdict(refusal) for refusal in outcome.refusals],
            "provenance": outcome.provenance,
            "verified": outcome.verified,
        }
        write_state(self.host, state)

    @contextlib.contextmanager
    def _caught(self, outcome: Outcome, summary: Summary) -> Iterator[None]:
        """Turn an installer's error into a failed outcome; the first one decides the exit code."""
        try:
            yield
        except NodeError as error:
            cause = causes.of(error)
            text = str(NodeError(error.what, where=error.where))
            known = Problem(text, error.remedy or cause.remedy, cause.code)
            code = error.exit
        except Exception as error:
            # A defect of ours: still one line, and the place, but never called the node's fault.
            known = Problem(describe_defect(error), "report this as a defect")
            code = Exit.UNKNOWN
        else:
            return
        outcome.outcome = "failed"
        shown = replace(
            known, what=self.host.redact(known.what), remedy=self.host.redact(known.remedy)
        )
        if not any(problem.what == shown.what for problem in outcome.problems):
            outcome.problems = [*outcome.problems, shown]
        summary.exit = summary.exit or code


def _digest(found: dict[str, Any]) -> str:
    """SHA-256 of an inspected state, values and all."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
