"""The driver: NVIDIA's open kernel modules for the kernel that will boot, signed once, outside.

Source and headers come from the distribution's own archive, in versions that go together; the
build is kept by content and never done twice. Signing is external: a stripped module goes to a unix
socket, a detached signature comes back. The modules are put in place all at once or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any, Optional

from installers import (
    audit,
    build,
    compat,
    debian,
    dkms,
    elf,
    fixups,
    kernels,
    kmods,
    liveswap,
    modsig,
    modulebuild,
    newkernel,
    signed,
)
from installers.asn1 import Certificate, DERError, read_certificate
from installers.cache import settings
from installers.choice import Choice
from installers.config import Config
from installers.engine import Change, Contract, Installer, Problem, Refusal, diff
from installers.errors import NodeError
from installers.host import Host, make_directory
from installers.journal import Log, recall, remember

CERTIFICATE = dkms.CERTIFICATE
BLACKLIST = "/etc/modprobe.d/airlock-nouveau.conf"
_BLACKLIST_TEXT = """\
# Written by Airlock: nouveau would take the GPU before nvidia can.
blacklist nouveau
options nouveau modeset=0
"""
WORK = "/var/tmp/airlock-driver-build"  # noqa: S108 - root's own, removed before and after
_MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm", "nvidia-peermem")
REBOOT = "driver-reboot"  # what a live node still runs, in the journal's memory
#: Settings that are made without building anything.
_SETTINGS = frozenset({"blacklist", "dkms", "new-kernel"})
_COMPONENTS = ("contrib", "non-free")
# Measured on Debian 12 and 13 (x86-64), rounded up: bytes fetched, and bytes on disk per path.
_FETCHED = 200 << 20
_DISK = {WORK: 1200 << 20, "/usr": 500 << 20, "/var/cache/apt": 120 << 20, "/lib/modules": 60 << 20}


class Driver(Installer):
    """Builds, signs and installs the kernel modules of the open driver."""

    name = "driver"

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._signing = signed.Signing(config)
        self._choice = Choice(config)
        self._cache = settings.parse(config)

    def refuse(self, host: Host) -> list[Refusal]:
        """What cannot work, found before anything is fetched: system, kernel, sources, signer."""
        if self._choice.nothing:
            return []
        system = host.os_release()
        name = system.get("PRETTY_NAME") or system.get("ID") or "this system"
        if system.get("ID") != "debian":
            reason = f"the driver comes from Debian's own packages, and this is {name}"
            return [Refusal("driver.system", reason, "use an image with Debian 12 or later")]
        kernel = kernels.boot_kernel(host, self.config)
        if kernel is None:
            wanted = self.config.boot_kernel
            what = f"kernel {wanted} is not installed" if wanted else "no kernel is installed"
            return [Refusal("driver.kernel", what, "install a kernel image in the image first")]
        found = []
        trust = compat.db_trust("debian", kernel)
        if self.config.secure_boot == "required" and trust.trusts_db is False:
            reason = f"{name}, kernel {kernel}: {trust.reason}"
            found.append(Refusal("driver.kernel-ignores-db", reason, trust.remedy))
        if found or not self._changes(host):
            return found
        found += self._choice.refuse(host)
        if self._choice.from_distribution(host):
            found += self._refuse_sources(host)
        return found + self._signing.refuse(host, kernel)

    def _refuse_sources(self, host: Host) -> list[Refusal]:
        """The package is in contrib and what it is used with in non-free."""
        if self._cache.offline:
            return []
        have = {component for source in debian.apt_sources(host) for component in source.components}
        missing = [component for component in _COMPONENTS if component not in have]
        if not missing:
            return []
        return [
            Refusal(
                "driver.apt-components",
                f"apt's sources lack the component(s) {' and '.join(missing)}, "
                f"which {self._choice.package(host)} needs",
                "add 'contrib non-free non-free-firmware' to the sources in /etc/apt",
            )
        ]

    def inspect(self, host: Host) -> dict[str, Any]:
        """Kernel, driver version, certificate, each module by hash, the blacklist."""
        if self._choice.nothing:
            return {}
        kernel = kernels.boot_kernel(host, self.config)
        record = kernels.record(host, kernel)
        certificate = host.read_bytes(CERTIFICATE)
        state: dict[str, Any] = {
            "kernel": record.get("kernel"),
            "version": record.get("driver"),
            "certificate": hashlib.sha256(certificate).hexdigest() if certificate else None,
            "blacklist": _lines(host.read(BLACKLIST)),
            "dkms": _present(dkms.inspect(host)),
            "new-kernel": _present(newkernel.inspect(host)),
        }
        if kernel is not None:
            for path in host.glob(kernels.module_directory(kernel), "*.ko*"):
                data = host.read_bytes(path) or b""
                name = path.rpartition("/")[2]
                state[f"module {name}"] = hashlib.sha256(data).hexdigest()
        return {key: value for key, value in state.items() if value is not None}

    def desired(self, host: Host) -> dict[str, Any]:
        """The same; hashes and version are those of the record when it fits kernel and signer."""
        if self._choice.nothing:
            return {}
        kernel = kernels.boot_kernel(host, self.config)
        record = kernels.record(host, kernel)
        fingerprint = self._signing.fingerprint(host, record) or record.get("certificate")
        fits = bool(record) and record.get("certificate") == fingerprint
        fits = fits and self._choice.fits(host, record)
        # Unsigned modules that were right without Secure Boot are not with it.
        fits = fits and not (fingerprint == signed.UNSIGNED and self._needs_signatures)
        modules = record["modules"] if fits else {f"{m}.ko": {} for m in _MODULES}
        state = {
            "kernel": kernel,
            "version": record["driver"] if fits else self._choice.words(host),
            "blacklist": _lines(_BLACKLIST_TEXT),
            "new-kernel": "ours",
        }
        if dkms.desired(host, signs=self._signing.signs) == "ours":
            state["dkms"] = "ours"
        if fingerprint != signed.UNSIGNED:
            state["certificate"] = fingerprint or "the signer's"
        for name, facts in modules.items():
            state[f"module {name}"] = facts.get("sha256", f"signed, for {kernel}")
        return state

    @property
    def _needs_signatures(self) -> bool:
        return self.config.secure_boot == "required"

    def _changes(self, host: Host) -> list[Change]:
        return diff(self.inspect(host), self.desired(host))

    def contract(self, host: Host) -> Contract:
        """Hosts of apt's sources, bytes, disk, the signing key, and the fix-ups that may apply."""
        if self._choice.nothing:
            return Contract(notes=["gpu-driver-provider=NONE: no driver is installed"])
        kernel = kernels.boot_kernel(host, self.config)
        if kernel is None or self.refuse(host) or not self._changes(host):
            return Contract()
        disk = dict(_DISK)
        notes = [f"the driver is built for kernel {kernel}, unless the cache has it"]
        notes += [*self._cache.notes, *self._signing.notes, *dkms.notes(host)]
        trust = compat.db_trust(host.os_release().get("ID", ""), kernel)
        if self.config.secure_boot == "required" and trust.trusts_db is None:
            notes.append(f"nobody has measured whether kernel {kernel} trusts UEFI db for modules")
        for fixup in fixups.load():
            spans = " to below ".join(bound or "any" for bound in fixup.driver)
            notes.append(
                f"fix-up {fixup.id}, only if the kernel's headers ask for it and the driver is "
                f"{spans}: {fixup.why}"
            )
        notes += self._choice.notes(host)
        hosts = set(self._cache.hosts)
        if not self._cache.offline:
            hosts.update(self._choice.hosts(host))
        if not self._cache.offline:
            hosts.update(debian.apt_hosts(host))
        return Contract(sorted(hosts), _FETCHED, disk, self._signing.keys, notes)

    def apply(self, host: Host, changes: list[Change], log: Log) -> None:
        """Resolve, look in the cache, else build; sign; install. Safe to be killed anywhere."""
        kernel = kernels.boot_kernel(host, self.config)
        if kernel is None:
            raise NodeError("no kernel to build for", where="driver")
        if all(change.key in _SETTINGS for change in changes):
            # A run that died behind the installation has not told depmod yet.
            if not kernels.is_ours(kernels.chosen(host, kernel)):
                self._depmod(host, kernel, log)
            return self._settings(host, kernel, log)
        self._signing.require(host, kernel)
        build.clear(host, WORK)
        purged = debian.restore(host)
        if purged:
            log("purge-after-interruption", packages=purged)
        with self._cache.open(lambda note: log("cache", note=note)) as cache:

            def build_it(resolved: debian.Resolved, chosen: list[fixups.Fixup]) -> kmods.Built:
                return modulebuild.build_modules(
                    host, resolved, chosen, self._choice.fetch, WORK, log
                )

            entry, wanted = kmods.obtain(
                host,
                kernel,
                cache,
                build_it,
                log,
                offline=self._cache.offline,
                choose=self._choice.source,
                asked=self._choice.wishes(host),
            )
            modules = {name: entry.read(name) for name in entry.files}
        ready, certificate = self._signing.sign(host, modules, kernel, log)
        provenance = {
            "driver": wanted.driver,
            "kernel": kernel,
            **wanted.identities,
            "fixups": entry.details["fixups"],
            "built": entry.details["built"],
            "build_seconds": entry.details["seconds"],
            "cache_key": entry.key,
            "cache": "hit" if entry.hit else "miss",
            "cache_store": entry.hit,
            "certificate": certificate.sha256 if certificate else signed.UNSIGNED,
            "signed": self._signing.way,
        }
        if not entry.hit:
            provenance["build_environment"] = entry.details["environment"]
        self._install(host, modules, ready, certificate, provenance, entry.envelope, log)
        self._settings(host, kernel, log)
        return None

    def _install(
        self,
        host: Host,
        modules: dict[str, bytes],
        ready: dict[str, bytes],
        certificate: Optional[Certificate],
        provenance: dict[str, Any],
        envelope: bytes,
        log: Log,
    ) -> None:
        """Replace the modules' directory as a whole, then the certificate and depmod's tables."""
        kernel = provenance["kernel"]
        place = kernels.module_directory(kernel)
        record = {
            "schema": 1,
            "kernel": kernel,
            "driver": provenance["driver"],
            "certificate": provenance["certificate"],
            "key": self._signing.identity,
            "wishes": self._choice.wishes(host),
            "modules": {name: _recorded(data, modules[name]) for name, data in ready.items()},
            "provenance": provenance,
        }
        with log.step("install", directory=place, modules=sorted(ready)):
            new, old = f"{place}.new", liveswap.BEFORE
            host.remove(new)
            host.remove(old)
            for name, data in ready.items():
                host.write(f"{new}/{name}", data)
            text = json.dumps(record, indent=1, sort_keys=True) + "\n"
            host.write(f"{new}/{audit.RECORD}", text)
            host.write(f"{new}/{kernels.ENTRY}", envelope)
            if certificate is not None:
                host.write(CERTIFICATE, certificate.der)
            else:
                host.remove(CERTIFICATE)
            if host.exists(place):
                make_directory(host.path(old).parent)
                host.move(place, old)
            host.move(new, place)
            if not host.is_running_system:
                host.remove(old)
        self._depmod(host, kernel, log)
        self._swap(host, kernel, provenance, log)
        host.remove(old)

    def _depmod(self, host: Host, kernel: str, log: Log) -> None:
        with log.step("depmod", kernel=kernel):
            host.run(["depmod", "-a", kernel], timeout=300)
            host.sync("/lib/modules")

    def _swap(self, host: Host, kernel: str, provenance: dict[str, Any], log: Log) -> None:
        """Change the loaded modules too, or note that only a reboot can; undo what fails."""
        if host.is_running_system:
            done = liveswap.swap_or_take_back(host, provenance["driver"], kernel, log)
            remember(host, REBOOT, {"needed": done.reboot, "driver": provenance["driver"]})

    def _settings(self, host: Host, kernel: str, log: Log) -> None:
        """Later kernels are provided for; nouveau is kept away, also out of the initramfs."""
        dkms.install(host, dkms.desired(host, signs=self._signing.signs))
        newkernel.install(host)
        host.write(BLACKLIST, _BLACKLIST_TEXT)
        has_nouveau = any(host.path(f"/lib/modules/{kernel}/kernel").rglob("nouveau.ko*"))
        if has_nouveau and host.find_program("update-initramfs"):
            with log.step("initramfs", kernel=kernel):
                host.run(["update-initramfs", "-u", "-k", kernel], timeout=900)
                host.sync("/boot")

    def verify(self, host: Host) -> list[Problem]:
        """Signatures, kernel version and depmod's choice, read back from the installed files."""
        if self._choice.nothing:
            return []
        kernel = kernels.boot_kernel(host, self.config)
        again = "apply again"
        der = host.read_bytes(CERTIFICATE)
        unsigned = kernels.record(host, kernel).get("certificate") == signed.UNSIGNED
        unsigned = unsigned and not self._needs_signatures
        if kernel is None or (der is None and not unsigned):
            return [Problem("no driver is installed for the kernel that will boot", again)]
        try:
            trusted = [] if der is None else [read_certificate(der)]
        except DERError as wrong:
            return [Problem(f"{CERTIFICATE} is not a certificate: {wrong}", again)]
        place = kernels.module_directory(kernel)
        problems = []
        paths = audit.find_modules(host.path(place))
        for path in paths:
            for found in audit.audit_module(path, trusted):
                if unsigned and found.kind == "unsigned":
                    continue
                problems.append(Problem(f"{path.name}: {found.kind}: {found.detail}", again))
            magic = elf.modinfo(modsig.read_module(path)).get("vermagic", [""])[0]
            if not magic.startswith(f"{kernel} "):
                problems.append(Problem(f"{path.name} is built for {magic!r}", again))
        if not paths:
            problems.append(Problem(f"{place} holds no module", again))
        chosen = kernels.chosen(host, kernel)
        if not kernels.is_ours(chosen):
            problems.append(Problem(f"modprobe would load {chosen or 'nothing'}", again))
        return problems

    def remove(self, host: Host) -> None:
        """Take out modules, certificate and blacklist, of every installed kernel."""
        debian.restore(host)
        build.clear(host, WORK)
        host.remove(liveswap.BEFORE)
        for tree in host.glob("/lib/modules", "*"):
            release = tree.rpartition("/")[2]
            place = kernels.module_directory(release)
            removed = [host.remove(place + suffix) for suffix in ("", ".new")]
            with contextlib.suppress(OSError):  # others may have put something there
                host.path(f"{tree}/updates").rmdir()
            if any(removed):
                host.run(["depmod", "-a", release], timeout=300)
                host.sync("/lib/modules")
        dkms.install(host, "absent")
        newkernel.remove(host)
        host.remove(CERTIFICATE)
        host.prune(CERTIFICATE.rpartition("/")[0])
        host.remove(BLACKLIST)

    def provenance(self, host: Host) -> dict[str, Any]:
        """What the installed modules were made of; empty when there are none.

        ``reboot``: why the loaded driver is still another one than the installed.
        """
        found = kernels.record(host, kernels.boot_kernel(host, self.config)).get("provenance", {})
        wait = recall(host, REBOOT)
        stale = bool(wait.get("needed")) and liveswap.loaded(host) not in (None, wait.get("driver"))
        return {**found, "reboot": wait["needed"]} if found and stale else dict(found)


def _recorded(ready: bytes, body: bytes) -> dict[str, str]:
    """Hashes of a module for the record; of its stripped bytes only where these were signed."""
    found = {"sha256": hashlib.sha256(ready).hexdigest()}
    if ready != body:
        found["body_sha256"] = hashlib.sha256(body).hexdigest()
    return found


def _present(state: str) -> Optional[str]:
    return None if state == "absent" else state


def _lines(text: Optional[str]) -> Optional[list[str]]:
    """What a modprobe.d file says, without its comments."""
    if text is None:
        return None
    return [line for line in text.splitlines() if line and not line.startswith("#")]
