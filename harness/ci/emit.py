"""What an engine needs to run a matrix in shards: one file, printed.

Each template knows an engine's own way to say "this many times, each with a number"; the commands
are the same everywhere. Nothing here asks a machine, so the same inputs give the same file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import jinja2

from harness.cells import Cell
from harness.compose import VERSION
from harness.errors import UsageError
from harness.shards import MOST, Durations, divide, weights
from reports.text import count as plural

#: Engine -> what it must be told besides the number of shards.
ENGINES: dict[str, tuple[str, ...]] = {
    "github": (),
    "gitlab": ("container",),
    "cloudbuild": ("container", "bucket"),
    "kubernetes": ("container", "bucket"),
}
#: Shards, where nobody says how many.
USUAL = 4

# Values go into shell lines, YAML and expressions of the engines: what means something there is
# refused instead of escaped three ways.
_PLAIN = re.compile(r"[A-Za-z0-9_./+@:=~-]+")
_BUCKET = re.compile(r"gs://[a-z0-9][a-z0-9._-]{1,220}[a-z0-9](/[A-Za-z0-9._-]+)*/?")


@dataclass(frozen=True)
class Request:
    """What to write for which cells.

    ``words`` are those of the command line that choose the cells, for ``airlock run``. ``bucket``
    is ``gs://name/folder``, ``container`` an image that holds Airlock (and gcloud, for a bucket).
    """

    engine: str
    cells: Sequence[Cell]
    words: Sequence[str]
    shards: int = 0
    durations: Durations | None = None
    bucket: str = ""
    container: str = ""


def emit(request: Request) -> str:
    """The file. UsageError for what cannot be written into one."""
    count = request.shards or min(USUAL, len(request.cells))
    if not 1 <= count <= MOST:
        raise UsageError(f"--shards {count}: there can be 1 to {MOST} shards")
    _complete(request)
    for word in [*request.words, *filter(None, [request.container])]:
        if not _PLAIN.fullmatch(word):
            raise UsageError(
                f"{word!r} cannot be written into a file for {request.engine}",
                hint="letters, digits and _./+@:=~- only",
            )
    if request.bucket and not _BUCKET.fullmatch(request.bucket):
        raise UsageError(f"--bucket {request.bucket!r}: is not gs://bucket or gs://bucket/folder")
    durations = request.durations or {}
    return (
        _templates()
        .get_template(f"{request.engine}.yaml.j2")
        .render(
            version=VERSION,
            count=count,
            words=" ".join(request.words),
            bucket=request.bucket.rstrip("/"),
            container=request.container,
            shards=_shares(request.cells, count, durations),
        )
    )


def _complete(request: Request) -> None:
    """Each engine is told what it needs, and nothing that it would not use."""
    needs = ENGINES[request.engine]
    for name in ("container", "bucket"):
        given = bool(getattr(request, name))
        if given != (name in needs):
            what = "takes no" if given else "needs"
            raise UsageError(f"--emit {request.engine} {what} --{name}")


def _shares(cells: Sequence[Cell], count: int, durations: Durations) -> list[str]:
    """What each shard has, in words."""
    owner = divide(cells, count, durations)
    weighed = weights(cells, durations)
    said = []
    for index in range(1, count + 1):
        mine = [at for at, whose in enumerate(owner) if whose == index]
        minutes = sum(weighed[at] for at in mine) / 60_000
        time = f", about {minutes:.1f} min" if durations else ""
        said.append(f"{index}/{count}: {plural(len(mine), 'cell')}{time}")
    return said


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("harness.ci", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        # YAML, not HTML; every value was checked.
        autoescape=False,  # noqa: S701
    )
