"""The trust installer, with the distribution's own programs on a copy of this machine's root.

The copy is an overlay in a mount namespace: nothing of it reaches the machine, and it is gone with
the process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fixtures.overlay import OVERLAY
from installers import pem, trust
from installers.config import from_attributes
from installers.engine import Engine
from installers.errors import ConfigError
from installers.exits import Exit
from installers.host import Host
from tests.unit.installers.authorities import DAY, make

REPOSITORY = Path(__file__).parents[3]
NOW = pem.utc_now()
# Mount, then run each line of the script with $ROOT; its output is one JSON object a line.
# Hooks of other packages (a Java key store takes seconds) are not what is tested.
NO_HOOKS = 'rm -rf "$ROOT/etc/ca-certificates/update.d"\n'
# update-ca-certificates starts five programs for each authority, and keytool reads them all.
AUTHORITIES = 12
FEW = f"""
grep '^[^#!]' /etc/ca-certificates.conf | head -n {AUTHORITIES} >"$ROOT/etc/ca-certificates.conf"
chroot "$ROOT" update-ca-certificates --fresh >/dev/null 2>&1
"""


def can_overlay() -> bool:
    if os.geteuid() != 0 or shutil.which("update-ca-certificates") is None:
        return False
    probe = (
        "mkdir $W/u $W/w $W/m && mount -t overlay o -o lowerdir=/,upperdir=$W/u,workdir=$W/w $W/m"
    )
    script = f"W=$(mktemp -d) && mount -t tmpfs t $W && {probe}"
    return (
        subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True).returncode == 0
    )


overlay = pytest.mark.skipif(
    not can_overlay(), reason="needs root, overlayfs and update-ca-certificates"
)


def fresh(name: str, **options: Any) -> bytes:
    options.setdefault("start", NOW - 300 * DAY)
    options.setdefault("end", NOW + 300 * DAY)
    return make(name, **options).pem


def in_overlay(tmp_path: Path, *lines: str, hooks: bool = False) -> list[str]:
    """Run shell lines in the overlay; what each one printed. ``hooks``: keep other packages'."""
    (tmp_path / "mount").mkdir()
    script = (
        OVERLAY
        + ("" if hooks else NO_HOOKS)
        + FEW
        + "".join(f"{{ {line}\n}} || echo failed: $?\necho @@@\n" for line in lines)
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env={**os.environ, "WORK": str(tmp_path / "mount")},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    return [part.strip() for part in done.stdout.split("@@@\n")][:-1]


def node(verb: str, metadata: Path) -> str:
    argv = [sys.executable, "-m", "installers", verb, "--only", "trust", "--json"]
    return f'{shlex.join(argv)} --root "$ROOT" --metadata {shlex.quote(str(metadata))}'


def metadata_file(path: Path, attributes: dict[str, str]) -> Path:
    path.write_text(json.dumps({"instance": {"attributes": attributes}}))
    return path


@overlay
def test_anchor_is_trusted_rotated_and_removed(tmp_path: Path) -> None:
    one, two = fresh("Airlock test CA one"), fresh("Airlock test CA two")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(one + two)
    alone = tmp_path / "alone.pem"
    alone.write_bytes(two)
    first = metadata_file(tmp_path / "1.json", {"http-proxy-pem-uri": f"file://{bundle}"})
    second = metadata_file(tmp_path / "2.json", {"http-proxy-pem-uri": f"file://{alone}"})
    none = metadata_file(tmp_path / "3.json", {})
    store = '"$ROOT/etc/ssl/certs/ca-certificates.crt"'
    look = f"ls $ROOT/usr/local/share/ca-certificates; base64 -w0 {store}"
    said = in_overlay(
        tmp_path,
        node("apply", first),
        look,
        node("apply", first),
        node("verify", first),
        node("apply", second),
        look,
        node("apply", none),
        look,
        node("apply", first),
        f"sed -i /BEGIN/d {store}; {node('apply', first)}",
        node("remove", none),
        look,
    )
    [sha_one] = pem.fingerprints(one)
    [sha_two] = pem.fingerprints(two)

    def outcome(at: int) -> str:
        answer = json.loads(said[at])
        assert answer["exit"] == 0, said[at]
        return str(answer["installers"][0]["outcome"])

    def trusted(at: int) -> set[str]:
        found = pem.fingerprints(base64.b64decode(said[at].split()[-1]))
        assert len(found) >= AUTHORITIES
        return found & {sha_one, sha_two}

    assert outcome(0) == "ok"
    assert trusted(1) == {sha_one, sha_two}
    assert f"airlock-{sha_one[:16]}.crt" in said[1]
    assert outcome(2) == "unchanged"
    assert outcome(3) == "ok"
    assert outcome(4) == "ok"
    assert trusted(5) == {sha_two}
    assert f"airlock-{sha_one[:16]}.crt" not in said[5]
    assert outcome(6) == "ok"
    assert trusted(7) == set()
    assert outcome(8) == "ok"
    assert outcome(9) == "ok", "a damaged bundle is rebuilt"
    assert outcome(10) == "ok"
    assert trusted(11) == set()


def tree(tmp_path: Path, release: str = "ID=debian\n") -> Path:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text(release)
    return root


def engine(root: Path, attributes: dict[str, str]) -> Engine:
    return Engine(Host(root), [trust.Trust(from_attributes(attributes))])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"hello", "no PEM certificate"),
        (fresh("Leaf", ca=False), "is not a CA"),
        (fresh("Old", end=NOW - DAY), "expired"),
    ],
    # Certificates are new each time, and xdist's workers must agree on the names of tests.
    ids=lambda value: value if isinstance(value, str) else "pem",
)
def test_bad_file_is_refused_before_anything(tmp_path: Path, content: bytes, what: str) -> None:
    root = tree(tmp_path)
    (root / "ca.pem").write_bytes(content)
    summary = engine(root, {"http-proxy-pem-uri": "file:///ca.pem"}).apply()
    assert summary.exit == Exit.FAIL
    [refusal] = summary.installers[0].refusals
    assert refusal.code == "trust.pem"
    assert what in refusal.reason
    assert refusal.remedy
    assert not (root / "usr").exists()


