"""The three controls: does this kernel refuse what it must refuse, and take what is ours?

"Our module loads" proves nothing on a kernel that does not enforce signatures. So the same module
is offered three times: without a signature, signed by a stranger, and as installed. Each answer is
an errno *and* what the kernel logged, because one errno has several causes (ENODEV: accepted, but
no GPU; EKEYREJECTED: no signature or the wrong one, which only the log tells apart).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Optional

from installers import audit, elf, modsig
from installers.modsig import SignatureError

# finit_module(2) and delete_module(2) by machine; the table of asm-generic serves the new ports.
_SYSCALLS = {"x86_64": (313, 176), "aarch64": (273, 106), "riscv64": (273, 106)}
_UNLOAD_WAIT = os.O_NONBLOCK  # delete_module: do not wait for users of the module
_CHUNK = 8192  # /dev/kmsg gives one record a read; larger than its longest record


class ControlError(Exception):
    """The controls cannot be run here at all; the message says why."""


def _syscall(number: int, *arguments: Any) -> int:
    """0, or the errno of a system call that failed."""
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    return 0 if libc.syscall(ctypes.c_long(number), *arguments) == 0 else ctypes.get_errno()


def _numbers() -> tuple[int, int]:
    """(finit_module, delete_module) for this machine."""
    machine = platform.machine()
    if machine not in _SYSCALLS:
        raise ControlError(f"system call numbers of {machine} are not known")
    return _SYSCALLS[machine]


class KernelLog:
    """Reads the records that appear in /dev/kmsg after it was opened."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            os.lseek(self._file, 0, os.SEEK_END)
        except OSError as wrong:
            raise ControlError(f"the kernel log cannot be read: {wrong}") from wrong

    def close(self) -> None:
        """Give the file back."""
        os.close(self._file)

    def lines(self) -> list[str]:
        """The texts of all records since the last call, without their prefixes."""
        found: list[str] = []
        while True:
            try:
                record = os.read(self._file, _CHUNK)
            except BlockingIOError:
                return found
            except BrokenPipeError:  # records were overwritten; the next read gives what is left
                continue
            if not record:
                return found
            # "prio,seq,usec,flags;text\n KEY=value": continuation lines start with a blank.
            text = record.decode("utf-8", "replace").partition(";")[2]
            found.append(text.split("\n", 1)[0])


def installed_module(name: str, kernel: Optional[str] = None, root: Path = Path("/")) -> Path:
    """The installed file of a module; ControlError when there is none.

    Ours in ``updates/airlock`` wins over one in the kernel's own tree, as depmod has it.
    """
    tree = root / "lib/modules" / (kernel or platform.release())
    wanted = name.replace("-", "_")
    found = [
        path
        for path in audit.find_modules(tree)
        if path.name.split(".ko")[0].replace("-", "_") == wanted
    ]
    if not found:
        raise ControlError(f"no module {name} is installed below {tree}")
    return min(found, key=lambda path: ("/updates/" not in str(path), str(path)))


def _is_loaded(name: str) -> bool:
    return Path("/sys/module", name.replace("-", "_"), "initstate").exists()


def load(path: Path, log: KernelLog) -> tuple[int, list[str]]:
    """(errno or 0, kernel log lines) of loading one file; takes the module out again."""
    load, unload = _numbers()
    log.lines()
    with path.open("rb") as file:
        code = _syscall(load, ctypes.c_int(file.fileno()), ctypes.c_char_p(b""), ctypes.c_int(0))
    lines = log.lines()
    if code == 0:
        name = elf.modinfo(modsig.read_module(path))["name"][0].encode()
        _syscall(unload, ctypes.c_char_p(name), ctypes.c_int(_UNLOAD_WAIT))
    return code, lines


def run_controls(module: str, stranger: Optional[bytes] = None) -> list[dict[str, Any]]:
    """Load ``module`` unsigned, signed by a stranger (a CMS in DER, if given), and as installed.

    Returns one dict for each: ``name`` (unsigned|stranger|ours), ``module``, ``errno`` (0: loaded),
    ``errno_name``, ``kernel_log``. Raises ControlError when this machine cannot run them: not root,
    no such module, module loaded already, kernel log unreadable.
    """
    path = installed_module(module)
    try:
        body = modsig.split(modsig.read_module(path)).body
        name = elf.modinfo(body).get("name", [module])[0]
        # The signature is judged before symbols are resolved; only ours gets as far as that.
        needed = [d for d in elf.modinfo(body).get("depends", [""])[0].split(",") if d]
        variants = [("unsigned", body)]
        if stranger is not None:
            variants.append(("stranger", modsig.attach(body, stranger)))
        variants.append(("ours", modsig.read_module(path)))
    except (SignatureError, elf.ELFError) as wrong:
        raise ControlError(f"{path} cannot be read: {wrong}") from wrong
    if _is_loaded(name):
        raise ControlError(f"{name} is loaded already: a refusal could not be seen")
    if needed:
        subprocess.run(["modprobe", "-a", *needed], capture_output=True, check=False)
    log = KernelLog()
    try:
        # /run is memory: an unsigned module of ours must never reach the disk.
        with tempfile.TemporaryDirectory(dir="/run", prefix="airlock-controls-") as directory:
            return [_control(Path(directory), kind, name, data, log) for kind, data in variants]
    finally:
        log.close()


def _control(directory: Path, kind: str, name: str, data: bytes, log: KernelLog) -> dict[str, Any]:
    """One control: write the variant, offer it to the kernel, remove it."""
    path = directory / f"{name}-{kind}.ko"
    path.write_bytes(data)
    try:
        code, lines = load(path, log)
    finally:
        path.unlink()
    return {
        "name": kind,
        "module": name,
        "errno": code,
        "errno_name": errno.errorcode.get(code, str(code)) if code else "",
        "kernel_log": lines,
    }
