"""What NVML says of the cards, by ctypes; run in a process of its own, for a library may hang.

Names and numbers: NVIDIA's nvml.h. Every call that exists in all supported drivers is made by the
name that it has there; what a card or a driver does not support is an error beside the value.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any, Optional

LIBRARY = "libnvidia-ml.so.1"
ERRORS = {
    1: "uninitialized",
    2: "invalid argument",
    3: "not supported",
    4: "no permission",
    6: "not found",
    8: "a card lacks external power",
    9: "driver not loaded",
    10: "timeout",
    11: "a problem with a card's interrupts",
    12: "library not found",
    13: "function not found in the library",
    14: "a card's infoROM is corrupted",
    15: "the GPU is lost",
    16: "a card must be reset",
    17: "blocked by the operating system",
    18: "driver/library version mismatch",
    19: "in use",
    999: "unknown error",
}
LOST = 15
_TEXT, _UUID = 96, 96
UNCORRECTED, CORRECTED, VOLATILE = 1, 0, 0


class Refused(Exception):
    """A call did not succeed. ``code``: nvmlReturn_t."""

    def __init__(self, code: int) -> None:
        super().__init__(ERRORS.get(code, f"error {code}"))
        self.code = code


class _Pci(ctypes.Structure):
    """nvmlPciInfo_t, version 3."""

    _fields_ = (
        ("legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("id", ctypes.c_uint),
        ("subsystem", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


class _Memory(ctypes.Structure):
    """nvmlMemory_t, version 1, in bytes."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class Library:
    """The loaded library. OSError where there is none."""

    def __init__(self, name: str = LIBRARY) -> None:
        self._library = ctypes.CDLL(name)

    @property
    def double(self) -> bool:
        """Whether it says itself that it is no real one."""
        return hasattr(self._library, "airlock_double")

    def call(self, name: str, *arguments: Any) -> None:
        """Refused with the code; 13 where the library has no such function."""
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise Refused(13) from None
        code = function(*arguments)
        if code:
            raise Refused(code)

    def text(self, name: str, *before: Any) -> str:
        """What a function writes into a buffer."""
        buffer = ctypes.create_string_buffer(_TEXT)
        self.call(name, *before, buffer, ctypes.c_uint(_TEXT))
        return buffer.value.decode("utf-8", "replace")

    def numbers(self, name: str, *before: Any, count: int = 1) -> list[int]:
        """What a function writes into ``count`` unsigned ints."""
        found = [ctypes.c_uint() for _ in range(count)]
        self.call(name, *before, *map(ctypes.byref, found))
        return [number.value for number in found]


def collect() -> dict[str, Any]:
    """The library's own view.

    ``error`` and ``code`` where it does not begin; else ``driver``, ``version`` (the library's own
    release), ``cuda`` (12040 for 12.4) and ``cards``: a dictionary each, with ``errors`` by field.
    """
    try:
        library = Library()
    except OSError as error:
        return {"error": str(error), "code": 12, "double": False}
    found: dict[str, Any] = {"double": library.double}
    try:
        library.call("nvmlInit_v2")
    except Refused as refused:
        # A library of another release than the driver still says which one it is.
        own = _tried(lambda: library.text("nvmlSystemGetNVMLVersion"))
        return {**found, "error": str(refused), "code": refused.code, "version": _own(own)}
    found["error"] = None
    found["driver"] = _tried(lambda: library.text("nvmlSystemGetDriverVersion"))
    found["version"] = _own(_tried(lambda: library.text("nvmlSystemGetNVMLVersion")))
    cuda = _tried(lambda: library.numbers("nvmlSystemGetCudaDriverVersion_v2"))
    found["cuda"] = cuda[0] if cuda else None
    try:
        count = library.numbers("nvmlDeviceGetCount_v2")[0]
    except Refused as refused:
        return {**found, "error": str(refused), "code": refused.code}
    found["cards"] = [_card(library, index) for index in range(count)]
    library.call("nvmlShutdown")
    return found


