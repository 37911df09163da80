"""What an environment becomes from what a node told; hostile text becomes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fixtures.scenarios import Scenario, load_scenario
from harness.capsules import archive
from harness.capsules.derive import Derived, derive, scenario_text
from harness.catalog import load_catalog
from harness.errors import UsageError

GIB = 1 << 30
NOW = 1_790_000_000.0
DAY = 86400.0
PROXY = "http://***@proxy.corp.test:8080"
AROUND = "localhost,127.0.0.1,169.254.169.254"
ENVIRONMENT = {
    **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), PROXY),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), AROUND),
}
ROOT_CA = {
    "path": "/usr/local/share/ca-certificates/corp.crt",
    "sha256": "aa" * 32,
    "key": "rsa",
    "bits": 4096,
    "signature": "sha512WithRSAEncryption",
    "not_before": NOW - 100 * DAY,
    "not_after": NOW + 200 * DAY,
    "ca": True,
    "subject": "root",
    "issuer": "root",
}


def facts(**other: Any) -> dict[str, Any]:
    return {
        "os": {"id": "debian", "version_id": "12"},
        "kernel": {"release": "6.1.0-40-cloud-amd64", "version": "#1 SMP Debian 6.1"},
        "clock": NOW,
        "received": NOW,
        "proxy": {"environment": ENVIRONMENT},
        "trust": {"added": [], "airlock_ca": None},
        "disk": [{"path": "/", "size": 39 * GIB, "free": 30 * GIB}],
        "volumes": [],
        "loaded_modules": ["ext4"],
        "secure_boot": {"enabled": True, "db": []},
        "installers": [{"name": "proxy"}, {"name": "driver"}],
        **other,
    }


def derived(told: dict[str, Any], **members: Any) -> Derived:
    texts = {f"{name}.json": json.dumps(value).encode() for name, value in members.items()}
    texts["facts.json"] = json.dumps(told).encode()
    capsule = archive.Capsule(Path("c.tar.gz"), {}, texts)
    return derive(capsule, load_catalog().images)


def loaded(found: Derived, tmp_path: Path, failed: list[str]) -> Scenario:
    path = tmp_path / "capsule-x.toml"
    path.write_text(scenario_text(found, "As c.tar.gz tells it", failed), encoding="utf-8")
    return load_scenario(str(path))


def test_a_whole_environment(tmp_path: Path) -> None:
    issuing = {**ROOT_CA, "sha256": "bb" * 32, "subject": "issuing", "issuer": "root"}
    found = derived(
        facts(
            trust={"added": [issuing, ROOT_CA], "airlock_ca": None},
            clock=NOW - 9000 * 3600,
            disk=[{"path": "/", "size": 19 * GIB, "free": 100 << 20}],
            volumes=[{"name": "vdb", "size": 100 * GIB, "uses": []}],
            loaded_modules=["nouveau"],
        ),
        metadata={"http-proxy": PROXY, "no-proxy": "intern.test,10.0.0.7"},
    )
    scenario = loaded(found, tmp_path, ["proxy.apt", "system.disk"])
    assert (found.image, found.profile) == ("debian-12", "driver")
    assert (scenario.network, scenario.intercept, scenario.auth) == ("proxy-only", True, "basic")
    assert scenario.proxy.no_proxy == "intern.test,10.0.0.7"
    trust = scenario.trust
    assert (trust.ca, trust.key, trust.digest, trust.depth) == ("given", "rsa-4096", "sha512", 2)
    assert (trust.age_days, trust.left_days) == (100, 200)
    assert scenario.clock.offset_hours == -9000
    assert (scenario.disk.size_mb, scenario.disk.free_mb) == (20480, 100)
    assert scenario.volume.size_mb == 102400
    assert scenario.module.name == "nouveau"
    assert scenario.stage == "node"
    # A check that these conditions explain is asked for before a graver one that they do not.
    assert (scenario.named_by, scenario.expected) == ("system.disk", "named")
    assert "kernel" in dict(found.lost)


def test_a_node_in_order_is_expected_to_pass(tmp_path: Path) -> None:
    open_: dict[str, Any] = {"environment": {}, "apt": {}}
    scenario = loaded(derived(facts(proxy=open_)), tmp_path, [])
    assert (scenario.network, scenario.expected, scenario.named_by) == ("direct", "pass", "")
    assert not scenario.intercept
    assert scenario.scripts.node == ""


def test_an_expired_ca_stops_the_installers(tmp_path: Path) -> None:
    old = {**ROOT_CA, "not_after": NOW - 30 * DAY}
    scenario = loaded(derived(facts(trust={"added": [old]})), tmp_path, [])
    assert (scenario.stage, scenario.named_by) == ("build", "trust.pem")
    assert scenario.trust.left_days == -30


def test_a_ca_that_the_lab_knows_to_be_another_one(tmp_path: Path) -> None:
    ours = {"path": "x", "sha256": ROOT_CA["sha256"]}
    found = derived(
        facts(trust={"added": [ROOT_CA], "airlock_ca": ours}),
        expect={"intercept": True, "ca_sha256": "cc" * 32},
    )
    scenario = loaded(found, tmp_path, ["trust.os-store"])
    assert (scenario.trust.ca, scenario.named_by) == ("rotated", "trust.os-store")


def test_settings_that_are_not_as_the_proxy_would_have_them(tmp_path: Path) -> None:
    seen = {**ENVIRONMENT, "HTTPS_PROXY": "http://old.corp.test:3128", "NO_PROXY": "localhost"}
    del seen["no_proxy"]
    found = derived(facts(proxy={"environment": seen}), metadata={"http-proxy": PROXY})
    script = loaded(found, tmp_path, ["proxy.no-proxy"]).scripts.node
    assert "/^(HTTPS_PROXY|no_proxy|NO_PROXY)=/d" in script
    assert """'HTTPS_PROXY="http://old.corp.test:3128"'""" in script
    assert """'NO_PROXY="localhost"'""" in script


@pytest.mark.parametrize(
    ("state", "expect", "tables"),
    [
        ({"enabled": False}, {}, {"secure_boot": False, "switched_off": True}),
        ({"enabled": False}, {"secure_boot": True}, {"secure_boot": True, "switched_off": True}),
        ({"enabled": True, "db": [{"sha256": "1"}]}, {"cert_sha256": "2"}, {"certificate": False}),
        ({"enabled": True, "db": [{"sha256": "2"}]}, {"cert_sha256": "2"}, None),
    ],
)
def test_firmware(state: dict[str, Any], expect: dict[str, Any], tables: Any) -> None:
    found = derived(facts(secure_boot=state), expect=expect)
    assert found.tables.get("firmware") == tables


@pytest.mark.parametrize(
    ("system", "release", "image", "lost"),
    [
        (("debian", "12"), "6.12.9+bpo-cloud-amd64", "debian-12-backports", False),
        (("debian", "13"), "6.12.9-cloud-amd64", "debian-13", False),
        (("rocky", "9.4"), "5.14.0", "debian-12", True),
    ],
)
def test_images(system: tuple[str, str], release: str, image: str, lost: bool) -> None:
    named = {"id": system[0], "version_id": system[1]}
    found = derived(facts(os=named, kernel={"release": release}))
    assert found.image == image
    assert ("image" in dict(found.lost)) is lost


HOSTILE: list[dict[str, Any]] = [
    {"os": [], "kernel": "x", "proxy": 3, "trust": "y", "disk": {}, "volumes": "z"},
    {"proxy": {"environment": {"no_proxy": "$(reboot)", "http_proxy": "http://[", "x": 1}}},
    {"proxy": {"environment": {"http_proxy": "http://a:b:c'\n;reboot"}}},
    {"trust": {"added": [{**ROOT_CA, "bits": 12345}, "x", {"ca": True}]}},
    {"trust": {"added": [{**ROOT_CA, "not_after": "soon"}]}},
    {"disk": [{"path": "/", "size": -1, "free": "all"}], "clock": "late", "secure_boot": None},
    {"installers": [{"name": "x", "problems": "y"}, 5], "systemd": {"failed": ["a\x1b[2J"]}},
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_facts_become_nothing(number: int, tmp_path: Path) -> None:
    found = derived(
        facts(**HOSTILE[number]), metadata={"no-proxy": "`x`", "http-proxy": "http://["}
    )
    scenario = loaded(found, tmp_path, ["a.b"])
    assert "reboot" not in scenario.scripts.node
    assert "`" not in scenario.proxy.no_proxy


def test_no_facts_no_environment() -> None:
    with pytest.raises(UsageError, match="holds no facts"):
        derive(archive.Capsule(Path("c.tar.gz"), {}, {}), load_catalog().images)
