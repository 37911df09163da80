"""Kits of the providers that need no virtual machine; see ``contract``."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fixtures.scenarios import Scenario
from harness.cells import Cell, Image, Profile
from harness.providers.base import Provider
from harness.providers.host import host_cell
from harness.providers.registry import load
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


#: provider -> its kit.
KITS = {"fake": FakeKit, "host": HostKit}
#: Providers whose kits are among the tests of the lab: they need virtual machines.
IN_THE_LAB = ("qemu",)