def _own(text: Optional[str]) -> Optional[str]:
    """The driver's release out of NVML's version: "12.550.163.01" is that of 550.163.01."""
    return text.partition(".")[2] or None if text else None


def _tried(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Refused:
        return None


def _card(library: Library, index: int) -> dict[str, Any]:
    handle = ctypes.c_void_p()
    card: dict[str, Any] = {"index": index, "errors": {}}
    try:
        library.call("nvmlDeviceGetHandleByIndex_v2", index, ctypes.byref(handle))
    except Refused as refused:
        return {**card, "errors": {"handle": str(refused)}, "code": refused.code}
    asked: dict[str, Callable[[], Any]] = {
        "name": lambda: library.text("nvmlDeviceGetName", handle),
        "uuid": lambda: library.text("nvmlDeviceGetUUID", handle),
        "address": lambda: _address(library, handle),
        "memory": lambda: _memory(library, handle),
        "minor": lambda: library.numbers("nvmlDeviceGetMinorNumber", handle)[0],
        "capability": lambda: library.numbers(
            "nvmlDeviceGetCudaComputeCapability", handle, count=2
        ),
        "persistence": lambda: bool(library.numbers("nvmlDeviceGetPersistenceMode", handle)[0]),
        "ecc": lambda: [bool(n) for n in library.numbers("nvmlDeviceGetEccMode", handle, count=2)],
        "uncorrected": lambda: _ecc(library, handle, UNCORRECTED),
        "corrected": lambda: _ecc(library, handle, CORRECTED),
        "remapped": lambda: library.numbers("nvmlDeviceGetRemappedRows", handle, count=4),
        "retired_pending": lambda: bool(
            library.numbers("nvmlDeviceGetRetiredPagesPendingStatus", handle)[0]
        ),
        "mig": lambda: [bool(n) for n in library.numbers("nvmlDeviceGetMigMode", handle, count=2)],
        "slices": lambda: _slices(library, handle),
        "link": lambda: {
            name: library.numbers(f"nvmlDeviceGet{function}", handle)[0]
            for name, function in (
                ("gen", "CurrPcieLinkGeneration"),
                ("width", "CurrPcieLinkWidth"),
                ("max_gen", "MaxPcieLinkGeneration"),
                ("max_width", "MaxPcieLinkWidth"),
            )
        },
    }
    for field, call in asked.items():
        try:
            card[field] = call()
        except Refused as refused:
            card[field] = None
            card["errors"][field] = str(refused)
            if refused.code == LOST:
                card["code"] = LOST
    return card


def _address(library: Library, handle: ctypes.c_void_p) -> str:
    """The card's address as the kernel writes it: "0000:04:00.0"."""
    pci = _Pci()
    library.call("nvmlDeviceGetPciInfo_v3", handle, ctypes.byref(pci))
    domain, _, rest = pci.bus_id.decode().lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _memory(library: Library, handle: ctypes.c_void_p) -> dict[str, int]:
    memory = _Memory()
    library.call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
    return {"total": memory.total, "used": memory.used}


def _ecc(library: Library, handle: ctypes.c_void_p, kind: int) -> int:
    """Errors since the driver was loaded."""
    found = ctypes.c_ulonglong()
    library.call("nvmlDeviceGetTotalEccErrors", handle, kind, VOLATILE, ctypes.byref(found))
    return found.value


def _slices(library: Library, handle: ctypes.c_void_p) -> list[str]:
    """UUIDs of the card's MIG devices."""
    most = library.numbers("nvmlDeviceGetMaxMigDeviceCount", handle)[0]
    found = []
    for number in range(most):
        slice_ = ctypes.c_void_p()
        try:
            library.call(
                "nvmlDeviceGetMigDeviceHandleByIndex", handle, number, ctypes.byref(slice_)
            )
        except Refused:
            continue
        found.append(library.text("nvmlDeviceGetUUID", slice_))
    return found
