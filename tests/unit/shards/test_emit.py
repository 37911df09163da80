"""The files for engines: of their documented shape, equal to those that ship, and runnable."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from harness.catalog import MATRICES
from harness.ci.emit import ENGINES
from harness.cli import main
from harness.commands.plan import EMITTED

ROOT = Path(__file__).resolve().parents[3]
SCHEMAS = Path(__file__).parent / "schemas"
PAGE = (ROOT / "docs/shards.md").read_text()
#: File that ships -> the command that the page says makes it.
SHIPPED = dict(re.findall(r"^\| \[`(ci/.+?)`\]\(ci/.+?\) \| `(airlock plan .+?)` \|$", PAGE, re.M))
MORE = {
    "github": [],
    "gitlab": ["--container", "registry.example/airlock:1"],
    "cloudbuild": ["--container", "registry.example/airlock:1", "--bucket", "gs://a-bucket"],
    "kubernetes": ["--container", "registry.example/airlock:1", "--bucket", "gs://a-bucket/b/"],
}


def emitted(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["plan", *words]) == 0
    return capsys.readouterr().out


def read(text: str) -> Any:
    """YAML 1.2, in which ``on`` is a word."""
    return json.loads(json.dumps(yaml.load(text, Loader=_Loader)))


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """What the engines read."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, what) for tag, what in all_ if tag != "tag:yaml.org,2002:bool"]
    for first, all_ in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def shape(engine: str) -> jsonschema.Draft202012Validator:
    schema = json.loads((SCHEMAS / f"{engine}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shards", ["1", "4"])
def test_they_have_the_shape_that_the_engine_documents(
    engine: str, shards: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = emitted(capsys, "--emit", engine, "--shards", shards, *MORE[engine])
    assert sorted(error.message for error in shape(engine).iter_errors(read(text))) == []
    assert text == emitted(capsys, "--emit", engine, "--shards", shards, *MORE[engine])


def test_every_engine_ships_and_is_documented() -> None:
    assert sorted(SHIPPED) == sorted(f"ci/{engine}.yaml" for engine in ENGINES)
    assert sorted(path.name for path in (ROOT / "docs/ci").iterdir()) == sorted(
        f"{engine}.yaml" for engine in ENGINES
    )
    assert (*ENGINES, "durations") == EMITTED


@pytest.mark.parametrize("file", SHIPPED)
def test_what_ships_is_what_the_generator_makes(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(SHIPPED[file])[2:]
    assert (ROOT / "docs" / file).read_text() == emitted(capsys, *words), SHIPPED[file]


def commands(engine: str, data: Any) -> list[str]:
    """The shell texts of a file, as the engine gives them to a shell."""
    if engine == "github":
        return [
            step["run"] for job in data["jobs"].values() for step in job["steps"] if "run" in step
        ]
    if engine == "gitlab":
        jobs = [job for name, job in data.items() if name != "stages"]
        return [line for job in jobs for line in job["script"]]
    if engine == "cloudbuild":
        return [re.sub(r"\$\{_\w+\}", "2", data["steps"][0]["args"][1]).replace("$$", "$")]
    return [data["spec"]["template"]["spec"]["containers"][0]["command"][2]]


RUNS = {
    "github": {},
    "gitlab": {"CI_NODE_INDEX": "2"},
    "cloudbuild": {},
    "kubernetes": {"JOB_COMPLETION_INDEX": "1", "JOB": "airlock-x"},
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("status", "ends"), [(0, 0), (1, 0), (2, 2), (3, 3), (4, 4)])
def test_its_shell_runs_the_shard_and_keeps_what_could_not_be_told(
    engine: str, status: int, ends: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With programs in the place of airlock and gcloud that say how they were called."""
    text = emitted(
        capsys, "release", "--image", "debian-12", "--emit", engine, "--shards", "3", *MORE[engine]
    )
    script = next(text for text in commands(engine, read(text)) if " --shard " in text)
    script = script.replace("${{ matrix.shard }}", "2")
    for name, code in (("airlock", status), ("gcloud", 0)):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {tmp_path}/calls\nexit {code}\n')
        program.chmod(0o755)
    done = subprocess.run(
        ["bash", "-ec" if engine in ("github", "gitlab") else "-c", script],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", **RUNS[engine]},
        capture_output=True,
        text=True,
        check=False,
    )
    # GitLab itself lets a 1 pass.
    assert done.returncode == (status if engine == "gitlab" else ends), done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "airlock run release --image debian-12 --shard 2/3 --out out"
    if "bucket" in ENGINES[engine]:
        assert re.search(r" out gs://a-bucket(/b/airlock-x|/2)/shard-2$", calls[1]), calls
    # Its words are ones that the command knows.
    with_plan = shlex.split(calls[0])[2:-2]
    assert main(["plan", "--provider", "fake", *with_plan]) == 0


def test_a_shards_part_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["debian-12+proxy-intercept+full", "debian-13+proxy-intercept+full"]
    file = tmp_path / "d.json"
    file.write_text(json.dumps({f"qemu/{names[0]}": [600], f"qemu/{names[1]}": [300, 320]}))
    text = emitted(capsys, "ci", "--emit", "github", "--shards", "2", "--durations", str(file))
    assert "#   1/2: 1 cell, about 10.0 min" in text
    assert "#   2/2: 2 cells, about 5.2 min" in text
    assert f"airlock run ci --durations {file} --shard " in text


@pytest.mark.parametrize("bad", ["a b", "a'b", "$(x)", "${{ x }}", "a\nb", "ü", ""])
def test_nothing_that_means_something_to_a_shell_gets_in(
    bad: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / f"{bad or 'x y'}.toml"
    file.write_text((MATRICES / "ci.toml").read_text())
    assert main(["plan", str(file), "--emit", "github"]) == 2
    assert "cannot be written into a file" in capsys.readouterr().err
