"""Debian's archive as apt gives it, with lists and sources of our own: no root, the host unchanged.

Proxies, logins and certificates are those of the machine's apt; only which suites are looked at is
ours. What apt downloads it has verified: the suite's signature, and by it every file's SHA-256.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from harness.errors import InfraError
from harness.lab.base import sha256_file
from harness.lab.namespace import host_env

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_SECONDS = 1800
_FILE = re.compile(r"^'\S+' (\S+) \d+ SHA256:([0-9a-f]{64})", re.MULTILINE)


class Archive:
    """``suites`` of the archive at ``mirror``, sources too; lists and logs are below ``home``."""

    def __init__(self, mirror: str, suites: tuple[str, ...], home: Path) -> None:
        self._home = home
        for directory in ("lists/partial", "cache/archives/partial"):
            (home / directory).mkdir(parents=True, exist_ok=True)
        (home / "status").touch()
        lines = [
            f"{kind} [signed-by={KEYRING}] {mirror} {suite} main\n"
            for suite in suites
            for kind in ("deb", "deb-src")
        ]
        (home / "sources.list").write_text("".join(lines))
        self._options = {
            "Dir::Etc::SourceList": str(home / "sources.list"),
            "Dir::Etc::SourceParts": "/dev/null",
            "Dir::Etc::Preferences": "/dev/null",
            "Dir::Etc::PreferencesParts": "/dev/null",
            "Dir::State::Lists": str(home / "lists"),
            "Dir::State::Status": str(home / "status"),
            "Dir::Cache": str(home / "cache"),
            "Debug::NoLocking": "true",
            "Acquire::Languages": "none",
            # Of a suite that is not maintained any more, the date has passed; the signature holds.
            "Acquire::Check-Valid-Until": "false",
            "APT::Update::Error-Mode": "any",
            **({"APT::Sandbox::User": "root"} if os.geteuid() == 0 else {}),
        }

    def update(self) -> None:
        """Fetch the lists. InfraError if the mirror cannot be asked or has a suite no more."""
        self._apt(["update"], self._home)

    def fetch(self, packages: tuple[str, ...], source: str, into: Path) -> dict[str, str]:
        """Packages (``name/suite``) and a source (``name/suite``) as files below ``into``.

        Returns file name -> SHA-256 (hex). A file that is there already, and right, stays.
        """
        into.mkdir(parents=True, exist_ok=True)
        found: dict[str, str] = {}
        for words in (["download", *packages], ["source", "--download-only", source]):
            # Elsewhere: what is there already it would not tell.
            uris = self._apt([words[0], "--print-uris", *words[1:]], self._home)
            files = dict(_FILE.findall(uris))
            if not files:
                raise InfraError(f"apt-get {' '.join(words)} names no file with its SHA-256")
            found |= files
            self._apt(words, into)
        for name, digest in found.items():
            if sha256_file(into / name) != digest:
                (into / name).unlink()
                raise InfraError(f"{name} is not what the archive says", hint="run it again")
        return found

    def _apt(self, words: list[str], cwd: Path) -> str:
        options = [f"-o{key}={value}" for key, value in self._options.items()]
        try:
            done = subprocess.run(
                ["apt-get", "-q", *options, *words],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={**host_env(), "LC_ALL": "C"},
                timeout=_SECONDS,
                check=False,
            )
        except FileNotFoundError as error:
            raise InfraError("there is no apt-get here", hint="Debian or Ubuntu") from error
        except subprocess.TimeoutExpired as error:
            raise InfraError(f"apt-get {words[0]} did not end within {_SECONDS} s") from error
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.startswith(("E:", "W:"))]
            raise InfraError(
                f"apt-get {words[0]}: {' | '.join(lines[:3]) or done.stderr.strip()[-300:]}",
                hint="AIRLOCK_MIRROR=URL names an archive that still has these suites",
            )
        return done.stdout
