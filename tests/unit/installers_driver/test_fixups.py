"""Fix-ups: applied where a real compiler says that the kernel's headers ask for them."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from installers import fixups
from installers.build import DriverBuildError
from installers.compat import load_data
from installers.errors import NodeError
from installers.fixups import Fixup
from installers.host import Host

needs_compiler = pytest.mark.skipif(
    not (shutil.which("gcc") and shutil.which("make")), reason="needs gcc and make"
)
OLD_HEADER = "struct pci_dev; int pci_resize_resource(struct pci_dev *dev, int i, int size);\n"
NEW_HEADER = OLD_HEADER.replace("int size", "int size, int exclude_bars")
CALL = "r = pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size);\n"
FIXED = "r = pci_resize_resource(pci_dev, NV_GPU_BAR1, requested_size, 0);\n"
# kbuild, as far as the probe uses it: objects of M, with the kernel's own include directory.
KBUILD = """\
%.o:
\tgcc -nostdinc -Iinclude -Werror=implicit-function-declaration -c -o $(M)/$@ $(M)/$*.c
"""


def _shipped() -> Fixup:
    return next(f for f in fixups.load() if f.id == "pci-resize-resource-exclude-bars")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A node with a driver source whose call has three arguments; real gcc compiles in it."""
    (tmp_path / "src/nvidia").mkdir(parents=True)
    (tmp_path / "src/nvidia/nv-pci.c").write_text(CALL)
    return Host(tmp_path)


def _kernel(tmp_path: Path, header: str | None) -> str:
    """A kernel's build tree with this pci.h; the path is real, as the probe runs without chroot."""
    tree = tmp_path / "build"
    (tree / "include/linux").mkdir(parents=True)
    (tree / "Makefile").write_text(KBUILD)
    (tree / "include/linux/module.h").write_text("")
    if header is not None:
        (tree / "include/linux/pci.h").write_text(header)
    return str(tree)


@needs_compiler
@pytest.mark.parametrize(
    ("header", "state"),
    [
        (NEW_HEADER, "applied"),
        (OLD_HEADER, "not-needed"),
        ("struct pci_dev;\n", "undecided"),
        ("struct pci_dev; int pci_resize_resource(struct pci_dev *dev, ...);\n", "undecided"),
    ],
)
def test_the_kernels_headers_decide(tmp_path: Path, host: Host, header: str, state: str) -> None:
    tree = _kernel(tmp_path, header)
    compiled = fixups.probe(Host("/"), tree, [_shipped()], str(tmp_path / "probe"))
    (verdict,) = fixups.apply(host, "/src", [_shipped()], compiled)
    assert verdict.state == state
    assert verdict.why
    expected = FIXED if state == "applied" else CALL
    assert host.read("/src/nvidia/nv-pci.c") == expected


@needs_compiler
def test_headers_that_do_not_compile_at_all(tmp_path: Path) -> None:
    tree = _kernel(tmp_path, None)
    with pytest.raises(DriverBuildError) as caught:
        fixups.probe(Host("/"), tree, [_shipped()], str(tmp_path / "probe"))
    assert caught.value.cause == "headers-missing"
    assert "linux/pci.h" in caught.value.first_error


@needs_compiler
def test_no_build_tree(tmp_path: Path) -> None:
    with pytest.raises(DriverBuildError) as caught:
        fixups.probe(Host("/"), str(tmp_path / "absent"), [_shipped()], str(tmp_path / "probe"))
    assert caught.value.cause == "headers-missing"


def _asked(fixup: Fixup) -> dict[str, bool]:
    return {f"{fixup.id}/old": False, f"{fixup.id}/new": True}


def test_a_source_that_has_it_already(host: Host) -> None:
    host.write("/src/nvidia/nv-pci.c", FIXED)
    (verdict,) = fixups.apply(host, "/src", [_shipped()], _asked(_shipped()))
    assert verdict.state == "already-there"
    assert host.read("/src/nvidia/nv-pci.c") == FIXED


@pytest.mark.parametrize("text", [None, "", "something else\n", CALL + CALL])
def test_a_source_that_it_does_not_fit(host: Host, text: str | None) -> None:
    if text is None:
        host.remove("/src/nvidia/nv-pci.c")
    else:
        host.write("/src/nvidia/nv-pci.c", text)
    (verdict,) = fixups.apply(host, "/src", [_shipped()], _asked(_shipped()))
    assert verdict.state == "does-not-fit"
    assert host.read("/src/nvidia/nv-pci.c") == text


def _two_edits() -> Fixup:
    raw: dict[str, Any] = copy.deepcopy(load_data("fixups.json"))
    raw["fixups"] = raw["fixups"][:1]
    second = {"file": "nvidia/nv.c", "find": "old()", "replace": "new()"}
    raw["fixups"][0]["edits"].append(second)
    return fixups.load(raw)[0]


def test_all_edits_or_none(host: Host) -> None:
    host.write("/src/nvidia/nv.c", "neither\n")
    (verdict,) = fixups.apply(host, "/src", [_two_edits()], _asked(_two_edits()))
    assert verdict.state == "does-not-fit"
    assert host.read("/src/nvidia/nv-pci.c") == CALL
    host.write("/src/nvidia/nv.c", "old();\n")
    (verdict,) = fixups.apply(host, "/src", [_two_edits()], _asked(_two_edits()))
    assert verdict.state == "applied"
    assert host.read("/src/nvidia/nv.c") == "new();\n"


def test_half_a_fix_up_is_an_error(host: Host) -> None:
    host.write("/src/nvidia/nv.c", "new();\n")
    with pytest.raises(NodeError, match="half"):
        fixups.apply(host, "/src", [_two_edits()], _asked(_two_edits()))
    assert host.read("/src/nvidia/nv-pci.c") == CALL


def test_candidates_by_driver_version_and_their_digest() -> None:
    ids = [fixup.id for fixup in fixups.candidates("535.261.03")]
    assert "pci-resize-resource-exclude-bars" in ids
    assert fixups.candidates("1.0") == []
    assert fixups.digest(fixups.load()) == fixups.digest(fixups.load())
    assert fixups.digest([_two_edits()]) != fixups.digest([_shipped()])
    reworded = dataclasses.replace(_shipped(), why="in other words", driver=[None, None])
    assert fixups.digest([reworded]) == fixups.digest([_shipped()])


def test_shipped_fix_ups_are_whole() -> None:
    names = [fixup.id for fixup in fixups.load()]
    assert len(names) == len(set(names))
    for fixup in fixups.load():
        assert fixup.why
        assert fixup.edits
        assert all(edit.find != edit.replace for edit in fixup.edits)
