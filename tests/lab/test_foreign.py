"""Set-up of a user's own: built for real, between squid, the metadata server and the capture.

tests/foreign holds the usual mistakes, each as a script of the kind that people have. What the
build stage saw of them is judged by the checks themselves; no machine is booted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from conformance.egress import test_egress as egress
from conformance.hygiene import test_baked_in as baked
from conformance.hygiene import test_hygiene as hygiene
from conformance.modules import test_audit as audits
from conformance.trust import test_trust as trust
from fixtures import daemons
from harness import pack
from harness.catalog import load_catalog
from harness.cells import Cell
from harness.checks import outcome_of
from harness.lab import base, build, expected, foreign, surroundings
from harness.node import CellNames, Node
from harness.providers.base import Job, NodeFailed
from harness.providers.qemu import Qemu
from harness.state import RunRecord, cache_dir, keys_dir, state_dir

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("foreign")]

CLOUD = "debian-12-cloud"
FILES = Path(__file__).parent.parent / "foreign"
#: Those that the build stage's evidence is enough for.
CHECKS: dict[str, Callable[..., None]] = {
    "egress.no-violation": egress.test_no_violation,
    "egress.build-ledger": egress.test_build_ledger,
    "egress.build-planned": egress.test_build_planned,
    "hygiene.baked-in": baked.test_baked_in,
    "hygiene.secrets": hygiene.test_secrets,
    "modules.audit": audits.test_audit,
    "trust.os-store": trust.test_os_store,
    "trust.os-store-once": trust.test_os_store_once,
}


@dataclass
class Seen:
    """What became of one build: ``ends`` maps checks to outcome and message."""

    ends: dict[str, tuple[str, str]]
    manifest: dict[str, Any]
    capsule: Path

    @property
    def failed(self) -> dict[str, str]:
        return {name: said for name, (outcome, said) in self.ends.items() if outcome == "fail"}


class Workshop:
    """Builds images of one base, each with a profile of tests/foreign."""

    def __init__(self, stack: ExitStack) -> None:
        self._record = stack.enter_context(RunRecord())
        self._provider = Qemu()
        stack.callback(self._provider.close)
        self._catalog = load_catalog(FILES)
        self._number = 0

    def job(self, profile: str, scenario: str, image: str) -> Job:
        self._number += 1
        places = [self._record.path / f"capsule{self._number}", self._record.scratch / f"{profile}"]
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(mode=0o700)
        return Job(
            cell=Cell(
                self._catalog.images[image],
                self._catalog.scenarios[scenario],
                self._catalog.profiles[profile],
                "qemu",
            ),
            capsule=places[0],
            scratch=places[1],
            say=lambda _phase, _line: None,
            owned=self._record.owned,
        )

    def build(self, job: Job) -> Seen:
        """Build and judge; nothing is taken from the cache, nor left in it."""
        authority, origin = self._provider.shared(fresh=False)
        scenario = job.cell.scenario
        password = surroundings.proxy_password(keys_dir())
        squid = daemons.squid(state_dir() / "daemons")
        made = build.build(
            job,
            base.build(job.cell.image, log=job.capsule / "base.log"),
            node_file=pack.pack(cache_dir("node-file")),
            authority=authority,
            start_proxy=lambda where: surroundings.make_proxy(
                scenario, where, squid, authority, origin, password
            ),
            origin=origin,
            proxy=surroundings.proxy_value(scenario, password),
            secrets=expected.canaries(scenario, authority, password),
        )
        try:
            assert not made.cached
            facts = json.loads((made.directory / "facts.json").read_text())
            expect = expected.expected(job.cell, authority, origin, made.manifest)
        finally:
            shutil.rmtree(made.directory)
        ledger = {**NOTHING, "build": made.manifest["ledger"]}
        names = CellNames(job.cell.image.name, scenario.name, job.cell.profile.name, "build")
        node = Node(job.cell.id, names, facts, None, expect, ledger)  # type: ignore[arg-type]
        ends = {name: end(check, node) for name, check in CHECKS.items()}
        return Seen(ends, made.manifest, job.capsule)

    def seen(
        self, profile: str, scenario: str = "proxy-intercept", image: str = "debian-12"
    ) -> Seen:
        return self.build(self.job(profile, scenario, image))

    def stopped(
        self, profile: str, scenario: str = "proxy-intercept", image: str = "debian-12"
    ) -> tuple[NodeFailed, Job]:
        job = self.job(profile, scenario, image)
        with pytest.raises(NodeFailed) as error:
            self.build(job)
        return error.value, job


#: The ledger of a node that never ran.
NOTHING: dict[str, Any] = {"violations": [], "metadata_via_proxy": 0, "probes": 0, "hosts": {}}


def end(check: Callable[..., None], node: Node) -> tuple[str, str]:
    """Outcome, message and evidence of a check."""
    try:
        check(node)
    except BaseException as error:
        seen = [str(error), *getattr(error, "evidence", ())]
        return outcome_of(error), "\n".join(seen)
    return "pass", ""


@pytest.fixture(scope="module")
def workshop() -> Iterator[Workshop]:
    with ExitStack() as stack:
        yield Workshop(stack)


def test_a_careful_script_is_let_pass_and_leaves_no_trace_of_the_lab(workshop: Workshop) -> None:
    seen = workshop.seen("careful")
    assert seen.failed == {}
    wanted = {"egress.no-violation", "egress.build-ledger", "egress.build-planned"}
    wanted |= {"trust.os-store", "trust.os-store-once", "hygiene.baked-in"}
    assert wanted <= {name for name, (outcome, _) in seen.ends.items() if outcome == "pass"}
    [row] = seen.manifest["installers"]
    assert (row["name"], row["outcome"]) == ("script", "ok")
    assert set(seen.manifest["ledger"]["hosts"]) == {"origin.airlock.test"}
    assert "1 added" in (seen.capsule / foreign.LOG).read_text()


#: Profile -> the checks that must fail and what they say; those of nothing else may.
MISTAKES = {
    "keyserver": {"egress.no-violation": ["build: tcp to 198.51.100.71 port 11371"]},
    "late-proxy": {"egress.build-ledger": ["s before the proxy was set"]},
    "unsigned-module": {"modules.audit": ["/updates/nvidia.ko: unsigned"]},
    "baked-in": {
        "hygiene.baked-in": [
            "/etc/hadoop/conf/yarn-site.xml: the builder's instance/name at byte",
            "/etc/hadoop/conf/yarn-site.xml: the builder's instance/hostname at byte",
            "yarn-site.xml: yarn.nodemanager.resource-plugins is 'yarn.io/gpu'",
            "yarn-site.xml: yarn.resourcemanager.hostname is 'airlock-builder-",
            "spark-defaults.conf: spark.executor.resource.gpu.amount is '4'",
        ]
    },
    "ca-twice": {"trust.os-store-once": ["holds the proxy's CA 2 times"]},
}
#: They set no proxy's CA either, which is not what they are here for.
ALSO = {"trust.os-store"}


#: The required suite has no time for all.
QUICK = ("keyserver", "late-proxy", "baked-in")


@pytest.mark.parametrize(
    "profile",
    [
        *QUICK,
        *(pytest.param(name, marks=pytest.mark.slow) for name in MISTAKES if name not in QUICK),
    ],
)
def test_a_mistake_is_named(workshop: Workshop, profile: str) -> None:
    seen = workshop.seen(profile)
    assert set(seen.failed) - ALSO == set(MISTAKES[profile])
    # Its profile names no hosts, so nobody can say what was planned.
    assert seen.ends["egress.build-planned"][0] == "not-verified"
    for name, words in MISTAKES[profile].items():
        for word in words:
            assert word in seen.failed[name]


@pytest.mark.slow
def test_a_password_in_a_log_is_found_with_its_file_and_not_repeated(workshop: Workshop) -> None:
    seen = workshop.seen("password-logged", "proxy-auth")
    assert set(seen.failed) == {"hygiene.secrets"}
    assert "proxy password" in seen.failed["hygiene.secrets"]
    assert "/var/log/set-up.log" in seen.failed["hygiene.secrets"]


def test_one_that_stops_says_where_and_what_it_tried_without_the_password(
    workshop: Workshop,
) -> None:
    error, job = workshop.stopped("stops", "proxy-auth")
    assert error.message.startswith("script stops.sh ended with 7: ")
    assert "Connection refused" in error.message
    assert error.cause == "network.no-answer"
    assert "tcp to 198.51.100.71 port 443" in error.hint
    assert foreign.LOG in error.hint
    password = surroundings.proxy_password(keys_dir())
    for secret in (password, quote(password, safe="")):
        assert secret not in error.message + error.hint
    [row] = job.record.installers
    assert (row["name"], row["outcome"]) == ("script", "failed")
    assert row["problems"][0]["cause"] == "network.no-answer"
    assert "the proxy is http://airlock:" in (job.capsule / foreign.LOG).read_text()


@pytest.mark.slow
def test_one_that_hangs_is_ended_and_its_question_is_shown(workshop: Workshop) -> None:
    error, _ = workshop.stopped("hangs")
    assert "did not end within 1 minutes: Do you agree" in error.message
    assert error.cause == "installer.script"


@pytest.mark.slow
def test_cloud_init_of_the_image_runs_all_of_its_stages(workshop: Workshop) -> None:
    seen = workshop.seen("cloud", image=CLOUD)
    assert seen.failed == {}
    assert seen.ends["trust.os-store"] == seen.ends["egress.build-ledger"] == ("pass", "")
    assert seen.manifest["installers"][0]["name"] == "cloud-init"
    assert set(seen.manifest["ledger"]["hosts"]) == {"origin.airlock.test"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "words"),
    [("cloud-misspelt", "'contents' was unexpected"), ("cloud-fails", "the mirror did not answer")],
)
def test_cloud_init_that_skips_or_fails_stops_the_build(
    workshop: Workshop, profile: str, words: str
) -> None:
    error, job = workshop.stopped(profile, image=CLOUD)
    assert error.cause == "installer.cloud-init"
    assert words in (job.capsule / foreign.LOG).read_text()
    assert job.record.installers[0]["problems"]


@pytest.mark.slow
def test_a_playbook_runs_on_the_image_itself(workshop: Workshop) -> None:
    seen = workshop.seen("ansible", image=CLOUD)
    assert seen.failed == {}
    assert seen.ends["trust.os-store"] == ("pass", "")
    assert seen.manifest["installers"][0]["name"] == "playbook"


@pytest.mark.slow
def test_a_playbook_for_no_host_of_ours_is_no_success(workshop: Workshop) -> None:
    error, _ = workshop.stopped("ansible-nowhere", image=CLOUD)
    assert "did nothing: its hosts must match localhost" in error.message
