"""The reader and the writer of containerd's TOML, against the standard library's and containerd."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from installers import cli, tomledit, tomltext
from installers.collect import containers, registries
from installers.collect.reader import Reader
from tests.unit.installers_kubernetes.conftest import CONFIG

TEXTS = [
    CONFIG,
    "",
    'a = "x # no comment"  # one\nb = \'C:\\n\'\nc = "\\u00e4\\n"\n',
    "n = -1_000\nt = true\nf = false\nx = 0.02\ny = 1e-3\n",
    'list = [\n  "a", # first\n  "b,]",\n]\nempty = []\nnumbers = [1, 2]\n',
    "[a.\"b.c\".'d e'.f-g]\nx = 1\n[ a . h ]\ny = 2\n",
    '[host."https://r.example/v2"]\n  capabilities = ["pull", "resolve"]\n  override_path = true\n',
]


def flat(data: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Path of a value -> the value."""
    found: dict[tuple[str, ...], Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            found.update(flat(value, (*path, key)))
        else:
            found[(*path, key)] = value
    return found


def ours(text: str) -> dict[tuple[str, ...], Any]:
    tables = tomltext.tables(text)
    return {(*path, key): value for path, own in tables.items() for key, value in own.items()}


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_read_as_the_standard_library_reads(text: str) -> None:
    assert ours(text) == flat(tomllib.loads(text))


KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)
WORDS = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
VALUES = st.booleans() | st.integers(-(10**6), 10**6) | WORDS | st.lists(WORDS, max_size=3)


@settings(max_examples=150)
@given(st.dictionaries(WORDS, st.dictionaries(KEYS, VALUES, max_size=3), max_size=3))
def test_read_what_is_written(data: dict[str, dict[str, Any]]) -> None:
    text = ""
    for table, own in data.items():
        text += f"[plugins.{json.dumps(table)}]  # here\n"
        text += "".join(f"  {key} = {json.dumps(value)}\n" for key, value in own.items())
    assert ours(text) == flat(tomllib.loads(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a\n", "line 1: a table's name does not end"),
        ("\n[]\n", "line 2: a table has no name"),
        ("[a]b]\n", "in a table's name"),
        ("hello\n", "line 1: is neither a table nor a setting"),
        ("= 3\n", "no name|neither"),
        ("a =\n", "line 1: a setting has no value"),
        ('a = "x\n', "line 1: a string does not end"),
        ('a = [\n"x"\n', "a list does not end"),
        ('[a."\\x"]\n', "line 1: .* is not a string"),
        ('"\\xg" = 1\n', "line 1: .* is not a string"),
        ('a = "\\q"\n', "line 1: .* is not a string"),
    ],
)
def test_what_is_no_toml_is_told_with_its_line(text: str, words: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    with pytest.raises(ValueError, match=words):
        tomltext.tables(text)


@settings(max_examples=200)
@given(st.text(st.sampled_from("[]\"'=#.,\\ \nabx1"), max_size=40))
def test_noise_is_read_or_refused(text: str) -> None:
    said = "line "
    try:
        tomltext.tables(text)
    except ValueError as error:
        said = str(error)
    assert said.startswith("line ")


TABLE = ("plugins", "io.containerd.grpc.v1.cri", "registry")


@pytest.mark.parametrize("text", [*TEXTS, "version = 2", "[x]"], ids=range(len(TEXTS) + 2))
def test_one_key_is_put_and_taken_away(text: str) -> None:
    made = tomledit.put(text, TABLE, "config_path", '"/x"')
    before, after = flat(tomllib.loads(text)), flat(tomllib.loads(made))
    assert after == {**before, (*TABLE, "config_path"): "/x"}
    assert tomledit.put(made, TABLE, "config_path", '"/x"') == made
    bare = flat(tomllib.loads(tomledit.put(made, TABLE, "config_path", None)))
    assert bare == {key: value for key, value in before.items() if key[:-1] != TABLE}


def test_facts_of_a_configuration_that_is_damaged(tmp_path: Path) -> None:
    """Named, with its file and line; and runtimes as well."""
    path = tmp_path / "etc/containerd/config.toml"
    path.parent.mkdir(parents=True)
    path.write_text("version = 2\n[plugins\n")
    found = registries.collect(Reader(str(tmp_path)))
    assert found is not None
    assert found["why"].startswith("/etc/containerd/config.toml: line 2: ")
    runtimes = containers.collect(Reader(str(tmp_path)))["runtimes"]["containerd"]
    assert "line 2" in runtimes["why"]


@pytest.mark.slow
@pytest.mark.parametrize("imported", [False, True])
def test_containerd_reads_it(
    root: Path,
    metadata: Path,
    tmp_path: Path,
    imported: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Debian's own: an imported file with the plug-in's table takes the place of the main one's."""
    if not shutil.which("apt-get"):
        pytest.skip("needs apt-get")
    argv = ["apt-get", "download", "-q", "containerd"]
    if subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False).returncode:
        pytest.skip("no mirror of Debian's packages can be reached")
    (package,) = tmp_path.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(tmp_path / "x")], check=True)
    extra = root / "etc/containerd/conf.d/99-nvidia.toml"
    if imported:
        extra.parent.mkdir()
        extra.write_text(
            'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd]\n'
            '  default_runtime_name = "nvidia"\n'
        )

    def dump() -> dict[str, Any]:
        config = root / "etc/containerd/config.toml"
        moved = tmp_path / "moved.toml"
        text = config.read_text().replace('"/etc/containerd/conf.d', f'"{extra.parent}')
        moved.write_text(text)
        program = tmp_path / "x/usr/bin/containerd"
        argv = [str(program), "-c", str(moved), "config", "dump"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert ours(said) == flat(tomllib.loads(said))
        cri: dict[str, Any] = tomllib.loads(said)["plugins"]["io.containerd.grpc.v1.cri"]
        return cri

    assert dump()["registry"]["config_path"] == ""
    assert cli.main(["apply", f"--root={root}", f"--metadata={metadata}", "--only=kubernetes"]) == 0
    capsys.readouterr()
    found = dump()
    assert found["registry"]["config_path"] == "/etc/containerd/certs.d"
    assert found["containerd"]["default_runtime_name"] == ("nvidia" if imported else "runc")
