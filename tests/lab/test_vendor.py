"""A vendor's disk, made by tests.lab.vendor: built by booting it, booted again, and checked.

Emulated it takes a quarter of an hour on quiet cores, with KVM some minutes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.lab.diskimage import inspect
from harness.lab.namespace import run_as_root
from tests.lab import vendor

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.xdist_group("vendor")]

MATRIX = Path(__file__).parent.parent / "vendor" / "matrix.toml"


def run(out: Path, image: Path) -> tuple[int, dict[str, Any]]:
    """One cell: the exit code, and the cell of the report."""
    status = main(["run", str(MATRIX), "--image", str(image), "--out", str(out)])
    report = json.loads((out / "latest" / "report.json").read_text())
    (cell,) = report["cells"]
    return status, cell


def test_a_vendors_disk_becomes_a_node_that_is_checked_like_any_other(tmp_path: Path) -> None:
    status, cell = run(tmp_path, vendor.make())
    checks = {check["id"]: check["outcome"] for check in cell["checks"]}
    # It booted by its own shim, GRUB and kernel, from its own disk.
    assert checks["secure-boot.enabled"] == "pass"
    assert checks["proxy.no-proxy"] == "pass"
    assert checks["trust.os-store"] == "pass"
    assert checks["egress.no-violation"] == "pass"
    assert checks["egress.probes-seen"] == "pass"
    assert checks["hygiene.secrets"] == "pass"
    assert "fail" not in checks.values(), [c for c in cell["checks"] if c["outcome"] == "fail"]
    assert status == 0
    assert cell["provenance"]["kernel"].endswith("cloud-amd64")


def test_without_cloud_init_the_cell_is_refused_before_anything_boots(tmp_path: Path) -> None:
    raw = tmp_path / "bare.raw"
    run_as_root(["qemu-img", "convert", "-O", "raw", str(vendor.make()), str(raw)], timeout=600)
    (root,) = [part for part in inspect(raw, "bare").partitions if part.holds == "ext4"]
    remove = ["debugfs", "-w", "-R", "rm /usr/bin/cloud-init", f"{raw}?offset={root.start}"]
    run_as_root(remove, timeout=60)
    status, cell = run(tmp_path / "out", raw)
    assert (status, cell["verdict"], cell["cause"]) == (1, "refused", "image.no-cloud-init")
    assert not [phase for phase in cell["phases"] if "boot" in phase["name"]]
