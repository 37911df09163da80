"""Defects of the shell scripts that this replaces, by their numbers, where these parts had them.

Some are in other files, where their parts are tested: ``TESTED`` at the end names them all. B03 is
in the lab's tests too, with the real dnf.
"""

from __future__ import annotations

import ipaddress
import json
import re
import ssl
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from installers import cli, metadata, noproxy, pem, proxyurl, trust
from installers.collect import network
from installers.collect.reader import Reader
from installers.config import from_attributes
from installers.engine import Engine
from installers.errors import CommandError, ConfigError
from installers.exits import Exit
from installers.host import Host
from installers.proxy import Proxy
from tests.unit.installers.test_trust import fresh
from tests.unit.installers.tools import Recorder, needs
from tests.unit.nodeids import exists


def test_B01_the_site_that_proves_the_proxy_must_not_bypass_it() -> None:
    """A test of a Google site proves nothing: the default list sends it directly."""
    entries = noproxy.parse(None)[0]
    assert noproxy.matches("www.google.com", entries)
    assert not noproxy.matches("origin.airlock.test", entries)


@needs("curl")
def test_B01_a_bypassed_host_never_reaches_the_proxy(recorder: Recorder) -> None:
    proxy = from_attributes({"http-proxy": f"127.0.0.1:{recorder.port}"}).proxy
    env = proxy.environment(credentials=True)
    for url in ("http://www.google.com/", "http://origin.airlock.test/"):
        subprocess.run(["curl", "-sS", "-m", "3", url], env=env, capture_output=True)
    assert [head.split()[1] for head in recorder.heads] == ["http://origin.airlock.test/"]


def test_B02_http_proxy_alone_serves_https_too() -> None:
    proxy = from_attributes({"http-proxy": "h:1"}).proxy
    assert proxy.environment(True)["https_proxy"] == "http://h:1"
    assert any("https-proxy is not set" in note for note in proxy.notes)


@pytest.mark.parametrize("before", ["", "[main]\n", "[main]\nproxy=http://stale:1\n"])
def test_B03_dnf_gets_its_line(tmp_path: Path, before: str) -> None:
    """With the real dnf in the lab's tests; here without, on every machine."""
    path = tmp_path / "etc/dnf/dnf.conf"
    path.parent.mkdir(parents=True)
    path.write_text(before)
    Engine(Host(tmp_path), [Proxy(from_attributes({"http-proxy": "h:1"}))]).apply()
    section = path.read_text().split("[main]")[1]
    assert re.findall(r"^proxy\s*=\s*(\S+)", section, re.MULTILINE) == ["http://h:1"]
    Engine(Host(tmp_path), [Proxy(from_attributes({}))]).apply()
    assert path.read_text() == before


def test_B04_baked_proxy_is_replaced_and_removed_by_value(tmp_path: Path) -> None:
    for name in ("etc/sudoers.d", "etc/dnf", "etc/apt"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/dnf/dnf.conf").write_text("[main]\n")

    def apply(**attributes: str) -> str:
        config = from_attributes({k.replace("_", "-"): v for k, v in attributes.items()})
        summary = Engine(Host(tmp_path), [Proxy(config)]).apply()
        assert summary.exit == Exit.PASS
        return "\n".join(
            path.read_text()
            for path in sorted(tmp_path.rglob("*"))
            if path.is_file() and "var/lib" not in str(path)
        )

    assert "baked.example" in apply(http_proxy="baked.example:1")
    moved = apply(http_proxy="new.example:2")
    assert "baked.example" not in moved
    assert "new.example" in moved
    gone = apply()
    assert "new.example" not in gone
    assert "zz-airlock-proxy" not in "".join(str(path) for path in tmp_path.rglob("*"))


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("http://h:3128", ("h", 3128, None)),
        ("user:pass@h:3128", ("h", 3128, "user")),
        ("[::1]:3128", ("::1", 3128, None)),
        ("http://h:3128/", ("h", 3128, None)),
    ],
)
def test_B05_values_are_parsed(value: str, parts: tuple[str, int, str | None]) -> None:
    proxy = proxyurl.parse(value, "http-proxy")
    assert proxy is not None
    assert (proxy.host, proxy.port, proxy.user) == parts


