"""The double of Google Cloud, and a proxy that says that it runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.gce import Compute, Guest
from fixtures.pki import Authority
from harness.cloud import proxyvm
from harness.cloud.api import Google
from harness.cloud.network import Site
from harness.providers.gce_api import ENDPOINT, Pace

PROJECT, ZONE = "airlock-test", "europe-west4-a"
SITE = Site(PROJECT, ZONE)
#: Generous, for slow machines.
PACE = Pace(patience=60, operation=60, boot=30, answer=30, slice=0.2, look=0.02, end=60)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def cloud(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Compute]:
    """Google Cloud, empty; a state directory of its own; no gce.toml."""
    with Compute(PROJECT) as double:
        monkeypatch.setenv(ENDPOINT, double.url)
        monkeypatch.setenv("AIRLOCK_STATE", str(tmp_path / "state"))
        monkeypatch.setenv("AIRLOCK_GCE", str(tmp_path / "none.toml"))
        monkeypatch.setattr(
            Google,
            "__init__",
            lambda self, project, **_: super(Google, self).__init__(project, pace=PACE),
        )
        tells(double, proxyvm.READY, proxyvm.digest(SITE), authority)
        yield double


def tells(double: Compute, key: str, value: str, authority: Authority) -> None:
    """What the proxy's guest attributes are, once it was made."""
    told = {key: value, proxyvm.CA: authority.proxy.pem.decode()}
    double.guests["airlock-proxy"] = Guest(boots=0, attributes={proxyvm.NAMESPACE: told})
