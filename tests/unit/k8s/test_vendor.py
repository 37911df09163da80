"""The vendor's chart, where a user or CI supplies its path; it is never committed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.k8s.declaration import read_declaration
from harness.k8s.helm import Helm
from harness.k8s.plan import make_plan

CHART = os.environ.get("AIRLOCK_OPERATOR_CHART", "")


@pytest.mark.skipif(not CHART, reason="AIRLOCK_OPERATOR_CHART is not set")
def test_every_image_of_the_vendors_chart_comes_from_the_registry(
    helm: Helm, tmp_path: Path
) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text(
        f'[operator]\nchart = "{Path(CHART).resolve()}"\n[registry]\n'
        'to = "registry.corp.example/proxy"\npull-secrets = ["regcred"]\n'
    )
    plan = make_plan(read_declaration(file), helm, cluster=None, ask=False)
    assert len(plan.proof.images) >= 20
    assert plan.proof.wrong == []
