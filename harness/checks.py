"""What a check is, how it says what it found, and when it applies.

A check is a pytest function that takes the ``node`` fixture and carries a :class:`Check`::

    @check(id="trust.os-store", severity="blocker", title="...", remedy="...", requires=intercept)
    def test_os_store(node: Node) -> None:
        ...
        fail("the CA is missing", evidence=[...])

The decorator puts the ``Check`` on the function as the pytest marker ``airlock`` and evaluates the
requirements before the body runs, so a check behaves the same with and without our plugin. The
plugin reads :func:`check_of` at collection and :func:`record` when a report is made.

Outcomes, and what raises them:

============== ==================================== =======================================
``pass``       the function returns                 what the check demands was seen
``fail``       :func:`fail`, or a failing assert    the node or image is wrong
``not-verified`` :func:`not_verified`, :func:`fact` the node cannot tell, or its capsule
``error``      :func:`broken`, or any exception     the lab or the harness is wrong
``skip``       a requirement                        the check does not apply to this cell
============== ==================================== =======================================
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar

import pytest
from _pytest.outcomes import Skipped

from harness.node import NodeAbsent, Recorded

if TYPE_CHECKING:
    from harness.node import Node

MARKER = "airlock"
MARKER_LINE = "airlock(check): a conformance check; see harness.checks"

Severity = Literal["blocker", "major", "minor"]
Outcome = Literal["pass", "fail", "error", "skip", "not-verified"]
SEVERITIES: tuple[Severity, ...] = ("blocker", "major", "minor")

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*")
_EVIDENCE_LINES = 40
_EVIDENCE_WIDTH = 600

F = TypeVar("F", bound=Callable[..., None])


@dataclass(frozen=True)
class Requirement:
    """Decides whether a check applies.

    ``why_not(node)`` gives the reason why it does not, and ``""`` when it does.
    """

    name: str
    needs: str
    why_not: Callable[[Node], str]


@dataclass(frozen=True)
class Check:
    """What is known about a check before it runs.

    ``id``: ``area.name``, stable for ever. ``depends``: ids of checks whose failure explains a
    failure of this one. ``source``: where the demand comes from, for people. ``since``: the day
    the check came to be (``2026-11-22``): a policy may let a new one only warn for a while.
    """

    id: str
    severity: Severity
    title: str
    remedy: str
    requires: tuple[Requirement, ...] = ()
    depends: tuple[str, ...] = ()
    source: str = ""
    since: str = ""

    @property
    def area(self) -> str:
        """The part of the id before the dot; also the folder the check lives in."""
        return self.id.partition(".")[0]


class CheckFailed(AssertionError):
    """The node or image is wrong. ``evidence``: what was seen, as short lines."""

    def __init__(self, message: str, evidence: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.evidence = _lines(evidence)


class CheckBroken(Exception):
    """The lab could not tell: an infrastructure error, never a failed check."""

    def __init__(self, message: str, evidence: Iterable[object] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.evidence = _lines(evidence)


class NotVerified(Skipped):
    """The node could not be asked. Plain pytest shows a skip; our report says ``not-verified``."""


def fail(message: str, evidence: Iterable[object] = ()) -> NoReturn:
    """Fail the check: the node or image is wrong. Say what is, what should be, and where."""
    raise CheckFailed(message, evidence)


def broken(message: str, evidence: Iterable[object] = ()) -> NoReturn:
    """End the check with the outcome ``error``: the lab is wrong, the node may be right."""
    raise CheckBroken(message, evidence)


def not_verified(reason: str) -> NoReturn:
    """End the check without a verdict on the node: what it needs could not be read."""
    raise NotVerified(reason)


def fact(node: Node, path: str) -> Any:
    """The fact at the dotted ``path`` (``secure_boot.enabled``), never ``None``.

    A fact that is absent, null, or empty because it could not be read ends the check as not
    verified, with the reason the node gave under ``unreadable``.
    """
    value: Any = node.facts
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
        if value is None:
            not_verified(f"{path} could not be read: {_unreadable(node, path)}")
    if not value and path in (node.facts.get("unreadable") or {}):
        not_verified(f"{path} could not be read: {_unreadable(node, path)}")
    return value


def check(
    *,
    id: str,
    severity: Severity,
    title: str,
    remedy: str,
    requires: Requirement | Iterable[Requirement] = (),
    depends: Iterable[str] = (),
    source: str = "",
    since: str = "",
) -> Callable[[F], F]:
    """Turn a pytest function that takes ``node`` into a check.

    Raises ``ValueError`` for an id that is not ``area.name``, an unknown severity, or no date.
    """
    if not _ID.fullmatch(id):
        raise ValueError(f"check id {id!r} is not of the form area.name")
    if severity not in SEVERITIES:
        raise ValueError(f"{id}: unknown severity {severity!r}")
    needs = (requires,) if isinstance(requires, Requirement) else tuple(requires)
    if since:
        date.fromisoformat(since)
    this = Check(id, severity, title, remedy, needs, tuple(depends), source, since)

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(node: Node, **fixtures: Any) -> None:
            try:
                reason = why_not(this, node)
            except NodeAbsent as error:
                not_verified(error.message)
            if reason:
                pytest.skip(reason)
            try:
                function(node, **fixtures)
            except NodeAbsent as error:
                not_verified(error.message)
            except KeyError as error:
                if not isinstance(node.facts, Recorded):
                    raise
                not_verified(f"the capsule does not hold {error}")

        marked: Any = getattr(pytest.mark, MARKER)(this)(run)
        return marked  # type: ignore[no-any-return]

    return decorate


def why_not(this: Check, node: Node) -> str:
    """The reason why a check does not apply to this node, or ``""``."""
    reasons = (requirement.why_not(node) for requirement in this.requires)
    return next((reason for reason in reasons if reason), "")


def check_of(item: pytest.Item) -> Check | None:
    """The ``Check`` of a collected pytest item, or ``None`` for an ordinary test."""
    marker = item.get_closest_marker(MARKER)
    found = marker.args[0] if marker and marker.args else None
    return found if isinstance(found, Check) else None


def record(this: Check, error: BaseException | None) -> dict[str, Any]:
    """What a report says about one run of a check; JSON-able, so it crosses xdist.

    Keys: id, title, severity, outcome, message, remedy, evidence, depends; since, if it has one.
    """
    return {
        **({"since": this.since} if this.since else {}),
        "id": this.id,
        "title": this.title,
        "severity": this.severity,
        "outcome": outcome_of(error),
        "message": _message(error),
        "remedy": this.remedy,
        "evidence": list(getattr(error, "evidence", ())),
        "depends": list(this.depends),
    }


def outcome_of(error: BaseException | None) -> Outcome:
    """The outcome that an exception out of a check stands for; ``None`` means it returned."""
    if error is None:
        return "pass"
    if isinstance(error, NotVerified):
        return "not-verified"
    if isinstance(error, Skipped):
        return "skip"
    return "fail" if isinstance(error, AssertionError) else "error"


def _message(error: BaseException | None) -> str:
    if error is None:
        return ""
    text = str(getattr(error, "message", None) or getattr(error, "msg", None) or error)
    return text if outcome_of(error) != "error" else f"{type(error).__name__}: {text}"


def _lines(evidence: Iterable[object]) -> list[str]:
    """Evidence cut to a size that a report can carry for every check of every cell."""
    lines = [str(item)[:_EVIDENCE_WIDTH] for item in evidence]
    if len(lines) > _EVIDENCE_LINES:
        more = len(lines) - _EVIDENCE_LINES
        lines = [*lines[:_EVIDENCE_LINES], f"... and {more} more"]
    return lines


def _unreadable(node: Node, path: str) -> str:
    """What the node said about the nearest name above ``path`` that it could not read."""
    why = node.facts.get("unreadable") or {}
    steps = path.split(".")
    names = [".".join(steps[:length]) for length in range(len(steps), 0, -1)]
    return next((str(why[name]) for name in names if name in why), "the node did not say why")


def _expects(name: str, key: str, needs: str) -> Requirement:
    return Requirement(
        name, needs, lambda node: "" if node.expect.get(key) else f"does not apply: needs {needs}"
    )


def _cards(name: str, needs: str, key: str = "gpu") -> Requirement:
    """Of a check of the cards: a lab knows whether its node has any, and a host has to be asked."""

    def why_not(node: Node) -> str:
        ruled_out = node.expect.get("gpu") is False and not node.expect.get(key)
        return f"does not apply: needs {needs}" if ruled_out else ""

    return Requirement(name, needs, why_not)


def _cluster_why_not(node: Node) -> str:
    return "" if "cluster" in node.facts else "does not apply: needs a Kubernetes cluster"


def _slicing_why_not(node: Node) -> str:
    """Where slicing was declared, or where the cluster is configured to do it."""
    if "cluster" not in node.facts:
        return _cluster_why_not(node)
    policies = node.facts["cluster"].get("policies") or []
    plugins = [policy["spec"].get("devicePlugin") or {} for policy in policies]
    wanted = node.expect.get("slicing") or any(plugin.get("config") for plugin in plugins)
    return "" if wanted else "does not apply: nobody asked for time-slicing"


def _ledger_why_not(node: Node) -> str:
    return "" if node.ledger else "does not apply: nothing recorded this node's traffic"


def _build_why_not(node: Node) -> str:
    built = node.ledger and node.ledger.get("build")
    return "" if built else "does not apply: this image was not built behind our proxy"


def _own_proxy_why_not(node: Node) -> str:
    foreign = node.expect.get("foreign_proxy")
    return "does not apply: a user's own set-up set the proxy" if foreign else ""


proxy = _expects("proxy", "proxy_url_redacted", "a scenario with a proxy")
proxy_tools = _expects("proxy-tools", "proxy_tools", "a proxy, and known tools that must know it")
intercept = _expects("intercept", "intercept", "a proxy that intercepts TLS")
auth = _expects("auth", "auth", "a proxy that asks for credentials")
secure_boot = _expects("secure-boot", "secure_boot", "a scenario with Secure Boot")
signed_driver = _expects("signed-driver", "cert_sha256", "a driver signed with a known certificate")
boot_kernel = _expects("boot-kernel", "boot_kernel", "a known boot kernel")
origin_http = _expects("origin-http", "origin_http_url", "a plain origin of ours behind the proxy")
origin = _expects("origin", "origin_url", "an origin of ours behind the proxy")
ports = _expects("ports", "ports", "ports that something on the node will need")
glibc = _expects("glibc", "glibc", "programs that ask for a version of the C library")
repository = _expects("repository", "repository", "a package repository with a pinned key")
google = _expects("google", "google_url", "Google's services reached past the proxy")
deferred = _expects("deferred", "deferred", "a profile with the deferred configuration")
environments = _expects("environments", "environments", "a profile with conda environments")
image_built = _expects("image-built", "image_built", "a known date of the image")
restarted = _expects("restarted", "restarted", "a node that was restarted")
refusing = _expects("refusing", "refuses", "a network that should refuse what it does not allow")
gpu = _cards("gpu", "a GPU")
cuda = _cards("cuda", "a GPU or the CUDA toolkit", "cuda")
frameworks = _cards("frameworks", "a GPU and a framework")
containers = _cards("containers", "a GPU or a container runtime for GPUs", "container_runtime")
own_proxy = Requirement("own-proxy", "our installer of the proxy", _own_proxy_why_not)
cluster = Requirement("cluster", "a Kubernetes cluster", _cluster_why_not)
slicing = Requirement("slicing", "a cluster that shares its cards by time", _slicing_why_not)
ledger = Requirement("ledger", "a recorded network", _ledger_why_not)
build_ledger = Requirement("build-ledger", "a recorded image build", _build_why_not)
