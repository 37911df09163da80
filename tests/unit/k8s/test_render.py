"""Values, rendering and its proof, on our own chart with real Helm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.k8s.chart import over, read_chart
from harness.k8s.declaration import Declaration
from harness.k8s.helm import Helm
from harness.k8s.inventory import inventory
from harness.k8s.objectnames import breaches, release_name
from harness.k8s.plan import Plan, files, make_plan
from harness.k8s.values import leaves, make_values
from tests.unit.k8s.conftest import CHART

Declare = Callable[..., Declaration]
TO = '[registry]\nto = "registry.corp.example/proxy"\npull-secrets = ["regcred"]\n'


def planned(wanted: Declaration, helm: Helm) -> Plan:
    return make_plan(wanted, helm, cluster=None, ask=False)


def test_the_chart_has_the_shape_of_the_vendors(helm: Helm) -> None:
    found = inventory(helm.render(CHART, {}, "gpu-operator", "gpu-operator"))
    assert Counter(one.form for one in found) == {"parts": 20, "pod": 7, "text": 2}
    assert Counter(one.reference.registry for one in found) == {
        "nvcr.io": 24,
        "registry.k8s.io": 4,
        "": 1,
    }
    keys = [path for path, _ in leaves(read_chart(CHART).values) if path.endswith("repository")]
    assert len(keys) == 23


def test_every_image_comes_from_the_registry(helm: Helm, declared: Declare) -> None:
    plan = planned(declared(TO), helm)
    assert len(plan.proof.images) == 29
    assert plan.proof.wrong == []
    texts = {one.reference.text for one in plan.proof.images}
    assert "registry.corp.example/proxy/nfd/node-feature-discovery:v0.19.0" in texts
    assert "registry.corp.example/proxy/nvidia/cloud-native/k8s-driver-manager:v0.12.0" in texts


def test_one_override_is_not_enough_and_each_hole_is_named(helm: Helm, declared: Declare) -> None:
    plan = planned(declared(TO), helm)
    from harness.k8s.proof import prove

    values = {"operator": {"repository": "registry.corp.example/proxy/nvidia"}}
    rendered = helm.render(CHART, values, "gpu-operator", "gpu-operator")
    wrong = prove(rendered, plan.chart, plan.wanted).wrong
    outside = [line for line in wrong if "is not below" in line]
    assert len(outside) == 26
    assert any("DaemonSet" in line and "containers[worker].image" in line for line in outside)
    assert any("env[VALIDATOR_IMAGE].value" in line for line in outside)
    assert any(".spec.driver.manager" in line for line in outside)


def test_a_registry_of_its_own_for_each_upstream(helm: Helm, declared: Declare) -> None:
    more = TO + 'map = {"registry.k8s.io" = "registry.corp.example/k8s"}\n'
    texts = {one.reference.text for one in planned(declared(more), helm).proof.images}
    assert "registry.corp.example/k8s/nfd/node-feature-discovery:v0.19.0" in texts


def test_pull_secrets_reach_every_pod_and_part(helm: Helm, declared: Declare) -> None:
    wanted = declared(TO)
    made = make_values(read_chart(CHART), wanted)
    assert made.values["driver"]["imagePullSecrets"] == ["regcred"]
    assert made.values["node-feature-discovery"]["imagePullSecrets"] == [{"name": "regcred"}]
    values = over(made.values, {"gfd": {"imagePullSecrets": []}})
    rendered = helm.render(CHART, values, "gpu-operator", "gpu-operator")
    from harness.k8s.proof import prove

    wrong = prove(rendered, read_chart(CHART), wanted).wrong
    assert wrong == ["ClusterPolicy/cluster-policy at .spec.gfd: lacks the pull secret regcred"]


def test_rendering_twice_gives_the_same_bytes(helm: Helm, declared: Declare) -> None:
    wanted = declared(TO)
    assert files(planned(wanted, helm)) == files(planned(wanted, helm))


def test_names_are_short_and_the_same_on_every_run() -> None:
    assert release_name("gpu-operator") == "gpu-operator"
    long = "MyCompany-Prod-EKS-Cluster-HelmChart-GpuOperator-7F2A"
    assert (
        release_name(long)
        == release_name(long)
        == "mycompany-prod-eks-cl-" + (release_name(long)[-6:])
    )
    assert len(release_name(long)) <= 28
    assert release_name(long) != release_name(long + "B")
    with pytest.raises(UsageError, match="no name can be made"):
        release_name("///")


def test_a_name_that_breaks_at_uninstall_is_told_before(helm: Helm) -> None:
    # The API server takes all of it but the Job, and Helm makes that Job last of all.
    for length, count in ((28, 0), (34, 0), (35, 1), (53, 1)):
        found = breaches(helm.render(CHART, {}, "a" * length, "gpu-operator"))
        assert [one.object.partition("/")[0] for one in found] == ["Job"] * count, length


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("[nodes]\nsecure-boot = true\n", "nobody signed"),
        ('[nodes]\nos = "rhel9"\n[network]\nca = "ca.pem"\n', "certConfig does not work on rhel9"),
        ('[network]\nca = "ca.pem"\n', r"needs \[nodes\] os"),
        ('[nodes]\nos = "plan9"\n[network]\nca = "ca.pem"\n', "no driver image is made"),
        ('[network]\nproxy = "http://p:3128"\nno-proxy = [".svc"]\n', "service kubernetes"),
        ('[network]\nproxy = "http://u:pw@p:3128"\n', "has a login in it"),
        ('[registry]\nto = "https://r.example/x"\n', "is not HOST"),
        ('[registry]\nto = "r.example/x"\ndocker-config = "absent"\n', "pull-secrets names 0"),
        ("[registry]\nto = 5\n", "must be a text"),
        ('[registry]\npull-secret = ["a"]\n', "unknown key 'pull-secret'"),
    ],
)
def test_what_does_not_work_is_refused_with_the_reason(
    helm: Helm, declared: Declare, tmp_path: Path, more: str, says: str
) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(UsageError, match=says):
        planned(declared(more), helm)


def test_the_init_container_gets_the_proxy_too(helm: Helm, declared: Declare) -> None:
    more = '[network]\nproxy = "http://p:3128"\nno-proxy = ["10.96.0.0/12"]\n'
    plan = planned(declared(more), helm)
    driver = next(one for one in plan.rendered if one["kind"] == "ClusterPolicy")["spec"]["driver"]
    names = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"}
    assert {one["name"] for one in driver["env"]} == names
    assert driver["manager"]["env"] == driver["env"]


def test_a_signed_driver_of_the_node_takes_the_containers_place(
    helm: Helm, declared: Declare
) -> None:
    plan = planned(declared("[nodes]\nsecure-boot = true\nhost-driver = true\n"), helm)
    policy = next(one for one in plan.rendered if one["kind"] == "ClusterPolicy")
    assert policy["spec"]["driver"]["enabled"] is False


def test_ca_and_sources_become_config_maps(helm: Helm, declared: Declare, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "corp.list").write_text("deb [trusted=no] https://mirror.corp.example x main\n")
    more = '[nodes]\nos = "ubuntu22.04"\n[network]\nca = "ca.pem"\n'
    plan = planned(declared(more + 'package-repositories = "corp.list"\n'), helm)
    assert [one["metadata"]["name"] for one in plan.made.objects] == [
        "airlock-driver-ca",
        "airlock-driver-repositories",
    ]
    assert plan.made.values["driver"]["repoConfig"] == {
        "configMapName": "airlock-driver-repositories"
    }


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("Chart.yaml", "a: [", "Chart.yaml: is not YAML"),
        ("Chart.yaml", "name: x\n", "version is missing"),
        ("values.yaml", "- 1\n", "is not one mapping"),
        ("templates/x.yaml", "{{ .Values.a.b.c }}", "nil pointer"),
        ("templates/x.yaml", "{{ if }}", "missing value for if"),
        ("templates/x.yaml", "a: b\n", "not a Kubernetes object"),
        ("templates/x.yaml", "kind: 'x\n", "is not YAML"),
    ],
)
def test_a_chart_that_cannot_be_read_is_one_clear_error(
    helm: Helm, declared: Declare, tmp_path: Path, file: str, text: str, says: str
) -> None:
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("apiVersion: v2\nname: x\nversion: 1.0.0\n")
    (chart / file).write_text(text)
    wanted = declared()
    wanted = replace(wanted, operator=replace(wanted.operator, chart=str(chart)))
    with pytest.raises(UsageError, match=says) as caught:
        planned(wanted, helm)
    assert caught.value.exit == 2


@pytest.mark.parametrize(
    "values", ["driver: true\n", "node-feature-discovery: {fullnameOverride: 3}\n", "a: [\n"]
)
def test_values_of_the_wrong_type_are_one_clear_error(
    helm: Helm, declared: Declare, tmp_path: Path, values: str
) -> None:
    (tmp_path / "ours.yaml").write_text(values)
    wanted = declared(head='values = ["ours.yaml"]')
    with pytest.raises(UsageError):
        planned(wanted, helm)
