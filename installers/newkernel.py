"""A kernel that arrives later gets its modules before anybody boots it, or says loudly that it has
none.

The kernel's package runs our hook while apt holds its lock, so the hook only leaves a mark; a path
unit sees it and ``new-kernel`` builds (or takes from the cache), signs and installs the modules. A
mark stays until that has worked, and the failed unit names what is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from installers import kernels, units
from installers.config import METADATA_SERVER
from installers.exits import Exit
from installers.host import Host
from installers.units import NODE_FILE

MARKS = "/var/lib/airlock/new-kernels"
#: Debian's kernel packages run the first, kernel-install (RHEL, SUSE, Arch) the second.
HOOKS = ("/etc/kernel/postinst.d/zz-airlock-modules", "/etc/kernel/install.d/95-airlock.install")
_HOOK_TEXT = f"""\
#!/bin/sh
# Written by Airlock: modules for this kernel are wanted before it boots.
case "${{1:-}}" in
add) kernel=${{2:-}} ;;
remove | "") exit 0 ;;
*) kernel=$1 ;;
esac
mkdir -p {MARKS}
: > "{MARKS}/$kernel"
"""
SERVICE, PATH = "airlock-new-kernel.service", "airlock-new-kernel.path"
SERVICE_TEXT = f"""\
# Written by airlock.
[Unit]
Description=Build, sign and install GPU modules for a new kernel
Wants=network-online.target
After=network-online.target {units.PROXY}

[Service]
Type=oneshot
TimeoutStartSec=4h
ExecStart=/usr/bin/python3 {NODE_FILE} new-kernel
"""
PATH_TEXT = f"""\
# Written by airlock.
[Unit]
Description=Notice a kernel that has no GPU modules yet

[Path]
DirectoryNotEmpty={MARKS}

[Install]
WantedBy=multi-user.target
"""
_LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/rpm/.rpm.lock")


def inspect(host: Host) -> str:
    """``ours``, ``differs`` or ``absent``."""
    hooks = [host.read(path) for path in HOOKS]
    found = [*hooks, host.read(units.unit_path(SERVICE)), units.inspect(host, PATH, PATH_TEXT)]
    if found == [_HOOK_TEXT, _HOOK_TEXT, SERVICE_TEXT, "enabled"]:
        return "ours"
    return "absent" if found == [None, None, None, "absent"] else "differs"


def install(host: Host) -> None:
    """Hooks and units."""
    for path in HOOKS:
        host.write(path, _HOOK_TEXT, mode=0o755)
    host.write(units.unit_path(SERVICE), SERVICE_TEXT)
    units.install(host, PATH, PATH_TEXT)


def remove(host: Host) -> None:
    """Take them out again."""
    for path in HOOKS:
        host.remove(path)
        host.prune(path.rpartition("/")[0])
    host.prune("/etc/kernel")
    units.remove(host, PATH)
    host.remove(units.unit_path(SERVICE))
    host.remove(MARKS)


def main(argv: Sequence[str]) -> int:
    """The verb ``new-kernel``: modules for every marked kernel; the worst exit code.

    A mark whose kernel is gone, or whose modules are there, is removed.
    """
    parser = argparse.ArgumentParser(prog="new-kernel", description=__doc__.split("\n")[0])
    parser.add_argument("--root", default="/", metavar="DIR")
    parser.add_argument("--metadata", default=METADATA_SERVER, metavar="FILE.json|URL")
    args = parser.parse_args(argv)
    with _shutdown_waits():
        return _provide(Host(args.root), args.metadata)


@contextlib.contextmanager
def _shutdown_waits() -> Iterator[None]:
    """Hold back an orderly shutdown, where there is somebody to ask for it (systemd-logind)."""
    words = ["systemd-inhibit", "--what=shutdown", "--who=airlock", "--mode=block"]
    words += ["--why=the new kernel has no GPU modules yet", "cat"]
    try:
        holder = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    except OSError:
        yield
        return
    try:
        yield
    finally:
        holder.communicate()


def _provide(host: Host, source: str) -> int:
    """Modules for every marked kernel; the worst exit code."""
    from installers import cli

    worst = int(Exit.PASS)
    for mark in host.glob(MARKS, "*"):
        kernel = mark.rpartition("/")[2]
        if not host.exists(f"/lib/modules/{kernel}"):
            host.remove(mark)
            continue
        _wait_for_packages(host)
        words = ["apply", "--only", "driver", "--kernel", kernel, "--root", str(host.root)]
        code = cli.main([*words, "--metadata", source])
        if code == Exit.PASS and kernels.record(host, kernel):
            host.remove(mark)
        else:
            print(f"new-kernel: {kernel} has no GPU modules: do not boot it", flush=True)
            worst = worst or code or int(Exit.FAIL)
    return worst


def _wait_for_packages(host: Host, patience: float = 1800.0) -> None:
    """Until the package manager that brought the kernel has ended."""
    import fcntl

    deadline = time.monotonic() + patience
    for lock in _LOCKS:
        path = Path(host.path(lock))
        while path.exists() and time.monotonic() < deadline:
            with path.open("rb+") as file:
                try:
                    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    time.sleep(1)
