"""Which keys does a kernel trust for modules? Asked of the kernel itself, in a virtual machine.

A module that does nothing is built for the image's kernel, natively, and signed with the lab's key.
The image then boots four times with Secure Boot on: with the key's certificate in the firmware's
``db``, in shim's list of the machine owner's keys (MOK), nowhere, and in both of them and revoked
in ``dbx``. Each time the kernel is offered the module without a signature and with it. What it says
is the answer: no configuration option and no package tells, because distributions carry patches for
this.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures.signer import sign
from harness import keydb, pack
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.lab import base, disk, firmware, kvm, vm
from harness.lab.namespace import Chamber, remove_tree, run_as_root
from harness.state import cache_dir
from installers import modsig
from installers.asn1 import load_certificate

if TYPE_CHECKING:
    from fixtures.pki import Identity
    from harness.cells import Image
    from harness.state import RunRecord

Say = Callable[[str], None]
#: Where the key is, each a boot; in words.
CASES = {
    "db": "in db",
    "mok": "in MOK",
    "neither": "nowhere",
    "revoked": "in db, in MOK and in dbx",
}
_PLACE = "airlock-probe"
_MARK = "AIRLOCK-PROBE "
_NODE_FILE = "airlock-node.pyz"
_BOOT_SECONDS = 420.0
_BUILD_SECONDS = 300.0
_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C"}
_SOURCE = """\
#include <linux/module.h>
static int __init airlock_probe_init(void) { return 0; }
static void __exit airlock_probe_exit(void) {}
module_init(airlock_probe_init);
module_exit(airlock_probe_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Does nothing; asks whose signature the kernel takes");
"""
# The first program: no unit is needed for the question, and most of a boot is units.
_INIT = f"""\
#!/bin/sh
for m in proc:proc sysfs:sys securityfs:sys/kernel/security efivarfs:sys/firmware/efi/efivars; do
  mount -t "${{m%%:*}}" airlock "/${{m#*:}}"
done
mount -t tmpfs airlock /run
echo 1 > /proc/sys/kernel/printk
exec /usr/bin/python3 -I /{_PLACE}/ask.py
"""
_ASK = f"""\
import json, sys, time
sys.path.insert(0, "/{_PLACE}/{_NODE_FILE}")
from pathlib import Path
import errno
from installers import controls
from installers.facts import Collector
facts = Collector().collect(only=["kernel", "secure_boot"])
log = controls.KernelLog()
told = {{}}
for name in ("unsigned", "signed"):
    code, lines = controls.load(Path("/{_PLACE}", name, "airlock_probe.ko"), log)
    word = errno.errorcode.get(code, str(code)) if code else ""
    told[name] = {{"errno": word, "kernel_log": lines}}
boot = facts["secure_boot"] or {{}}
keep = ("enabled", "lockdown", "keyrings")
told |= {{"release": facts["kernel"]["release"], "boot": {{k: boot.get(k) for k in keep}}}}
print("\\n{_MARK}" + json.dumps(told), flush=True)
while True:
    time.sleep(60)
"""


def probe(image: Image, key: Identity, run: RunRecord, say: Say) -> dict[str, Any]:
    """One row of the table: what the image's kernel takes. Minutes; see ``harness.trusttable``.

    Raises :class:`InfraError` where the image cannot be made or a boot says nothing.
    """
    place = run.scratch / image.name
    place.mkdir()
    tree = run.owned.directory(place / "tree", "tree of a probe")
    say("base image with the kernel's headers and a compiler")
    headers = image.kernel.replace("linux-image-", "linux-headers-")
    whole = dataclasses.replace(image, packages=(*image.packages, headers, "gcc", "make"))
    found = base.build(whole, log=place / "base.log")
    try:
        say("module, natively")
        kernel = _make_tree(found, tree, place, key)
        say("disks")
        disk.make_root(tree, place / "root.img", size_mib=image.disk_mb)
        init = f"init=/{_PLACE}/init"
        disk.make_esp(tree, place / "esp.img", kernel=kernel, vendor=image.family, cmdline=init)
    finally:
        remove_tree(tree)
    certificate = place / "signing.pem"
    certificate.write_bytes(key.pem)
    cases = {}
    for case in CASES:
        say(f"boot with the key {CASES[case]}")
        try:
            cases[case] = _ask(case, place / case, place, certificate, run)
        except vm.BootStuck as first:  # see QemuNode: emulated machines do that now and then
            say(f"{first.message}; once more")
            cases[case] = _ask(case, place / f"{case}-again", place, certificate, run)
    shutil.rmtree(place)
    return {
        "image": image.name,
        "title": image.title,
        "os": image.family,
        "version_id": image.version,
        "kernel": kernel,
        "measured": dt.datetime.now(dt.UTC).date().isoformat(),
        "cases": cases,
    }


def _make_tree(found: base.Base, tree: Path, place: Path, key: Identity) -> str:
    """The image's files with the question in them; returns the kernel's release."""
    tree.mkdir()
    untar = ["tar", "-x", "-p", "--numeric-owner", "-C", str(tree), "--exclude=./dev/*"]
    run_as_root([*untar, "-f", str(found.tar)], timeout=600)
    listed = run_as_root(["ls", "-1v", str(tree / "lib/modules")], timeout=20).stdout.decode()
    if not listed:
        raise InfraError("the image has no kernel under /lib/modules")
    kernel = listed.split()[-1]
    put = place / _PLACE
    put.mkdir()
    (put / "airlock_probe.c").write_text(_SOURCE)
    (put / "Makefile").write_text("obj-m := airlock_probe.o\n")
    (put / "ask.py").write_text(_ASK)
    (put / "init").write_text(_INIT)
    (put / "init").chmod(0o755)
    shutil.copy(pack.pack(cache_dir("node-file")).path, put / _NODE_FILE)
    _copy(put, tree)
    make = ["make", "-C", f"/lib/modules/{kernel}/build", f"M=/{_PLACE}", "modules"]
    with Chamber(tree, place / "build.pcap", place / "build.log", env=_ENV) as chamber:
        for listener in (chamber.proxy, chamber.metadata):
            if listener is not None:
                listener.close()  # nothing is fetched
        code, said = chamber.run(make, timeout=_BUILD_SECONDS)
    if code:
        log = (place / "build.log").read_text(errors="replace") + said
        raise InfraError(f"the module does not build for {kernel}: {log.strip()[-400:]}")
    read = run_as_root(["cat", str(tree / _PLACE / "airlock_probe.ko")], timeout=20)
    body = modsig.split(read.stdout).body
    for name, data in (("unsigned", body), ("signed", modsig.attach(body, sign(key, body)))):
        (put / name).mkdir()
        (put / name / "airlock_probe.ko").write_bytes(data)
    _copy(put, tree)
    return kernel


def _copy(put: Path, tree: Path) -> None:
    run_as_root(["cp", "-r", "--no-preserve=ownership", str(put), str(tree)], timeout=60)


def _ask(case: str, own: Path, place: Path, certificate: Path, run: RunRecord) -> dict[str, Any]:
    """Boot once and wait for what the first program writes to the serial console."""
    own.mkdir()
    machine = vm.Machine(
        directory=own,
        root=own / "root.qcow2",
        esp=place / "esp.img",
        firmware=firmware.find(),
        variables=own / "vars.fd",
        proxy_port=None,
        metadata_port=None,
        accelerator=kvm.accelerator(),
    )
    in_db = [certificate] if case in ("db", "revoked") else []
    in_mok = [certificate] if case in ("mok", "revoked") else []
    signer = load_certificate(certificate.read_bytes())
    dbx = keydb.forbidden([signer]) if case == "revoked" else b""
    firmware.enroll(machine.firmware, in_db, machine.variables, owner=in_mok, revoked=dbx)
    disk.make_overlay(place / "root.img", machine.root)
    with vm.VirtualMachine(machine) as running:
        run.owned.process(running.pid, "virtual machine")
        deadline = Deadline(_BOOT_SECONDS, f"the kernel's answer with the key {CASES[case]}")
        while True:
            running.check_booting()
            if (told := _told(machine.console)) is not None:
                return told
            deadline.check(hint=f"serial console: {running.console_tail(4)}")
            time.sleep(0.2)


def _told(console: Path) -> dict[str, Any] | None:
    """The answer on the serial console, once its line is whole."""
    with contextlib.suppress(OSError):
        for line in console.read_bytes().decode(errors="replace").split("\n")[:-1]:
            if line.startswith(_MARK):
                told: dict[str, Any] = json.loads(line.removeprefix(_MARK))
                return told
    return None
