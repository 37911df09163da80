"""What a gate demands, as data: the policy, the waivers, and how their patterns are read.

Policies are TOML (``harness/policy.py`` reads them, ``docs/gate.md`` explains them). Without one
the gate demands what the report's own summary does.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import re
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Literal

import msgspec

from reports.model import Cell, CheckResult, Name, Severity

Bound = Literal["disk", "project", "id", "created", "db"]
Hold = Literal["worse", "all"]
#: Letters of a pattern that mean more than themselves.
_WILD = re.compile(r"[*?\[]")


class Table(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """What every table of a policy has in common; ``max_age_hours`` is ``max-age-hours``."""


class Require(Table, frozen=True):
    """What has to be there, and what holds a release up.

    ``areas``: of each, a check passes in every cell where the area applies, and in one at least.
    ``severities``: a failed check of another severity is said and holds nothing up.
    """

    areas: tuple[Name, ...] = ()
    severities: tuple[Severity, ...] = ("blocker", "major", "minor")


class NotVerified(Table, frozen=True):
    """Checks that could not look. ``severities`` must be verified, but for those ``allowed``."""

    severities: tuple[Severity, ...] = ("blocker",)
    allowed: tuple[Name, ...] = ()


class EvidenceRules(Table, frozen=True):
    """Which evidence counts.

    ``simulated``: that of a double; ``doubles``: for these checks in any case (patterns of ids),
    unless the whole cell is simulated. ``inherited``: of an earlier run. ``ledger``: a cell has to
    have one. ``max_age_hours``: since the end of the run (and of an inherited one); null: any.
    """

    simulated: bool = True
    doubles: tuple[Name, ...] = ()
    inherited: bool = True
    ledger: bool = False
    max_age_hours: Annotated[int, msgspec.Meta(ge=1)] | None = None


class SubjectRules(Table, frozen=True):
    """By what the report has to name the image that is to be released."""

    bind: tuple[Bound, ...] = ()


class WaiverRules(Table, frozen=True):
    """``strict``: a waiver that is expired, unused or too wide holds the release up.

    ``max_days``: one that has longer to go is too wide.
    """

    strict: bool = False
    max_days: Annotated[int, msgspec.Meta(ge=1)] = 180


class BaselineRules(Table, frozen=True):
    """With a baseline: only what got ``worse`` holds up, or ``all``."""

    hold: Hold = "worse"


class Grace(Table, frozen=True):
    """For so many ``days`` after it came to be, a check that fails is said and holds nothing up."""

    days: Annotated[int, msgspec.Meta(ge=0, le=365)] = 0


class Policy(Table, frozen=True):
    """A whole policy. ``name`` is the file's, without its ending."""

    name: str = ""
    require: Require = Require()
    not_verified: NotVerified = NotVerified()
    evidence: EvidenceRules = EvidenceRules()
    subject: SubjectRules = SubjectRules()
    waivers: WaiverRules = WaiverRules()
    baseline: BaselineRules = BaselineRules()
    grace: Grace = Grace()


class Waiver(Table, frozen=True):
    """One failure that somebody answers for, until a day.

    ``check`` is a pattern of check ids (``modules.sig*``), ``scope`` one of cell ids. It holds to
    the end of the day ``expires``, in UTC.
    """

    check: Name
    scope: Name
    owner: Name
    tracker: Name
    reason: Name
    expires: dt.date

    def __str__(self) -> str:
        return f"{self.check} in {self.scope} (owner {self.owner}, {self.tracker})"


class Waivers:
    """The waivers of one judgement: which of them hold, and which were needed."""

    def __init__(self, waivers: Sequence[Waiver], rules: WaiverRules, now: dt.datetime) -> None:
        today = now.astimezone(dt.UTC).date()
        self.expired = [one for one in waivers if one.expires < today]
        latest = today + dt.timedelta(days=rules.max_days)
        self.wide = [(one, why) for one in waivers if (why := _too_wide(one, latest))]
        void = [id(one) for one in (*self.expired, *(one for one, _ in self.wide))]
        self._hold = [one for one in waivers if id(one) not in void]
        self._used: set[int] = set()

    def find(self, cell: Cell, check: CheckResult) -> Waiver | None:
        """The waiver that covers a failure, which counts as used then."""
        found = _first(self._hold, cell, check)
        if found:
            self._used.add(id(found))
        return found

    def late(self, cell: Cell, check: CheckResult) -> Waiver | None:
        """A waiver that covered a failure until it expired."""
        return _first(self.expired, cell, check)

    @property
    def unused(self) -> list[Waiver]:
        """Those that hold and covered nothing."""
        return [one for one in self._hold if id(one) not in self._used]


def _first(waivers: Sequence[Waiver], cell: Cell, check: CheckResult) -> Waiver | None:
    fits = (w for w in waivers if matches(w.check, check.id) and matches(w.scope, cell.id))
    return next(fits, None)


def _too_wide(waiver: Waiver, latest: dt.date) -> str:
    """Why a waiver says more than one person can answer for; empty if it does not."""
    area, dot, name = waiver.check.partition(".")
    if not dot or _WILD.search(area):
        return f"{waiver.check!r} covers checks of more than one area"
    if _all(name) and _all(waiver.scope):
        return f"it covers the area {area} in every cell"
    if waiver.expires > latest:
        return f"it would hold until {waiver.expires}, and the policy allows {latest}"
    return ""


def _all(pattern: str) -> bool:
    return not re.sub(r"\[[^\]]*\]|[*?+.]", "", pattern)


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(pattern))


def matches(pattern: str, name: str) -> bool:
    """Whether a pattern with ``*``, ``?`` and ``[...]`` means all of a name."""
    return _compiled(pattern).match(name) is not None
