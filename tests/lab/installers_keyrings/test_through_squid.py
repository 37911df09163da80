"""Keys through squid for real: a name that only it resolves, a password, and opened TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from fixtures import daemons
from fixtures.errors import FixtureError
from fixtures.origin import NAME, Origin
from fixtures.pki import Authority
from fixtures.squid import Squid
from harness.state import cache_dir
from installers.config import from_attributes
from installers.engine import Engine, Summary
from installers.exits import Exit
from installers.host import Host
from installers.journal import JOURNAL
from installers.keyrings import Keyrings
from installers.proxy import Proxy
from tests.lab.logged import logged
from tests.unit.installers_keyrings.conftest import Keys
from tests.unit.installers_keyrings.workshop import KEYRING, acme, attributes, make_root

pytestmark = pytest.mark.lab

PASSWORD = "p@ss:w/rd%#1 ?&é"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def origin(authority: Authority) -> Iterator[Origin]:
    with Origin(authority) as running:
        yield running


@pytest.fixture(scope="module")
def squid(
    authority: Authority, origin: Origin, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Squid]:
    try:
        install = daemons.squid(cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"squid cannot be had here: {error}")
    with Squid(
        tmp_path_factory.mktemp("squid"),
        install,
        authority,
        {NAME: "127.0.0.1"},
        intercept=True,
        users={"al@ce": PASSWORD},
        connect_ports=[origin.https_port],
    ) as running:
        yield running


def apply(host: Host, squid: Squid, origin: Origin, key: str, password: str) -> Summary:
    given = attributes(
        acme((key, [f"{origin.url}/gone.asc"])), [f"{origin.url}/pks/lookup/{{fingerprint}}"]
    )
    user = f"{quote('al@ce', safe='')}:{quote(password, safe='')}"
    given["proxy-uri"] = f"http://{user}@127.0.0.1:{squid.port}"
    config = from_attributes(given)
    return Engine(host, [Keyrings(config)], [Proxy(config)]).apply()


def test_the_fall_back_goes_through_the_proxy(
    tmp_path: Path, squid: Squid, origin: Origin, authority: Authority, keys: Keys
) -> None:
    origin.files = {f"/pks/lookup/{keys.good}": keys.file(keys.good)}
    host = make_root(tmp_path / "root", ca=authority.proxy)
    assert apply(host, squid, origin, keys.good, PASSWORD).exit == Exit.PASS
    assert host.exists(KEYRING)
    logged(squid, method="GET", status=404, user="al@ce")
    logged(squid, method="GET", status=200, user="al@ce")
    assert PASSWORD not in (host.read(JOURNAL) or "")
    assert quote(PASSWORD, safe="") not in (host.read(JOURNAL) or "")


def test_a_wrong_password_is_named(
    tmp_path: Path, squid: Squid, origin: Origin, authority: Authority, keys: Keys
) -> None:
    host = make_root(tmp_path / "root", ca=authority.proxy)
    summary = apply(host, squid, origin, keys.good, "wrong")
    assert summary.exit == Exit.UNKNOWN
    problem = summary.installers[0].problems[0]
    assert "407" in problem.what
    assert "other credentials" in problem.remedy
    assert not host.exists(KEYRING)


def test_without_the_proxys_ca_nothing_is_fetched(
    tmp_path: Path, squid: Squid, origin: Origin, keys: Keys
) -> None:
    host = make_root(tmp_path / "root")
    summary = apply(host, squid, origin, keys.good, PASSWORD)
    assert summary.exit == Exit.UNKNOWN
    assert "http-proxy-pem-uri" in summary.installers[0].problems[0].remedy
