"""The startup script of Google Cloud's proxy, run for real: on this machine's system, as if it were
the proxy's own. In namespaces of its own, so that nothing of the machine is changed; squid's
packages lie over ``/usr`` as if apt had installed them, and systemd is a stand-in that starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures import daemons
from fixtures.accesslog import read_rows
from fixtures.ledger import summarise
from harness.cloud import proxyvm
from harness.cloud.network import Site
from tests.lab.test_squid import state

pytestmark = [pytest.mark.lab, pytest.mark.slow]

SITE = Site("some-project", "us-central1-a")
INSIDE = Path(__file__).with_name("gce_proxy_inside.py")

SYSTEM = r"""
set -eu
install=$1 work=$2
ip link set lo up
for address in 10.126.0.9 10.126.1.2 10.9.9.9 169.254.169.254; do
  ip address add $address/32 dev lo
done
mkdir -p "$work/over"
mount -t tmpfs tmpfs "$work/over"
for place in usr etc var; do
  mkdir -p "$work/over/$place-up" "$work/over/$place-work"
  lower=/$place
  [ -d "$install/$place" ] && lower=$install/$place:/$place
  mount -t overlay overlay -o \
    "lowerdir=$lower,upperdir=$work/over/$place-up,workdir=$work/over/$place-work" "/$place"
done
mount -t tmpfs tmpfs /run
mkdir -p /etc/squid /var/log/squid /var/spool/squid
chown proxy:proxy /var/log/squid /var/spool/squid
echo 10.9.9.9 origin.test >>/etc/hosts
cat >/usr/local/bin/systemctl <<'END'
#!/bin/sh
if [ "$1" = restart ]; then
  if [ -f /run/squid.pid ]; then
    kill "$(cat /run/squid.pid)"
    while [ -f /run/squid.pid ]; do sleep 0.1; done
  fi
  setsid /usr/sbin/squid --foreground -sYC >/var/log/squid/started 2>&1 </dev/null &
fi
END
chmod 755 /usr/local/bin/systemctl
exec "$3" "$4" "$work"
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the machine told and answered after two boots."""
    work = tmp_path_factory.mktemp("proxy")
    install = daemons.squid(state())
    (work / "startup.sh").write_text(proxyvm.startup_script(SITE))
    (work / "system.sh").write_text(SYSTEM)
    words: list[str | Path] = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]
    if os.geteuid() != 0:
        words += ["--map-root-user", "--map-auto"]
    words += ["bash", work / "system.sh", install.root, work, sys.executable, INSIDE]
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert [one[0] for one in found["scripts"]] == [0, 0], found["scripts"]
    return found


def test_it_says_that_it_runs_and_with_which_configuration(seen: dict[str, Any]) -> None:
    home = "/computeMetadata/v1/instance/guest-attributes/airlock/"
    assert seen["told"][f"{home}proxy-ready"].strip() == proxyvm.digest(SITE)
    assert f"{home}proxy-failed" not in seen["told"]
    assert "ready" in seen["scripts"][1][1]


def test_the_private_key_stays_on_the_machine(seen: dict[str, Any]) -> None:
    assert all("PRIVATE" not in value for value in seen["told"].values())
    assert (
        "BEGIN CERTIFICATE"
        in seen["told"]["/computeMetadata/v1/instance/guest-attributes/airlock/proxy-ca"]
    )
    assert seen["mode"] == 0o600


def test_it_answers_nodes_only_and_keeps_its_own_metadata_to_itself(seen: dict[str, Any]) -> None:
    asked = {name: one[:2] for name, one in seen["asked"].items()}
    assert asked["node"] == [0, "200"]
    assert asked["stranger"] == [0, "403"]
    assert asked["metadata"] == [0, "403"]
    # Nobody listens there: what answers is squid, under the name that was asked, signed by its CA.
    assert asked["bumped"] == [0, "503"], seen["asked"]["bumped"]
    assert asked["untrusting"][0] == 60


def test_its_log_is_the_ledger(seen: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_text(seen["log"])
    rows = list(read_rows(path))
    of_node = [row for row in rows if row["client"] == "10.126.0.9"]
    ledger = summarise(of_node, [])
    assert ledger["hosts"]["10.9.9.9"] == 1
    assert ledger["metadata_via_proxy"] == 1
    assert ledger["clients_without_ca"] == ["origin.test"]
