"""Charts and images from a registry with a login, on good days and bad ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.ociregistry import OciRegistry, packed
from harness.errors import AirlockError
from harness.k8s.chartsource import fetch_chart
from harness.k8s.declaration import Declaration, read_declaration
from harness.k8s.helm import Helm
from harness.k8s.plan import make_plan
from harness.k8s.references import parse
from harness.k8s.registry import Registry, logins_of
from harness.k8s.retry import Patience
from harness.k8s.web import Web
from tests.unit.k8s.conftest import CHART

Declare = Callable[[str], Declaration]
VERSION = "v26.7.0"


@pytest.fixture(scope="module")
def archive() -> bytes:
    return packed(CHART)


@pytest.fixture
def registry(archive: bytes) -> Iterator[OciRegistry]:
    with OciRegistry() as served:
        served.add_chart("gpu-operator", VERSION, archive)
        yield served


@pytest.fixture
def web(registry: OciRegistry, tmp_path: Path) -> Web:
    return Web(registry.ca_file(tmp_path / "ca.pem"), Patience(5.0, first=0.01))


@pytest.fixture
def source(
    registry: OciRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Declaration]:
    """A declaration whose chart comes from the double, ``oci`` or ``http``, with a login."""

    def declare(how: str, version: str = VERSION, password: str = "pa:ss@1") -> Declaration:
        monkeypatch.setenv("CHART_PASSWORD", password)
        if how == "oci":
            where = f'chart = "oci://{registry.host}/charts/gpu-operator"\n'
        else:
            where = f'chart = "gpu-operator"\nrepo = "https://{registry.host}/charts"\n'
        login = 'username = "robot"\npassword-env = "CHART_PASSWORD"\n'
        file = tmp_path / "c.toml"
        file.write_text(f'[operator]\n{where}version = "{version}"\n{login}')
        return read_declaration(file)

    return declare


@pytest.mark.parametrize("how", ["oci", "http"])
def test_a_chart_comes_with_a_login_and_only_once(
    registry: OciRegistry, web: Web, tmp_path: Path, source: Callable[..., Declaration], how: str
) -> None:
    wanted = source(how)
    chart = fetch_chart(wanted, web, tmp_path / "cache")
    assert (chart.name, chart.version) == ("gpu-operator", VERSION)
    asked = len(registry.requests)
    assert fetch_chart(wanted, web, tmp_path / "cache").digest == chart.digest
    assert len(registry.requests) == asked


@pytest.mark.parametrize("how", ["oci", "http"])
@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429, "retry_after": 0}, {"cut": 99}])
def test_a_source_that_is_busy_is_asked_again(
    registry: OciRegistry,
    web: Web,
    tmp_path: Path,
    source: Callable[..., Declaration],
    how: str,
    fault: dict[str, int],
) -> None:
    registry.fail("GET", "/charts/", times=2, **fault)
    registry.fail("GET", "/blobs/", times=2, **fault)
    assert fetch_chart(source(how), web, tmp_path / "cache").version == VERSION
    assert web.patience.tried


@pytest.mark.parametrize("how", ["oci", "http"])
@pytest.mark.parametrize(
    ("more", "says", "code"),
    [
        ({"password": "wrong"}, "HTTP 401", 2),
        ({"version": "v0.0.1"}, "does not have it|has no version v0.0.1", 2),
    ],
)
def test_a_source_that_refuses_is_one_clear_error(
    web: Web,
    tmp_path: Path,
    source: Callable[..., Declaration],
    how: str,
    more: dict[str, str],
    says: str,
    code: int,
) -> None:
    with pytest.raises(AirlockError, match=says) as caught:
        fetch_chart(source(how, **more), web, tmp_path / "cache")
    assert caught.value.exit == code
    assert "pa:ss" not in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_a_source_that_stays_busy_is_an_error_of_the_lab(
    registry: OciRegistry, tmp_path: Path, source: Callable[..., Declaration]
) -> None:
    registry.fail("GET", "", status=503, times=1000)
    hasty = Web(registry.ca_file(tmp_path / "ca.pem"), Patience(0.05, first=0.01))
    with pytest.raises(AirlockError, match="HTTP 503") as caught:
        fetch_chart(source("http"), hasty, tmp_path / "cache")
    assert caught.value.exit == 3
    assert not list((tmp_path / "cache").glob("*"))


def test_images_are_asked_for_with_a_token(registry: OciRegistry, web: Web) -> None:
    registry.images.add("proxy/nvidia/driver:1-ubuntu22.04")
    asker = Registry(web, logins_of(registry.docker_config(), "config"))
    names = ("driver:1-ubuntu22.04", "driver:1-debian12", "toolkit:1")
    found = asker.have(parse(f"{registry.host}/proxy/nvidia/{name}") for name in names)
    assert [one.answer for one in found] == ["there", "missing", "missing"]
    assert [one.answer for one in Registry(web).have([parse(f"{registry.host}/a/b:1")])] == [
        "refused"
    ]


def test_who_cannot_be_asked_is_unknown_and_not_missing() -> None:
    stranger = Registry(Web(None, Patience(0.05, first=0.01)))
    with OciRegistry() as other:
        found = stranger.has(parse(f"{other.host}/a/b:1"))
    assert found.answer == "unknown"
    assert "CERTIFICATE_VERIFY_FAILED" in found.why


def test_a_missing_driver_of_the_nodes_system_is_found(
    registry: OciRegistry, helm: Helm, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(registry.docker_config())
    registry.ca_file(tmp_path / "ca.pem")
    file = tmp_path / "c.toml"
    file.write_text(
        f'[operator]\nchart = "{CHART}"\n[registry]\nto = "{registry.host}/proxy"\n'
        'pull-secrets = ["regcred"]\ndocker-config = "config.json"\nca = "ca.pem"\n'
        '[nodes]\nos = "ubuntu22.04"\n'
    )
    wanted = read_declaration(file)
    plan = make_plan(wanted, helm, cluster=None, ask=True)
    asked = {one.reference.text.removeprefix(f"{registry.host}/") for one in plan.proof.asked}
    assert "proxy/nvidia/driver:595.91.07-ubuntu22.04" in asked
    # Switched off, so nobody pulls it.
    assert not any("vgpu-manager" in text for text in asked)
    registry.images |= asked - {"proxy/nvidia/driver:595.91.07-ubuntu22.04"}
    (wrong,) = make_plan(wanted, helm, cluster=None, ask=True).proof.wrong
    assert "driver:595.91.07-ubuntu22.04: the registry does not have it" in wrong
