"""The model of a disk without power: what it must lose, and what it must keep."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.installers_engine.crash import Disk
from tests.unit.installers_engine.root import needs_chroot

pytestmark = needs_chroot


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    (root / "run").mkdir()
    (root / "old").write_text("before")
    (root / "old").chmod(0o640)
    return root


def left(disk: Disk, root: Path, *, torn: bool = False) -> dict[str, str]:
    target = root.with_name("left")
    disk.leave(target, torn=torn)
    return {
        str(path.relative_to(target)): path.read_text()
        for path in sorted(target.rglob("*"))
        if path.is_file() and "dev" not in path.parts
    }


def synced(disk: Disk, path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    disk.synced(descriptor)
    os.close(descriptor)


def test_what_was_there_stays_with_its_mode(root: Path) -> None:
    disk = Disk(root)
    assert left(disk, root) == {"old": "before"}
    assert (root.with_name("left") / "old").stat().st_mode & 0o777 == 0o640


def test_a_new_file_needs_its_directory_synced(root: Path) -> None:
    disk = Disk(root)
    (root / "new").write_text("x")
    synced(disk, root / "new")
    assert left(disk, root) == {"old": "before"}


def test_a_synced_directory_without_the_files_content_has_an_empty_file(root: Path) -> None:
    disk = Disk(root)
    (root / "new").write_text("x")
    synced(disk, root)
    assert left(disk, root) == {"new": "", "old": "before"}


def test_a_rename_without_a_sync_of_the_directory_did_not_happen(root: Path) -> None:
    disk = Disk(root)
    (root / "tmp").write_text("after")
    synced(disk, root / "tmp")
    (root / "tmp").rename(root / "old")
    assert left(disk, root) == {"old": "before"}


def test_a_directory_that_its_parent_does_not_know_is_gone_with_all_in_it(root: Path) -> None:
    disk = Disk(root)
    (root / "a").mkdir()
    (root / "a/file").write_text("x")
    synced(disk, root / "a/file")
    synced(disk, root / "a")
    assert left(disk, root) == {"old": "before"}


def test_torn_has_the_names_and_not_the_contents(root: Path) -> None:
    disk = Disk(root)
    (root / "new").write_text("x")
    (root / "synced").write_text("y")
    synced(disk, root / "synced")
    assert left(disk, root, torn=True) == {"new": "", "old": "before", "synced": "y"}
