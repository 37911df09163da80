"""squid for real: a private copy, real curl, passwords that hurt, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import daemons
from fixtures.daemons import SquidInstall
from fixtures.errors import BadInput, FixtureError
from fixtures.ledger import summarise
from fixtures.origin import GREETING, NAME, Origin
from fixtures.pki import Authority
from fixtures.scenarios.tables import Trust
from fixtures.squid import Squid, new_password
from tests.lab.logged import logged

pytestmark = pytest.mark.lab

REPOSITORY = Path(__file__).parents[2]
NASTY = "p@ss:w/rd%#1 ?&é"


def state() -> Path:
    """Where unpacked daemons are kept between test runs."""
    default = Path.home() / ".local/state/airlock"
    return Path(os.environ.get("AIRLOCK_STATE", default)) / "daemons"


@pytest.fixture(scope="module")
def install() -> SquidInstall:
    return daemons.squid(state())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def origin(authority: Authority) -> Iterator[Origin]:
    with Origin(authority) as running:
        yield running


@pytest.fixture(scope="module")
def make(
    install: SquidInstall,
    authority: Authority,
    origin: Origin,
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    def make(**options: Any) -> Squid:
        ports = [origin.https_port, origin.http_port]
        directory = tmp_path_factory.mktemp("squid with a space")
        return Squid(
            directory, install, authority, {NAME: "127.0.0.1"}, connect_ports=ports, **options
        )

    return make


@pytest.fixture(scope="module")
def bumping(make: Any) -> Iterator[Squid]:
    with make(intercept=True, users={"al@ce": NASTY}) as squid:
        yield squid


def curl(squid: Squid, url: str, *options: str, user: str | None = None) -> tuple[int, str, str]:
    """curl's exit code, its output and its errors, in an environment of its own.

    The proxy's URL goes by the environment: a password on a command line can be seen by all.
    """
    proxy = squid.proxy_url(user)
    ran = subprocess.run(
        ["curl", "-sS", "--max-time", "20", *options, url],
        env={"PATH": os.environ["PATH"], "https_proxy": proxy, "http_proxy": proxy},
        capture_output=True,
        text=True,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_with_the_ca_and_the_password(bumping: Squid, authority: Authority, origin: Origin) -> None:
    ca = ("--cacert", str(authority.proxy.cert_path))
    assert curl(bumping, origin.url, *ca, user="al@ce") == (0, GREETING.decode(), "")
    assert curl(bumping, origin.http_url, user="al@ce")[:2] == (0, GREETING.decode())
    row = logged(bumping, method="GET", url=f"{origin.url}/", status=200)
    assert (row["bump"], row["user"], row["host"]) == ("bump", "al@ce", NAME)
    assert row["tls"].startswith("TLS/")
    assert abs(row["ts"] - time.time()) < 60
    assert row["start"] <= row["ts"]


def test_without_the_ca_the_handshake_fails_and_the_ledger_says_so(
    bumping: Squid, origin: Origin
) -> None:
    code, _, errors = curl(bumping, origin.url, user="al@ce")
    assert code == 60
    assert "self-signed certificate in certificate chain" in errors
    logged(bumping, method="CONNECT", tls=None, bump="bump")
    assert summarise(bumping.rows(), [])["clients_without_ca"] == [NAME]


@pytest.mark.parametrize(
    "trust",
    [
        Trust(key="rsa-2048", digest="sha512", age_days=30, left_days=20, depth=2),
        Trust(key="ec-384", digest="sha384", left_days=400),
    ],
    ids=["two in the chain", "another curve"],
)
def test_a_ca_like_a_customers(
    make: Any, authority: Authority, origin: Origin, trust: Trust
) -> None:
    """The node is given the root alone; what comes between, the proxy sends along."""
    root = ("--cacert", str(authority.root_ca(trust).cert_path))
    with make(intercept=True, ca=authority.signing_ca(trust)) as squid:
        assert curl(squid, origin.url, *root) == (0, GREETING.decode(), "")
        assert curl(squid, origin.url, "--cacert", str(authority.proxy.cert_path))[0] == 60


def test_without_the_password(bumping: Squid, authority: Authority, origin: Origin) -> None:
    code, _, errors = curl(bumping, origin.url, "--cacert", str(authority.proxy.cert_path))
    assert code == 56
    assert "407" in errors
    assert logged(bumping, method="CONNECT", status=407)["squid"] == "TCP_DENIED"


def test_python_with_strict_rules_accepts_the_forged_certificate(
    bumping: Squid, authority: Authority, origin: Origin
) -> None:
    import ssl

    context = ssl.create_default_context(cadata=authority.proxy.pem.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"https": bumping.proxy_url("al@ce")}),
        urllib.request.HTTPSHandler(context=context),
    )
    assert opener.open(origin.url, timeout=20).read() == GREETING


def test_the_password_is_nowhere(bumping: Squid) -> None:
    for line in subprocess.run(["ps", "-eo", "args"], capture_output=True).stdout.splitlines():
        assert NASTY.encode() not in line
    for path in bumping.dir.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert NASTY.encode() not in path.read_bytes(), path
    for secret in ("squid.users", "squid-ca.pem"):
        assert (bumping.dir / secret).stat().st_mode & 0o777 == 0o600


def test_what_a_node_may_not_reach_through_it(bumping: Squid) -> None:
    with socket.create_server(("127.0.0.1", 0)) as private:
        port = private.getsockname()[1]
        for url in (
            f"http://127.0.0.1:{port}/",
            f"http://localhost:{port}/",
            "http://169.254.169.254/computeMetadata/v1/",
            "http://metadata.google.internal/",
        ):
            ran = curl(bumping, url, "-o", "/dev/null", "-w", "%{http_code}", user="al@ce")
            assert ran[1] == "403", url
    logged(bumping, host="metadata.google.internal")
    assert summarise(bumping.rows(), [])["metadata_via_proxy"] == 2


def test_agents_with_quotes_stay_one_row(bumping: Squid, origin: Origin) -> None:
    agent = 'a"b\\c {"x":1} é%41'
    curl(bumping, origin.http_url, "-A", agent, user="al@ce")
    assert logged(bumping, ua=agent)["url"] == f"{origin.http_url}/"


def test_tunnelling(make: Any, authority: Authority, origin: Origin) -> None:
    with make(intercept=False) as squid:
        assert curl(squid, origin.url, "--cacert", str(authority.proxy.cert_path))[0] == 60
        code, out, _ = curl(squid, origin.url, "--cacert", str(authority.origin.cert_path))
        assert (code, out) == (0, GREETING.decode())
        assert not (squid.dir / "ssl_db").exists()
        assert new_password() != new_password()
    methods = {(row["method"], row["status"], row["bump"]) for row in squid.rows()}
    assert methods == {("CONNECT", 200, None)}


def test_two_at_once_and_a_taken_port(make: Any, origin: Origin) -> None:
    with make(intercept=False) as first, make(intercept=False) as second:
        assert first.port != second.port
        assert curl(first, origin.http_url)[0] == curl(second, origin.http_url)[0] == 0
        with pytest.raises(FixtureError, match=f"127.0.0.1:{first.port}: port taken"):
            make(port=first.port).__enter__()
        assert first.alive


def test_it_outlives_the_thread_that_started_it(make: Any, origin: Origin) -> None:
    started: list[Squid] = []
    thread = threading.Thread(target=lambda: started.append(make(intercept=False).__enter__()))
    thread.start()
    thread.join()
    assert curl(started[0], origin.http_url)[0] == 0
    started[0].close()


def test_a_squid_that_dies_says_why(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    squid = make(intercept=False, port=1)
    config = squid._config()
    monkeypatch.setattr(squid, "_config", lambda: config + "hosts_fil x\n")
    with pytest.raises(FixtureError, match=r"ended at once(.|\n)*unrecognized: 'hosts_fil'"):
        squid.__enter__()
    assert _left(squid.name) == []


@pytest.mark.parametrize("users", [{"a:b": "x"}, {"a b": "x"}, {"": "x"}, {"a": "x\ny"}])
def test_names_and_passwords_that_cannot_be(make: Any, users: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="no colon or space"):
        make(users=users).__enter__()


def _left(name: str) -> list[str]:
    """Processes and shared memory of a squid."""
    found = [str(path) for path in Path("/dev/shm").glob(f"*{name}*")]
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if name in words:
            found.append(words)
    return found


def _helpers(directory: Path) -> list[str]:
    """Processes that work in a squid's directory: its helpers have no name of their own."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == directory:
                found.append((process / "comm").read_text().strip())
        except OSError:
            continue
    return found


