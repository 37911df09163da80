"""The machine. The only module that runs programs on it and writes its files."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from installers.errors import CommandError, NodeError
from installers.redact import redact_text

RUN_DIR = "/run/airlock"
APT_CONF = f"{RUN_DIR}/apt.conf"
_LINK_LIMIT = 40
# Children get this and Host.env, not our own environment: a proxy that was set by hand in the
# caller's shell must not decide how the node is made.
_BASE_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}
_APT_ENV = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
# A file of ours that a package later brings as a conffile must not end in a question to nobody.
_APT_OPTIONS = (
    "-q",
    "-y",
    "-o",
    "APT::Update::Error-Mode=any",
    "-o",
    "Dpkg::Use-Pty=0",
    "-o",
    "Dpkg::Options::=--force-confdef",
    "-o",
    "Dpkg::Options::=--force-confold",
)


@dataclass(frozen=True)
class Result:
    """What a program said. ``code`` is its exit status, negative for a signal."""

    code: int
    out: str
    err: str


class Host:
    """A node, by its root directory.

    ``root`` is ``/`` or a mounted image; programs are run in it with chroot. ``env`` is exported to
    every child and holds the proxy with its credentials while installers are applied. ``secrets``
    are taken out of every error. ``offline`` is True while planning: nothing may be fetched then.
    """

    def __init__(self, root: Union[str, Path] = "/", *, offline: bool = False) -> None:
        self.root = Path(root).resolve()
        self.env: dict[str, str] = {}
        self.secrets: list[str] = []
        self.offline = offline

    @property
    def is_running_system(self) -> bool:
        """True when the root is this machine's own and systemd is its first process."""
        return self.root == Path("/") and Path("/run/systemd/system").is_dir()

    def path(self, p: str, *, follow: bool = True) -> Path:
        """The path under ``root`` of ``p``, which is absolute on the node.

        Symbolic links are resolved inside the root (an absolute link of an image must not lead to
        our own files); with ``follow=False`` the last part is left as it is. Raises NodeError.
        """
        if not p.startswith("/"):
            raise NodeError("a path on the node must be absolute", where=p)
        # Strings and no Paths: a run asks for a thousand of these.
        root = str(self.root).rstrip("/")
        pending = [part for part in p.split("/") if part][::-1]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == ".":
                continue
            if part == "..":
                done = done[:-1]
                continue
            done.append(part)
            target = _link_target("/".join((root, *done))) if pending or follow else None
            if target is not None:
                links += 1
                if links > _LINK_LIMIT:
                    raise NodeError("too many symbolic links", where=p)
                done = [] if target.startswith("/") else done[:-1]
                pending.extend([piece for piece in target.split("/") if piece][::-1])
        return Path("/".join((root, *done)) or "/")

    def real(self, p: str) -> str:
        """The node path that ``p`` leads to, every symbolic link resolved."""
        return f"/{self.path(p).relative_to(self.root)}"

    def exists(self, p: str) -> bool:
        """True when the file, directory or link target is there."""
        return self.path(p).exists()

    def glob(self, directory: str, pattern: str) -> list[str]:
        """Sorted node paths of entries of ``directory`` that match ``pattern`` (not recursive)."""
        base = directory.rstrip("/")
        return sorted(f"{base}/{entry.name}" for entry in self.path(directory).glob(pattern))

    def read_bytes(self, p: str) -> Optional[bytes]:
        """Content of a file, None when there is none."""
        try:
            return self.path(p).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise NodeError(
                error.strerror or "cannot be read", where=p, remedy="run it as root"
            ) from error

    def read(self, p: str) -> Optional[str]:
        """The same as text; bytes that are not UTF-8 survive a write back."""
        data = self.read_bytes(p)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def write(self, p: str, data: Union[str, bytes], mode: int = 0o644) -> bool:
        """Put a file in place at once, or not at all. True if content or mode changed."""
        content = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        target = self.path(p)
        try:
            old = os.lstat(target)
        except FileNotFoundError:
            old = None
        except NotADirectoryError as error:
            raise NodeError("a parent is not a directory", where=p) from error
        if old is not None and stat.S_ISDIR(old.st_mode):
            raise NodeError("is a directory", where=p, remedy="move it away")
        if old is not None and stat.S_IMODE(old.st_mode) == mode and self.read_bytes(p) == content:
            return False
        temporary = _temporary(target)
        try:
            make_directory(target.parent)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                if old is not None:
                    with contextlib.suppress(PermissionError):
                        os.fchown(descriptor, old.st_uid, old.st_gid)
                os.fchmod(descriptor, mode)
                stream.flush()
                os.fsync(descriptor)
            temporary.rename(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise NodeError(error.strerror or "cannot be written", where=p) from error
        sync_directory(target.parent)
        return True

    def symlink(self, p: str, target: str) -> bool:
        """Make ``p`` a link to ``target``, over whatever file was there. True if changed."""
        link = self.path(p, follow=False)
        if self.readlink(p) == target:
            return False
        make_directory(link.parent)
        temporary = _temporary(link)
        temporary.symlink_to(target)
        temporary.rename(link)
        sync_directory(link.parent)
        return True

    def readlink(self, p: str) -> Optional[str]:
        """Where a link points to, None when ``p`` is no link."""
        link = self.path(p, follow=False)
        return str(link.readlink()) if link.is_symlink() else None

    def remove(self, p: str) -> bool:
        """Remove a file, a link (not its target) or a whole directory. True if it was there."""
        target = self.path(p, follow=False)
        if target == self.root:
            raise NodeError("refusing to remove the root directory", where=p)
        try:
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            else:
                target.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise NodeError(error.strerror or "cannot be removed", where=p) from error
        sync_directory(target.parent)
        return True

    def move(self, p: str, to: str) -> None:
        """Rename a file, a link or a directory, durably; copy it where that is another disk."""
        source, target = self.path(p, follow=False), self.path(to, follow=False)
        make_directory(target.parent)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise NodeError(error.strerror or "cannot be moved", where=p) from error
            temporary = _temporary(target)
            # With owners, modes and links, which shutil leaves out.
            self.run(["cp", "-a", "--", p, f"{to.rpartition('/')[0]}/{temporary.name}"])
            self.sync(to.rpartition("/")[0])
            temporary.rename(target)
            self.remove(p)
        sync_directory(target.parent)
        sync_directory(source.parent)

    def prune(self, p: str) -> bool:
        """Remove a directory if it is empty. True if it was."""
        target = self.path(p, follow=False)
        try:
            target.rmdir()
        except OSError:
            return False
        sync_directory(target.parent)
        return True

    def sync(self, p: str) -> None:
        """Make what programs wrote to the file system of ``p`` survive a power loss.

        Files of ours need it not: ``write`` syncs each. Programs mostly do not sync theirs.
        """
        here = self.path(p)
        while not here.exists():
            here = here.parent
        descriptor = os.open(here, os.O_RDONLY)
        try:
            syncfs(descriptor)
        finally:
            os.close(descriptor)

    def free(self, p: str) -> int:
        """Free bytes for root on the file system that holds ``p`` or its nearest parent."""
        here = self.path(p)
        while not here.exists():
            here = here.parent
        return shutil.disk_usage(here).free

    def find_program(self, name: str) -> Optional[str]:
        """Node path of a program, None when it is not installed."""
        for directory in _BASE_ENV["PATH"].split(":"):
            candidate = self.path(f"{directory}/{name}")
            if candidate.is_file() and os.access(candidate, os.X_OK):
                return f"{directory}/{name}"
        return None

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
        check: bool = True,
        input: Union[str, bytes, None] = None,
        cwd: Optional[str] = None,
    ) -> Result:
        """Run a program on the node. ``timeout`` in seconds; ``cwd`` is a node path.

        Raises CommandError when it cannot be started, exits non-zero (with ``check``) or runs into
        its time limit; then its whole process group is killed.
        """
        command = list(argv)
        # env -C: the directory is meant inside the root, and chroot itself goes to "/".
        inner = ["env", "-C", cwd, *command] if cwd else command
        full = inner if self.root == Path("/") else ["chroot", str(self.root), *inner]
        shown = [redact_text(word, self.secrets) for word in command]
        try:
            process = subprocess.Popen(
                full,
                env={**_BASE_ENV, **self.env, **(env or {})},
                stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise CommandError(shown, 127, "", error.strerror or str(error)) from None
        try:
            given = input.encode() if isinstance(input, str) else input
            out, err = process.communicate(given, timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise CommandError(shown, None, self._text(out), self._text(err)) from None
            raise
        result = Result(
            process.returncode, out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        )
        if check and result.code != 0:
            raise CommandError(shown, result.code, self._text(out), self._text(err))
        return result

    def apt(self, *args: str, timeout: Optional[float] = None) -> Result:
        """``apt-get`` without questions, through the proxy with its credentials."""
        config = [f"-c={APT_CONF}"] if self.exists(APT_CONF) else []
        return self.run(["apt-get", *config, *_APT_OPTIONS, *args], env=_APT_ENV, timeout=timeout)

    def os_release(self) -> dict[str, str]:
        """``/etc/os-release`` as a dictionary; empty when there is none."""
        text = self.read("/etc/os-release") or self.read("/usr/lib/os-release") or ""
        pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
        return {key.strip(): value.strip().strip("\"'") for key, value in pairs}

    def redact(self, text: str) -> str:
        """``text`` without the secrets of this run."""
        return redact_text(text, self.secrets)

    def _text(self, data: bytes) -> str:
        return redact_text(data.decode("utf-8", "replace"), self.secrets)

    def hide(self, found: Iterable[str]) -> None:
        """Add secrets that must not be seen from now on."""
        self.secrets = list(dict.fromkeys([*self.secrets, *found]))


def _link_target(path: str) -> Optional[str]:
    """Where a symbolic link leads, None for everything else and for what is not there."""
    try:
        return os.readlink(path)  # noqa: PTH115 - five times as quick as the Path's
    except ValueError:  # a NUL: whoever opens it is told
        return None
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise


def _temporary(target: Path) -> Path:
    """Where a file is written before it takes its place; what a killed run left there is gone."""
    temporary = target.parent / f".{target.name}.airlock"
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    return temporary


def run_directory(host: Host) -> None:
    """Make ``/run/airlock``, private: it holds transient secrets and sockets."""
    path = host.path(RUN_DIR)
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def make_directory(directory: Path) -> None:
    """Make a directory and its parents, each so that it survives a power loss."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_directory(one.parent)


def syncfs(descriptor: int) -> None:
    """Bring a whole file system to the disk, as syncfs(2), which Python has not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor) != 0:
        raise OSError(ctypes.get_errno(), "cannot be synced")


def sync_directory(directory: Path) -> None:
    """Make a rename or an unlink in ``directory`` survive a power loss."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
