"""Making the chamber, running everything in it, and laying the model beside what came out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fixtures import daemons, keeper
from fixtures.errors import FixtureError
from harness import doctor
from harness.errors import InfraError
from harness.lab.namespace import host_env, last_words
from harness.proving.cases import Case
from harness.proving.tools import MODEL, Found
from harness.state import RunRecord, private_dir, state_dir
from harness.sweep import sweep
from installers import noproxy_lint
from installers.dialects import java

SECONDS = 600


@dataclass(frozen=True)
class Answer:
    """What one program did with one case. ``measured``: direct, via-proxy or failed.

    ``predicted`` is what the model says: direct or via-proxy. ``why`` and ``said`` (the program's
    last line) tell about a failure.
    """

    tool: str
    case: Case
    measured: str
    predicted: str
    why: str = ""
    said: str = ""

    @property
    def agrees(self) -> bool:
        """Whether the model knew."""
        return self.measured == self.predicted


def prove(found: Sequence[Found], asked: Sequence[Case]) -> list[Answer]:
    """Run every case with every program. InfraError: no namespaces here, no squid, no time."""
    able = doctor.namespaces()
    if able.level == "missing":
        raise InfraError(f"no namespaces here: {able.what}", hint=able.fix)
    try:
        squid = daemons.squid(state_dir() / "daemons")
    except FixtureError as error:
        raise InfraError(error.message, hint=error.hint) from error
    sweep()
    with RunRecord() as run:
        folder = private_dir(run.scratch / "chamber")
        spec = {
            "squid": {key: str(value) for key, value in asdict(squid).items()},
            "found": [asdict(one) for one in found],
            "cases": [asdict(case) for case in asked],
        }
        (folder / "spec.json").write_text(json.dumps(spec))
        said = _run(folder)
    versions = {one.tool: one.version for one in found}
    answers = []
    for raw in said:
        tool, case = str(raw["tool"]), asked[int(raw["number"])]
        predicted = predict(tool, versions[tool], case)
        answers.append(Answer(tool, case, raw["measured"], predicted, raw["why"], raw["said"]))
    return answers


def predict(tool: str, version: str, case: Case) -> str:
    """What the model says of a program's release: direct, via-proxy or failed."""
    model = noproxy_lint.tools()[MODEL.get(tool, tool)].at(version)
    value = case.value
    if model.lists == "bar":
        value = java.non_proxy_hosts(case.entries) if case.written else value.replace(",", "|")
    port = case.port or (443 if case.scheme == "https" else 80)
    return model.way(value, case.host, port, named=case.port is not None)


def _run(folder: Path) -> list[dict[str, Any]]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user", "--map-auto"]
    words = ["unshare", *user, "--mount", "--net", "--pid", "--fork", "--kill-child=KILL"]
    words += ["--mount-proc", "--", sys.executable, "-m", "harness.proving.inside", str(folder)]
    here = str(Path(__file__).parents[2])
    env = {**host_env(), "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}
    log = folder / "log"
    with log.open("wb") as out:
        try:
            subprocess.run(
                keeper.bound(words),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise InfraError(f"the programs did not end within {SECONDS} s") from error
    answers = folder / "answers.json"
    if not answers.exists():
        raise InfraError(
            f"the chamber could not be made: {last_words(log)}",
            hint="airlock doctor names what is missing",
        )
    told = json.loads(answers.read_text())
    if "error" in told:
        raise InfraError(f"the chamber could not be made: {told['error']}")
    found: list[dict[str, Any]] = told["answers"]
    return found
