"""What the programs that use a key say of it: gpg, apt and rpm, each where it is installed."""

from __future__ import annotations

import time
from collections.abc import Iterable

from installers import keypolicy
from installers.engine import Problem
from installers.errors import CommandError
from installers.host import RUN_DIR, Host, run_directory

_GPG_HOME = f"{RUN_DIR}/gnupg"
# apt verifies with Sequoia's sqv where it brings this method, with gpgv elsewhere.
_APT_SQV = "/usr/lib/apt/methods/sqv"
_APT_POLICY = "/etc/crypto-policies/back-ends/apt-sequoia.config"
_SECONDS = 60.0


def objection(host: Host, judgement: keypolicy.Judgement, *, now: float) -> str:
    """Why this system will not use a key, empty if it will."""
    if judgement.unusable:
        return judgement.unusable
    if judgement.weak and refuses_sha1(host, now):
        return f"is bound by {judgement.hash.upper()} alone, which apt here refuses"
    return ""


def refuses_sha1(host: Host, now: float) -> bool:
    """Whether apt's policy on this node is the one that ended SHA-1."""
    ended = time.strftime("%Y-%m-%d", time.gmtime(now)) >= keypolicy.SHA1_REFUSED_SINCE
    return ended and host.exists(_APT_SQV) and not host.exists(_APT_POLICY)


def gpg(host: Host, path: str, fingerprints: list[str]) -> list[Problem]:
    """Read a keyring with gpg: the primary keys must be exactly these."""
    if host.find_program("gpg") is None:
        return []
    run_directory(host)
    # A home of its own: gpg makes files there, and must not see root's keys nor its options.
    host.path(_GPG_HOME).mkdir(mode=0o700, exist_ok=True)
    try:
        command = ["gpg", "--homedir", _GPG_HOME, "--no-options", "--batch", "--with-colons"]
        shown = host.run([*command, "--show-keys", path], timeout=_SECONDS).out
    except CommandError as error:
        return [Problem(f"gpg cannot read {path}: {error.what}", "apply again")]
    finally:
        host.remove(_GPG_HOME)
    found: list[str] = []
    primary = False
    for line in shown.splitlines():
        fields = line.split(":")
        if fields[0] == "fpr" and primary:
            found.append(fields[9])
        primary = fields[0] == "pub"
    if sorted(found) != fingerprints:
        return [Problem(f"gpg finds {', '.join(found) or 'no key'} in {path}", "apply again")]
    return []


def apt(host: Host, wanted: Iterable[tuple[str, str]]) -> list[Problem]:
    """Ask apt, without any network, whether it takes each (address, from this source's file).

    It names no keyring here; that the source names ours, and nothing contradicts, is what counts.
    """
    if host.find_program("apt-get") is None:
        return []
    # Without this option apt shows only what it has fetched already.
    command = ["apt-get", "indextargets", "--no-release-info", "--format"]
    try:
        shown = host.run([*command, "$(REPO_URI) $(SOURCESENTRY)"], timeout=_SECONDS).out
    except CommandError as error:
        return [Problem(f"apt cannot read its sources: {error.what}", "mend the file it names")]
    said = {tuple(line.rpartition(":")[0].split(" ", 1)) for line in shown.splitlines()}
    return [
        Problem(
            f"apt does not take {uri} from {path}",
            "another file of apt's configuration switches it off: look for it there",
        )
        for uri, path in wanted
        if (f"{uri.rstrip('/')}/", path) not in said
    ]


def has_rpm(host: Host) -> bool:
    """Whether there is a database to import keys into."""
    return host.find_program("rpm") is not None


def rpm_has(host: Host, fingerprint: str) -> bool:
    """Whether rpm's database, against which packages are checked, holds the key."""
    return _rpm_name(host, fingerprint) is not None


def rpm_import(host: Host, path: str) -> None:
    """Import the keys of an armored file. Raises CommandError."""
    host.run(["rpm", "--import", path], timeout=_SECONDS)
    host.sync("/var/lib")


def rpm_forget(host: Host, fingerprint: str) -> None:
    """Take a key out of rpm's database again. Raises CommandError."""
    name = _rpm_name(host, fingerprint) if has_rpm(host) else None
    if name is not None:
        host.run(["rpm", "-e", "--allmatches", name], timeout=_SECONDS)


def _rpm_name(host: Host, fingerprint: str) -> str | None:
    """The pseudo package of a key: its version is the key's id, or since rpm 6 its fingerprint."""
    query = ["rpm", "-q", "gpg-pubkey", "--qf", "%{VERSION} %{NAME}-%{VERSION}-%{RELEASE}\\n"]
    shown = host.run(query, timeout=_SECONDS, check=False).out
    for line in shown.splitlines():
        version, _, name = line.partition(" ")
        if name.startswith("gpg-pubkey-") and fingerprint.lower().endswith(version):
            return name
    return None
