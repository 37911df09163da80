"""The command line: exit codes, messages for bad input, and what a verb does not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import VERBS, main
from tests.unit.core.workbench import REPOSITORY


def airlock(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    """One command line in this process: exit code, and all it printed."""
    status = main(list(words))
    printed = capsys.readouterr()
    return status, printed.out + printed.err


def matrix(tmp_path: Path, text: str) -> str:
    """A matrix file."""
    path = tmp_path / "m.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("words", "exit_code", "said"),
    [
        (["rnu"], 2, "did you mean 'run'?"),
        ([], 2, "verbs:"),
        (["plan", "--imge", "x"], 2, "did you mean '--image'?"),
        (["run", "--frsh"], 2, "did you mean '--fresh'?"),
        (["run", "-n", "many"], 2, "invalid int value"),
        (["run", "-n", "-1"], 2, "must be 1 or more"),
        (["run", "-k", "a b"], 2, "-k 'a b'"),
        (["run", "--checks", "/no/such/place"], 2, "there is no directory"),
        (["sabotage", "--apply", "/nonexistent"], 2, "belong together"),
        (["sabotage", "--apply", "/none", "--expect", "a.b"], 2, "No such file"),
        (["sabotage", "--area", "egres"], 2, "did you mean 'egress'?"),
        (["sabotage", "--only", "unsigned-modul"], 2, "did you mean 'unsigned-module'?"),
        (["plan", "--image", "debain-12"], 2, "did you mean 'debian-12'?"),
        (["plan", "--scenario", "proxy-interzept"], 2, "did you mean 'proxy-intercept'?"),
        (["plan", "--profile", "drivers"], 2, "did you mean 'driver'?"),
        (["plan", "--provider", "qmu"], 2, "did you mean 'qemu'?"),
        (["plan", "defalt"], 2, "did you mean 'default'?"),
        (["plan", "no-such-file.toml"], 2, "no-such-file.toml: cannot be read"),
        (["plan", "--image", "debian-13", "--profile", "driver", "--scenario", "x"], 2, "unknown"),
        (["gate", "out/no-such-run"], 2, "there is no out/no-such-run"),
        (["report", "out/no-such-run"], 2, "there is no out/no-such-run"),
        (["image", "list", "debian-12"], 2, "takes nothing more"),
        (["image", "build"], 2, "needs a NAME"),
        (["image", "build", "debain-12"], 2, "did you mean 'debian-12'?"),
        (["image", "biuld"], 2, "invalid choice"),
        (["image", "list", "--mirror", "x"], 2, "--mirror is for build"),
        (["image", "inspect", "debian-12", "--fresh"], 2, "--fresh is for build"),
        (["image", "inspect", "debian-12"], 2, "made of packages"),
        (["image", "inspect"], 2, "needs a NAME"),
        (["plan", "--image", "./gone.qcow2"], 2, "No such file"),
        (["install"], 2, "name a TARGET or --root DIR"),
        (["install", "local", "--root", "/"], 2, "and not both"),
        (["install", "--root", "/no/such/place"], 2, "is not a directory"),
        (["check", "ftp://host"], 2, "is no target"),
        (["check", "ssh://user:secret@host"], 2, "must not hold a password"),
        (["check", "ssh://host:99999"], 2, "is no target"),
        (["check", "ssh://-oProxyCommand=x"], 2, "names no host"),
        (["check", "locla"], 2, "did you mean 'local'?"),
    ],
)
def test_bad_input_is_exit_2_and_says_how_to_mend_it(
    capsys: pytest.CaptureFixture[str], words: list[str], exit_code: int, said: str
) -> None:
    status, output = airlock(capsys, *words)
    assert (status, said in output) == (exit_code, True), output
    assert "Traceback" not in output
    assert "secret" not in output


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("[matrix]\nimages = ['debian-12'\n", "", "not TOML"),
        ("[matrix]\nimage = ['debian-12']\n", ":2", "did you mean 'images'?"),
        ("[matirx]\n", ":1", "did you mean 'matrix'?"),
        ("[matrix]\nimages = 'debian-12'\n", ":2", "must be a list"),
        ("[matrix]\nimages = [12]\n", ":2", "unknown image 12"),
        ("\n[matrix]\n\nimages = ['debain-12']\n", ":4", "did you mean 'debian-12'?"),
        ("[matrix]\nscenarios = ['prxy']\n", ":2", "did you mean 'proxy'?"),
        ("[matrix]\nprofiles = ['drver']\n", ":2", "did you mean 'driver'?"),
        ("[matrix]\nprovider = 'qem'\n", ":2", "did you mean 'qemu'?"),
        ("[include]\nimage = 'debian-12'\n", ":1", "must be written [[include]]"),
        ("[[include]]\nimage = 'debian-12'\nscenario = 'proxy'\n", ":1", "lacks 'profile'"),
        (
            "[matrix]\nprofiles = ['driver']\n[[include]]\nimage = 'debian-12'\n"
            "scenario = 'proxy'\n[[include]]\nimage = 'debian-12'\nscenarios = 'proxy'\n",
            ":8",
            "did you mean 'scenario'?",
        ),
        (
            "[matrix]\nprofiles = ['driver']\n[[include]]\nimage = 'debian-12'\n"
            "scenario = 'proxy'\nexpected = 'refusal'\n",
            ":6",
            "did you mean 'refused'?",
        ),
        (
            "[matrix]\nimages = ['debian-12']\nscenarios = ['proxy']\nprofiles = ['driver']\n"
            "[[exclude]]\nimage = 'debian-13'\n",
            ":5",
            "excludes no cell",
        ),
    ],
)
def test_a_bad_matrix_file_is_named_with_its_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, where: str, said: str
) -> None:
    status, output = airlock(capsys, "plan", matrix(tmp_path, text))
    assert (status, f"m.toml{where}:" in output, said in output) == (2, True, True), output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("[matrix]\nimages = ['debian-12']\n", []),
        (
            "[matrix]\nimages = ['debian-12']\nscenarios = ['proxy']\nprofiles = ['driver']\n",
            ["--image", "debian-13"],
        ),
        (
            "[matrix]\nimages = ['debian-12']\nscenarios = ['proxy']\nprofiles = ['driver']\n"
            "[[exclude]]\nimage = 'debian-12'\n",
            [],
        ),
    ],
)
def test_a_matrix_that_selects_nothing_is_exit_4(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, words: list[str]
) -> None:
    for verb in ("plan", "run"):
        status, output = airlock(capsys, verb, matrix(tmp_path, text), *words)
        assert (status, "selects nothing" in output) == (4, True), output


def test_a_plan_shows_every_cell_and_the_expected_refusal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, output = airlock(capsys, "plan", "--json", "--provider", "fake")
    assert status == 0
    planned = {each["cell"]: each for each in json.loads(output)}
    assert len(planned) == 4
    refused = planned["debian-11+proxy-intercept+full"]
    assert (refused["will"], refused["expected"]) == ("refuse", "refused")
    assert "db" in refused["why"]
    assert refused["remedy"]
    assert {each["will"] for name, each in planned.items() if "debian-11" not in name} == {"run"}


def test_a_plan_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    _, output = airlock(capsys, "plan", "--provider", "fake")
    assert "4 cells: 3 will run, 1 will be refused" in output
    assert "way out:" in output


def test_cells_outside_the_matrix_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--image", "debian-13", "--scenario", "proxy-auth+rebooted")
    status, output = airlock(capsys, "plan", "--provider", "fake", *words)
    assert status == 0
    assert "debian-13+proxy-auth+rebooted+full" in output


def test_help_names_every_verb_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(verb in printed for verb in VERBS)
    assert "exit codes" in printed


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert f"airlock {verb}" in capsys.readouterr().out


HEAVY = ("pytest", "rich", "jinja2", "msgspec", "cryptography", "testinfra", "xdist", "asyncio")


@pytest.mark.parametrize("words", [["--help"], ["plan"], ["plan", "--image", "debian-12"]])
def test_what_must_be_quick_imports_nothing_heavy(words: list[str]) -> None:
    # Not a measurement: on a busy machine only the cause of slowness can be tested.
    code = (
        "import sys, contextlib\nfrom harness.cli import main\n"
        "with contextlib.suppress(SystemExit): main(sys.argv[1:])\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip().splitlines()[-1] == "[]"


def test_no_provider_of_a_cloud_is_imported_with_the_harness() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import harness.run, sys; print('google' in sys.modules)"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
