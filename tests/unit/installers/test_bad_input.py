"""docs/bad-input.md is what the installers really say: every row is tried, none is missing."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, rsa

import installers
from installers import cli, pem
from installers import metadata as metadata_source
from tests.unit.installers.authorities import DAY, make
from tests.unit.installers.test_trust import fresh

SOURCES = Path(str(installers.__file__)).parent
DOCS = Path(__file__).parents[3] / "docs"
# What comes after is the gate's, and tried where the gate is.
PAGE = (DOCS / "bad-input.md").read_text().partition("\n## Reports, policies")[0]
# Section of the page -> the installer that reads its keys.
READERS = {
    "proxy": "proxy",
    "archives": "archives",
    "trust": "trust",
    "keyrings": "keyrings",
    "cache": "driver",
    "driver and cuda": "cuda",
    "signing": "driver",
    "environments": "environments",
    "deferred": "deferred",
    "kubernetes": "kubernetes",
}
# Whose texts are listed whole.
MODULES = (
    *("proxyurl", "noproxy", "config", "metadata", "registry", "pemsource", "pem"),
    *("repositories", "archived", "trust", "cache/settings", "cache/mirror", "kubernetes/wanted"),
)
ERRORS = ("ConfigError", "NodeError", "UnreachableError")
NOW = pem.utc_now()


def rows(columns: int) -> list[list[str]]:
    """Cells of every table line with so many columns, each a code span but for the exit code."""
    span = r"\| `([^`]+)` " * (columns - 1)
    return [list(found) for found in re.findall(rf"^{span}\| (\d) \|$", PAGE, re.MULTILINE)]


def by_reader() -> list[tuple[str, str, str, str, int]]:
    found = []
    for part in PAGE.split("\n## ")[1:]:
        name = part.partition("\n")[0]
        if name in READERS:
            span = r"^\| `(.+?)` \| `(.+?)` \| `(.+?)` \| (\d) \|$"
            lines = re.findall(span, part, re.MULTILINE)
            for key, value, said, code in lines:
                found.append((READERS[name], key, value, said, int(code)))
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("root")
    (root / "etc").mkdir()
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
    bad = root / "bad"
    bad.mkdir()
    good = fresh("good")
    weak = {"start": NOW - DAY, "end": NOW + DAY}
    files = {
        "good": good,
        "large": good + b"#" * (1 << 20),
        "key": good + make("key").key_pem,
        "cut": good[: len(good) // 2],
        "der": b"\x30\x82\x01\x00",
        "empty": b"",
        "request": good.replace(b"CERTIFICATE", b"CERTIFICATE REQUEST"),
        "noise": b"-----BEGIN CERTIFICATE-----\nbm9pc2U=\n-----END CERTIFICATE-----\n",
        "leaf": fresh("leaf", ca=False),
        "usage": fresh("usage", key_usage="digitalSignature"),
        "later": fresh("later", start=NOW + DAY, end=NOW + 2 * DAY),
        "expired": fresh("expired", start=NOW - 2 * DAY, end=NOW - DAY),
        "short": fresh("short", key=rsa.generate_private_key(65537, 1024), **weak),
        "dsa": fresh("dsa", key=dsa.generate_private_key(2048), **weak),
    }
    for name, data in files.items():
        (bad / f"{name}.pem").write_bytes(data)
    return root


def ends(root: Path, *args: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit code and everything that was said."""
    try:
        code = cli.main(["apply", f"--root={root}", *args])
    except SystemExit as end:
        code = int(str(end.code))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out + err


def given(folder: Path, text: str) -> str:
    (folder / "m.json").write_text(text)
    return f"--metadata={folder}/m.json"


def tree(root: Path) -> set[str]:
    return {str(path) for path in root.rglob("*") if "var" not in path.parts}


@pytest.mark.parametrize(("reader", "key", "value", "said", "code"), by_reader())
def test_a_value_is_refused_in_these_words(
    root: Path,
    tmp_path: Path,
    reader: str,
    key: str,
    value: str,
    said: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = tree(root)
    file = given(tmp_path, json.dumps({"instance": {"attributes": {key: value}}}))
    found, text = ends(root, file, f"--only={reader}", capsys=capsys)
    assert said in text
    assert found == code
    assert tree(root) == before, "nothing was written"


@pytest.mark.parametrize(("value", "said", "code"), rows(3))
def test_the_command_and_the_file_are_refused_in_these_words(
    root: Path,
    tmp_path: Path,
    value: str,
    said: str,
    code: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metadata_source, "PATIENCE", 0.1)
    if value[0] in "{[":
        args = [given(tmp_path, value), "--only=proxy"]
    elif value.startswith(("/", "http:")):
        args = [f"--metadata={value}", "--only=proxy"]
    else:
        args = [given(tmp_path, "{}"), f"--only={value}"]
    found, text = ends(root, *args, capsys=capsys)
    assert said in text
    assert found == int(code)


def test_a_ca_that_is_signed_with_sha1(root: Path) -> None:
    file = root / "bad/sha1.pem"
    argv = ["openssl", "req", "-x509", "-sha1", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=old"]
    subprocess.run([*argv, "-keyout", "/dev/null", "-out", file], check=True, capture_output=True)
    with pytest.raises(Exception, match="is signed with"):
        pem.authorities(file.read_bytes(), pem.utc_now())


def texts(module: str) -> list[str]:
    """The constant parts of what a module's errors say, of some length."""
    found = []
    for node in ast.walk(ast.parse((SOURCES / f"{module}.py").read_text())):
        kind = getattr(node.func, "id", "") if isinstance(node, ast.Call) else ""
        if isinstance(node, ast.Call) and kind in ERRORS and node.args:
            what = node.args[0]
            parts = what.values if isinstance(what, ast.JoinedStr) else [what]
            for part in parts:
                if isinstance(part, ast.Constant) and len(str(part.value).strip(" ;:,'")) > 5:
                    found.append(str(part.value).strip())
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_text_of_these_modules_is_on_the_page(module: str) -> None:
    page = PAGE + (DOCS / "keyrings.md").read_text() + (DOCS / "cache.md").read_text()
    missing = [text for text in texts(module) if text not in page]
    assert not missing


def test_the_page_is_long_enough_to_be_the_page() -> None:
    assert len(by_reader()) > 60
    assert len(rows(3)) >= 9
