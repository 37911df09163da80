"""Every row of the table: planned, taken over once, given back; and left where it is not sure."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from installers import registry
from installers.adopt import kept
from installers.adopt.installer import Adopt
from installers.adopt.rows import FATES, ROWS, Row, table
from installers.config import from_attributes
from installers.engine import Engine, Summary
from installers.exits import Exit
from installers.host import Host
from installers.journal import JOURNAL, STATE
from installers.seal import Seal
from tests.unit.installers_adopt.left import (
    DISCOVERY,
    KEY,
    LEFT,
    RAPIDS,
    SECRET,
    SIX,
    STAMP,
    Link,
    put,
    source,
)
from tests.unit.installers_keyrings.conftest import Keys, keys, smith

__all__ = ["keys", "smith"]

#: Rows that a program of the node is asked for; their tests are in test_real.py.
ASKED = ("ca-java", "holds", "dpkg")
HERE = [row for row in ROWS if row.id not in ASKED]
#: What tells of the scripts lies beside these two by itself.
BESIDE = ("ca-conda", "key-certificate")
DOUBTFUL = [row for row in HERE if not (row.sure or row.alone or row.id in BESIDE)]
PARTS = [row for row in HERE if row.part]
PAGE = Path(__file__).parents[3] / "docs/migration.md"


def adopt(root: Path, *parts: str, offline: bool = False, **attributes: str) -> Engine:
    """The installer as a run of these parts has it, of all of them where none is named."""
    one = Adopt(from_attributes({k.replace("_", "-"): v for k, v in attributes.items()}))
    one.beside = parts or tuple(registry.ORDER)
    return Engine(Host(root, offline=offline), [one])


def tree(root: Path) -> dict[str, str]:
    """Every file, link and directory with mode and content, but for what Airlock remembers."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = f"/{path.relative_to(root)}"
        if name in (JOURNAL, STATE) or name in ("/var", "/var/lib", "/var/lib/airlock"):
            continue
        mode = f"{path.lstat().st_mode:o}"
        if path.is_symlink():
            found[name] = f"link {path.readlink()}"
        elif path.is_dir():
            found[name] = mode
        else:
            found[name] = mode + path.read_bytes().decode("latin-1")
    return found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    put(root, {"/etc/os-release": "ID=debian\nVERSION_ID=12\n", "/var/lib/airlock/x": ""})
    (root / "var/lib/airlock/x").unlink()
    return root


def things(row: Row, keys: Keys) -> dict[str, Any]:
    """What the scripts leave of a row, with a trace of themselves where the row needs one."""
    if row.id == "source-with-key":
        ring = {"/usr/share/keyrings/docker-keyring.gpg": keys.file(keys.good)}
        left = {**source("docker", "/usr/share/keyrings/docker-keyring.gpg"), **ring}
    else:
        left = LEFT[row.id]
    return left if row.sure or row.alone else {**STAMP, **left}


def said(summary: Summary, root: Path) -> str:
    """Everything that the run says and writes down."""
    written = [(root / path.lstrip("/")) for path in (JOURNAL, STATE)]
    texts = [path.read_text() for path in written if path.exists()]
    return json.dumps(summary.as_json(Host(root))) + "".join(texts)


