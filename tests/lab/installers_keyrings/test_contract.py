"""What plan says beforehand, beside what a real squid saw: no host that was not named."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import daemons
from fixtures.errors import FixtureError
from fixtures.origin import NAME, Origin
from fixtures.pki import Authority
from fixtures.squid import Squid
from harness.state import cache_dir
from installers import cli
from tests.lab.logged import logged
from tests.unit.installers.test_trust import fresh
from tests.unit.installers_engine.root import MEMORY, needs_chroot, prepare
from tests.unit.installers_keyrings.conftest import Keys
from tests.unit.installers_keyrings.workshop import acme, attributes

pytestmark = [pytest.mark.lab, needs_chroot]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def origin(authority: Authority) -> Iterator[Origin]:
    with Origin(authority) as running:
        yield running


@pytest.fixture
def squid(authority: Authority, origin: Origin, tmp_path: Path) -> Iterator[Squid]:
    try:
        install = daemons.squid(cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"squid cannot be had here: {error}")
    hosts = {NAME: "127.0.0.1"}
    ports = [origin.https_port]
    with Squid(
        tmp_path / "squid", install, authority, hosts, intercept=True, connect_ports=ports
    ) as running:
        yield running


@pytest.fixture
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root = Path(folder) / "root"
        root.mkdir()
        prepare(root, [fresh("A public authority"), fresh("Another one")])
        yield root


def node(
    verb: str, root: Path, given: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> dict[str, Any]:
    metadata = root.with_name("metadata.json")
    metadata.write_text(json.dumps({"instance": {"attributes": given}}))
    words = [f"--root={root}", f"--metadata={metadata}", "--only=proxy,trust,keyrings", "--json"]
    code = cli.main([verb, *words])
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert answer["exit"] == code
    return answer


def test_the_ledger_holds_no_host_that_the_plan_did_not_name(
    root: Path,
    squid: Squid,
    origin: Origin,
    authority: Authority,
    keys: Keys,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A CA by a pinned address and keys by address and server, all of it through the proxy."""
    ca = authority.proxy.pem
    origin.files = {"/ca.pem": ca, f"/pks/{keys.good}": keys.file(keys.good)}
    given = {
        **attributes(
            acme((keys.good, [f"{origin.url}/gone.asc"])), [f"{origin.url}/pks/{{fingerprint}}"]
        ),
        "http-proxy": f"127.0.0.1:{squid.port}",
        "http-proxy-pem-uri": f"{origin.url}/ca.pem#sha256={hashlib.sha256(ca).hexdigest()}",
    }
    contract = node("plan", root, given, capsys)["contract"]
    assert squid.rows() == [], "plan asked somebody"
    applied = node("apply", root, given, capsys)
    assert applied["exit"] == 0, applied
    logged(squid, method="GET", url=f"{origin.url}/pks/{keys.good}", status=200)
    rows = squid.rows()
    seen = {str(row["host"]) for row in rows}
    assert seen == {NAME}
    named = {host.rpartition(":")[0] or host for host in contract["hosts"]}
    assert seen <= named
    # The other parts of the contract, against what happened.
    fetched = sum(row["bytes"] or 0 for row in rows if row["method"] == "GET")
    assert 0 < fetched <= contract["bytes"]
    assert any(keys.good in key for key in contract["keys"])
    for path, size in contract["disk"].items():
        assert size > 0
        assert path.startswith("/")
    assert {"/etc", "/usr/share/keyrings", "/etc/ssl"} <= set(contract["disk"])
    # When all is there, nobody is asked again, and the plan says so.
    before = len(rows)
    assert node("plan", root, given, capsys)["contract"]["hosts"] in ([], [contract["hosts"][0]])
    assert node("apply", root, given, capsys)["installers"][0]["outcome"] == "unchanged"
    assert len(squid.rows()) == before
