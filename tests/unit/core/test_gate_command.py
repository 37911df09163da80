"""``airlock gate`` and ``airlock attest``: what they refuse, how they end, what they move."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fixtures.pki import Identity, make_signer
from harness.cli import main
from harness.policy import POLICIES, load_policy
from harness.promote import DirectoryStore
from reports.model import Cell, Provenance, Subject
from reports.policy import Policy
from reports.summary import build_report
from reports.write import write_report
from tests.unit.reports.sample import failing_cell, make_cell, make_check, make_run

DISK = b"a disk image"
DISK_SHA = hashlib.sha256(DISK).hexdigest()
OURS, STRANGER = make_signer("Ours"), make_signer("Stranger")

WAIVERS = """
[[waiver]]
check = "modules.*"
scope = "debian-13+*"
owner = "jane"
tracker = "GPU-7"
reason = "the vendor mends it"
expires = {expires}
"""


def ready(**changes: Any) -> Cell:
    """A cell that the policy ``release`` lets pass."""
    checks = [make_check(f"{area}.x") for area in load_policy("release").policy.require.areas]
    given: dict[str, Any] = {
        "checks": checks,
        "provenance": Provenance(subject=Subject(disk_sha256=DISK_SHA)),
    }
    return make_cell(**(given | changes))


class Place:
    """A directory with a report, keys, waivers and a store; and the command over it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys
        for name, who in (("ours", OURS), ("stranger", STRANGER)):
            self.key(name, who)

    def key(self, name: str, who: Identity) -> None:
        key = self.path / f"{name}.pem"
        key.touch(0o600)
        key.write_bytes(who.key_and_cert())
        (self.path / f"{name}.crt").write_bytes(who.pem)

    def report(self, *cells: Cell, age: timedelta = timedelta(hours=1), name: str = "run") -> Path:
        ended = datetime.now(UTC) - age
        run = make_run(started=ended - timedelta(minutes=5), finished=ended)
        return write_report(build_report(run, cells), self.path / name)

    def waivers(self, expires: object = None, text: str = WAIVERS) -> str:
        expires = expires or (datetime.now(UTC) + timedelta(days=9)).date()
        (self.path / "waivers.toml").write_text(text.format(expires=expires))
        return f"--waivers={self.path}/waivers.toml"

    def store(self) -> Path:
        for name in ("images", "families/gpu"):
            (self.path / "store" / name).mkdir(parents=True)
        (self.path / "store/images/gpu-2.img").write_bytes(DISK)
        return self.path / "store"

    def promote(self, family: str = "gpu", image: str = "gpu-2.img") -> list[str]:
        return ["--promote", family, "--store", str(self.path / "store"), "--image", image]

    def run(self, verb: str, *words: str) -> tuple[int, str]:
        status = main([verb, str(self.path / "run"), *words])
        printed = self._capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return status, printed.out + printed.err

    def gate(self, *words: str) -> tuple[int, str]:
        return self.run("gate", *words)

    def attest(self, *words: str, key: str = "ours") -> tuple[int, str]:
        return self.run("attest", "--key", f"file:{self.path}/{key}.pem", *words)

    def attested(self, *words: str) -> tuple[int, str]:
        trust = f"--trust={self.path}/ours.crt"
        return self.gate("--require-attestation", trust, *words)


@pytest.fixture
def place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Place:
    return Place(tmp_path, capsys)


# The verdict


def test_the_examples_of_the_page_are_read(place: Place) -> None:
    """Of docs/gate.md."""
    page = (Path(__file__).resolve().parents[3] / "docs/gate.md").read_text()
    policy, waivers = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    place.report(ready())
    (place.path / "p.toml").write_text(policy)
    (place.path / "w.toml").write_text(waivers)
    tables = set(re.findall(r"^\[(.*)\]", policy, re.MULTILINE))
    assert tables == {f.encode_name for f in msgspec.structs.fields(Policy)} - {"name"}
    code, said = place.gate(
        f"--policy={place.path}/p.toml",
        f"--waivers={place.path}/w.toml",
        f"--subject=sha256:{DISK_SHA}",
    )
    assert (code, "no check of the required area trust" in said) == (3, True), said


def test_a_waived_failure_is_0_and_77_under_strict_rules(place: Place) -> None:
    place.report(failing_cell())
    assert place.gate()[0] == 1
    code, said = place.gate(place.waivers())
    assert (code, "does not: 2 waived" in said) == (0, True)
    assert place.gate(place.waivers(), "--strict-waivers")[0] == 77
    place.report(ready())
    assert place.gate("--strict-waivers")[0] == 0, "no waiver was needed"