def _gone(name: str, directory: Path) -> bool:
    until = time.monotonic() + 10
    while (_left(name) or _helpers(directory)) and time.monotonic() < until:
        time.sleep(0.02)
    return not _left(name) and not _helpers(directory)


def test_stopping_leaves_nothing(make: Any) -> None:
    squid = make(users={"a": "b"})
    with squid:
        assert len(_helpers(squid.dir)) >= 4
    assert _left(squid.name) == []
    assert _helpers(squid.dir) == []
    assert not (squid.dir / "squid.users").exists()


OWNER = """
import sys, time
from pathlib import Path
from fixtures import daemons, pki, squid
place, state = map(Path, sys.argv[1:])
running = squid.Squid(place / "squid", daemons.squid(state), pki.Authority(place / "keys"))
with running:
    print(running.name, flush=True)
    time.sleep(60)
"""


@pytest.mark.usefixtures("install")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_an_owner_that_is_killed_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    owner = subprocess.Popen(
        # What is started in the background of a shell inherits an ignored SIGINT.
        ["env", "--default-signal=INT", sys.executable, "-c", OWNER, tmp_path, state()],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None
    name = owner.stdout.readline().strip()
    assert name
    assert _left(name)
    assert len(_helpers(tmp_path / "squid")) >= 3
    os.killpg(owner.pid, number)
    owner.wait(timeout=20)
    owner.stdout.close()
    assert _gone(name, tmp_path / "squid")


def test_a_keeper_that_is_killed_takes_squid_with_it(make: Any) -> None:
    squid = make(intercept=False)
    with squid:
        assert squid._process is not None
        squid._process.kill()
        until = time.monotonic() + 10
        while _helpers(squid.dir) and time.monotonic() < until:
            time.sleep(0.02)
        assert _helpers(squid.dir) == []
        assert not squid.alive
    assert _left(squid.name) == []


USER = """
import os, subprocess, sys
from pathlib import Path
from fixtures import daemons, origin, pki, squid
assert os.geteuid() == 65534
place = Path(sys.argv[1])
authority = pki.Authority(place / "keys")
install = daemons.squid(place / "state")
assert install.root.is_relative_to(place)
with origin.Origin(authority) as site, squid.Squid(
    place / "squid", install, authority, {origin.NAME: "127.0.0.1"}, users={"u": "p@:/%#"},
    connect_ports=[site.https_port],
) as proxy:
    ran = subprocess.run(
        ["curl", "-sS", "--cacert", str(authority.proxy.cert_path), site.url],
        env={"PATH": os.environ["PATH"], "https_proxy": proxy.proxy_url("u")},
    )
    assert ran.returncode == 0
"""


def test_an_ordinary_user_unpacks_and_runs_it(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    place = tmp_path / "user"
    place.mkdir()
    os.chown(place, 65534, 65534)
    # It may read what root may (this interpreter may lie in root's home) and write nothing.
    user = ["--reuid=65534", "--regid=65534", "--clear-groups"]
    read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    ran = subprocess.run(
        ["setpriv", *user, *read, "--", sys.executable, "-c", USER, place],
        cwd=REPOSITORY,
        env={**os.environ, "HOME": str(place), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == GREETING.decode()
    assert not [path for path in place.rglob("*") if path.stat().st_uid != 65534]
