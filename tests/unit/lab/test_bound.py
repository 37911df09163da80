"""The digest of a built disk: made when it is asked for, once, and told by the report."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from harness.compose import _provenance
from harness.lab import provenance
from harness.lab.build import Built
from harness.providers.base import Job, Options

PLAIN = {"kernel": "6.1", "built": "2026-11-22T00:00:00+00:00", "provenance": {}}


def a_job(*, bind: bool) -> Job:
    phases = []

    @contextlib.contextmanager
    def phase(name: str, _: str) -> Iterator[None]:
        phases.append(name)
        yield

    return cast(Job, SimpleNamespace(options=Options(bind=bind), phase=phase, phases=phases))


def told(built: Built) -> Any:
    """What the report says of it."""
    base = SimpleNamespace(cached=True, digest="ab", built=PLAIN["built"])
    keys = SimpleNamespace(module=SimpleNamespace(sha256=""), proxy=SimpleNamespace(sha256=""))
    said = provenance.of_build(
        cast(Any, base), built, cast(Any, SimpleNamespace(sha256="")), cast(Any, keys)
    )
    return _provenance(said).subject


def test_the_disk_is_hashed_once_and_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "root.img").write_bytes(b"disk")
    (tmp_path / "manifest.json").write_text(json.dumps(PLAIN))
    built = Built(tmp_path, PLAIN, cached=True)
    idle, asked, again = a_job(bind=False), a_job(bind=True), a_job(bind=True)
    assert provenance.bound(idle, built) is built
    assert told(built) is None
    found = provenance.bound(asked, built)
    digest = hashlib.sha256(b"disk").hexdigest()
    assert told(found).disk_sha256 == digest
    kept = json.loads((tmp_path / "manifest.json").read_text())
    assert kept == {**PLAIN, "disk_sha256": digest}
    reread = Built(tmp_path, kept, cached=True)
    assert provenance.bound(again, reread) is reread
    assert [cast(Any, job).phases for job in (idle, asked, again)] == [[], ["digest"], []]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["manifest.json", "root.img"]
