"""Whole runs on the fake provider: pytest, xdist, broker, report and exit code."""

from __future__ import annotations

import json

import pytest

from tests.unit.core.workbench import (
    AUTH,
    BOOKWORM,
    BULLSEYE,
    IDS,
    TRIXIE,
    Bench,
    outcomes,
)


def test_the_default_matrix_passes_and_leaves_a_report(bench: Bench) -> None:
    status, output = bench.run()
    assert status == 0, output
    report = bench.report()
    assert [cell.id for cell in report.cells] == [BOOKWORM, TRIXIE, AUTH, BULLSEYE]
    assert [cell.verdict for cell in report.cells] == ["pass", "pass", "pass", "refused"]
    for cell in report.cells[:3]:
        assert outcomes(cell) == dict.fromkeys(IDS, "pass")
        assert cell.simulated
        assert [phase.name for phase in cell.phases][:2] == ["build", "boot"]
    refused = report.cells[3]
    assert refused.checks == []
    assert "Secure Boot" in refused.reason
    assert refused.remedy
    latest = (bench.path / "out" / "latest").resolve()
    assert {"report.json", "junit.xml", "index.html", "summary.md", "cells"} <= {
        path.name for path in latest.iterdir()
    }
    facts = json.loads((latest / "cells" / BOOKWORM / "facts.json").read_text())
    assert facts["nonce"]
    assert not (latest / "cells" / BULLSEYE).exists(), "a refused cell was begun"
    assert bench.leftovers() == []


def test_a_node_that_breaks_gives_one_error_and_skips(bench: Bench) -> None:
    bench.script.write_text(f'["{TRIXIE}"]\nbehaviour = "error"\n')
    status, output = bench.run()
    assert status == 3, output
    broken = bench.cell(TRIXIE)
    assert broken.verdict == "error"
    assert broken.reason == "the fake lab is broken"
    counted = sorted(outcomes(broken).values())
    assert counted == ["error"] + ["skip"] * (len(IDS) - 1)
    assert all("the fake lab is broken" in check.message for check in broken.checks)
    assert bench.cell(BOOKWORM).verdict == "pass"
    assert broken.evidence == []


def test_an_installer_that_fails_is_the_nodes_fault_and_no_check_ran(bench: Bench) -> None:
    bench.script.write_text(f'["{BOOKWORM}"]\nbehaviour = "install-fails"\n')
    status, _ = bench.run("--image", "debian-12")
    assert status == 1
    cell = bench.cell(BOOKWORM)
    assert (cell.verdict, cell.reason) == ("fail", "the fake driver does not build")
    assert set(outcomes(cell).values()) == {"skip"}
    assert cell.phases[0].outcome == "failed"


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("bug", "ZeroDivisionError"),
        ("never-ready", "its console ends: fake kernel"),
        ("stale", "another question"),
    ],
)
def test_what_the_lab_does_wrong_is_never_a_failed_check(
    bench: Bench, behaviour: str, words: str
) -> None:
    bench.script.write_text(f'["*"]\nbehaviour = "{behaviour}"\n')
    status, output = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 3, output
    cell = bench.cell(AUTH)
    assert cell.verdict == "error"
    assert words in cell.reason
    assert "fail" not in outcomes(cell).values()


def test_a_serial_console_is_evidence_of_a_node_that_never_became_ready(bench: Bench) -> None:
    bench.script.write_text('["*"]\nbehaviour = "never-ready"\n')
    bench.run("--scenario", "proxy-auth+rebooted")
    evidence = bench.cell(AUTH).evidence
    assert [(item.kind, item.path) for item in evidence] == [("serial", "serial.log")]
    assert "Linux version" in evidence[0].text


def test_a_node_that_dies_after_its_facts_is_asked_once(bench: Bench) -> None:
    bench.script.write_text('["*"]\nbehaviour = "dies"\n')
    status, _ = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 3
    cell = bench.cell(AUTH)
    assert cell.verdict == "error"
    found = outcomes(cell)
    assert [found[name] for name in IDS[:3]] == ["pass", "pass", "error"]
    assert {found[name] for name in IDS[3:]} <= {"error", "skip"}


def test_a_fact_that_is_wrong_fails_its_check_alone(bench: Bench) -> None:
    bench.script.write_text(f'["{AUTH}".facts]\n"os.id" = "slackware"\n')
    status, output = bench.run()
    assert status == 1
    found = outcomes(bench.cell(AUTH))
    assert [name for name, outcome in found.items() if outcome != "pass"] == ["small.os"]
    check = next(check for check in bench.cell(AUTH).checks if check.outcome == "fail")
    assert check.message == "it is no Debian"
    assert check.evidence[0].text == "slackware"
    assert check.evidence[0].simulated
    assert "it is no Debian" in output


def test_a_refusal_that_nobody_expected_fails(bench: Bench) -> None:
    bench.script.write_text('["*"]\nbehaviour = "refuses"\n')
    status, _ = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 1
    assert bench.cell(AUTH).verdict == "refused"


def test_a_worker_that_dies_costs_one_check(bench: Bench) -> None:
    status, output = bench.run(KILL_WORKER_ON=TRIXIE)
    assert status == 3, output
    found = outcomes(bench.cell(TRIXIE))
    assert found.pop("small.worker") == "error"
    assert set(found.values()) == {"pass"}
    assert bench.cell(TRIXIE).verdict == "error"
    assert bench.cell(BOOKWORM).verdict == bench.cell(AUTH).verdict == "pass"


def test_a_keyword_chooses_cells_and_checks(bench: Bench) -> None:
    status, _ = bench.run("-k", "debian-13 and kernel")
    assert status == 0
    report = bench.report()
    assert [cell.id for cell in report.cells] == [TRIXIE]
    assert outcomes(report.cells[0]) == {"small.kernel": "pass"}


def test_a_keyword_that_chooses_nothing_is_exit_4(bench: Bench) -> None:
    status, output = bench.run("-k", "nothing-is-called-so")
    assert status == 4
    assert "selects no check" in output


def test_checks_that_cannot_be_imported_are_no_failure_of_the_node(bench: Bench) -> None:
    (bench.checks / "small" / "test_broken.py").write_text("import no_such_module\n")
    status, _ = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 3
    assert bench.cell(AUTH).verdict == "error"
    assert "no_such_module" in bench.cell(AUTH).reason


def test_a_test_that_takes_a_node_and_is_no_check_is_refused(bench: Bench) -> None:
    (bench.checks / "small" / "test_plain.py").write_text("def test_plain(node): pass\n")
    status, output = bench.run("--scenario", "proxy-auth+rebooted")
    assert status == 3
    assert "is no check" in output


def test_sabotage_cannot_be_applied_where_there_is_no_shell(bench: Bench) -> None:
    (bench.checks / "small" / "sabotage.toml").write_text(
        '[[sabotage]]\nname = "break-it"\ntitle = "x"\nkills = ["small.os"]\napply = "false"\n'
    )
    process = bench.start("sabotage", "--provider", "fake", "--checks", str(bench.checks))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 3, output
    assert f"sabotage break-it on {BOOKWORM}~break-it: " in output
    assert "0 of 1 sabotages found; 0 of 6 checks killed: kill rate 0.0%" in output


def test_a_good_fake_node_passes_every_check_that_ships(bench: Bench) -> None:
    process = bench.start("run", "--provider", "fake", "-n", "2")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    for cell in bench.report().cells[:3]:
        found = outcomes(cell)
        # What is left out needs a shell, or the build that a fake never had.
        assert set(found.values()) == {"pass", "skip"}
        assert list(found.values()).count("pass") > 20