@pytest.mark.parametrize("row", HERE, ids=[row.id for row in HERE])
def test_a_row_is_planned_taken_once_and_given_back(row: Row, root: Path, keys: Keys) -> None:
    put(root, things(row, keys))
    before = tree(root)
    planned = adopt(root, offline=True).plan()
    assert tree(root) == before
    paths = [path for path in things(row, keys) if path not in STAMP or row.id == "stamps"]
    [outcome] = planned.installers
    notes = [n for n in planned.contract.notes if f"({row.what})" in n]
    assert notes, planned.contract.notes
    assert all((row.remedy or FATES[row.fate]) in note for note in notes)
    keys_of_row = [c.key for c in outcome.changes if c.key.startswith(f"{row.id}:")]
    assert bool(keys_of_row) == (row.fate != "left")

    first = adopt(root).apply()
    assert first.exit == Exit.PASS, first.installers[0].problems
    after = tree(root)
    taken = {p for p in before if before[p] != after.get(p)}
    concerned = [p for p in taken if any(p.startswith(path) for path in (*row.paths, *paths))]
    assert bool(concerned) == (row.fate != "left")
    if row.fate != "left":
        assert not [n for n in adopt(root).plan().contract.notes if f"({row.what})" in n]
    assert adopt(root).apply().installers[0].outcome == "unchanged"
    assert tree(root) == after

    removed = adopt(root).remove()
    assert removed.exit == Exit.PASS
    lost = {p: c for p, c in before.items() if tree(root).get(p) != c}
    if row.fate in ("discarded", "destroyed"):
        assert lost
        assert all(
            any(
                n.startswith(f"{p}") or p.startswith(n.split(":")[0])
                for n in removed.installers[0].notes
            )
            for p in lost
        )
        assert any("is not brought back" in note for note in removed.installers[0].notes)
    else:
        assert not lost
        assert tree(root) == before
    for secret in ("s3cret", KEY.splitlines()[1]):
        assert secret not in said(planned, root) + said(first, root) + said(removed, root)


@pytest.mark.parametrize("row", DOUBTFUL, ids=[row.id for row in DOUBTFUL])
def test_a_row_that_is_not_sure_needs_a_trace_of_the_scripts(
    row: Row, root: Path, keys: Keys
) -> None:
    put(root, {p: c for p, c in things(row, keys).items() if p not in STAMP})
    before = tree(root)
    assert not adopt(root).plan().contract.notes
    assert adopt(root).apply().installers[0].outcome == "unchanged"
    assert tree(root) == before


@pytest.mark.parametrize("row", PARTS, ids=[row.id for row in PARTS])
def test_a_row_of_an_installer_that_does_not_run_is_left_alone(
    row: Row, root: Path, keys: Keys
) -> None:
    put(root, things(row, keys))
    others = [name for name in registry.ORDER if name != row.part]
    before = tree(root)
    assert adopt(root, *others).apply().exit == Exit.PASS
    after = tree(root)
    mine = [path for path in LEFT.get(row.id, {}) if not path.startswith("/usr/local/share/ca")]
    assert {p: after.get(p) for p in mine} == {p: before.get(p) for p in mine}


def test_every_row_has_what_it_needs() -> None:
    ids = [row.id for row in ROWS]
    assert len(set(ids)) == len(ids) > 45
    assert set(ids) == {*LEFT, *ASKED, "source-with-key"}
    for row in ROWS:
        assert row.fate in FATES
        assert row.source
        assert (row.fate == "left") == bool(row.remedy), row.id
        assert (row.fate == "cut") == (row.cut is not None) or row.id == "ca-java"
        assert row.part in ("", *registry.ORDER)


def read(root: Path, path: str) -> str:
    return (root / path.lstrip("/")).read_text()


