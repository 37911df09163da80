"""The proxy installer on temporary trees: convergence, rotation, removal, and no secret astray."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import pytest

from installers import units
from installers.config import Config, from_attributes
from installers.engine import Engine, Summary
from installers.exits import Exit
from installers.host import APT_CONF, Host
from installers.journal import read_journal, read_state
from installers.proxy import Proxy

CANARY = "c@n:/%#ary-5f2e"
URL = f"http://bob:{quote(CANARY, safe='')}@10.0.2.100:3128"
BUILD = {"invocation-type": "custom-images"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with what a fresh image has."""
    tree = tmp_path / "node"
    (tree / "etc/apt/apt.conf.d").mkdir(parents=True)
    (tree / "etc/environment").write_text("")
    (tree / "etc/wgetrc").write_text("# wget's own\npassive_ftp = on\n")
    (tree / "etc/pip.conf").write_text("[global]\nproxy = http://other:1\n")
    return tree


def run(root: Path, verb: str = "apply", **attributes: str) -> Summary:
    config = from_attributes({key.replace("_", "-"): value for key, value in attributes.items()})
    summary: Summary = getattr(Engine(Host(root), [Proxy(config)]), verb)()
    return summary


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def settings(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(root).items() if "var/lib/airlock" not in name}


def holding(root: Path) -> list[str]:
    needles = [CANARY, quote(CANARY), quote(CANARY, safe=""), "ary-5f2e"]
    needles += [needle.replace("%", "%%") for needle in needles]
    return [
        name
        for name, data in contents(root).items()
        if any(needle.encode() in data for needle in needles)
    ]


def test_apply_verify_and_apply_again(root: Path) -> None:
    summary = run(root, proxy_uri=URL)
    assert (summary.exit, summary.installers[0].outcome) == (Exit.PASS, "ok")
    assert run(root, "verify", proxy_uri=URL).exit == Exit.PASS
    before = settings(root)
    assert run(root, proxy_uri=URL).installers[0].outcome == "unchanged"
    assert settings(root) == before


def test_image_build_holds_no_credentials_anywhere(root: Path) -> None:
    host = Host(root)
    config = from_attributes({"http-proxy": URL, **BUILD})
    engine = Engine(host, [Proxy(config)])
    for verb in ("plan", "apply", "apply", "verify"):
        shown = json.dumps(getattr(engine, verb)().as_json(host))
        assert "ary-5f2e" not in shown
    assert holding(root) == []
    assert "10.0.2.100:3128" in (root / "etc/environment").read_text()
    assert read_state(host)["installers"]["proxy"]["provenance"]["credential_files"] == []


def test_running_node_lists_every_file_that_holds_a_credential(root: Path) -> None:
    summary = run(root, http_proxy=URL)
    listed = summary.installers[0].provenance["credential_files"]
    assert sorted(name.lstrip("/") for name in listed) == holding(root)
    assert len(listed) == 8
    state = read_state(Host(root))["installers"]["proxy"]["provenance"]
    assert state["credential_files"] == listed
    for private in ("etc/apt/apt.conf.d/99zz-airlock-proxy", "root/.curlrc"):
        assert (root / private).stat().st_mode & 0o777 == 0o600


def test_image_then_boot_then_rotation_then_no_proxy(root: Path) -> None:
    original = settings(root)
    run(root, http_proxy=URL, invocation_type="custom-images")
    assert holding(root) == []
    run(root, http_proxy=URL)
    assert len(holding(root)) == 8
    rotated = run(root, http_proxy="http://bob:another-one@10.0.2.100:3128")
    assert rotated.installers[0].outcome == "ok"
    assert holding(root) == []
    assert run(root).exit == Exit.PASS
    left = settings(root)
    assert {name for name in left if b"10.0.2.100" in left[name]} == set()
    # The unit stays, so that a proxy that comes back is found at the next boot.
    assert left.pop(units.unit_path(units.PROXY).lstrip("/"))
    assert left == original


