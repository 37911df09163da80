"""A node of the lab for measurements: one cell of the default matrix, made from what is cached."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from fixtures import daemons
from harness.catalog import load_catalog
from harness.cells import Cell
from harness.lab import surroundings
from harness.lab.node import QemuNode
from harness.lab.surroundings import AnyProxy
from harness.providers.base import Job, Options
from harness.providers.qemu import Qemu
from harness.state import RunRecord, keys_dir, state_dir

IMAGE, SCENARIO, PROFILE = "debian-12", "proxy-intercept", "driver"


class Lab:
    """Makes nodes of one cell, one after the other."""

    def __init__(self, provider: Qemu, record: RunRecord) -> None:
        self.provider = provider
        self._record = record
        self._number = 0
        catalog = load_catalog()
        self.cell = Cell(
            catalog.images[IMAGE],
            catalog.scenarios[SCENARIO],
            catalog.profiles[PROFILE],
            provider.name,
        )

    @contextlib.contextmanager
    def job(self, *, boot_anew: bool = False) -> Iterator[Job]:
        """One attempt to make a node, with private directories."""
        self._number += 1
        capsule = self._record.path / f"capsule{self._number}"
        place = self._record.scratch / str(self._number)
        capsule.mkdir()
        place.mkdir(mode=0o700)
        yield Job(
            cell=self.cell,
            capsule=capsule,
            scratch=place,
            say=lambda _phase, _line: None,
            owned=self._record.owned,
            options=Options(boot_anew=boot_anew),
        )

    @contextlib.contextmanager
    def node(self, *, boot_anew: bool = False) -> Iterator[tuple[QemuNode, Job, Path]]:
        """A node that is up, what became of its phases, and a private directory."""
        with self.job(boot_anew=boot_anew) as job:
            node = self.provider.up(job)
            try:
                yield node, job, job.capsule
            finally:
                node.down()

    def proxy(self, job: Job) -> Callable[[Path], AnyProxy]:
        """What starts the cell's proxy in a directory."""
        authority, origin = self.provider.shared(fresh=False)
        install = daemons.squid(state_dir() / "daemons")
        password = surroundings.proxy_password(keys_dir())

        def make(directory: Path) -> AnyProxy:
            scenario = job.cell.scenario
            return surroundings.make_proxy(
                scenario, directory, install, authority, origin, password
            )

        return make


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """The lab, and nothing left of it afterwards."""
    with RunRecord() as record:
        provider = Qemu()
        try:
            yield Lab(provider, record)
        finally:
            provider.close()


def seconds(job: Job, phase: str) -> float:
    """How long a phase took."""
    return next(step.seconds for step in job.record.phases if step.name == phase)