def test_of_files_of_others_only_their_lines_go(root: Path) -> None:
    names = ["environment", "dirmngr-proxy", "boto-proxy", "gcloud-proxy", "executor", "yarn"]
    names += ["spark", "conda-packages", "pip-cache", "ca-conda", "yarn-environment"]
    for name in names:
        put(root, LEFT[name])
    put(root, STAMP)
    assert adopt(root).apply().exit == Exit.PASS
    assert read(root, "/etc/environment") == "PATH=/usr/bin\nJAVA_HOME=/x\nA=b"
    assert read(root, "/etc/gnupg/dirmngr.conf") == "hkp-cacert /x\n"
    assert read(root, "/etc/boto.cfg") == (
        "[Boto]\nhttps_validate = True\n[GSUtil]\nproxy = of-another-section\n"
    )
    assert "10.11" not in read(root, "/root/.config/gcloud/configurations/config_default")
    assert read(root, "/etc/hadoop/conf/container-executor.cfg").count("[") == 0
    site = read(root, "/etc/hadoop/conf/yarn-site.xml")
    assert "gpu" not in site
    assert site.count("<property>") == 2
    spark = read(root, "/etc/spark/conf/spark-defaults.conf")
    assert spark == "spark.master yarn\nspark.x y\n"
    assert (root / "etc/spark/conf").is_symlink()
    assert read(root, "/root/.condarc") == "channels:\n  - x\n"
    assert "timeout = 9" in read(root, "/root/.config/pip/pip.conf")
    bundle = read(root, "/opt/conda/default/ssl/cacert.pem")
    assert bundle.count("BEGIN CERTIFICATE") == 1
    assert bundle.startswith("# roots\n")
    assert read(root, "/etc/hadoop/conf/yarn-env.sh") == "export A=1\n"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"a b\n{DISCOVERY}{RAPIDS}", "a b\n"),
        (f"a b\n{RAPIDS[:90]}", "a b\n"),
        (f"{RAPIDS}spark.task.cpus=4\n# mine\n", "spark.task.cpus=4\n# mine\n"),
    ],
)
def test_a_block_that_was_cut_off_goes_and_no_more(root: Path, text: str, left: str) -> None:
    put(root, {"/etc/spark/conf/spark-defaults.conf": text})
    assert adopt(root).apply().exit == Exit.PASS
    assert read(root, "/etc/spark/conf/spark-defaults.conf") == left
    adopt(root).remove()
    assert read(root, "/etc/spark/conf/spark-defaults.conf") == text


@pytest.mark.parametrize("cut", [1, 10, 22, 40, 60])
def test_a_proxy_file_that_was_cut_off_is_still_theirs(root: Path, cut: int) -> None:
    text = str(LEFT["apt-proxy"]["/etc/apt/apt.conf.d/99proxy"])[:cut]
    put(root, {"/etc/apt/apt.conf.d/99proxy": text})
    assert adopt(root).apply().installers[0].outcome == "ok"
    assert not (root / "etc/apt/apt.conf.d/99proxy").exists()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "/etc/apt/apt.conf.d/99proxy",
            'Acquire::Retries "3";\nAcquire::http::Proxy "http://x";\n',
        ),
        ("/etc/profile.d/proxy.sh", "export http_proxy=http://site:1\n"),
        ("/etc/systemd/system.conf.d/10-default-env.conf", "[Manager]\nDefaultLimitNOFILE=9\n"),
        ("/etc/systemd/system/dataproc-gpu-config.service", "[Service]\nExecStart=/bin/true\n"),
        ("/usr/lib/spark/scripts/gpu/getGpusResources.sh", "#!/bin/sh\n# of the site\n"),
        ("/tmp/ca_dir-1/other", "x"),
        ("/zero", "0" * 10),
        ("/etc/apt/sources.list.d/cuda-x.list", "deb file:///opt /\n"),
    ],
)
def test_what_only_looks_like_theirs_stays(root: Path, path: str, text: str) -> None:
    put(root, {path: text, "/opt/x": ""})
    before = tree(root)
    assert adopt(root).apply().installers[0].outcome == "unchanged"
    assert tree(root) == before