def test_the_shipped_policies(place: Place) -> None:
    disk = f"--subject=sha256:{DISK_SHA}"
    place.report(ready())
    assert place.gate("--policy", "release", disk)[0] == 0
    assert place.gate("--policy", "ci")[0] == 0
    place.report(ready(simulated=True))
    assert place.gate("--policy", "release", disk)[0] == 3
    assert place.gate("--policy", "ci")[0] == 0
    place.report(ready(), age=timedelta(days=4))
    assert place.gate("--policy", "release", disk)[0] == 3
    assert place.gate("--policy", "ci")[0] == 0
    place.report(ready())
    code, said = place.gate("--policy", "release", f"--subject=sha256:{'00' * 32}")
    assert (code, "is about another image" in said) == (3, True)


def test_a_shipped_policy_names_areas_that_exist() -> None:
    root = Path(__file__).resolve().parents[3] / "conformance"
    ids = {
        area
        for path in root.rglob("*.py")
        for area in re.findall(r'id="([a-z0-9-]+)\.', path.read_text())
    }
    for path in POLICIES.glob("*.toml"):
        assert set(load_policy(path.stem).policy.require.areas) <= ids


def test_a_baseline(place: Place) -> None:
    place.report(failing_cell())
    place.report(failing_cell(), name="earlier")
    code, said = place.gate("--baseline", str(place.path / "earlier"))
    assert (code, "as it did in the baseline" in said) == (0, True)
    place.report(ready(), name="earlier")
    assert place.gate("--baseline", str(place.path / "earlier"))[0] == 1


def test_for_programs(place: Place) -> None:
    place.report(failing_cell())
    code, said = place.gate("--json")
    found = json.loads(said)
    assert (code, found["exit"], found["verdict"], found["blames"]) == (
        1,
        1,
        "fail",
        {"product": 1},
    )
    assert found["findings"][0]["check"] == "modules.signature"


def test_what_a_node_said_moves_no_cursor(place: Place) -> None:
    bad = make_check("a.b", "fail", message="\x1b[2J\x1b[1;1Hpass \u202e")
    place.report(make_cell(verdict="fail", checks=[bad]))
    for words in ([], ["--json"]):
        _, said = place.gate(*words)
        assert "\x1b" not in said
        assert "\u202e" not in said
    report = place.report(ready())
    _edit(report, b'"verdict":"pass"', b'"\\u001b[2J":"pass"')
    code, said = place.gate()
    assert (code, "\x1b" in said) == (2, False)


# Attestation


def test_an_attested_report_passes(place: Place) -> None:
    report = place.report(ready())
    before = report.read_bytes()
    code, said = place.attest("--policy", "release", "--subject", f"sha256:{DISK_SHA}")
    assert (code, f"PASSED, signed by {OURS.sha256}" in said) == (0, True)
    assert report.read_bytes() == before
    release = ("--policy", "release", "--subject", f"sha256:{DISK_SHA}")
    assert place.attested(*release)[0] == 0


def test_a_report_edited_by_one_byte_is_refused(place: Place) -> None:
    report = place.report(ready())
    place.attest()
    before = report.read_bytes()
    # The report still agrees with itself: only the attestation can tell.
    report.write_bytes(before.replace(b'"seconds":0.4', b'"seconds":0.5', 1))
    assert len(report.read_bytes()) == len(before)
    assert place.gate()[0] == 0
    code, said = place.attested()
    assert (code, "the report was edited, or is another" in said) == (2, True)
    report.write_bytes(before + b"\n")
    assert place.attested()[0] == 2


def test_a_report_for_another_image_is_refused(place: Place) -> None:
    place.report(ready())
    place.attest()
    assert place.attested("--subject", f"sha256:{DISK_SHA}")[0] == 0
    code, said = place.attested("--subject", f"sha256:{'00' * 32}")
    assert (code, "about another image" in said) == (2, True)


