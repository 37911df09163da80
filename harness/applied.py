"""What the installers said, as the verdicts of a cell."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.providers.base import Job, NodeFailed, Refusal, Refused


def judge(job: Job, code: int, results: Mapping[str, Any], tail: str) -> None:
    """Record what ``apply --json`` printed; Refused or NodeFailed unless it exited 0.

    ``tail``: the last words of its log, for when it says nothing better.
    """
    job.record.installers.extend(results.get("installers", []))
    if code == 0:
        return
    for installer in results.get("installers", []):
        for refusal in installer.get("refusals", []):
            raise Refused(Refusal(refusal["code"], refusal["reason"], refusal["remedy"]))
        for problem in installer.get("problems", []):
            raise NodeFailed(
                f"{installer['name']}: {problem['what']}",
                cause=str(problem.get("cause", "")),
                hint=str(problem.get("remedy", "")),
            )
    raise NodeFailed(f"the installers ended with {code}: {results.get('error', tail)}")