def test_unknown_system_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path, 'ID=opensuse-leap\nID_LIKE="suse opensuse"\nPRETTY_NAME="openSUSE"\n')
    (root / "ca.pem").write_bytes(fresh("CA"))
    summary = engine(root, {"http-proxy-pem-uri": "file:///ca.pem"}).apply()
    assert "trust store of openSUSE is not known" in summary.installers[0].refusals[0].reason


@pytest.mark.parametrize(
    ("release", "store"),
    [
        ("ID=debian\n", trust.DEBIAN),
        ("ID=ubuntu\nID_LIKE=debian\n", trust.DEBIAN),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', trust.REDHAT),
        ("ID=linuxmint\nID_LIKE=ubuntu\n", trust.DEBIAN),
        ("ID=arch\n", None),
        ("", None),
    ],
)
def test_families(tmp_path: Path, release: str, store: trust.Store | None) -> None:
    assert trust.store_of(Host(tree(tmp_path, release))) == store


def test_bad_uri_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="http-proxy-pem-uri"):
        engine(tree(tmp_path), {"http-proxy-pem-uri": "https://h/ca.pem"})


def test_plan_fetches_nothing(tmp_path: Path) -> None:
    root = tree(tmp_path)
    uri = f"https://ca.example/ca.pem#sha256={hashlib.sha256(b'x').hexdigest()}"
    config = from_attributes({"http-proxy-pem-uri": uri, "proxy-uri": "http://127.0.0.1:9"})
    summary = Engine(Host(root, offline=True), [trust.Trust(config)]).plan()
    assert summary.exit == Exit.PASS
    assert summary.contract.hosts == ["ca.example"]
    assert "to be read from https://ca.example/ca.pem" in summary.installers[0].changes[0].key


def test_apt_sources_become_https_and_return(tmp_path: Path) -> None:
    root = tree(tmp_path)
    sources = root / "etc/apt/sources.list.d/debian.sources"
    sources.parent.mkdir(parents=True)
    original = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n"
    sources.write_text(original)
    (root / "etc/apt/sources.list").write_text("deb https://kept.example/debian bookworm main\n")
    summary = engine(root, {"airlock-apt-https": "true"}).apply()
    key = "apt-source:/etc/apt/sources.list.d/debian.sources"
    assert [(c.key, c.before, c.after) for c in summary.installers[0].changes] == [
        (key, "http", "https")
    ]
    assert "https://mirror.example/debian" in sources.read_text()
    assert summary.installers[0].provenance["apt_sources"]
    again = engine(root, {"airlock-apt-https": "true"}).apply()
    assert again.installers[0].outcome == "unchanged"
    assert engine(root, {}).apply().exit == Exit.PASS
    assert sources.read_text() == original
    engine(root, {"airlock-apt-https": "true"}).apply()
    assert engine(root, {}).remove().exit == Exit.PASS
    assert sources.read_text() == original
    assert (root / "etc/apt/sources.list").read_text().startswith("deb https://kept.example")


def test_expired_anchor_is_a_problem_of_the_node(tmp_path: Path) -> None:
    root = tree(tmp_path)
    old = fresh("Old", end=NOW - DAY)
    [sha256] = pem.fingerprints(old)
    path = root / f"usr/local/share/ca-certificates/airlock-{sha256[:16]}.crt"
    path.parent.mkdir(parents=True)
    path.write_bytes(old)
    summary = engine(root, {}).verify()
    assert summary.exit == Exit.FAIL
    assert any("expired" in problem.what for problem in summary.installers[0].problems)
