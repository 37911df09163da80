"""``--root DIR`` on an image makes the same files as apply in that image, booted with its systemd.

systemd runs as the first process of a container (systemd-nspawn, unpacked from its package) on the
same base image that the virtual machines are made of. What may differ is listed, with the reason.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import daemons
from fixtures.errors import FixtureError
from harness.catalog import load_catalog
from harness.lab import base
from harness.lab.namespace import remove_tree
from harness.pack import pack
from harness.state import cache_dir
from tests.unit.installers.test_trust import fresh
from tests.unit.installers_keyrings.conftest import Keys
from tests.unit.installers_keyrings.workshop import acme, attributes

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount and to boot a container"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare"),
]

#: Paths that only a machine which runs has, or has otherwise: prefix -> why.
ALLOWED = {
    "/etc/.pwd.lock": "the first boot makes users of its services",
    "/etc/machine-id": "made by the first boot",
    "/var/cache": "of programs that ran: ldconfig, apt",
    "/var/lib/airlock": "journal and state: times, and the reload of systemd as a step more",
    "/var/lib/dbus": "a link to the machine's id",
    "/var/lib/systemd": "seeds and catalogs of the first boot",
    "/var/log": "written by the boot itself",
}
STORES = "/etc/ssl/certs"

SCRIPT = r"""
set -e
mount --make-rprivate /
for name in image booted; do
    mkdir -p "$WORK/$name/upper" "$WORK/$name/work" "$WORK/$name/root"
    mount -t overlay overlay "$WORK/$name/root" \
        -o "lowerdir=$LOWER,upperdir=$WORK/$name/upper,workdir=$WORK/$name/work"
done
image=$WORK/image/root
mount --bind /proc "$image/proc"
mount --bind /dev "$image/dev"
apply="apply --only proxy,trust,keyrings --json"
$PYTHON -I "$image/opt/airlock.pyz" $apply --root "$image" --metadata "$image/opt/metadata.json" \
    >"$WORK/image.json"
for tree in systemd unified; do
    group=/sys/fs/cgroup/$tree
    if [ -d "$group" ]; then mkdir -p "$group/$NAME"; echo $$ >"$group/$NAME/cgroup.procs"; fi
done
LD_LIBRARY_PATH=$LIBRARIES SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 "$NSPAWN" -q -D "$WORK/booted/root" \
    -M "$NAME" --boot --private-network --register=no --keep-unit --resolv-conf=off \
    --console=pipe </dev/null >"$WORK/console" 2>&1 &
starter=$!
for _ in $(seq 600); do
    leader=$(cat /proc/$starter/task/$starter/children 2>/dev/null | cut -d' ' -f1)
    state=
    [ -z "$leader" ] || state=$(nsenter -t "$leader" -a systemctl is-system-running 2>&1 || true)
    case $state in running | degraded) break ;; esac
    kill -0 $starter || exit 9
    sleep 0.2
done
code=0
nsenter -t "$leader" -a /bin/sh /opt/airlock.pyz $apply --metadata /opt/metadata.json \
    >"$WORK/booted.json" 2>"$WORK/booted.err" || code=$?
nsenter -t "$leader" -a systemctl show-environment >"$WORK/environment" || true
# Power off. Whatever is left ends with this shell, the first process of its namespace.
kill -RTMIN+4 "$leader"
for _ in $(seq 50); do
    kill -0 $starter 2>/dev/null || break
    sleep 0.2
