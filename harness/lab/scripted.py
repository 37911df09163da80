"""Scripts that run in an image while it is built: a scenario's, its symptom, a sabotage's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.errors import InfraError
from harness.lab.namespace import last_words
from harness.lab.surroundings import script
from harness.providers.base import Job

if TYPE_CHECKING:
    from fixtures.origin import Origin
    from harness.lab.applying import Workplace

#: What the symptom's script printed, in the capsule of a cell whose build failed.
SYMPTOM = "symptom.txt"
_SECONDS = 180.0
# A scenario may install packages.
_PATIENCE = 2400.0


@contextlib.contextmanager
def broken(job: Job, place: Workplace, origin: Origin) -> Iterator[None]:
    """What a sabotage does to the build, if it does."""
    files = dict(origin.files)
    for path, other in job.broken.get("serves", {}).items():
        origin.files[path] = files[other]
    try:
        if text := job.broken.get("script"):
            code, said = place.run(["/bin/sh", "-c", text], timeout=_SECONDS)
            if code:
                raise InfraError(f"the sabotage could not be applied: {said[-400:]}")
        yield
    finally:
        origin.files.update(files)


def show_symptom(job: Job, place: Workplace, origin: Origin) -> None:
    """Where nothing will boot, what a customer sees is seen in the image."""
    if text := job.cell.scenario.scripts.symptom:
        shell = ["/bin/sh", "-c", f"exec 2>&1\n{script(text, origin)}"]
        _, said = place.run(shell, timeout=_SECONDS)
        (job.capsule / SYMPTOM).write_text(said)


def run(job: Job, place: Workplace, origin: Origin) -> None:
    if not (text := job.cell.scenario.scripts.image):
        return
    code, _ = place.run(["/bin/sh", "-c", script(text, origin)], timeout=_PATIENCE)
    if code:
        tail = last_words(job.capsule / "build.log")
        raise InfraError(f"the scenario's script in the image ended with {code}: {tail}")
