"""What this machine can do, and the command that mends what it cannot."""

from __future__ import annotations

import os
import platform
import pwd
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.errors import InfraError
from harness.space import free, memory_available
from harness.state import state_dir

#: Tools that an ordinary user's PATH often lacks are in sbin.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

#: Free bytes that the default matrix takes, per path.
STATE_BYTES = 12 << 30
OUT_BYTES = 1 << 30
TMP_BYTES = 256 << 20
MEMORY_BYTES = 2 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    ``level``: ok | note (works, but worse) | missing (the default matrix will not run).
    ``fix`` is a command; ``packages`` are what ``--fix`` installs for it.
    """

    name: str
    level: str
    what: str
    why: str
    fix: str = ""
    packages: tuple[str, ...] = field(default=())


#: program -> (Debian package, why)
PROGRAMS = {
    "qemu-system-x86_64": ("qemu-system-x86", "runs the virtual machines"),
    "qemu-img": ("qemu-utils", "makes each machine's disk"),
    "mmdebstrap": ("mmdebstrap", "makes base images without root"),
    "mformat": ("mtools", "fills the EFI system partition without loop devices"),
    "mkfs.vfat": ("dosfstools", "makes the EFI system partition"),
    "mkfs.ext4": ("e2fsprogs", "makes a disk from a directory"),
    "newuidmap": ("uidmap", "maps the users of an image without root"),
    "unshare": ("util-linux", "makes the build's namespaces"),
    "socat": ("socat", "carries the node's connections to the proxy"),
    "ip": ("iproute2", "makes the build's captured network"),
    "dpkg-deb": ("dpkg", "unpacks the lab's proxy privately"),
    "apt-get": ("apt", "downloads the lab's proxy"),
    "git": ("git", "is configured on nodes and compared with"),
    "openssl": ("openssl", "checks certificates and signatures in tests"),
}
#: The same of what only tests want: without them the tests that compare with them are skipped.
PROGRAMS_OF_TESTS = {
    "busybox": ("busybox", "the node file's header is tried in its shell as well"),
    "modinfo": ("kmod", "tells of modules what our own parser is compared with"),
}


def examine(out: Path = Path("out"), *, tests: bool = False) -> list[Finding]:
    """Look at everything. Takes a few seconds where KVM has to be tried.

    ``tests``: at what the project's own tests and benches want as well.
    """
    return [
        *(program(name, *about) for name, about in PROGRAMS.items()),
        _firmware(),
        keyring(),
        *(_of_tests() if tests else []),
        namespaces(),
        *_subordinate_ids(),
        _accelerator(),
        _memory(),
        *_space(out),
    ]


def fix(findings: Iterable[Finding], say: Callable[[str], None]) -> None:
    """Install the packages that are missing, with sudo if need be. InfraError if apt fails.

    Nothing of the host is removed (``--no-remove``) and no service is set up by these packages.
    """
    root = [] if os.geteuid() == 0 else ["sudo"]
    can = not root or shutil.which("sudo") is not None
    # What is only noted is worth no error.
    wanted = [finding for finding in findings if can or finding.level == "missing"]
    packages = sorted({package for finding in wanted for package in finding.packages})
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise InfraError("there is no apt-get here", hint=f"install: {' '.join(packages)}")
    if not can:
        raise InfraError(
            "installing packages needs root, and there is no sudo",
            hint=f"as root: apt-get install {' '.join(packages)}",
        )
    for command in (["update", "-qq"], install_words(packages)):
        words = [*root, "apt-get", *command]
        say(f"+ {' '.join(words)}")
        done = subprocess.run(words, env=_apt_environment(), check=False)
        if done.returncode and command[0] == "install":
            raise InfraError(f"apt-get ended with status {done.returncode}")


def install_words(packages: Sequence[str]) -> list[str]:
    """The apt-get arguments that install packages and nothing around them."""
    return ["install", "-y", "-q", "--no-install-recommends", "--no-remove", *packages]


def _apt_environment() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


def _apt_fix(*packages: str) -> str:
    sudo = "" if os.geteuid() == 0 else "sudo "
    return f"{sudo}apt-get install --no-install-recommends {' '.join(packages)}"


def program(name: str, package: str, why: str) -> Finding:
    """Whether a program is there; ``package`` is Debian's that has it."""
    found = shutil.which(name, path=PATH)
    if found:
        return Finding(name, "ok", found, why)
    return Finding(name, "missing", "not installed", why, _apt_fix(package), (package,))


def _firmware() -> Finding:
    from harness.lab import firmware

    why = "UEFI Secure Boot with Microsoft's keys, which distributions' boot loaders need"
    try:
        found = firmware.find()
    except InfraError as error:
        return Finding("OVMF", "missing", error.message, why, _apt_fix("ovmf"), ("ovmf",))
    return Finding("OVMF", "ok", f"{found.code}, {found.variables}", why)


def keyring() -> Finding:
    """Whether Debian's archive can be verified: Ubuntu has no keys of it."""
    why = "verifies Debian's packages when a base image is made"
    name, package = "Debian archive keys", "debian-archive-keyring"
    if any(Path("/usr/share/keyrings").glob("debian-archive-keyring.*")):
        return Finding(name, "ok", "/usr/share/keyrings", why)
    return Finding(name, "missing", "not installed", why, _apt_fix(package), (package,))