def test_a_report_older_than_allowed_is_refused(place: Place) -> None:
    place.report(ready(), age=timedelta(hours=73))
    place.attest()
    assert place.attested()[0] == 0
    code, said = place.attested("--policy", "release", "--subject", f"sha256:{DISK_SHA}")
    assert (code, "the policy allows 72 hours" in said) == (2, True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--require-attestation"], "nobody is trusted"),
        (["--require-attestation", "--trust=stranger.crt"], "not signed by a key that is trusted"),
        (["--require-attestation", "--trust=nobody.crt"], "there is no nobody.crt"),
        (["--require-attestation", "--trust=run/report.json"], "no certificate"),
        (["--require-attestation", "--trust=ours.crt", "--attestation=a"], "airlock attest"),
        (["--trust=ours.crt"], "means nothing without --require-attestation"),
    ],
)
def test_who_vouches(
    place: Place, words: list[str], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.path)
    place.report(ready())
    place.attest()
    code, said = place.gate(*words)
    assert (code, says in said) == (2, True), said


def test_a_waived_report_is_attested_with_a_warning(place: Place) -> None:
    place.report(failing_cell())
    assert "FAILED" in place.attest()[1]
    assert "WARNED" in place.attest(place.waivers())[1]


def test_a_broken_report_is_not_attested(place: Place) -> None:
    report = place.report(ready())
    place.attest()
    attestation = report.with_name("attestation.json")
    before = attestation.read_bytes()
    report.write_bytes(report.read_bytes()[:-20])
    code, said = place.attest()
    assert (code, "is truncated" in said) == (2, True)
    assert attestation.read_bytes() == before


# Promotion


def test_a_pass_moves_the_family_and_its_labels(place: Place) -> None:
    store = place.store()
    report = place.report(ready())
    code, said = place.gate("--policy", "release", *place.promote())
    assert (code, "gpu: nothing -> gpu-2.img" in said) == (0, True), said
    current = store / "families/gpu/current"
    assert (current / "image").read_bytes() == DISK
    labels = json.loads((current / "labels.json").read_text())
    assert labels == {
        "airlock-image": DISK_SHA[:32],
        "airlock-policy": "release",
        "airlock-report": hashlib.sha256(report.read_bytes()).hexdigest()[:32],
        "airlock-run": "20251121-093000-1f3a",
        "airlock-verdict": "pass",
        "airlock-waived": "0",
    }
    assert all(re.fullmatch(r"[a-z0-9_-]{0,63}", v) for kv in labels.items() for v in kv)
    # The next one takes its place; the one before can be gone back to.
    (store / "images/gpu-3.img").write_bytes(DISK)
    assert "gpu: gpu-2.img -> gpu-3.img" in place.gate(*place.promote(image="gpu-3.img"))[1]
    assert DirectoryStore(store).current("gpu") == "gpu-3.img"
    assert len([p for p in (store / "families/gpu").iterdir() if not p.is_symlink()]) == 2


def tree(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): p.readlink().name if p.is_symlink() else ""
        for p in root.rglob("*")
    }


def test_nothing_else_moves_it(place: Place) -> None:
    store = place.store()
    place.report(ready())
    place.gate(*place.promote())
    (store / "images/gpu-3.img").write_bytes(b"another disk")
    before = tree(store)
    place.report(ready(), failing_cell())
    assert place.gate(*place.promote())[0] == 1
    covered = place.waivers()
    assert place.gate(*place.promote(), covered, "--strict-waivers")[0] in (3, 77)
    place.report(ready(simulated=True))
    assert place.gate(*place.promote(), "--policy", "release")[0] == 3
    place.report(ready(provenance=Provenance()))
    assert place.gate(*place.promote())[0] == 3, "a report that does not say which disk"
    place.report(ready())
    code, said = place.gate(*place.promote(image="gpu-3.img"))
    assert (code, "is about another image" in said) == (3, True)
    assert tree(store) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--promote=gup", "--image=gpu-2.img"], "did you mean 'gpu'?"),
        (["--promote=../images", "--image=gpu-2.img"], "has no such family"),
        (["--promote=gpu", "--image=gpu-1.img"], "did you mean 'gpu-2.img'?"),
        (["--promote=gpu", "--image=../families"], "has no such image"),
        (["--promote=gpu"], "--image: needed too"),
        (["--promote=gpu", "--image=gpu-2.img", "--subject=sha256:0"], "leave it out"),
    ],
)
def test_what_cannot_be_promoted(place: Place, words: list[str], says: str) -> None:
    store = place.store()
    place.report(ready())
    before = tree(store)
    code, said = place.gate(f"--store={store}", *words)
    assert (code, says in said) == (2, True), said
    assert tree(store) == before


