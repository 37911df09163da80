"""The bill of materials: valid, whole, the same twice, and unmoved by what a node may say."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from harness import sbom
from harness.errors import UsageError
from installers.collect import environments
from installers.collect.reader import Reader
from reports.model import Cell, Image, Inherited, Report
from reports.summary import build_report
from tests.unit.core.workbench import BOOKWORM, BULLSEYE, Bench
from tests.unit.reports.hostile import ATTACK
from tests.unit.reports.sample import STARTED, make_run

MODULE = "/lib/modules/6.1.0-56-cloud-amd64/updates/airlock/nvidia.ko"
FACTS: dict[str, Any] = {
    "received": 1795321335.5,
    "os": {"id": "debian", "version_id": "12"},
    "packages": {"bash": "5.2.15-2+b7", "libc6": "2.36-9+deb12u9", "g++-12": "1:12.2.0-14"},
    "installers": [
        {"name": "proxy", "provenance": {"http": "http://10.0.2.100:3128"}},
        {
            "name": "driver",
            "provenance": {
                "driver": "535.261.03",
                "signed": "external",
                "source": {"name": "nvidia-open-kernel-source", "version": "535.261.03-1"},
            },
        },
    ],
    "modules": [
        {
            "path": MODULE,
            "version": "535.261.03",
            "sha256": "ab" * 32,
            "signer": {"issuer_cn": "Airlock lab module signing", "serial": "51"},
            "cert_sha256": "cd" * 32,
            "signatures": 1,
            "digest_ok": True,
        }
    ],
    "environments": {
        "lab": {"lock": "ef" * 32, "prefix": "/opt/lab", "packages": ["my-models-1.0-py_0"]}
    },
}


def bill(facts: dict[str, Any]) -> dict[str, Any]:
    """The bill, once it was seen to be valid."""
    text = sbom.bill("debian-12+proxy+full", "debian-12", "sha256:" + "12" * 32, facts)
    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert wrong is None, wrong
    assert text.isascii()
    assert all(sign.isprintable() or sign == "\n" for sign in text)
    found: dict[str, Any] = json.loads(text)
    return found


def told(component: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in component.get("properties", ())}


def test_it_holds_what_is_installed() -> None:
    found = bill(FACTS)
    assert found["specVersion"] == "1.6"
    parts = {part["bom-ref"]: part for part in found["components"]}
    assert parts["package:bash"]["purl"] == "pkg:deb/debian/bash@5.2.15-2%2Bb7?distro=debian-12"
    assert {part["version"] for ref, part in parts.items() if ref.startswith("package:")} == {
        *FACTS["packages"].values()
    }
    assert (parts["driver"]["version"], parts["driver"]["type"]) == ("535.261.03", "device-driver")
    assert told(parts["driver"])["airlock:driver:source:version"] == "535.261.03-1"
    module = parts[f"module:{MODULE}"]
    assert module["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert told(module)["airlock:module:signer:issuer_cn"] == "Airlock lab module signing"
    assert told(module)["airlock:module:cert_sha256"] == "cd" * 32
    assert told(parts["environment:lab"])["airlock:environment:lock"] == "ef" * 32
    conda = parts["environment:lab:my-models"]
    assert conda["purl"] == "pkg:conda/my-models@1.0?build=py_0"
    root = next(each for each in found["dependencies"] if each["ref"] == "node")
    assert set(root["dependsOn"]) == set(parts)
    assert found["metadata"]["timestamp"] == "2026-11-22T04:22:15.500000+00:00"


def test_the_same_node_gives_the_same_bytes_and_another_another_number() -> None:
    again = dict(reversed(FACTS.items()))
    assert bill(FACTS) == bill(again)
    numbers = {bill(FACTS)["serialNumber"], bill({**FACTS, "packages": {}})["serialNumber"]}
    assert len(numbers) == 2
    assert {uuid.UUID(number).version for number in numbers} == {5}


def test_hostile_text_stays_text() -> None:
    """Every text of the facts, keys of dicts included, is followed by an attack."""

    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            fixed = value.keys() & {*FACTS, "version", "path", "provenance", "driver", "lab"}
            return {k if k in fixed else k + ATTACK: poison(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(item) for item in value]
        return value + ATTACK if isinstance(value, str) else value

    found = bill(poison(FACTS))
    assert len(found["components"]) >= len(FACTS["packages"])


@pytest.mark.parametrize("wrong", [None, 7, "text", [], [1, None], {"": ""}, {"a": None}, [[]]])
@pytest.mark.parametrize("key", list(FACTS))
def test_the_wrong_shape_is_left_out(key: str, wrong: Any) -> None:
    bill({**FACTS, key: wrong})


@pytest.mark.parametrize("name", ["\ud800", "a\udfffb", "/", "//", "@", "?#", "%", "\u202e", "a b"])
def test_names_that_no_url_can_hold_are_kept_as_names(name: str) -> None:
    odd = {"os": {"id": name, "version_id": name}, "packages": {name: name, "bash": "5"}}
    held = {"x" + name: {"lock": name, "packages": [f"a{name}-1{name}-2{name}"]}}
    found = bill({**FACTS, **odd, "environments": held, "modules": [{"path": name}]})
    assert len(found["components"]) == 6


@pytest.mark.parametrize("seconds", [float("nan"), 1e300, -1e300, True, "soon"])
def test_an_impossible_moment_is_the_epoch(seconds: Any) -> None:
    assert bill({**FACTS, "received": seconds})["metadata"]["timestamp"].startswith("1970-01-01")


def test_conda_packages_are_read_from_the_record_on_the_node(tmp_path: Path) -> None:
    files = dict.fromkeys(("bin/python", "conda-meta/python-3.11.9-h1_0.json"), "")
    record = {"schema": 1, "lock": "00", "prefix": "/e", "imports": [], "files": files, "links": {}}
    folder = tmp_path / environments.RECORDS.lstrip("/")
    folder.mkdir(parents=True)
    (folder / "lab.json").write_text(json.dumps(record))
    found = environments.collect(Reader(str(tmp_path)), environments.Seen())
    assert found["lab"]["packages"] == ["python-3.11.9-h1_0"]


def test_a_run_keeps_it_and_report_makes_the_same_again(bench: Bench) -> None:
    status, output = bench.run("--scenario", "proxy-intercept")
    assert status == 0, output
    latest = bench.path / "out" / "latest"
    kept = (latest / "cells" / BOOKWORM / sbom.NAME).read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(kept) is None

    def report(cell: str) -> tuple[int, str]:
        process = bench.start("report", str(latest), "--sbom", cell)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    assert report(BOOKWORM) == (0, kept)
    near = report(BOOKWORM[:-1])
    assert (near[0], f"did you mean {BOOKWORM!r}" in near[1]) == (2, True)
    refused = report(BULLSEYE)
    assert (refused[0], "has no facts" in refused[1]) == (2, True)


def report_of(cell_id: str, inherited: Inherited | None = None) -> Report:
    cell = Cell(
        id=cell_id,
        image=Image(name="debian-12"),
        scenario="proxy",
        profile="full",
        provider="fake",
        verdict="not-run",
        inherited=inherited,
    )
    return build_report(make_run(), [cell])


def test_an_inherited_cell_has_the_earlier_runs_facts(tmp_path: Path) -> None:
    capsule = tmp_path / "earlier" / "cells" / "one"
    capsule.mkdir(parents=True)
    (capsule / "facts.json").write_bytes(msgspec.json.encode(FACTS))
    (tmp_path / "later").mkdir()
    report = report_of("one", Inherited(run="earlier", finished=STARTED, report="../earlier"))
    assert "535.261.03" in sbom.of_report(report, tmp_path / "later", "one")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("../../elsewhere", "{}", "no name of a directory"),
        ("one", "{", "not JSON"),
        ("one", "[]", "not the facts of a node"),
        ("one", None, "No such file"),
    ],
)
def test_bad_capsules_are_refused(tmp_path: Path, name: str, text: str | None, words: str) -> None:
    capsule = tmp_path / "run" / "cells" / name
    capsule.mkdir(parents=True)
    if text is not None:
        (capsule / "facts.json").write_text(text)
    with pytest.raises(UsageError, match=words):
        sbom.of_report(report_of(name), tmp_path / "run", name)