done
exit $code
"""


@pytest.fixture(scope="module")
def lower() -> Iterator[Path]:
    """The base image without what is only for its kernel."""
    found = base.find(load_catalog().images["debian-12"])
    if found is None:
        pytest.skip("the base image debian-12 is not built: airlock image build debian-12")
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="airlock-booted-") as folder:
        tree = Path(folder) / "lower"
        tree.mkdir()
        skip = ("./boot", "./dev/*", "./usr/lib/modules", "./usr/lib/firmware", "./usr/share/doc")
        argv = ["tar", "-xpf", str(found.tar), "--numeric-owner", "-C", str(tree)]
        subprocess.run([*argv, *(f"--exclude={one}" for one in skip)], check=True)
        yield tree
        remove_tree(tree)


@pytest.fixture(scope="module")
def nspawn() -> tuple[Path, str]:
    """The program, and where its libraries are."""
    try:
        root = daemons.unpack_debs(["systemd-container"], cache_dir("daemons"))
    except FixtureError as error:
        pytest.skip(f"systemd-nspawn cannot be had here: {error}")
    shared = {path.parent for path in root.rglob("libsystemd-shared-*.so")}
    libraries = [daemons.library_path(root), *(str(path) for path in shared)]
    return root / "usr/bin/systemd-nspawn", ":".join(filter(None, libraries))


def test_the_same_files(lower: Path, nspawn: tuple[Path, str], keys: Keys) -> None:
    work = lower.with_name("work")
    work.mkdir()
    (lower / "opt/ca.pem").write_bytes(fresh("The proxy's CA"))
    (lower / "opt/key.asc").write_bytes(keys.file(keys.good))
    given = {
        **attributes(acme((keys.good, ["file:///opt/key.asc"])), []),
        "http-proxy": "http://bob:p%40x@10.0.2.100:3128",
        "http-proxy-pem-uri": "file:///opt/ca.pem",
    }
    (lower / "opt/metadata.json").write_text(json.dumps({"instance": {"attributes": given}}))
    shutil.copy(pack(cache_dir("node-file")).path, lower / "opt/airlock.pyz")
    environment = {
        **os.environ,
        "WORK": str(work),
        "LOWER": str(lower),
        "PYTHON": sys.executable,
        "NSPAWN": str(nspawn[0]),
        "LIBRARIES": nspawn[1],
        "NAME": f"airlock{os.getpid()}",
    }
    argv = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "bash", "-c", SCRIPT]
    try:
        done = subprocess.run(
            argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    finally:
        for group in Path("/sys/fs/cgroup").glob(f"*/{environment['NAME']}"):
            for path in sorted([group, *group.rglob("*/")], reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()
    console = work / "console"
    said = console.read_text(errors="replace")[-1500:] if console.exists() else ""
    assert done.returncode == 0, f"{done.stderr[-1500:]}\n{said}"
    for name in ("image", "booted"):
        answer = json.loads((work / f"{name}.json").read_text())
        assert [one["outcome"] for one in answer["installers"]] == ["ok"] * 3, answer
    # It was a systemd that ran, and it was told.
    assert "http_proxy=http://bob:p%40x@10.0.2.100:3128" in (work / "environment").read_text()
    one, other = (layer(work / name / "upper") for name in ("image", "booted"))
    assert "/etc/environment" in one
    assert "/usr/share/keyrings/airlock-acme.gpg" in one
    assert any(path.startswith(STORES) for path in one)
    below = layer(lower, {*one, *other})
    wrong = [
        f"{path}: {one.get(path, below.get(path))} in the image, "
        f"{other.get(path, below.get(path))} booted"
        for path in sorted({*one, *other})
        if not path.startswith(tuple(ALLOWED))
        and one.get(path, below.get(path)) != other.get(path, below.get(path))
    ]
    assert not wrong


def layer(root: Path, only: set[str] | None = None) -> dict[str, Any]:
    """Path -> mode, owner and content of what is not a directory; None for what was removed."""
    found: dict[str, Any] = {}
    paths = (root / path.lstrip("/") for path in only) if only is not None else root.rglob("*")
    for path in paths:
        if not os.path.lexists(path) or (path.is_dir() and not path.is_symlink()):
            continue
        status = path.lstat()
        node = f"/{path.relative_to(root)}"
        if stat.S_ISCHR(status.st_mode):
            found[node] = None
        elif path.is_symlink():
            found[node] = f"link to {path.readlink()}"
        elif stat.S_ISREG(status.st_mode):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
            owner = f"{status.st_uid}:{status.st_gid}"
            found[node] = f"{stat.S_IMODE(status.st_mode):04o} {owner} {digest}"
    return found
