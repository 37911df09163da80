"""``airlock attest``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reports.attestation import Resource
    from reports.model import Cell, Run
    from reports.read import Reading


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("report", metavar="RUN", help="a run's directory, out/latest, report.json")
    parser.add_argument("--key", required=True, metavar="SPEC", help="file:, pkcs11:, ...")
    parser.add_argument("--fingerprint", default="", metavar="SHA256", help="expected certificate")
    parser.add_argument("--policy", metavar="P", help="ci, release, or a TOML file")
    parser.add_argument(
        "--waivers", type=Path, metavar="FILE", help="failures somebody answers for"
    )
    parser.add_argument(
        "--subject", metavar="IMAGE", help="what is to be released: a disk, sha256:HEX, or JSON"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="instead of attestation.json beside the report"
    )


def run(args: argparse.Namespace) -> int:
    """Sign for what a report says, be it good or bad; 0 once the attestation is written."""
    from harness.errors import UsageError
    from harness.policy import load_policy, load_subject, load_waivers
    from harness.signers.spec import open_key
    from installers.exits import Exit
    from reports.attestation import (
        ATTESTATION_NAME,
        PAYLOAD_TYPE,
        Resource,
        open_envelope,
        pae,
        seal,
        statement,
    )
    from reports.errors import ReportError
    from reports.gate import Terms, judge
    from reports.read import find_report, open_report
    from reports.write import write_atomically

    file = load_policy(args.policy)
    waivers = load_waivers(args.waivers)
    subject = load_subject(args.subject) if args.subject else None
    used = Resource(f"policy {file.policy.name}", "", {"sha256": file.sha256})
    try:
        out = args.out or find_report(Path(args.report)).with_name(ATTESTATION_NAME)
        with open_report(args.report, digest=True) as reading:
            watched = _Watched(reading)
            judgement = judge(watched, Terms(file.policy, waivers, subject=subject, whole=True))
        payload = statement(
            reading.run,
            judgement,
            reading.sha256,
            watched.images.values(),
            used if file.sha256 else None,
        )
        with open_key(args.key, args.fingerprint) as key:
            signature = key.backend.raw(pae(PAYLOAD_TYPE, payload))
            envelope = seal(payload, signature, key.sha256)
            # What cannot be verified is worse than none.
            result = open_envelope(envelope, [key.der], str(out)).predicate.result
            write_atomically(out, envelope)
            print(f"{out}: {result}, signed by {key.sha256}")
    except ReportError as error:
        raise UsageError(error.message, hint=error.hint) from error
    return Exit.PASS


class _Watched:
    """A report that is read cell by cell, and the images that go by."""

    def __init__(self, reading: Reading) -> None:
        self.images: dict[str, Resource] = {}
        self._reading = reading

    @property
    def run(self) -> Run:
        return self._reading.run

    @property
    def cells(self) -> Iterator[Cell]:
        from reports.attestation import image_of

        for cell in self._reading.cells:
            image = image_of(cell)
            if image:
                self.images.setdefault(f"{image.name} {image.digest}", image)
            yield cell