def test_B05_no_port_is_an_error_and_no_guess() -> None:
    with pytest.raises(ConfigError, match="no port"):
        proxyurl.parse("h", "http-proxy")


def test_B06_https_alone_is_a_configuration(tmp_path: Path) -> None:
    proxy = from_attributes({"https-proxy": "h:1"})
    assert "http_proxy" not in proxy.proxy.environment(True)
    summary = Engine(Host(tmp_path), [Proxy(proxy)]).apply()
    assert summary.exit == Exit.PASS
    assert "https_proxy=http://h:1" in (tmp_path / "etc/environment").read_text()


@pytest.mark.parametrize("value", [None, "a.test,,b.test", " , ", "a.test, b.test"])
def test_B07_no_junk_entries(value: str | None) -> None:
    entries = noproxy.parse(value)[0]
    assert len(entries) == len(set(entries))
    for entry in entries:
        assert entry
        assert ".." not in entry
        assert entry == entry.strip()


def test_B08_network_facts_are_json() -> None:
    assert json.loads(json.dumps(network.collect(Reader())))["routes"] is not None


def test_B10_a_stranger_is_not_trusted(tmp_path: Path) -> None:
    """The old check passed for every certificate; here the bundle itself decides."""
    ours, stranger = fresh("Ours"), fresh("Stranger")
    context = ssl.create_default_context(cadata=ours.decode())
    assert [cert["subject"] for cert in context.get_ca_certs()] == [((("commonName", "Ours"),),)]
    root = tmp_path / "root"
    (root / "etc/ssl/certs").mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "ca.pem").write_bytes(ours)
    anchor = (
        root / f"usr/local/share/ca-certificates/airlock-{min(pem.fingerprints(ours))[:16]}.crt"
    )
    anchor.parent.mkdir(parents=True)
    anchor.write_bytes(ours)
    config = from_attributes({"http-proxy-pem-uri": "file:///ca.pem"})
    for bundle, trusted in ((stranger, False), (ours, True)):
        (root / "etc/ssl/certs/ca-certificates.crt").write_bytes(bundle)
        found = trust.Trust(config).inspect(Host(root))
        [state] = [value for key, value in found.items() if key.startswith("ca:")]
        assert ("not in the bundle" not in state) is trusted


