"""Compile the driver's kernel modules, and say in one line why it did not work.

Every path here is a path on the node. Nothing is installed: what fails leaves a work directory
that the caller removes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tarfile
from pathlib import Path
from typing import Optional

from installers.errors import CommandError, NodeError
from installers.host import Host

TIME_LIMIT = 3 * 3600.0  # small nodes were seen to compile for 150 minutes

_REMEDY = {
    "headers-missing": "give apt a source that has the headers of the kernel that will boot",
    "api-changed": "use a newer driver, or add a fix-up to installers/data/fixups.json",
    "compiler-mismatch": "install the compiler that built this kernel",
    "no-space": "make room below /var/tmp, or give the image a larger disk",
    "out-of-memory": "build on a machine with more memory, or with fewer cores",
    "unknown": "read the compiler's words above; the build log has the rest",
}
CAUSES = tuple(_REMEDY)

# Programs of a build, as /proc/PID/comm has them.
_WORKERS = frozenset({"make", "gcc", "cc1", "as", "ld", "collect2", "objtool", "modpost", "strip"})
# A full disk or memory shows up as any error at all, so these are looked for everywhere, first.
_ANYWHERE = (
    ("no-space", r"No space left on device"),
    (
        "out-of-memory",
        r"virtual memory exhausted|[Cc]annot allocate memory|out of memory|"
        r"Killed signal terminated|internal compiler error: Killed|\bKilled$",
    ),
)
# Of the first error line only.
_OF_THE_ERROR = (
    (
        "compiler-mismatch",
        r"compiler differs from the one used|version mismatch|unrecognized command[- ]line option|"
        r"incompatible gcc/plugin versions|cannot load plugin|"
        r"(?:gcc|cc|clang)[-\d.]*:? .*not found|"
        r"(?:gcc|cc|clang)[-\d.]*: No such file or directory",
    ),
    (
        "headers-missing",
        r"[Uu]nable to find the kernel source tree|Kernel configuration is invalid|"
        r"generated/\S+: No such file|autoconf\.h|auto\.conf|"
        r"kernel header file .* does not exist|"
        r"(?:/lib/modules|/usr/src)/\S+: No such file or directory",
    ),
    (
        "api-changed",
        r"too (?:few|many) arguments|implicit declaration of function|has no member named|"
        r"incompatible[- ]pointer|incompatible type|unknown type name|undeclared|conflicting types|"
        r"(?:linux|drm|asm|uapi)/\S+\.h: No such file|undefined!|incomplete type|redefinition of|"
        r"macro .* (?:passed|requires) \d+ argument",
    ),
)
_ERROR_LINE = re.compile(r"(?:: (?:fatal )?error: |^ERROR: modpost: |: not found$)")
_MAKE_LINE = re.compile(r"^make(?:\[\d+\])?: \*\*\* ")


class DriverBuildError(NodeError):
    """The driver was not built. ``cause`` is one of CAUSES, ``first_error`` the compiler's line."""

    def __init__(self, cause: str, first_error: str, *, remedy: str = "") -> None:
        self.cause = cause
        self.first_error = first_error
        super().__init__(
            f"the driver was not built ({cause}): {first_error}",
            where="driver",
            remedy=remedy or _REMEDY[cause],
        )


def classify(output: str) -> tuple[str, str]:
    """(cause, first error line) of a build's output; ("unknown", last line) when none is found."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    for cause, pattern in _ANYWHERE:
        for line in lines:
            if re.search(pattern, line):
                return cause, line
    errors = [line for line in lines if _ERROR_LINE.search(line)]
    errors += [line for line in lines if _MAKE_LINE.search(line)]
    if not errors:
        return "unknown", lines[-1] if lines else "no output"
    for cause, pattern in _OF_THE_ERROR:
        if re.search(pattern, errors[0]):
            return cause, errors[0]
    return "unknown", errors[0]


def unpack(host: Host, archive: str, into: str) -> None:
    """Unpack the package's source archive. Raises NodeError when a member would lie elsewhere."""
    target = host.path(into)
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(host.path(archive)) as tar:
            for member in tar:
                inside = Path(member.name)
                if inside.is_absolute() or ".." in inside.parts:
                    raise NodeError("holds a path outside of itself", where=archive)
                if not (member.isfile() or member.isdir()):
                    raise NodeError(f"holds {member.name}, which is no plain file", where=archive)
                tar.extract(member, target, set_attrs=member.isfile())
    except (tarfile.TarError, EOFError) as error:
        raise NodeError(f"cannot be unpacked: {error}", where=archive) from error
    except OSError as error:
        cause = "no-space" if error.errno == 28 else "unknown"
        raise DriverBuildError(cause, f"{archive}: {error}") from error


