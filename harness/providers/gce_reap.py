"""Ends instances and images that nobody needs any more, and remembers what refused to die.

Three layers keep instances from being left: Google's own time limit in each body, the end of each
node and run, and this, for what a killed run left. Google ends no image: for those there are the
last two. Whose a thing is stands in its labels; without them nothing is touched.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from harness.cloud.api import Google
from harness.errors import AirlockError
from harness.providers.gce_api import Pace
from harness.providers.gce_bodies import HOME, OURS, RUN, UNTIL, home, label
from harness.providers.gce_iap import GLOBAL, Place
from harness.state import claimed, private_dir, state_dir

#: A run that begins does not wait long for what another one left: Google ends it anyway.
SWEEPING = Pace(patience=20.0, operation=60.0, end=60.0)
FILTER = " AND ".join(
    [*(f"labels.{key}={value}" for key, value in OURS.items()), f"labels.{RUN}:*"]
)


@dataclass(frozen=True)
class Left:
    """An instance or image that refused to die.

    ``since``, ``until``: seconds since 1970; 0: unknown.
    """

    project: str
    zone: str
    name: str
    why: str
    since: float
    until: float = 0.0
    tries: int = 1

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.project, self.zone, self.name)


class Ledger:
    """What refused to die: ``left.json`` in the state directory. Safe between processes."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path or private_dir(state_dir()) / "left.json"

    def all(self) -> list[Left]:
        """Everything in it, oldest first."""
        return sorted(self._change(lambda _: None).values(), key=lambda left: left.since)

    def add(self, place: Place, why: str, until: float = 0.0) -> None:
        """It refused to die, again perhaps."""

        def change(found: dict[str, Left]) -> None:
            before = found.get(place.text)
            if before:
                found[place.text] = replace(before, why=why, tries=before.tries + 1)
            else:
                new = Left(place.project, place.zone, place.name, why, time.time(), until)
                found[place.text] = new

        self._change(change)

    def remove(self, place: Place) -> None:
        """It is gone."""

        def change(found: dict[str, Left]) -> None:
            found.pop(place.text, None)

        self._change(change)

    def _change(self, change: Callable[[dict[str, Left]], None]) -> dict[str, Left]:
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                rows = json.loads(self._path.read_text())
            except (OSError, ValueError):
                rows = []
            found = {left.place.text: left for left in (Left(**row) for row in rows)}
            before = dict(found)
            change(found)
            if found != before:
                part = self._path.with_suffix(".part")
                part.write_text(json.dumps([asdict(left) for left in found.values()], indent=1))
                part.replace(self._path)
        return found


@dataclass
class Reaped:
    """What a reap did: sentences for people."""

    ended: list[str]
    refused: list[str]
    spared: list[str]


def end(place: Place, api: Google, ledger: Ledger, until: float = 0.0) -> str:
    """Delete one and see it gone. Why it refused to die (then it is in the ledger), or empty."""
    try:
        if place.zone == GLOBAL:
            api.remove_image(place.name)
        else:
            api.delete(place.zone, place.name)
    except AirlockError as error:
        ledger.add(place, error.message, until)
        return error.message
    ledger.remove(place)
    return ""


def end_owned(entries: Iterable[Mapping[str, Any]]) -> Reaped:
    """End what a dead run's ledger names (see ``harness.state.Owned.instance``)."""
    done, ledger = Reaped([], [], []), Ledger()
    apis: dict[str, Google] = {}
    for entry in entries:
        place = Place(entry["project"], entry["zone"], entry["name"])
        api = apis.setdefault(place.project, Google(place.project, pace=SWEEPING))
        _tell(done, place, end(place, api, ledger))
    return done


def reap(
    projects: Iterable[str],
    *,
    everything: bool = False,
    dry: bool = False,
    pace: Pace | None = None,
) -> Reaped:
    """End what the ledger names, and whatever else of ours nobody needs any more in the projects.

    Needed is what belongs to runs that live on this machine, and what other machines made and whose
    time is not up; with ``everything`` nothing but the former. ``dry``: only says so.
    """
    done, ledger = Reaped([], [], []), Ledger()
    left = {item.place.text: item for item in ledger.all()}
    for project in dict.fromkeys([*projects, *(item.project for item in left.values())]):
        api = Google(project, pace=pace)
        places = {item.place: item.until for item in left.values() if item.project == project}
        try:
            for place, marks in _marked(api):
                if why := _needed(marks, everything):
                    done.spared.append(f"{place.text}: {why}")
                else:
                    places[place] = float(marks.get(UNTIL, "0"))
        except AirlockError as error:
            done.refused.append(f"{project}: {error}")
        for place, until in places.items():
            if dry:
                done.ended.append(f"{place.text} (not done)")
            else:
                _tell(done, place, end(place, api, ledger, until))
    return done


def living_runs() -> set[str]:
    """The labels of the runs that are alive on this machine: somebody holds their locks."""
    alive = set()
    runs = state_dir() / "runs"
    for record in runs.iterdir() if runs.is_dir() else ():
        try:
            with (record / "lock").open("r+") as lock:
                if not claimed(lock):
                    alive.add(label(record.name))
        except OSError:
            continue
    return alive


def _marked(api: Google) -> Iterator[tuple[Place, Mapping[str, str]]]:
    """What has our labels in a project, instances and images, with all its labels."""
    for found in api.ours(FILTER):
        zone = found.zone.rpartition("/")[2]
        yield Place(api.project, zone, found.name), dict(found.labels)
    for image in api.own_images(FILTER):
        yield Place(api.project, GLOBAL, image["name"]), image.get("labels", {})


def _needed(marks: Mapping[str, str], everything: bool) -> str:
    """Why an instance must stay; empty if it need not."""
    if marks.get(HOME) == home():
        return "its run is alive" if marks[RUN] in living_runs() else ""
    until = marks.get(UNTIL, "0")
    if not everything and until.isdigit() and time.time() < int(until):
        return "of another machine, and its time is not up (--all ends it)"
    return ""


def _tell(done: Reaped, place: Place, why: str) -> None:
    if why:
        done.refused.append(f"{place.text}: {why}")
    else:
        done.ended.append(place.text)
