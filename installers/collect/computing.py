"""Computes on every card through the driver's own library, and copies to and from it.

Run in a process of its own. The kernel is compiled by the node's nvcc for the very architecture of
its cards, so that a toolkit that is too old for a card is seen; it is loaded by the driver's API,
so that nothing but the driver and the toolkit has a part in it. Names and numbers: NVIDIA's cuda.h.
"""

from __future__ import annotations

import ctypes
import struct
import time
from pathlib import Path
from typing import Any, Optional

LIBRARY = "libcuda.so.1"
#: Whole numbers, so that one right answer exists: multiply, add and shift, modulo 2**32.
KERNEL = """\
extern "C" __global__ void mix(const unsigned *x, unsigned *out, unsigned n) {
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = (x[i] * 2654435761u + i) ^ (x[i] >> 7);
}
"""
COUNT, BLOCK = 1 << 16, 256
#: Bytes of a timed copy, and how many: the best one counts, the others had company.
COPIED, TIMES = 64 << 20, 6
_MAJOR, _MINOR = 75, 76


class Refused(Exception):
    """A call of the driver's API did not succeed."""


class Driver:
    """The loaded library. OSError where there is none, Refused where it does not begin."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(LIBRARY)
        self.call("cuInit", 0)

    def call(self, name: str, *arguments: Any) -> None:
        """Refused with the name that CUDA has for the error."""
        code = getattr(self._library, name)(*arguments)
        if code:
            said = ctypes.c_char_p()
            self._library.cuGetErrorName(code, ctypes.byref(said))
            raise Refused(f"{name}: {(said.value or b'error').decode()} ({code})")

    def number(self, name: str, *more: Any) -> int:
        """What a function writes into an int before its other arguments."""
        found = ctypes.c_int()
        self.call(name, ctypes.byref(found), *more)
        return found.value


def expected(values: list[int]) -> list[int]:
    """What the kernel must give, computed here."""
    return [((x * 2654435761 + i) & 0xFFFFFFFF) ^ (x >> 7) for i, x in enumerate(values)]


def collect(cubins: dict[str, str]) -> dict[str, Any]:
    """Each card's answer.

    ``cubins``: architecture ("80") -> the compiled kernel's file. Gives ``error`` where the library
    is not there or does not begin; else ``version`` (12040 for 12.4) and ``cards``: [{"index",
    "address", "architecture", "kernel" (None: right; else what was wrong, "not compiled" where
    there is none), "to_device" and "to_host" (bytes a second), "error"}].
    """
    try:
        driver = Driver()
    except (OSError, Refused) as error:
        return {"error": str(error), "version": None, "cards": []}
    count = driver.number("cuDeviceGetCount")
    return {
        "error": None,
        "version": driver.number("cuDriverGetVersion"),
        "cards": [_card(driver, index, cubins) for index in range(count)],
    }


def _card(driver: Driver, index: int, cubins: dict[str, str]) -> dict[str, Any]:
    card: dict[str, Any] = {"index": index, "error": None}
    card.update(address=None, architecture=None, kernel=None, to_device=None, to_host=None)
    try:
        device = driver.number("cuDeviceGet", index)
        major = driver.number("cuDeviceGetAttribute", _MAJOR, device)
        minor = driver.number("cuDeviceGetAttribute", _MINOR, device)
        address = ctypes.create_string_buffer(32)
        driver.call("cuDeviceGetPCIBusId", address, 32, device)
        card.update(address=address.value.decode().lower(), architecture=f"{major}{minor}")
        context = ctypes.c_void_p()
        driver.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        driver.call("cuCtxSetCurrent", context)
        card["to_device"], card["to_host"] = _copies(driver)
        cubin = cubins.get(card["architecture"])
        card["kernel"] = _kernel(driver, Path(cubin).read_bytes()) if cubin else "not compiled"
        driver.call("cuDevicePrimaryCtxRelease_v2", device)
    except (Refused, OSError) as error:
        card["error"] = str(error)
    return card


def _kernel(driver: Driver, image: bytes) -> Optional[str]:
    """What is wrong with the kernel's answer; None where it is right."""
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    driver.call("cuModuleLoadData", ctypes.byref(module), image)
    driver.call("cuModuleGetFunction", ctypes.byref(function), module, b"mix")
    values = [(i * 40503 + 12345) & 0xFFFFFFFF for i in range(COUNT)]
    size = 4 * COUNT
    x, out = _memory(driver, size), _memory(driver, size)
    driver.call("cuMemcpyHtoD_v2", x, struct.pack(f"<{COUNT}I", *values), ctypes.c_size_t(size))
    n = ctypes.c_uint(COUNT)
    each = (ctypes.c_void_p * 3)(*(ctypes.addressof(one) for one in (x, out, n)))
    shape = (COUNT // BLOCK, 1, 1, BLOCK, 1, 1, 0)
    driver.call("cuLaunchKernel", function, *shape, None, each, None)
    driver.call("cuCtxSynchronize")
    answer = ctypes.create_string_buffer(size)
    driver.call("cuMemcpyDtoH_v2", answer, out, ctypes.c_size_t(size))
    found = struct.unpack(f"<{COUNT}I", answer.raw)
    wrong = [i for i, right in enumerate(expected(values)) if found[i] != right]
    for block in (x, out):
        driver.call("cuMemFree_v2", block)
    if wrong:
        i = wrong[0]
        right = expected(values)[i]
        return f"{len(wrong)} of {COUNT} numbers are wrong; number {i} is {found[i]}, not {right}"
    return None


def _memory(driver: Driver, size: int) -> ctypes.c_uint64:
    found = ctypes.c_uint64()
    driver.call("cuMemAlloc_v2", ctypes.byref(found), ctypes.c_size_t(size))
    return found


def _copies(driver: Driver) -> tuple[float, float]:
    """Bytes a second to the card and back, from memory that does not move."""
    host = ctypes.c_void_p()
    driver.call("cuMemAllocHost_v2", ctypes.byref(host), ctypes.c_size_t(COPIED))
    there = _memory(driver, COPIED)
    size = ctypes.c_size_t(COPIED)
    best = [0.0, 0.0]
    ways = (("cuMemcpyHtoD_v2", there, host), ("cuMemcpyDtoH_v2", host, there))
    for _ in range(TIMES):
        for way, (name, to, source) in enumerate(ways):
            started = time.perf_counter()
            driver.call(name, to, source, size)
            driver.call("cuCtxSynchronize")
            best[way] = max(best[way], COPIED / (time.perf_counter() - started))
    driver.call("cuMemFree_v2", there)
    driver.call("cuMemFreeHost", host)
    return round(best[0]), round(best[1])
