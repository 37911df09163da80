"""``airlock gate``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.promote import ImageStore
    from reports.attestation import Statement
    from reports.findings import Judgement
    from reports.gate import Terms
    from reports.model import Subject
    from reports.read import Reading


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("report", metavar="RUN", help="a run's directory, out/latest, report.json")
    parser.add_argument("--policy", metavar="P", help="ci, release, or a TOML file")
    parser.add_argument(
        "--waivers", type=Path, metavar="FILE", help="failures somebody answers for"
    )
    parser.add_argument("--baseline", metavar="RUN", help="hold up only what got worse since")
    parser.add_argument(
        "--subject", metavar="IMAGE", help="what is to be released: a disk, sha256:HEX, or JSON"
    )
    parser.add_argument(
        "--strict-waivers", action="store_true", help="77 instead of 0 where a waiver was needed"
    )
    parser.add_argument(
        "--require-attestation", action="store_true", help="refuse a report nobody signed for"
    )
    parser.add_argument(
        "--attestation", type=Path, metavar="FILE", help="instead of the one beside the report"
    )
    parser.add_argument(
        "--trust", type=Path, action="append", default=[], metavar="CERT", help="who may sign"
    )
    parser.add_argument("--promote", metavar="FAMILY", help="move this image family on a pass")
    parser.add_argument("--store", type=Path, metavar="DIR", help="where images and families are")
    parser.add_argument("--image", metavar="NAME", help="the image of the store to promote")
    parser.add_argument("--json", action="store_true", help="the judgement as JSON")


def run(args: argparse.Namespace) -> int:
    """Judge a report; the exit code is the verdict."""
    from harness.errors import UsageError
    from harness.verdict import print_json, print_verdict
    from installers.exits import Exit
    from reports.errors import ReportError
    from reports.gate import judge
    from reports.read import open_report

    store = _store(args)
    try:
        terms, policy_name = _terms(args, store)
        statement = _statement(args)
        digest = bool(statement or store)
        with open_report(args.report, digest=digest) as reading:
            judgement = judge(reading, terms)
            if statement:
                _bound(statement, reading, terms)
    except ReportError as error:
        raise UsageError(error.message, hint=error.hint) from error
    exit_code = exit_of(judgement, strict=args.strict_waivers)
    if args.json:
        print_json(reading.run.id, judgement, exit_code)
    else:
        print_verdict(reading.run.id, judgement)
    if store and exit_code == Exit.PASS:
        _promote(args, store, reading, judgement, policy_name, terms.subject)
    elif store and not args.json:
        print(f"{args.promote} was not moved")
    return exit_code


def exit_of(judgement: Judgement, *, strict: bool) -> int:
    """The exit code of a judgement."""
    from harness.verdict import EXITS
    from installers.exits import Exit

    if judgement.verdict == "pass" and judgement.waived and strict:
        return Exit.WAIVED
    return EXITS[judgement.verdict]


def _store(args: argparse.Namespace) -> ImageStore | None:
    """The store to promote in, which knows the family; before anything else is read."""
    from harness.errors import UsageError
    from harness.promote import DirectoryStore

    given = {"--promote": args.promote, "--store": args.store, "--image": args.image}
    missing = [flag for flag, value in given.items() if not value]
    if len(missing) == len(given):
        return None
    if missing:
        raise UsageError(f"{', '.join(missing)}: needed too", hint="--promote --store --image")
    if args.subject:
        raise UsageError("--subject: the image to promote is the subject", hint="leave it out")
    store = DirectoryStore(args.store)
    store.current(args.promote)
    return store


def _terms(args: argparse.Namespace, store: ImageStore | None) -> tuple[Terms, str]:
    """What to judge by, and the policy's name."""
    import msgspec

    from harness.errors import UsageError
    from harness.policy import load_policy, load_subject, load_waivers
    from reports.gate import Terms, known_failures
    from reports.read import open_report

    policy = load_policy(args.policy).policy
    waivers = load_waivers(args.waivers)
    subject = load_subject(args.subject) if args.subject else None
    if store:
        subject = store.subject(args.image)
        bind = tuple(dict.fromkeys([*policy.subject.bind, *store.bound]))
        policy = msgspec.structs.replace(
            policy, subject=msgspec.structs.replace(policy.subject, bind=bind)
        )
    if policy.subject.bind and subject is None:
        raise UsageError(
            f"the policy {policy.name} binds the report to an image, and none is named",
            hint="--subject DISK, or sha256:HEX",
        )
    baseline = None
    if args.baseline:
        with open_report(args.baseline) as earlier:
            baseline = known_failures(earlier, policy)
    return Terms(policy, waivers, baseline, subject, whole=True), policy.name


def _statement(args: argparse.Namespace) -> Statement | None:
    """What the attestation says, once its signature was verified."""
    from harness.errors import UsageError
    from harness.signers.base import certificate_of
    from reports.attestation import ATTESTATION_NAME, SIZE_LIMIT, open_envelope
    from reports.errors import ReportError
    from reports.read import find_report

    if not args.require_attestation:
        for flag, value in (("--attestation", args.attestation), ("--trust", args.trust)):
            if value:
                raise UsageError(f"{flag}: means nothing without --require-attestation")
        return None
    if not args.trust:
        raise UsageError("--require-attestation: nobody is trusted", hint="--trust CERT.pem")
    path = args.attestation or find_report(Path(args.report)).with_name(ATTESTATION_NAME)
    try:
        trusted: Sequence[bytes] = [
            certificate_of(file.read_bytes(), str(file)).der for file in args.trust
        ]
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1)
    except FileNotFoundError as error:
        hint = "make one with `airlock attest`" if error.filename == str(path) else ""
        raise ReportError(f"there is no {error.filename}", hint=hint) from error
    except OSError as error:
        raise ReportError(f"{error.filename}: {error.strerror}") from error
    return open_envelope(data, trusted, str(path))


def _bound(statement: Statement, reading: Reading, terms: Terms) -> None:
    """Refuse an attestation that is about another report or image, or is too old."""
    from datetime import timedelta

    from reports.errors import ReportError

    if not statement.names(reading.sha256):
        raise ReportError(
            f"the attestation is not about {reading.name}: the report was edited, or is another",
            hint="take the report that was attested, or attest this one",
        )
    disk = terms.subject.disk_sha256 if terms.subject else ""
    if disk and not statement.names(disk):
        raise ReportError(
            f"the attestation is about another image: it does not name sha256:{disk}",
            hint="name the image that was tested",
        )
    hours = terms.policy.evidence.max_age_hours
    finished = reading.run.finished
    if hours and finished and finished < terms.now - timedelta(hours=hours):
        raise ReportError(
            f"the attestation is of a run that ended at {finished:%Y-%m-%d %H:%M %Z}; "
            f"the policy allows {hours} hours",
            hint="run it again, and attest that",
        )


def _promote(
    args: argparse.Namespace,
    store: ImageStore,
    reading: Reading,
    judgement: Judgement,
    policy: str,
    subject: Subject | None,
) -> None:
    import sys

    from harness.promote import labels
    from reports.model import Subject

    said = labels(
        reading.run,
        judgement,
        policy=policy,
        report=reading.sha256,
        image=subject or Subject(),
    )
    before = store.current(args.promote) or "nothing"
    store.promote(args.promote, args.image, said)
    print(f"{args.promote}: {before} -> {args.image}", file=sys.stderr if args.json else sys.stdout)
