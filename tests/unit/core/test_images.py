"""Images of images.toml and of the command line: vendors' disks, and mirrors of distributions."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.scenarios import Scenario
from harness.catalog import load_catalog
from harness.cells import Cell, Image, Profile
from harness.errors import UsageError
from harness.lab import base
from harness.matrix import Selection, load_matrix, select
from harness.refusals import known_refusal
from tests.lab import vendor
from tests.unit.core.test_cli import airlock

CLOUD = '[own]\ntitle = "Own"\nkind = "cloud"\n'
PACKAGES = '[own]\ntitle = "Own"\nfamily = "ubuntu"\nversion = "24.04"\nsuite = "noble"\n'


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
    monkeypatch.delenv(base.VARIABLE, raising=False)


def disk(path: Path) -> Path:
    path.write_bytes(vendor.table([], 2))
    return path


def test_a_table_of_kind_cloud_names_a_file_beside_it(tmp_path: Path) -> None:
    (tmp_path / "images.toml").write_text(CLOUD + 'source = "own.qcow2"\ndisk_mb = 9000\n')
    found = load_catalog(tmp_path).images["own"]
    assert found.cloud
    assert found.source == str(tmp_path / "own.qcow2")
    assert (found.family, found.kernel, found.disk_mb) == ("", "", 9000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CLOUD, "lacks 'source'"),
        (CLOUD + 'source = "https://example.org/x.qcow2"\n', "needs a sha256"),
        (CLOUD + 'source = "gs://bucket/x.qcow2"\n', "is no address"),
        (CLOUD + 'source = "https://me:pw@example.org/x"\n', "must not hold a password"),
        (CLOUD + 'source = "x.qcow2"\nsha256 = "abc"\n', "'abc' is none"),
        (CLOUD + 'source = "x.qcow2"\nsuite = "noble"\n', "suite: is not for images of kind cloud"),
        (CLOUD.replace("cloud", "clout"), "must be packages or cloud"),
        (PACKAGES, "lacks 'kernel'"),
        (PACKAGES + 'kernel = "k"\nsource = "x"\n', "source: is not for images of kind packages"),
    ],
)
def test_a_wrong_table_is_told_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "images.toml").write_text(f"# first\n{text}")
    with pytest.raises(UsageError, match=said) as caught:
        load_catalog(tmp_path)
    assert f"{tmp_path}/images.toml:" in str(caught.value)
    assert "pw" not in str(caught.value)


def test_a_disk_of_ones_own_takes_the_place_of_the_matrix_images(tmp_path: Path) -> None:
    catalog = load_catalog()
    matrix = tmp_path / "m.toml"
    matrix.write_text(
        '[matrix]\nimages = ["debian-12"]\nscenarios = ["proxy", "direct"]\nprofiles = ["driver"]\n'
    )
    path = disk(tmp_path / "debian-12.raw")
    cells = load_matrix(matrix, catalog)
    chosen = select(cells, Selection(images=(str(path),)), catalog)
    # Another name than the catalog's, whose cells are not meant.
    assert [cell.id for cell in chosen] == [
        "debian-12-disk+proxy+driver",
        "debian-12-disk+direct+driver",
    ]
    assert all(cell.image.source == str(path) for cell in chosen)


def test_what_is_named_is_looked_at_before_anything_runs(tmp_path: Path) -> None:
    catalog = load_catalog()
    text = tmp_path / "own.img"
    text.write_text("no disk\n" * 100)
    for name, said in (
        (str(text), "is no disk image"),
        (str(tmp_path / "gone.qcow2"), "No such file"),
        ("https://example.org/x.qcow2", "needs a sha256"),
        ("debian-21", "unknown image"),
    ):
        with pytest.raises(UsageError, match=said):
            catalog.image(name)


def test_inspect_says_what_is_there_and_ends_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.raw"
    bare.write_bytes(vendor.table([(1, vendor.LINUX, "root", 1, 8)], 10))
    status, said = airlock(capsys, "image", "inspect", str(bare))
    assert status == 1
    assert "no EFI system partition" in said
    assert "GPT: 1 unknown 8 MiB" in said
    assert "not told" in said
    wrong = tmp_path / "wrong.raw"
    wrong.write_text("no disk\n" * 100)
    status, said = airlock(capsys, "image", "inspect", str(wrong))
    assert status == 2
    assert "is no disk image" in said


def test_a_distribution_without_a_mirror_is_refused_with_the_ways_out() -> None:
    own = Image("noble", "", "ubuntu", "24.04", "noble", "linux-image-virtual")
    refused = base.refusal(own)
    assert refused is not None
    assert refused.code == "image.no-mirror"
    for way in ("--mirror URL", 'mirror = "URL"', base.VARIABLE, "--image FILE"):
        assert way in refused.remedy


def test_a_mirror_is_taken_as_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Image("noble", "", "ubuntu", "24.04", "noble", "k", mirror="http://mirror.test/ubuntu")
    line = "deb http://mirror.test/ubuntu noble main restricted universe multiverse"
    assert base.refusal(own) is None
    assert base.sources(own) == [line]
    monkeypatch.setenv(base.VARIABLE, "http://other.test/ubuntu")
    assert base.sources(own) == [line]
    unsaid = Image("noble", "", "ubuntu", "24.04", "noble", "k")
    assert base.sources(unsaid) == [line.replace("mirror.test", "other.test")]


def test_what_cannot_be_done_to_a_vendors_disk_is_refused() -> None:
    catalog = load_catalog()
    own = Image("own", "", kind="cloud", source="/x.qcow2")
    plain = Profile("settings", "", ("proxy", "seal"))
    cell = Cell(own, Scenario("s", ""), plain, "qemu")
    assert known_refusal(cell) is None
    small = Cell(own, catalog.scenarios["disk-20g"], plain, "qemu")
    refused = known_refusal(small)
    assert refused is not None
    assert refused.code == "image.cloud-disk"