def source_tree(host: Host, below: str) -> str:
    """The directory with the modules' Makefile and Kbuild below ``below``."""
    found = sorted(path.parent for path in host.path(below).rglob("Kbuild"))
    if not found:
        raise NodeError("the source package holds no kernel modules", where=below)
    return f"{below}/{found[0].relative_to(host.path(below))}"


def make_flags(kernel: str) -> list[str]:
    """What make is told: the headers of the kernel that will boot, never those of uname -r."""
    return [
        "modules",
        f"SYSSRC=/lib/modules/{kernel}/source",
        f"SYSOUT=/lib/modules/{kernel}/build",
    ]


def jobs() -> int:
    """How many compilers at once: a core each, and a GiB of memory each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, min(len(os.sched_getaffinity(0)), memory >> 30))


def compile_modules(host: Host, tree: str, kernel: str) -> dict[str, bytes]:
    """Compile and strip: module file name → bytes, unsigned. Raises DriverBuildError.

    NVIDIA's own repository is made from its top, and leaves the modules in kernel-open.
    """
    command = ["make", f"-j{jobs()}", *make_flags(kernel)]
    _run(host, command, cwd=tree)
    if host.exists(f"{tree}/kernel-open"):
        tree = f"{tree}/kernel-open"
    built = sorted(host.path(tree).glob("*.ko"))
    if not any(path.name == "nvidia.ko" for path in built):
        raise DriverBuildError("unknown", "make succeeded and left no nvidia.ko")
    # Debug sections are nine tenths of the modules; sign-then-strip would lose the signature.
    for path in built:
        _run(host, ["strip", "--strip-debug", path.name], cwd=tree)
    return {path.name: path.read_bytes() for path in built}


def _run(host: Host, command: list[str], cwd: str) -> None:
    """Run one build command; a failure becomes a DriverBuildError with its class."""
    try:
        # LC_ALL=C: the compiler's words are matched, and quoted in reports.
        result = host.run(command, cwd=cwd, env={"LC_ALL": "C"}, check=False, timeout=TIME_LIMIT)
    except CommandError as error:
        raise DriverBuildError("unknown", error.what) from error
    if result.code:
        cause, line = classify(result.err + "\n" + result.out)
        # The work directory is gone when anybody reads this.
        raise DriverBuildError(cause, line.replace(f"{cwd}/", ""))


def clear(host: Host, directory: str) -> None:
    """Remove a work directory, whatever is left of it, and what still works in it."""
    _stop_orphans(host, directory)
    shutil.rmtree(host.path(directory), ignore_errors=True)


def _stop_orphans(host: Host, directory: str) -> None:
    """End the compilers that a killed run of ours left working in ``directory`` of this root.

    They would write into the next build, which has the same place so that it gives the same bytes.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended, or belongs to somebody else
            words = (process / "cmdline").read_bytes().decode("utf-8", "replace")
            ours = f"{directory}/" in words and (process / "comm").read_text().strip() in _WORKERS
            # Builds in other roots have the same path in their arguments.
            if ours and (process / "root").samefile(host.root):
                os.kill(int(process.name), signal.SIGKILL)


def compiler_of(config: Optional[str]) -> Optional[str]:
    """The package of the compiler that built a kernel (``gcc-12``), from its configuration."""
    found = re.search(r'^CONFIG_CC_VERSION_TEXT="\S*?(gcc-\d+) ', config or "", re.MULTILINE)
    return found.group(1) if found else None