def test_zypper_is_refused_clearly(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    release = 'ID="sles"\nID_LIKE="suse"\nPRETTY_NAME="SUSE Linux Enterprise Server 15"\n'
    (tmp_path / "etc/os-release").write_text(release)
    summary = Engine(Host(tmp_path), [Proxy(from_attributes({"http-proxy": "h:1"}))]).apply()
    assert summary.exit == Exit.FAIL
    [refusal] = summary.installers[0].refusals
    assert refusal.code == "proxy.os"
    assert "SUSE Linux Enterprise Server 15" in refusal.reason
    assert "zypper" in refusal.reason
    assert not (tmp_path / "etc/environment").exists()


def test_B09_no_address_is_called_external() -> None:
    """A pattern that matched single characters called 10.128.0.5 external; nothing is guessed here:
    facts hold addresses as the kernel has them, and a class that needs deciding is decided by
    value."""
    found = json.dumps(network.collect(Reader()))
    assert "external" not in found
    routes = network.routes(
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
        "eth0\t0500800A\t00000000\t0001\t0\t0\t0\tFFFFFFFF\t0\t0\t0\n"
    )
    [route] = routes
    assert ipaddress.ip_network(route["destination"]).network_address.is_private


def test_B18_a_program_that_fails_is_never_taken_for_one_that_succeeded(tmp_path: Path) -> None:
    """`local x=$(false)` went on with an empty value."""
    host = Host("/")
    with pytest.raises(CommandError, match="exited 3"):
        host.run(["sh", "-c", "echo half an answer; exit 3"])
    with pytest.raises(CommandError, match="exited 127"):
        host.run([str(tmp_path / "absent")])


def test_B46_done_is_what_is_there_and_not_what_a_marker_says(tmp_path: Path) -> None:
    """A sentinel file said "done" for any input; here another input is another state."""
    (tmp_path / "etc").mkdir()

    def apply(value: str) -> str:
        config = from_attributes({"http-proxy": value})
        return Engine(Host(tmp_path), [Proxy(config)]).apply().installers[0].outcome

    assert [apply("a.test:1"), apply("a.test:1"), apply("b.test:1")] == ["ok", "unchanged", "ok"]
    (tmp_path / "etc/environment").write_text("")
    assert apply("b.test:1") == "ok"


def test_B47_what_happened_can_be_read_by_a_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.json").write_text('{"instance": {"attributes": {"http-proxy": "h:1"}}}')
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    argv = ["apply", "--only=proxy", f"--root={root}", f"--metadata={tmp_path}/m.json", "--json"]
    assert cli.main(argv) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["exit"], answer["installers"][0]["outcome"]) == (0, "ok")


def test_a_policy_to_warn_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """P26: what fails is said and kept as failed, and the process ends with 0, on nodes alone."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')

    def ends(verb: str, **attributes: str) -> tuple[int, dict[str, Any], str]:
        given = {key.replace("_", "-"): value for key, value in attributes.items()}
        (tmp_path / "m.json").write_text(json.dumps({"instance": {"attributes": given}}))
        argv = [verb, "--only=trust", f"--root={root}", f"--metadata={tmp_path}/m.json", "--json"]
        code = cli.main(argv)
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    absent = {"http_proxy_pem_uri": "file:///absent.pem"}
    dead = {"http_proxy_pem_uri": f"https://127.0.0.1:9/ca.pem#sha256={'0' * 64}"}
    for uri, told, outcome in ((absent, 1, "refused"), (dead, 3, "failed")):
        code, answer, err = ends("apply", **uri)
        assert (code, answer["exit"], answer["warned"], err) == (told, told, 0, "")
        code, answer, err = ends("apply", **uri, airlock_policy="warn")
        assert (code, answer["exit"], answer["warned"]) == (0, 0, told)
        assert f"would end with {told}" in err
        assert answer["installers"][0]["outcome"] == outcome
    state = json.loads((root / "var/lib/airlock/state.json").read_text())
    assert state["installers"]["trust"]["outcome"] == "failed"
    # Whoever asks how the node is gets the truth, and a wrong key is nobody's warning.
    assert ends("verify", **absent, airlock_policy="warn")[0] == 1
    assert ends("apply", http_proxy_pem_uri="/x", airlock_policy="warn")[0] == 2
    assert ends("apply", airlock_policy="silent")[0] == 2
    assert ends("apply", airlock_policy="warn", invocation_type="custom-images")[0] == 2


def test_B48_no_secret_is_in_what_is_printed_or_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`set -x` wrote every proxy URL to the serial console."""
    secret = "c@nary:/#1"
    url = f"http://bob:{quote(secret, safe='')}@h:1"
    (tmp_path / "m.json").write_text(
        json.dumps({"instance": {"attributes": {"http-proxy": url, "http-proxy-pem-uri": "/"}}})
    )
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    for words in (["apply", "--only=proxy"], ["apply", "--only=trust"], ["verify", "--only=proxy"]):
        cli.main([*words, f"--root={root}", f"--metadata={tmp_path}/m.json", "--json"])
    said = "".join(capsys.readouterr())
    kept = "".join(path.read_text() for path in (root / "var/lib/airlock").glob("*.json*"))
    for text in (said, kept):
        assert text
        assert "nary" not in text