def test_their_scripts_run_again_and_are_taken_over_again(root: Path) -> None:
    put(root, {**LEFT["apt-proxy"], **LEFT["environment"], **STAMP})
    before = tree(root)
    adopt(root).apply()
    put(root, {"/etc/apt/apt.conf.d/99proxy": 'Acquire::http::Proxy "http://new:1";\n', **STAMP})
    environment = root / "etc/environment"
    environment.write_text(environment.read_text() + f"\n{SIX}")
    assert adopt(root).apply().installers[0].outcome == "ok"
    assert not (root / "etc/apt/apt.conf.d/99proxy").exists()
    assert "http_proxy" not in environment.read_text()
    notes = adopt(root).remove().installers[0].notes
    after = tree(root)
    assert {p for p in before if before[p] != after.get(p)} == {"/etc/environment"}
    [note] = notes
    assert "somebody changed it since; as it was it is in /var/lib/airlock/adopted/" in note
    copy = root / note.rpartition(" ")[2].lstrip("/")
    assert copy.read_text() == LEFT["environment"]["/etc/environment"]
    assert copy.stat().st_mode & 0o777 == 0o600
    assert copy.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_somebody_made_since_stays_and_is_told(root: Path) -> None:
    put(root, LEFT["profile"])
    adopt(root).apply()
    put(root, {"/etc/profile.d/proxy.sh": "mine\n"})
    [note] = adopt(root).remove().installers[0].notes
    assert note.startswith("/etc/profile.d/proxy.sh: somebody made another one since")
    assert read(root, "/etc/profile.d/proxy.sh") == "mine\n"
    (root / "etc/profile.d/proxy.sh").unlink()
    assert not adopt(root).remove().installers[0].notes
    assert read(root, "/etc/profile.d/proxy.sh") == LEFT["profile"]["/etc/profile.d/proxy.sh"]
    assert kept.memory(Host(root))["files"] == {}


def test_the_private_key_is_overwritten_before_it_goes(root: Path) -> None:
    put(root, {**LEFT["key"], **LEFT["key-link"]})
    key = root / "run/tmp/ca_dir-aBcD/db.rsa"
    other = root / "hard-link"
    os.link(key, other)
    assert adopt(root).apply().exit == Exit.PASS
    assert not key.exists()
    assert other.read_bytes() == b"\0" * len(KEY)
    assert not os.path.lexists(root / "var/lib/dkms/mok.key")


def test_without_a_driver_of_ours_theirs_stays(root: Path) -> None:
    put(root, {**LEFT["modules"], **STAMP})
    adopt(root, gpu_driver_provider="NONE").apply()
    assert list((root / "lib/modules").rglob("nvidia.ko"))
    adopt(root).apply()
    assert not list((root / "lib/modules").rglob("nvidia*.ko"))


def test_modules_of_a_package_stay(root: Path) -> None:
    put(root, {**LEFT["modules"], **STAMP})
    [path, other] = LEFT["modules"]
    put(root, {"/var/lib/dpkg/info/x.list": f"/.\n/usr{path}\n"})
    adopt(root).apply()
    assert (root / path.lstrip("/")).exists()
    assert not (root / other.lstrip("/")).exists()


def test_the_page_has_the_table() -> None:
    assert table() in PAGE.read_text(), "run: python -m installers.adopt.rows"


def test_links_are_no_way_out_of_the_root(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(outside, {"/db.rsa": KEY})
    (root / "run/tmp").mkdir(parents=True)
    put(root, {"/run/tmp/ca_dir-x/db.rsa": Link(f"{outside}/db.rsa")})
    adopt(root).apply()
    assert (outside / "db.rsa").read_text() == KEY


def test_a_sealed_image_keeps_nothing_of_the_old_settings(root: Path) -> None:
    """The kept files hold passwords, for which the seal would fail the image."""
    put(root, {**LEFT["apt-proxy"], **LEFT["environment"], **LEFT["profile"]})
    given = {"invocation-type": "custom-images", "http-proxy": SECRET}
    config = from_attributes(given)
    first = Adopt(config)
    first.beside = ("proxy", "seal")
    assert Engine(Host(root), [first]).apply().exit == Exit.PASS
    sealed = Engine(Host(root), [Seal(config)]).apply()
    assert sealed.exit == Exit.PASS, sealed.installers[0].problems
    assert not any("s3cret" in content for content in tree(root).values())
    notes = Engine(Host(root), [first]).remove().installers[0].notes
    assert len(notes) == 3
    assert all("what was kept of it is gone" in note for note in notes)
    assert not Engine(Host(root), [first]).remove().installers[0].notes
