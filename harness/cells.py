"""The unit that is scheduled and gets a verdict: image x scenario x profile, on a provider.

Nothing heavy is imported here: ``airlock plan`` must answer within a second.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from harness.requirements import Requirements

if TYPE_CHECKING:
    from fixtures.scenarios import Scenario
    from harness.foreign import Foreign
    from harness.sabotage import Sabotage


class Expected(enum.StrEnum):
    """What the matrix says is the right answer for a cell."""

    PASS = "pass"  # noqa: S105 - a verdict
    REFUSED = "refused"
    NAMED = "named"
    """The environment is faulty: a check fails, or an installer refuses, that names the cause."""


@dataclass(frozen=True)
class Image:
    """An OS image under test, as ``matrices/images.toml`` describes it.

    ``family`` and ``version`` are the release's ``ID`` and ``VERSION_ID`` (os-release(5)).
    Of kind ``packages`` it is made here: ``kernel`` is the package it boots, ``PACKAGE/ARCHIVE``
    where it is not of the suite; ``archives`` are those besides the suite's own, ``packages`` what
    it has beyond the usual. Of kind ``cloud`` it is a vendor's disk (see harness.vendordisk): then
    ``family`` and ``version`` may be "", which is to say that nobody has read them.
    """

    name: str
    title: str
    family: str = ""
    version: str = ""
    suite: str = ""
    kernel: str = ""
    memory_mb: int = 1536
    disk_mb: int = 6144
    arch: str = "x86_64"
    requires: Requirements = field(default_factory=Requirements)
    archives: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    mirror: str = ""
    kind: Literal["packages", "cloud"] = "packages"
    source: str = ""
    sha256: str = ""

    @property
    def cloud(self) -> bool:
        """Whether it is a vendor's disk."""
        return self.kind == "cloud"

    @property
    def remote(self) -> bool:
        """Whether its disk has to be fetched."""
        return "://" in self.source


@dataclass(frozen=True)
class Profile:
    """What is to be installed and configured: installer names in the order they run.

    ``foreign`` runs before them (see harness.foreign). ``tools``: the image has every tool that
    must know the proxy (see harness.lab.tools).
    """

    name: str
    title: str
    installers: tuple[str, ...]
    tools: bool = False
    requires: Requirements = field(default_factory=Requirements)
    foreign: Foreign | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """What is in the image in the end, by the names of our installers, whoever brought it."""
        brought = self.foreign is not None and self.foreign.driver
        return (*(("driver",) if brought else ()), *self.installers)


@dataclass(frozen=True)
class Cell:
    """One image in one scenario with one profile, made by one provider.

    ``requirements`` are the matrix's, beside those of the parts. ``inherit``: an earlier green
    result may stand for the cell while nothing of it has changed. ``sabotage``: how its node is
    broken on purpose, or what it is made from. ``target``: the machine, where it exists already
    (see harness.targets); image, scenario and profile then are what to call it.
    """

    image: Image
    scenario: Scenario
    profile: Profile
    provider: str
    expected: Expected = Expected.PASS
    requirements: Requirements = field(default_factory=Requirements)
    inherit: bool = False
    sabotage: Sabotage | None = None
    target: str = ""

    def __post_init__(self) -> None:
        """In a faulty environment a pass would be the surprise."""
        if self.expected is Expected.PASS and self.scenario.expected == "named":
            object.__setattr__(self, "expected", Expected.NAMED)

    @property
    def id(self) -> str:
        """Stable name: used in reports, in paths, and in pytest's ids."""
        whole = f"{self.image.name}+{self.scenario.name}+{self.profile.name}"
        return f"{whole}~{self.sabotage.name}" if self.sabotage else whole
