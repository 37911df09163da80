"""Time-slicing: one declaration, what is made of it, and configurations that others wrote."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.k8s import pluginrules
from harness.k8s.slicing import NODE_LABEL, Slicing, read_slicing

DECLARED = """
[slicing]
default = "four"

[[slicing.group]]
name = "four"
replicas = 4

[[slicing.group]]
name = "training"
resources = ["gpu", "mig-1g.10gb"]
replicas = 2
rename = true
fail-requests-greater-than-one = false
nodes = { pool = "training" }
"""
GOOD = """\
version: v1
flags:
  migStrategy: none
sharing:
  timeSlicing:
    renameByDefault: false
    failRequestsGreaterThanOne: true
    resources:
    - name: nvidia.com/gpu
      replicas: 4
"""


def declared(text: str = DECLARED) -> Slicing:
    return read_slicing(Path("cluster.toml"), text, tomllib.loads(text)["slicing"])


def said(text: str) -> list[str]:
    return [f"{p.severity} {p.line} {p.where}" for p in pluginrules.configuration(text, "any")]


def test_what_is_rendered_is_what_the_plugin_reads() -> None:
    made = declared().config_map("gpu-operator")
    assert made["metadata"] == {"name": "airlock-time-slicing", "namespace": "gpu-operator"}
    assert pluginrules.config_map(made, "gpu-operator", "ConfigMap") == []
    training = yaml.safe_load(made["data"]["training"])["sharing"]["timeSlicing"]
    assert training == {
        "renameByDefault": True,
        "failRequestsGreaterThanOne": False,
        "resources": [
            {"name": "nvidia.com/gpu", "replicas": 2},
            {"name": "nvidia.com/mig-1g.10gb", "replicas": 2},
        ],
    }
    assert made == declared().config_map("gpu-operator")
    assert declared().policy() == {"name": "airlock-time-slicing", "default": "four"}


def test_groups_labels_and_numbers() -> None:
    slicing = declared()
    assert slicing.node_labels({"pool": "training"}) == {NODE_LABEL: "training"}
    assert slicing.node_labels({"pool": "other"}) == {}
    four, training = slicing.groups
    assert slicing.group_of({}) is four
    assert four.advertised({"nvidia.com/gpu": 8}) == {"nvidia.com/gpu": 32}
    assert training.advertised({"nvidia.com/gpu": 8, "nvidia.com/mig-1g.10gb": 7}) == {
        "nvidia.com/gpu": 0,
        "nvidia.com/gpu.shared": 16,
        "nvidia.com/mig-1g.10gb": 0,
        "nvidia.com/mig-1g.10gb.shared": 14,
    }
    labels = four.labels(8, "NVIDIA-A10G")
    assert labels["nvidia.com/gpu.count"] == "8"  # of cards, not of slices
    assert labels["nvidia.com/gpu.replicas"] == "4"
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-A10G-SHARED"
    assert training.labels(8, "NVIDIA-A10G-SHARED")["nvidia.com/gpu.product"] == "NVIDIA-A10G"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("replicas = 4", "replicas = 1", "replicas = 1"),
        ("replicas = 4", "replicas = true", "replicas = True"),
        ("replicas = 4", "", "replicas = None"),
        ("replicas = 4", "replica = 4", "cluster.toml:7: unknown key 'replica'"),
        ("replicas = 2", "replica = 2", "cluster.toml:12: unknown key 'replica'"),
        ("replicas = 4", "replica = 4", "did you mean 'replicas'?"),
        ("default =", "defualt =", "cluster.toml:3: unknown key 'defualt'"),
        ('default = "four"', 'default = "fuor"', "is no group"),
        ('name = "training"', 'name = "four"', "two groups are called four"),
        ('name = "training"', 'name = "a b"', "cannot be a label"),
        ('"gpu", ', '"tpu", ', "cannot be sliced"),
        ('"gpu", ', '"amd.com/gpu", ', "is no name of a resource"),
        ("rename = true", 'rename = "yes"', "rename = 'yes'"),
        ('nodes = { pool = "training" }', "", "has no nodes"),
        ('nodes = { pool = "training" }', "nodes = 3", "nodes = 3"),
    ],
)
def test_bad_declarations(old: str, new: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        declared(DECLARED.replace(old, new, 1))
    assert said in f"{error.value.message} {error.value.hint}"
    assert "cluster.toml" in error.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slicing = 5\n", "cluster.toml:1: slicing is not a table"),
        ("[slicing]\ngroup = [5]\n", "cluster.toml:2: group = 5"),
    ],
)
def test_what_is_no_table(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        declared(text)


def test_a_declaration_without_groups() -> None:
    with pytest.raises(UsageError, match="no \\[\\[slicing"):
        declared("[slicing]\n")


def test_a_good_configuration_has_no_problem() -> None:
    assert said(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "expected", "words"),
    [
        # Issue 1433: below flags it is dropped without a word.
        (
            "  migStrategy: none",
            "  renameByDefault: true",
            "error 3 any.flags.renameByDefault",
            "sharing.timeSlicing.renameByDefault",
        ),
        ("  timeSlicing:", "  time-slicing:", "error 5 any.sharing.time-slicing", "timeSlicing"),
        ("sharing:", "Sharing:", "error 4 any.Sharing", "write sharing"),
        ("version: v1", "version: v2", "error 1 any.version", "one of: v1"),
        ("version: v1", "version: 1", "error 1 any.version", "one of: v1"),
        ("migStrategy: none", "migStrategy: both", "error 3 any.flags.migStrategy", "mixed"),
        (
            "replicas: 4",
            "replicas: 1",
            "error 9 any.sharing.timeSlicing.resources[0].replicas",
            "from 2",
        ),
        (
            "replicas: 4",
            "replicas: '4'",
            "error 9 any.sharing.timeSlicing.resources[0].replicas",
            "from 2",
        ),
        (
            "replicas: 4",
            "replica: 4",
            "error 10 any.sharing.timeSlicing.resources[0].replica",
            "replicas",
        ),
        (
            "name: nvidia.com/gpu",
            "name: amd.com/gpu",
            "error 9 any.sharing.timeSlicing.resources[0].name",
            "gpu",
        ),
        (
            "name: nvidia.com/gpu",
            f"name: nvidia.com/mig-1g.{'1' * 60}gb",
            "error 9 any.sharing.timeSlicing.resources[0].name",
            "mig",
        ),
        (
            "renameByDefault: false",
            "renamebydefault: false",
            "error 6 any.sharing.timeSlicing.renamebydefault",
            "write renameByDefault",
        ),
        (
            "renameByDefault: false",
            "renameByDefault: 'false'",
            "error 6 any.sharing.timeSlicing.renameByDefault",
            "true or false",
        ),
        (
            "    failRequestsGreaterThanOne: true\n",
            "",
            "warning 5 any.sharing.timeSlicing.failRequestsGreaterThanOne",
            "true",
        ),
        (
            "      replicas: 4",
            "      replicas: 4\n      rename: x",
            "warning 9 any.sharing.timeSlicing.resources[0].rename",
            "renameByDefault",
        ),
        (
            "      replicas: 4",
            "      replicas: 4\n      devices: [0]",
            "warning 9 any.sharing.timeSlicing.resources[0].devices",
            "take it out",
        ),
        (
            "      replicas: 4",
            "      replicas: 4\n      devices: some",
            "error 9 any.sharing.timeSlicing.resources[0].devices",
            "all",
        ),
        (
            "  timeSlicing:",
            "  mps: {resources: [{name: gpu, replicas: 2}]}\n  timeSlicing:",
            "error 6 any.sharing",
            "keep one",
        ),
        ("version: v1", "version: v1\nversion: v1", "error 2 any.version", "last one"),
        (
            "version: v1",
            "version: v1\nresources: {gpus: []}",
            "warning 2 any.resources",
            "take it out",
        ),
        ("version: v1", "version: v1: 2", "error 1 any", "does not start"),
    ],
)
def test_what_the_plugin_ignores_or_refuses_is_named_with_its_line(
    old: str, new: str, expected: str, words: str
) -> None:
    text = GOOD.replace(old, new, 1)
    found = pluginrules.configuration(text, "any")
    problem = next(p for p in found if f"{p.severity} {p.line} {p.where}" == expected)
    assert words in str(problem)


def test_resources_that_are_missing() -> None:
    assert said("version: v1\nsharing:\n  timeSlicing: {}\n") == [
        "error 3 any.sharing.timeSlicing.resources"
    ]
    assert said("[]") == ["error 0 any"]
    assert said("") == ["error 0 any"]


def test_the_map_itself() -> None:
    item: dict[str, Any] = {"metadata": {"namespace": "default"}, "data": {"a b": GOOD, "c": 3}}
    where = [p.where for p in pluginrules.config_map(item, "gpu-operator", "CM")]
    assert where == ["CM.metadata.namespace", "CM.data.a b", "CM.data.c"]
    assert [p.where for p in pluginrules.config_map({}, "gpu-operator", "CM")] == ["CM.data"]


def test_names_that_must_meet() -> None:
    maps = {"slices": {"data": {"four": GOOD}}}

    def policy(**config: str) -> dict[str, Any]:
        return {"spec": {"devicePlugin": {"config": config}}}

    def where(found: list[pluginrules.Problem]) -> list[tuple[str, str]]:
        return [(p.severity, p.where.rpartition(".")[2]) for p in found]

    bare: dict[str, dict[str, str]] = {"n1": {}}
    good = policy(name="slices", default="four")
    assert pluginrules.references(good, maps, bare) == []
    assert where(pluginrules.references(None, maps, bare)) == [("error", "name")]
    assert where(pluginrules.references(policy(name="slice"), maps, bare)) == [("error", "name")]
    missing = policy(name="slices")
    assert where(pluginrules.references(missing, maps, bare)) == [("error", "default")]
    labelled = {"n1": {NODE_LABEL: "four"}}
    assert where(pluginrules.references(missing, maps, labelled)) == [("warning", "default")]
    assert where(pluginrules.references(policy(name="slices", default="for"), maps, bare)) == [
        ("error", "default")
    ]
    wrong = {"n1": {NODE_LABEL: "five"}}
    assert "Node n1" in str(pluginrules.references(good, maps, wrong)[0])


@given(
    st.text(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "version",
                        "flags",
                        "sharing",
                        "timeSlicing",
                        "mps",
                        "resources",
                        "name",
                        "replicas",
                        "devices",
                        "plugin",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    ).map(yaml.safe_dump)
)
def test_no_configuration_breaks_the_rules(text: str) -> None:
    for problem in pluginrules.configuration(text, "any"):
        assert problem.where.startswith("any")
        assert str(problem)