def test_remove_restores_the_tree(root: Path) -> None:
    original = settings(root)
    run(root, http_proxy=URL, no_proxy=".corp.example")
    assert settings(root) != original
    assert run(root, "remove").exit == Exit.PASS
    assert settings(root) == original
    assert not (root / "etc/systemd/system/multi-user.target.wants" / units.PROXY).is_symlink()


def test_foreign_values_are_overruled_by_value(root: Path) -> None:
    (root / "etc/environment").write_text('http_proxy="http://baked-in:1"\nLANG=C\n')
    run(root, proxy_uri="h:1")
    text = (root / "etc/environment").read_text()
    assert text.startswith('http_proxy="http://baked-in:1"\nLANG=C\n')
    with (root / "etc/environment").open("a") as stream:
        stream.write("http_proxy=http://appended-later:1\n")
    assert run(root, "verify", proxy_uri="h:1").exit == Exit.FAIL
    assert run(root, proxy_uri="h:1").installers[0].outcome == "ok"
    run(root)
    assert (root / "etc/environment").read_text() == (
        'http_proxy="http://baked-in:1"\nLANG=C\nhttp_proxy=http://appended-later:1\n'
    )


def test_plan_names_foreign_proxies_and_what_a_build_leaves_out(root: Path) -> None:
    (root / "etc/environment").write_text("http_proxy=http://baked-in:1\n")
    notes = run(root, "plan").contract.notes
    assert any("/etc/environment sets a proxy that is not ours" in note for note in notes)
    notes = run(
        root, "plan", http_proxy=URL, no_proxy="10.0.0.0/8", invocation_type="custom-images"
    ).contract.notes
    assert any("10.0.0.0/8" in note for note in notes)
    assert any("no credentials" in note for note in notes)
    notes = run(root, "plan", http_proxy=URL).contract.notes
    assert any("will hold credentials: /etc/environment" in note for note in notes)


def test_session_gives_credentials_to_children_and_takes_them_away(root: Path) -> None:
    host = Host(root)
    config = from_attributes({"http-proxy": URL, **BUILD})
    with Proxy(config).session(host):
        assert host.env["https_proxy"] == URL
        path = root / APT_CONF.lstrip("/")
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert f'Acquire::http::Proxy "{URL}";' in path.read_text()
        assert host.redact(f"x {CANARY} y") == "x *** y"
    assert not path.exists()


def test_journal_tells_when_the_proxy_step_ended(root: Path) -> None:
    run(root, proxy_uri="h:1")
    steps = [(line["step"], line["event"]) for line in read_journal(Host(root))]
    assert steps[0] == ("apply", "begin")
    assert steps[-1] == ("apply", "end")
    times = [line["t"] for line in read_journal(Host(root))]
    assert times == sorted(times)


def test_wgetrc_is_left_to_its_package(root: Path) -> None:
    (root / "etc/wgetrc").unlink()
    run(root, proxy_uri="h:1")
    assert not (root / "etc/wgetrc").exists()


def test_unit_is_enabled_by_its_link(root: Path) -> None:
    run(root, proxy_uri="h:1")
    assert units.inspect(Host(root), units.PROXY, units.PROXY_TEXT) == "enabled"
    link = root / "etc/systemd/system/multi-user.target.wants" / units.PROXY
    link.unlink()
    assert units.inspect(Host(root), units.PROXY, units.PROXY_TEXT) == "disabled"
    assert run(root, proxy_uri="h:1").installers[0].outcome == "ok"
    assert link.is_symlink()


def test_absent_metadata_leaves_a_fresh_tree_alone(root: Path) -> None:
    original = settings(root)
    assert Engine(Host(root), [Proxy(Config())]).plan().installers[0].changes[0].key == "unit"
    run(root)
    left = settings(root)
    assert left.pop(units.unit_path(units.PROXY).lstrip("/"))
    assert left == original