def test_a_store_that_breaks_midway_keeps_what_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = place.store()
    place.report(ready())
    place.gate(*place.promote())
    before = tree(store)

    def no_space(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    code, said = place.gate(*place.promote())
    assert (code, "No space left on device" in said) == (3, True)
    assert tree(store) == before


def test_a_store_without_its_directories(place: Place) -> None:
    place.report(ready())
    (place.path / "store").mkdir()
    code, said = place.gate(*place.promote())
    assert (code, "has no directory images/" in said) == (2, True)


# Bad input: docs/bad-input.md is what is really said.

PAGE = (Path(__file__).resolve().parents[3] / "docs/bad-input.md").read_text()


def documented(section: str) -> list[tuple[str, str]]:
    """Input and message of a table's rows, which all end with exit code 2."""
    part = PAGE.split(f"\n### {section}\n")[1].partition("\n#")[0]
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| 2 \|$", part, re.MULTILINE)
    assert len(rows) == part.count("\n|") - 2
    return rows


def _edit(report: Path, old: bytes, new: bytes) -> None:
    data = report.read_bytes()
    assert old in data
    report.write_bytes(data.replace(old, new, 1))


BROKEN: dict[str, Callable[[Path], object]] = {
    "that is cut off": lambda r: r.write_bytes(r.read_bytes()[:500]),
    "that is empty": lambda r: r.write_bytes(b""),
    "that is something else": lambda r: r.write_bytes(b"[]"),
    "that is no JSON": lambda r: r.write_bytes(b"<html>"),
    "whose verdict was edited": lambda r: _edit(r, b'"outcome":"pass"', b'"outcome":"fail"'),
    "whose summary was edited": lambda r: _edit(r, b'"passed":1', b'"passed":9'),
    "with a word that no field has": lambda r: _edit(r, b'"verdict":"pass"', b'"verdict":"good"'),
    "of a later schema": lambda r: _edit(r, b'"schema_version":3', b'"schema_version":99'),
    "with a cell twice": lambda r: _edit(
        r, b'"cells":[', b'"cells":[' + msgspec.json.encode(ready()) + b","
    ),
    "with its cells twice": lambda r: r.write_bytes(r.read_bytes()[:-2] + b',"cells":[]}'),
    "of more than 1 GiB": lambda r: os.truncate(r, (1 << 30) + 1),
}


@pytest.mark.parametrize(("what", "says"), documented("Reports"))
def test_a_report_is_refused_in_these_words(place: Place, what: str, says: str) -> None:
    report = place.report(ready())
    BROKEN[what](report)
    before = report.stat()
    for verb in (place.gate, place.attest):
        code, said = verb()
        assert (code, says in said) == (2, True), said
    after = report.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    assert [path.name for path in report.parent.iterdir()] == ["report.json"]


def test_every_way_to_break_a_report_is_documented() -> None:
    assert [what for what, _ in documented("Reports")] == list(BROKEN)


@pytest.mark.parametrize(("text", "says"), documented("Policies"))
def test_a_policy_is_refused_in_these_words(place: Place, text: str, says: str) -> None:
    place.report(ready())
    name = text.strip("`")
    if "[" in name:
        (place.path / "p.toml").write_text(name.replace("⏎", "\n"))
        name = str(place.path / "p.toml")
    code, said = place.gate("--policy", name)
    assert (code, says in said) == (2, True), said


@pytest.mark.parametrize(("text", "says"), documented("Waivers"))
def test_a_waiver_is_refused_in_these_words(place: Place, text: str, says: str) -> None:
    place.report(ready())
    changed = text.strip("`")
    key = changed.partition(" ")[0]
    lines = WAIVERS.format(expires="2099-01-01").splitlines()
    if changed.startswith("["):
        given = changed.replace("⏎", "\n")
    elif changed.startswith("no "):
        given = "\n".join(line for line in lines if not line.startswith(changed.split()[1]))
    else:
        given = "\n".join([*(line for line in lines if not line.startswith(f"{key} ")), changed])
    code, said = place.gate(place.waivers(text=given.replace("{", "{{").replace("}", "}}")))
    assert (code, says in said) == (2, True), said


@pytest.mark.parametrize(("text", "says"), documented("Subjects"))
def test_a_subject_is_refused_in_these_words(
    place: Place, text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place.path)
    place.report(ready())
    subject = text.strip("`")
    if subject.startswith("{"):
        (place.path / "s.json").write_text(subject)
        subject = "s.json"
    code, said = place.gate(
        "--policy", "release", *([] if subject == "none" else [f"--subject={subject}"])
    )
    assert (code, says in said) == (2, True), said
