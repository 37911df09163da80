"""The values that a chart needs to be told, built from the chart's own."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from harness.errors import UsageError
from harness.k8s.chart import Chart, over
from harness.k8s.declaration import Declaration
from harness.k8s.drivers import driver_values
from harness.k8s.references import DEFAULT_REGISTRY, parse_loose, split_registry
from harness.k8s.yamltext import load

Values = dict[str, Any]


@dataclass
class Made:
    """``values`` for Helm; ``objects`` that must be there beside the release; ``notes`` for people.

    Objects hold secrets: they are never printed.
    """

    values: Values
    objects: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def make_values(chart: Chart, wanted: Declaration, service_ip: str = "") -> Made:
    """Everything that the declaration asks of this chart. UsageError with the reason to refuse."""
    made = Made({})
    if wanted.registry.to or wanted.registry.map:
        _needs_registry(wanted)
        made.values = _rewritten(chart.values, wanted)
    names = list(wanted.registry.pull_secrets)
    if names:
        made.values = over(made.values, _pull_secrets(chart.values, names))
    if wanted.registry.docker_config:
        made.objects.append(_pull_secret(wanted))
    driver_values(chart, wanted, service_ip, made)
    for name in wanted.operator.values:
        text = wanted.text(name, "operator.values")
        made.values = over(made.values, load(text, str(wanted.path.parent / name)))
    return made


def _needs_registry(wanted: Declaration) -> None:
    for key, value in {"to": wanted.registry.to, **wanted.registry.map}.items():
        host, _ = split_registry(value if "/" in value else f"{value}/x") if value else ("x", "")
        if not host or value.startswith(("http://", "https://")) or value.endswith("/"):
            raise UsageError(
                f"{wanted.path}: [registry] {key} = {value!r}: is not HOST[:PORT][/PATH]",
                hint='as in "registry.corp.example/proxy", without a scheme and a slash at the end',
            )


def moved(repository: str, wanted: Declaration) -> str:
    """Where a repository is found behind our registry: the path below its own is kept."""
    registry, path = split_registry(repository)
    target = wanted.registry.map.get(registry or DEFAULT_REGISTRY, wanted.registry.to)
    if not target or _is_ours(repository, wanted):
        return repository
    return f"{target}/{path}" if path else target


def _is_ours(text: str, wanted: Declaration) -> bool:
    places = [place for place in (wanted.registry.to, *wanted.registry.map.values()) if place]
    return any(text == place or text.startswith(f"{place}/") for place in places)


def _rewritten(values: Values, wanted: Declaration) -> Values:
    """Every ``repository`` and every whole reference of the chart's values, on our registry."""
    result: Values = {}
    for key, value in values.items():
        changed = _changed(values, key, value, wanted)
        if changed is not None:
            result[key] = changed
    return result


def _changed(values: Values, key: str, value: Any, wanted: Declaration) -> Any:
    """What a value must be instead; None if it may stay."""
    if isinstance(value, dict):
        return _rewritten(value, wanted) or None
    if isinstance(value, list):
        # Helm replaces a list as a whole.
        items = [
            over(one, _rewritten(one, wanted))
            if isinstance(one, dict)
            else _changed({}, "", one, wanted) or one
            for one in value
        ]
        return items if items != value else None
    if not isinstance(value, str):
        return None
    if key == "repository" and isinstance(values.get("registry"), str):
        return None  # its registry is named beside it
    if key == "registry" and isinstance(values.get("repository"), str):
        return moved(value, wanted) if value else wanted.registry.to or None
    if key == "repository":
        fresh = moved(value, wanted) if value else wanted.registry.to
        return fresh if fresh != value else None
    if parse_loose(value) and not _is_ours(value, wanted):
        return moved(value, wanted)
    return None


def _pull_secrets(values: Values, names: list[str]) -> Values:
    """Every ``imagePullSecrets`` of the chart: names, and below a sub-chart that wants them, maps.

    The operator's own parts take names; charts that hand the list to a pod as it is take
    ``{name: ...}``. Which it is shows in the chart's default, and where that is empty in whether
    there are ``repository`` and ``image`` side by side (a part of the operator's).
    """
    result: Values = {}
    for key, value in values.items():
        if key == "imagePullSecrets" and isinstance(value, list):
            result[key] = names if _takes_names(values) else [{"name": name} for name in names]
        elif isinstance(value, dict) and (inner := _pull_secrets(value, names)):
            result[key] = inner
    return result


def _takes_names(values: Values) -> bool:
    given = values["imagePullSecrets"]
    if given:
        return isinstance(given[0], str)
    return isinstance(values.get("image"), str) and "repository" in values


def _pull_secret(wanted: Declaration) -> dict[str, Any]:
    names = wanted.registry.pull_secrets
    if len(names) != 1:
        raise UsageError(
            f"{wanted.path}: [registry] docker-config makes one pull secret; "
            f"pull-secrets names {len(names)}",
            hint='say pull-secrets = ["regcred"]',
        )
    text = read_logins(wanted)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": names[0], "namespace": wanted.operator.namespace},
        "data": {".dockerconfigjson": base64.b64encode(text.encode()).decode()},
    }


def read_logins(wanted: Declaration) -> str:
    """The text of ``docker-config``, seen to have logins of its own."""
    name = wanted.registry.docker_config
    text = wanted.text(name, "registry.docker-config")
    try:
        found = json.loads(text)
        logins = found["auths"]
        whole = all(one.get("auth") or one.get("username") for one in logins.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{wanted.path}: {name}: is no Docker config.json with auths") from error
    if not logins or not whole:
        raise UsageError(
            f"{wanted.path}: {name}: has no logins of its own (a credential helper keeps them)",
            hint="write auths with auth or username and password: nodes have no helper",
        )
    return text


def leaves(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every value that is no map."""
    if isinstance(values, dict) and values:
        for key, inner in values.items():
            yield from leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, values
