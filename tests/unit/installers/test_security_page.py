"""Every claim of docs/security.md names a test that is there; so do those of the cache."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.unit.nodeids import exists

REPOSITORY = Path(__file__).parents[3]
PAGE = (REPOSITORY / "docs/security.md").read_text()
NAMED = re.findall(r"`((?:unit|lab)/\S+?\.py(?:::\w+)?)`", PAGE)


def claims() -> list[str]:
    """Rows of the tables whose last column is called test."""
    found: list[str] = []
    inside = False
    for line in PAGE.splitlines():
        inside = line.startswith("|") and (inside or line.endswith("| test |"))
        if inside and not line.startswith("|---") and not line.endswith("| test |"):
            found.append(line)
    return found


@pytest.mark.parametrize("node_id", NAMED)
def test_the_named_test_is_there(node_id: str) -> None:
    assert exists(REPOSITORY / "tests", node_id)


def test_every_claim_names_a_test() -> None:
    assert len(claims()) > 35
    assert not [line for line in claims() if not re.search(r"`(unit|lab)/\S+\.py\S*` \|$", line)]


def test_what_is_not_there_is_not_found() -> None:
    file = "unit/installers/test_security_page.py"
    assert exists(REPOSITORY / "tests", f"{file}::test_the_named_test_is_there")
    assert not exists(REPOSITORY / "tests", f"{file}::test_nothing_of_this_name")
    assert not exists(REPOSITORY / "tests", "unit/installers/test_absent.py")


def test_the_caches_guarantees_name_tests_too() -> None:
    text = (REPOSITORY / "docs/cache.md").read_text()
    named = re.findall(r"`(test_\w+\.py::\w+)`", text)
    assert len(named) > 10
    folder = REPOSITORY / "tests/unit/installers_cache"
    assert not [one for one in named if not exists(folder, one)]
