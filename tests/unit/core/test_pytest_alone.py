"""``pytest DIR --airlock-target``: the plugin without the command, and its exit statuses."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import date

import pytest

from tests.unit.core.workbench import Bench

PASSES = "assert fact(node, 'kernel.release')"
FAILS = "fail('it is wrong')"
SKIPS = "import pytest; pytest.skip('not here')"
BREAKS = "raise OSError('the lab')"
UNKNOWN = "not_verified('nobody knows')"

HEAD = "from harness.checks import check, fact, fail, not_verified\n"
CHECK = """
@check(id="alone.{name}", severity="major", title="t", remedy="r")
def test_{name}(node):
    {body}
"""


def alone(bench: Bench, bodies: list[str], *words: str, **environment: str) -> tuple[int, str]:
    """Run pytest over checks with these bodies, on this machine."""
    checks = bench.path / "alone"
    checks.mkdir()
    text = "".join(CHECK.format(name=f"n{i}", body=body) for i, body in enumerate(bodies))
    (checks / "test_alone.py").write_text(HEAD + text)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", str(checks), "-c", "/dev/null"),
            f"--confcutdir={bench.path}",
            *("-p", "xdist.plugin", "-p", "harness.plugin", "-p", "no:cacheprovider"),
            *("--airlock-target", "local", *words),
        ],
        cwd=bench.path,
        env={**bench.environment(**environment), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("words", [(), ("-n", "1")], ids=["alone", "xdist"])
@pytest.mark.parametrize(
    ("bodies", "status"),
    [
        ([PASSES, SKIPS, UNKNOWN], 0),
        ([PASSES, FAILS, BREAKS], 1),
        ([PASSES, BREAKS], 3),
        ([SKIPS, UNKNOWN], 4),
    ],
    ids=["pass", "fail", "error", "nothing"],
)
def test_pytests_statuses_become_ours(
    bench: Bench, bodies: list[str], status: int, words: tuple[str, ...]
) -> None:
    found, output = alone(bench, bodies, *words)
    assert found == status, output
    assert bench.leftovers() == []


DIES = "import os; os._exit(9)"
STOPS = "raise KeyboardInterrupt"


@pytest.mark.parametrize(
    ("bodies", "words", "status", "said"),
    [
        ([PASSES, STOPS, FAILS], (), 3, "KeyboardInterrupt"),
        ([FAILS, STOPS], (), 1, "KeyboardInterrupt"),
        ([PASSES, DIES], ("-n", "1", "--max-worker-restart=0"), 3, "crashed"),
        ([FAILS, PASSES], ("-x",), 1, "stopping after 1 failures"),
        ([PASSES, FAILS], ("-n", "1", "-x"), 1, "stopping after 1 failures"),
    ],
    ids=["interrupted", "failed-then-interrupted", "worker-dies", "first", "first-xdist"],
)
def test_what_ends_early_is_no_pass(
    bench: Bench, bodies: list[str], words: tuple[str, ...], status: int, said: str
) -> None:
    found, output = alone(bench, bodies, *words)
    assert (found, said in output) == (status, True), output


@pytest.mark.parametrize("words", [(), ("-n", "1")], ids=["alone", "xdist"])
def test_an_error_in_pytest_itself_is_exit_3(bench: Bench, words: tuple[str, ...]) -> None:
    (bench.path / "breaks.py").write_text("def pytest_collection_finish(): raise OSError('ours')")
    path = f"{bench.path}:{bench.environment()['PYTHONPATH']}"
    found, output = alone(bench, [PASSES], *words, "-p", "breaks", PYTHONPATH=path)
    assert (found, "INTERNALERROR" in output) == (3, True), output


@pytest.mark.parametrize("xdist", [(), ("-n", "1")], ids=["alone", "xdist"])
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("-k", "no_such_check"), 4, "no tests ran|deselected"),
        (("no/such/place",), 2, "file or directory not found"),
        (("--no-such-flag",), 2, "unrecognized arguments: --no-such-flag"),
        (("--airlock-target", "nonsense://x"), 2, "is no target"),
        (("--airlock-run", "/no/socket"), 2, "exclude each other"),
    ],
)
def test_usage_errors_have_our_status(
    bench: Bench, words: tuple[str, ...], status: int, said: str, xdist: tuple[str, ...]
) -> None:
    found, output = alone(bench, [PASSES], *words, *xdist)
    assert found == status, output
    assert re.search(said, output), output


def test_a_conftest_that_cannot_be_imported_is_exit_3(bench: Bench) -> None:
    (bench.path / "conftest.py").write_text("import no_such_module")
    found, output = alone(bench, [PASSES])
    assert (found, "no_such_module" in output) == (3, True), output


def test_without_our_options_pytest_keeps_its_own_statuses(bench: Bench) -> None:
    (bench.path / "test_own.py").write_text("def test_own(): pass")
    for words, status in (((), 0), (("--no-such-flag",), 4), (("-k", "nothing"), 5)):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "test_own.py", "-c", "/dev/null"),
                *("-p", "harness.plugin", *words),
            ],
            cwd=bench.path,
            env={**bench.environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, done.stdout


def test_a_file_that_cannot_be_imported_is_exit_3(bench: Bench) -> None:
    found, output = alone(bench, ["pass\nimport no_such_module"])
    assert found == 3, output


def test_check_is_the_same_with_a_report(bench: Bench) -> None:
    # The fake's small checks: this machine is a node like any other.
    process = bench.start("check", "local", "--checks", str(bench.checks), "-k", "kernel or ping")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    (cell,) = bench.report().cells
    assert (cell.verdict, cell.provider, cell.simulated) == ("pass", "host", False)
    assert cell.ledger is None
    since = {check.id: check.since for check in cell.checks}
    assert since == {"small.kernel": None, "small.ping": date(2026, 11, 22)}
