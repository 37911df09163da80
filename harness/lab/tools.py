"""Tools as far as the proxy's translators look for them: a program by its name, a file of its own.

A node has few of the tools that must know the proxy, and each that is really installed would make
every image larger. What they make of the settings is proved where they are: in the tests of the
translators. Here it is seen that a node of each distribution is given all of them, at the build
and at boot. Java is not among them: its runtimes are known by their key stores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fixtures import dataproc

if TYPE_CHECKING:
    from harness.cells import Cell

_PROGRAM = '#!/bin/sh\necho "$0: only its name is here" >&2\nexit 69\n'
_BIN = "usr/local/bin"
_MAVEN = "opt/maven"
_SDK = "usr/lib/google-cloud-sdk"
#: Executable files, by their path in the tree.
PROGRAMS = {
    **{f"{_BIN}/{name}": _PROGRAM for name in ("dirmngr", "gradle", "gsutil", "podman", "npm")},
    f"{_BIN}/node": _PROGRAM,
    f"{_BIN}/R": f"R_HOME_DIR=/usr/local/lib/R\n{_PROGRAM}",
    f"{_MAVEN}/bin/mvn": _PROGRAM,
    f"{_SDK}/bin/gcloud": _PROGRAM,
}
_FILES = {
    "etc/dnf/dnf.conf": "[main]\ngpgcheck=1\n",
    "etc/yum.conf": "[main]\ngpgcheck=1\n",
    "etc/sudoers.d/README": "# Files in here are read by sudo.\n",
    "opt/conda/conda-meta/history": "",
    "opt/conda/condabin/.keep": "",
    "usr/local/lib/R/etc/Renviron": "",
    f"{_MAVEN}/conf/settings.xml": (
        '<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0">\n  <proxies>\n  </proxies>\n'
        "</settings>\n"
    ),
    f"{_SDK}/VERSION": "560.0.0\n",
}
LINKS = {f"{_BIN}/mvn": f"/{_MAVEN}/bin/mvn", f"{_BIN}/gcloud": f"/{_SDK}/bin/gcloud"}

#: How the proxy's translators call the tools that a node has anyway, and those above.
NAMES = (
    *("environment", "profile", "systemd", "services", "apt", "curl", "wget", "git", "pip"),
    *("unit docker", "unit containerd", "unit crio", "unit kubelet", "unit google-dataproc-agent"),
    *("unit snapd", "sudo", "dnf", "yum", "dirmngr", "conda", "boto", "podman", "gradle"),
    f"gcloud /{_SDK}",
    f"maven /{_MAVEN}/conf/settings.xml",
    "npm /usr/local/etc/npmrc",
    "r /usr/local/lib/R/etc/Renviron.site",
)


def files() -> dict[str, str]:
    """Path in the tree -> text, of programs and files."""
    return {**PROGRAMS, **_FILES}


@dataclass(frozen=True)
class Added:
    """What an image gets besides its base. Paths have no leading slash."""

    files: dict[str, str]
    programs: frozenset[str]
    links: dict[str, str]


def added(cell: Cell, more: Mapping[str, str]) -> Added:
    """The tools, and a Dataproc node's programs, where the profile tells or configures them."""
    profile = cell.profile
    texts = {**more, **(files() if profile.tools else {})}
    programs = frozenset(PROGRAMS) if profile.tools else frozenset[str]()
    if "deferred" in profile.installers:
        texts |= dataproc.files([dataproc.L4])
        programs |= dataproc.PROGRAMS
    return Added(texts, programs, LINKS if profile.tools else {})
