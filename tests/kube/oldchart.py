"""A copy of a chart that the lab's Kubernetes (1.20) takes. What is left out is said here.

* ``kubeVersion``: the sub-chart asks for 1.24. That Airlock refuses it on this server is a test of
  its own; what is tried on the copy (server-side apply, hooks, owners, placement) is as old as
  1.16.
* ``x-kubernetes-validations``: rules in CEL, which servers know since 1.23; 1.20 refuses a
  definition that has them ("field not declared in schema").
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import yaml


def old_copy(chart: Path, to: Path) -> Path:
    """Copy a chart's directory to ``to``, without what 1.20 does not take; returns ``to``."""
    shutil.copytree(chart, to)
    for file in to.rglob("Chart.yaml"):
        file.write_text(re.sub(r"(?m)^kubeVersion:.*\n", "", file.read_text()))
    for file in to.rglob("crds/*.yaml"):
        items = [_without_rules(item) for item in yaml.safe_load_all(file.read_text())]
        file.write_text(yaml.safe_dump_all(items))
    return to


def _without_rules(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k != "x-kubernetes-validations"}
        return {key: _without_rules(inner) for key, inner in kept.items()}
    return [_without_rules(inner) for inner in value] if isinstance(value, list) else value