def _of_tests() -> list[Finding]:
    programs = [program(name, *about) for name, about in PROGRAMS_OF_TESTS.items()]
    found = [replace(one, level="note") if one.level == "missing" else one for one in programs]
    return [*found, _browser()]


def _browser() -> Finding:
    """Only tests and benches want one; Ubuntu has no package of it, but a snap."""
    why = "the tests look at the HTML report with it"
    name, packages = "Chromium", ("chromium", "chromium-driver")
    missing = [p for p in ("chromium", "chromedriver") if shutil.which(p, path=PATH) is None]
    if not missing:
        return Finding(name, "ok", str(shutil.which("chromium", path=PATH)), why)
    what = f"there is no {' and no '.join(missing)}: those tests are skipped"
    if platform.freedesktop_os_release().get("ID") != "debian":
        return Finding(name, "note", what, why)
    return Finding(name, "note", what, why, _apt_fix(*packages), packages)


def namespaces() -> Finding:
    """Try what the build stage does; a switch that says yes is no proof (AppArmor on Ubuntu)."""
    why = "the image is built in a namespace whose only way out is the proxy"
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "mount", "-t", "tmpfs", "t", "/mnt"]
    if os.geteuid() != 0:
        words[1:1] = ["--user", "--map-root-user"]
    try:
        done = subprocess.run(words, capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("namespaces", "missing", str(error), why)
    if done.returncode == 0:
        return Finding("namespaces", "ok", "user, mount, network and pid namespaces work", why)
    said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["refused"]
    return Finding("namespaces", "missing", said[0], why, _namespace_fix())


def _namespace_fix() -> str:
    """The switch that forbids them here."""
    switches = {
        # Ubuntu since 23.10: unprivileged user namespaces get no capabilities.
        "kernel/apparmor_restrict_unprivileged_userns": ("1", "0"),
        # Debian's own patch, off before Debian 11.
        "kernel/unprivileged_userns_clone": ("0", "1"),
        "user/max_user_namespaces": ("0", "16384"),
    }
    for switch, (bad, good) in switches.items():
        path = Path("/proc/sys") / switch
        if path.exists() and path.read_text().strip() == bad:
            name = switch.replace("/", ".")
            return (
                f"echo {name}={good} | sudo tee /etc/sysctl.d/60-airlock.conf"
                " && sudo sysctl --system"
            )
    return "run as root, or in a container that allows namespaces (--privileged)"


def _subordinate_ids() -> list[Finding]:
    """Ordinary users need ranges in /etc/subuid and /etc/subgid (subuid(5))."""
    if os.geteuid() == 0:
        return []
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # in containers an id may have no name
        user = str(os.getuid())
    why = "the files of an image belong to many users"
    findings = []
    for name in ("subuid", "subgid"):
        path = Path("/etc") / name
        lines = path.read_text().splitlines() if path.exists() else []
        owners = {line.split(":")[0] for line in lines if line.count(":") == 2}
        if owners & {user, str(os.getuid())}:
            findings.append(Finding(name, "ok", f"{user} has a range", why))
        else:
            option = "--add-subuids" if name == "subuid" else "--add-subgids"
            command = f"sudo usermod {option} 100000-165535 {user}"
            findings.append(Finding(name, "missing", f"{user} has no range", why, command))
    return findings


def _accelerator() -> Finding:
    from harness.lab import kvm

    why = "hardware acceleration makes virtual machines about ten times faster"
    if shutil.which("qemu-system-x86_64", path=PATH) is None:
        return Finding("KVM", "note", "not tried: there is no QEMU yet", why)
    if kvm.accelerator() == "kvm":
        return Finding("KVM", "ok", "a probe machine booted with it", why)
    exists = Path("/dev/kvm").exists()
    what = "/dev/kvm is there, but no machine boots with it" if exists else "no /dev/kvm"
    return Finding("KVM", "note", f"{what}: QEMU's own translation is used", why)


def _memory() -> Finding:
    available = memory_available() << 20
    return _amount("memory", available, MEMORY_BYTES, "a virtual machine takes 1.5 GiB", "")


def _space(out: Path) -> list[Finding]:
    tmp = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108 - asked about, not written to
    places = (
        ("state", state_dir(), STATE_BYTES, "base images, builds, disks of running machines"),
        ("reports", out.absolute(), OUT_BYTES, "capsules and reports"),
        ("temporary", tmp, TMP_BYTES, "sockets and small files"),
    )
    findings = []
    for name, path, need, why in places:
        fix_words = "set AIRLOCK_STATE to a larger disk" if name == "state" else "make room"
        findings.append(_amount(f"disk for {name}", free(path), need, f"{path}: {why}", fix_words))
    return findings


def _amount(name: str, there: int, need: int, why: str, fix_words: str) -> Finding:
    words = f"{there / (1 << 30):.1f} GiB free, {need / (1 << 30):.1f} needed"
    if there >= need:
        return Finding(name, "ok", words, why)
    return Finding(name, "missing", words, why, fix_words)
