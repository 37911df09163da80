"""Kits of the providers that need no virtual machine; see ``contract``."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.gce import Compute, Guest
from fixtures.scenarios import Scenario
from harness.cells import Cell, Image, Profile
from harness.providers.base import Job, Provider
from harness.providers.fake import FakeTransport
from harness.providers.gce import Gce
from harness.providers.gce_api import ENDPOINT
from harness.providers.gce_config import Source
from harness.providers.gce_iap import Place
from harness.providers.host import host_cell
from harness.providers.registry import load
from harness.transports.base import AgentOperations
from tests.unit.gce import site
from tests.unit.gce.bodies import PROJECT
from tests.unit.providers.contract import Kit

#: How the double does what ENDINGS say.
BEHAVIOURS = {"lab": "error", "node": "install-fails", "refused": "refuses"}


class FakeKit(Kit):
    """The double. Its script says by the image's name how a node behaves."""

    simulated = True

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script = ['["*"]', "child = true"]
        for ending, behaviour in BEHAVIOURS.items():
            script += [f'["{self._cell(ending).id}"]', f'behaviour = "{behaviour}"']
        script += [f'["{self._cell("slow").id}"]', "seconds = 60.0", "child = true"]
        path = folder / "fake.toml"
        path.write_text("\n".join(script))
        monkeypatch.setenv("AIRLOCK_FAKE", str(path))

    def provider(self) -> Provider:
        return load("fake")

    def _cell(self, name: str, version: str = "12") -> Cell:
        return Cell(
            image=Image(name, name, "debian", version, "", ""),
            scenario=Scenario(name="direct", title="", network="direct"),
            profile=Profile("driver", "", ("driver",)),
            provider="fake",
        )

    def cell(self) -> Cell:
        return self._cell("good")

    def bad(self, ending: str) -> Cell | None:
        return self._cell(ending)

    def slow(self) -> Cell | None:
        return self._cell("slow")

    def refused(self) -> Cell | None:
        return self._cell("debian-11", version="11")


class HostKit(Kit):
    """This machine, one where nobody listens, and one that takes us in and says nothing."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        del folder, monkeypatch
        self._silent = socket.create_server(("127.0.0.1", 0))

    def provider(self) -> Provider:
        return load("host")

    def cell(self) -> Cell:
        return host_cell("local")

    def bad(self, ending: str) -> Cell | None:
        """A machine that is there is nobody's installation, and refused to nobody."""
        return host_cell("ssh://127.0.0.1:1") if ending == "lab" else None

    def slow(self) -> Cell | None:
        return host_cell(f"ssh://127.0.0.1:{self._silent.getsockname()[1]}")

    def impossible(self) -> Cell | None:
        image = Image("debian-12", "", "debian", "12", "", "")
        scenario = Scenario(name="direct", title="", network="direct")
        return Cell(image, scenario, Profile("driver", "", ()), "host")

    def close(self) -> None:
        self._silent.close()


class _Installing(FakeTransport):
    """A node made of data whose installers end as the profile is called."""

    def __init__(self, ending: str) -> None:
        super().__init__({}, "ok")
        row: dict[str, Any] = {"name": "proxy", "outcome": "failed"}
        if ending == "refused":
            row["refusals"] = [{"code": "proxy.none", "reason": "no proxy", "remedy": "name one"}]
        else:
            row["problems"] = [{"what": "a file is wrong", "cause": "", "remedy": "write it"}]
        self._summary = {"installers": [row]}

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        if op == "apply":
            return {"code": 1, "summary": self._summary}
        return super().call(op, timeout=timeout, **args)


def _let_in(provider: Gce, job: Job, place: Place, keys: Mapping[str, str]) -> AgentOperations:
    if job.cell.profile.installers:
        return _Installing(job.cell.profile.name)
    return site.double_login(provider, job, place, keys)


class GceKit(Kit):
    """The double of Google's API, with a double of the way in."""

    simulated = True

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        del folder
        self._stack = contextlib.ExitStack()
        self._cloud = self._stack.enter_context(Compute(PROJECT))
        monkeypatch.setenv(ENDPOINT, self._cloud.url)
        site.network(self._cloud)

    def provider(self) -> Provider:
        images = {
            "debian-12": Source("projects/debian-cloud/global/images/family/debian-12"),
            "debian-none": Source("projects/debian-cloud/global/images/family/no-such-family"),
        }
        return Gce(site.config(images=images), api=site.api(), connect=_let_in)

    def cell(self) -> Cell:
        return site.cell()

    def bad(self, ending: str) -> Cell | None:
        """What installers do there is what they do everywhere; here they say what they are told."""
        cell = site.cell()
        if ending == "lab":
            return replace(cell, image=replace(cell.image, name="debian-none"))
        return replace(cell, profile=Profile(ending, "", ("proxy",)))

    def slow(self) -> Cell | None:
        """An instance whose guest takes an hour to boot."""
        self._cloud.guest = Guest(boots=3600, attributes=site.KEYS)
        return site.cell()

    def refused(self) -> Cell | None:
        cell = site.cell()
        image = Image("debian-11", "", "debian", "11", "bullseye", "linux")
        return replace(cell, image=image, profile=Profile("driver", "", ("driver",)))

    def impossible(self) -> Cell | None:
        cell = site.cell()
        return replace(cell, image=replace(cell.image, name="not-in-the-file"))

    def outside(self) -> list[str]:
        return [*self._cloud.made("instances"), *self._cloud.made("disks")]

    def close(self) -> None:
        self._stack.close()


#: provider -> its kit.
KITS = {"fake": FakeKit, "host": HostKit, "gce": GceKit}
#: Providers whose kits are among the tests of the lab: they need virtual machines.
IN_THE_LAB = ("qemu",)
