"""What a module says about itself is read as modinfo and readelf read it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installers import elf
from installers.elf import ELFError
from tests.unit.installers_driver import material

_FIELDS = {"vermagic": "6.1.0-56-cloud-amd64 SMP ", "name": "nvidia", "depends": "drm,i2c-core"}


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [32, 64])
def test_both_classes_and_byte_orders(order: str, bits: int) -> None:
    data = material.module(_FIELDS, order=order, bits=bits)
    assert elf.modinfo(data) == {key: [value] for key, value in _FIELDS.items()}
    assert [section.name for section in elf.sections(data)] == ["", ".modinfo", ".shstrtab", ".bss"]
    assert elf.extent(data) == len(data)
    assert elf.extent(data + b"appended") == len(data)


def test_repeated_fields_keep_every_value() -> None:
    twice = material.module({"alias": "pci:v000010DEd*\0alias=char-major-195-*"})
    assert elf.modinfo(twice) == {"alias": ["pci:v000010DEd*", "char-major-195-*"]}


@settings(max_examples=200)
@given(st.data())
def test_damage_never_raises_anything_else(data: st.DataObject) -> None:
    damaged = bytearray(material.module(_FIELDS))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ELFError):
        elf.modinfo(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_reads_what_a_compiler_wrote(tmp_path: Path) -> None:
    source = tmp_path / "m.c"
    source.write_text(
        'static const char v[] __attribute__((section(".modinfo"), used)) = "vermagic=1.2 SMP";\n'
        "int counter[4096];\n"
    )
    subprocess.run(["gcc", "-g", "-c", "m.c", "-o", "m.ko"], cwd=tmp_path, check=True)
    data = (tmp_path / "m.ko").read_bytes()
    assert elf.modinfo(data) == {"vermagic": ["1.2 SMP"]}
    assert elf.extent(data) == len(data)
    if shutil.which("readelf"):
        listing = subprocess.run(
            ["readelf", "-SW", "m.ko"], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout
        for section in elf.sections(data)[1:]:
            assert f" {section.name} " in listing


@pytest.mark.skipif(not shutil.which("modinfo"), reason="needs modinfo (kmod)")
def test_agrees_with_modinfo(tmp_path: Path) -> None:
    path = tmp_path / "nvidia.ko"
    path.write_bytes(material.module(_FIELDS))
    for field, value in _FIELDS.items():
        said = subprocess.run(
            ["modinfo", "-F", field, str(path)], capture_output=True, text=True, check=True
        ).stdout
        assert said.rstrip("\n") == value