def test_B50_the_projects_metadata_counts_where_the_instance_has_none() -> None:
    document = {
        "instance": {"attributes": {"http-proxy": "mine.test:1"}},
        "project": {"attributes": {"http-proxy": "ours.test:1", "no-proxy": "x.test"}},
    }
    merged = metadata.merge(document, "here")
    assert merged == {"http-proxy": "mine.test:1", "no-proxy": "x.test"}


# Where every defect that these parts could have is tested. Those that are missing belong to others:
# the driver's choice (B24-B33, B45), conda (B34-B37), Spark's first boot (B38-B43), zeroing (B49).
TESTED = {
    "B01": "test_defects.py::test_B01_the_site_that_proves_the_proxy_must_not_bypass_it",
    "B02": "test_defects.py::test_B02_http_proxy_alone_serves_https_too",
    "B03": "test_defects.py::test_B03_dnf_gets_its_line",
    "B04": "test_defects.py::test_B04_baked_proxy_is_replaced_and_removed_by_value",
    "B05": "test_defects.py::test_B05_values_are_parsed",
    "B06": "test_defects.py::test_B06_https_alone_is_a_configuration",
    "B07": "test_defects.py::test_B07_no_junk_entries",
    "B08": "test_defects.py::test_B08_network_facts_are_json",
    "B09": "test_defects.py::test_B09_no_address_is_called_external",
    "B10": "test_defects.py::test_B10_a_stranger_is_not_trusted",
    "B11": "test_trust_parts.py::test_B11_every_store_again_rotated_and_removed",
    "B12": "../installers_keyrings/test_keyrings.py::"
    "test_B12_a_server_that_answers_with_another_key_is_refused",
    "B13": "../installers_keyrings/test_keyrings.py::"
    "test_B13_the_ring_is_plain_openpgp_and_a_keybox_is_replaced",
    "B14": "../installers_keyrings/test_keyrings.py::"
    "test_B14_several_addresses_are_merged_not_written_over_one_another",
    "B15": "../installers_cache/test_lease.py::test_B15_B16_twenty_processes_race_and_one_builds",
    "B16": "../installers_cache/test_lease.py::test_B15_B16_twenty_processes_race_and_one_builds",
    "B17": "../installers_cache/test_lease.py::test_B16_B17_every_host_waits",
    "B18": "test_defects.py::test_B18_a_program_that_fails_is_never_taken_for_one_that_succeeded",
    "B19": "../installers_cache/test_cache.py::test_B19_every_input_matters",
    "B20": "../installers_cache/test_cache.py::"
    "test_B20_B21_a_tampered_entry_is_put_aside_and_built_anew",
    "B21": "../installers_cache/test_cache.py::"
    "test_B20_B21_a_tampered_entry_is_put_aside_and_built_anew",
    "B22": "../installers_cache/test_settings.py::"
    "test_B22_an_offline_driver_asks_nobody_but_its_cache",
    "B23": "../installers_cache/test_cache.py::test_B23_one_download_of_each_object",
    "B44": "../installers_keyrings/test_keyrings.py::"
    "test_B44_without_a_proxy_the_keys_are_fetched_too",
    "B46": "test_defects.py::test_B46_done_is_what_is_there_and_not_what_a_marker_says",
    "B47": "test_defects.py::test_B47_what_happened_can_be_read_by_a_machine",
    "B48": "test_defects.py::test_B48_no_secret_is_in_what_is_printed_or_kept",
    "B50": "test_defects.py::test_B50_the_projects_metadata_counts_where_the_instance_has_none",
}


@pytest.mark.parametrize("defect", TESTED)
def test_every_defect_of_these_parts_has_its_test(defect: str) -> None:
    assert exists(Path(__file__).parent, TESTED[defect])
    assert re.search(rf"::test_(B\d\d_)*{defect}_", TESTED[defect])
