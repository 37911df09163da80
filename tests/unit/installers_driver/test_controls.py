"""What of the controls can be tried without a kernel that enforces signatures."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from installers import controls
from installers.controls import ControlError


def test_the_installed_module_is_ours_if_there_is_one(tmp_path: Path) -> None:
    tree = tmp_path / "lib/modules/6.1.0"
    for place in ("kernel/drivers/nvidia.ko.xz", "updates/airlock/nvidia-uvm.ko"):
        (tree / place).parent.mkdir(parents=True, exist_ok=True)
        (tree / place).write_bytes(b"")
    found = controls.installed_module("nvidia", "6.1.0", tmp_path)
    assert found == tree / "kernel/drivers/nvidia.ko.xz"
    (tree / "updates/airlock/nvidia.ko").write_bytes(b"")
    found = controls.installed_module("nvidia", "6.1.0", tmp_path)
    assert found == tree / "updates/airlock/nvidia.ko"
    assert controls.installed_module("nvidia_uvm", "6.1.0", tmp_path).name == "nvidia-uvm.ko"
    with pytest.raises(ControlError, match="no module nouveau"):
        controls.installed_module("nouveau", "6.1.0", tmp_path)


def test_only_new_kernel_messages_are_kept(tmp_path: Path) -> None:
    log = tmp_path / "kmsg"
    log.write_text("6,1,100,-;old\n")
    reader = controls.KernelLog(str(log))
    try:
        assert reader.lines() == []
        with log.open("a") as file:
            file.write("4,2,200,-;Loading of unsigned module is rejected\n SUBSYSTEM=x\n")
        assert reader.lines() == ["Loading of unsigned module is rejected"]
        assert reader.lines() == []
    finally:
        reader.close()


def test_without_a_kernel_log_there_are_no_controls(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="kernel log"):
        controls.KernelLog(str(tmp_path / "absent"))


def test_the_kernels_answer_is_an_errno(tmp_path: Path) -> None:
    (tmp_path / "kmsg").write_text("")
    (tmp_path / "nvidia.ko").write_bytes(b"no module at all")
    log = controls.KernelLog(str(tmp_path / "kmsg"))
    try:
        code, lines = controls.load(tmp_path / "nvidia.ko", log)
    finally:
        log.close()
    # Whatever this machine's kernel says of it, it is not "loaded".
    refusals = {errno.EPERM, errno.ENOEXEC, errno.ENOSYS, errno.EKEYREJECTED, errno.EBADMSG}
    assert code in refusals | {errno.EOPNOTSUPP}, os.strerror(code)
    assert lines == []
