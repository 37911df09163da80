"""Defects of the shell scripts that this replaces, by their numbers, where these parts had them.

B03 is in the lab's tests (with the real dnf), B11 in those of the key stores.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from pathlib import Path

import pytest

from installers import noproxy, pem, proxyurl, trust
from installers.collect import network
from installers.config import from_attributes
from installers.engine import Engine
from installers.errors import ConfigError
from installers.exits import Exit
from installers.host import Host
from installers.proxy import Proxy
from tests.unit.installers.test_trust import fresh
from tests.unit.installers.tools import Recorder, needs


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
    from installers.collect.reader import Reader

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
