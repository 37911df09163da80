"""Tries a node's cards: its nvidia-smi, NVML, a kernel compiled here, libraries, frameworks.

Everything runs in a process of its own and has an end: what hangs is left behind and said to have
hung. Nothing of the node is changed; the kernel is compiled in a folder that goes. What only has to
be read from files is in ``installers.collect.gpu``.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import pkgutil
import re
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from installers.collect import computing, containers, gpu, nvml
from installers.collect.reader import Reader
from installers.execute import Programs, node_path
from installers.exits import Exit

#: Seconds for all of it, and for each part; a framework may have to compile for a new card.
TOTAL = 900.0
ASK, COMPILE, COMPUTE, FRAMEWORK = 30.0, 120.0, 120.0, 240.0
#: nvidia-smi's exit codes: its manual, "RETURN VALUE"; 11 (NVML's number, where the manual has 10)
#: and 18 were seen of 535.
SMI = {
    2: "an argument or a flag was not valid",
    3: "the operation is not there on this card",
    4: "no permission for the card or the operation",
    6: "a query for an object failed",
    8: "a card's external power cables are not attached",
    9: "the NVIDIA driver is not loaded",
    10: "the kernel found a problem with a card's interrupts",
    11: "the kernel found a problem with a card's interrupts",
    12: "the NVML library cannot be found or loaded",
    13: "the NVML library does not have a function: it is of another release",
    14: "a card's infoROM is corrupted",
    15: "a card has fallen off the bus, or cannot be reached",
    18: "the NVML library is not of the driver's release",
    255: "another error or an internal driver error",
}
LINES = 20
#: What an environment may have: framework -> the module that shows it.
FRAMEWORKS = {
    "pytorch": "torch",
    "tensorflow": "tensorflow",
    "jax": "jax",
    "cupy": "cupy",
    "rapids": "cudf",
}
RECORDS = "/var/lib/airlock/environments"
#: Where environments lie that are not ours: conda's, and the system's own Python.
PREFIXES = ("/opt/conda", "/opt/conda/default", "/opt/conda/miniconda3", "/usr/local", "/usr")
ENVIRONMENTS = ("/opt/conda/envs", "/opt/conda/miniconda3/envs")
#: Allocate what is used: two frameworks may look at one card, and a job may be running on it.
MODEST = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
#: Where the driver's compiler, CuPy, JAX, Triton and Numba keep what they compiled: in HOME, and
#: HOME is a folder that goes. Python is told to keep nothing.
KEPT_NOTHING = {"PYTHONDONTWRITEBYTECODE": "1"}
#: Starts one of PARTS, without what our other verbs need: from the .pyz all of it is compiled anew.
CHILD = """\
import sys
sys.path.insert(0, sys.argv[1])
from installers.collect.cards import answer
answer(sys.argv[2])
"""
LIBRARIES = {"cudnn": ("libcudnn.so.9", "libcudnn.so.8"), "nccl": ("libnccl.so.2",)}


class Trial:
    """One look at the cards, with one clock for all of it."""

    def __init__(
        self, programs: Optional[Programs] = None, total: float = TOTAL, ask: float = ASK
    ) -> None:
        self._programs = programs or Programs()
        self._reader = Reader()
        self._end = time.monotonic() + total
        self._ask = ask
        self._environment = {**MODEST, **KEPT_NOTHING}
        self._script = pkgutil.get_data("installers.collect", "trial.py") or b""

    def collect(self) -> dict[str, Any]:
        """The facts ``cards``: see the methods. Never raises for what a program does."""
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="airlock-cards-") as folder:
            self._environment["HOME"] = folder
            toolkits = self.toolkits()
            seen = self.part("nvml")
            return {
                "nvidia_smi": self.nvidia_smi(),
                "nvml": seen,
                "toolkits": toolkits,
                **self.compute(toolkits, seen, Path(folder)),
                "libraries": self.part("libraries"),
                "frameworks": self.frameworks(),
                "seconds": round(time.monotonic() - started, 2),
            }

    def run(self, argv: list[str], limit: float, stdin: bytes = b"") -> dict[str, Any]:
        """As Programs.run, but ``error`` says why there is no exit code; None where there is."""
        left = min(limit, self._end - time.monotonic())
        none = {"code": None, "out": b"", "err": b""}
        if left <= 0:
            return {**none, "error": "no time was left for it"}
        try:
            done = self._programs.run(argv, stdin, left, self._environment)
        except OSError as error:
            return {**none, "error": f"{argv[0]}: {error.strerror or error}"}
        return {**done, "error": f"did not end within {left:.0f} s" if done["timed_out"] else None}

    def nvidia_smi(self) -> Optional[dict[str, Any]]:
        """``nvidia-smi -L``: {"path", "code", "meaning", "said", "cards", "error"}; None without.

        ``cards``: UUIDs of whole cards. ``code`` is None where it was ended or could not start.
        """
        path = containers.program(self._reader, "nvidia-smi")
        if path is None:
            return None
        done = self.run([path, "-L"], self._ask)
        said = (done["out"] + b"\n" + done["err"]).decode("utf-8", "replace")
        return {
            "path": path,
            "code": done["code"],
            "meaning": SMI.get(done["code"], ""),
            "said": [line for line in said.splitlines() if line.strip()][:LINES],
            "cards": re.findall(r"^GPU \d+: .*\(UUID: (GPU-[^)]+)\)", said, re.MULTILINE),
            "error": done["error"],
        }

    def part(self, name: str, given: Any = None, limit: Optional[float] = None) -> dict[str, Any]:
        """What one of PARTS says from a process of its own; {"error"} where it does not."""
        argv = [sys.executable, "-I", "-c", CHILD, str(node_path()), name]
        done = self.run(argv, limit or self._ask, json.dumps(given).encode())
        try:
            found: dict[str, Any] = json.loads(done["out"])
        except ValueError:
            last = done["err"].decode("utf-8", "replace").strip().splitlines()[-1:]
            ended = f"its process ended with {done['code']} {' '.join(last)}".strip()
            return {"error": done["error"] or ended}
        return found

    def toolkits(self) -> list[dict[str, Any]]:
        """[{"path", "release" ("12.4", None where it does not say), "said"}] of each nvcc."""
        named = [f"/usr/local/{name}/bin/nvcc" for name in self._folders()]
        paths: dict[str, str] = {}
        for path in (*named, containers.program(self._reader, "nvcc") or ""):
            if path and os.path.exists(path):  # noqa: PTH110
                paths.setdefault(str(Path(path).resolve()), path)
        found = []
        for path in paths.values():
            done = self.run([path, "--version"], self._ask)
            said = done["out"].decode("utf-8", "replace").strip()
            release = re.search(r"release (\d+\.\d+)", said)
            last = said.splitlines()[-1] if said else done["error"]
            found.append(
                {"path": path, "release": release.group(1) if release else None, "said": last}
            )
        return found

    def _folders(self) -> list[str]:
        """NVIDIA's folders of toolkits: what people call the toolkit, then the newest."""
        names = [n for n in self._reader.names("/usr/local") if re.fullmatch(r"cuda(-[\d.]+)?", n)]
        return sorted(names, key=lambda n: [-int(i) for i in re.findall(r"\d+", n)])

    def compute(
        self, toolkits: list[dict[str, Any]], seen: dict[str, Any], folder: Path
    ) -> dict[str, Any]:
        """``compiled``: architecture -> what nvcc said, None where it compiled; ``compute``.

        ``compute`` is what ``installers.collect.computing`` says, or {"error"}.
        """
        wanted = {
            "".join(map(str, card["capability"]))
            for card in seen.get("cards") or ()
            if card.get("capability")
        }
        compiled: dict[str, Any] = {}
        cubins = {}
        for architecture in sorted(wanted) if toolkits else ():
            cubin = folder / f"{architecture}.cubin"
            compiled[architecture] = self._compile(toolkits[0]["path"], architecture, cubin)
            if compiled[architecture] is None:
                cubins[architecture] = str(cubin)
        if gpu.library(self._reader, computing.LIBRARY) is None:
            missing = f"there is no {computing.LIBRARY}"
            return {"compiled": compiled, "compute": {"error": missing, "cards": []}}
        answer = self.part("compute", cubins, COMPUTE)
        return {"compiled": compiled, "compute": {"cards": [], **answer}}

    def _compile(self, nvcc: str, architecture: str, cubin: Path) -> Optional[str]:
        """What went wrong; None where the file is there."""
        source = cubin.with_suffix(".cu")
        source.write_text(computing.KERNEL)
        arch = f"-arch=sm_{architecture}"
        done = self.run([nvcc, arch, "-cubin", "-o", str(cubin), str(source)], COMPILE)
        if done["code"] == 0 and cubin.exists():
            return None
        said = (done["err"] or done["out"]).decode("utf-8", "replace").strip().splitlines()
        return str(done["error"] or " ".join(said[:2]) or f"nvcc exited {done['code']}")

    def frameworks(self) -> list[dict[str, Any]]:
        """[{"environment", "prefix", "framework", ...}] and what ``trial.py`` says there."""
        found = []
        for name, prefix in environments(self._reader).items():
            for framework, module in FRAMEWORKS.items():
                python = _python(self._reader, prefix, module)
                if python is None:
                    continue
                done = self.run([python, "-I", "-B", "-", framework], FRAMEWORK, self._script)
                answer = _last_json(done["out"])
                if answer is None:
                    last = done["err"].decode("utf-8", "replace").strip().splitlines()[-1:]
                    ended = f"its Python ended with {done['code']} {' '.join(last)}".strip()
                    answer = {"error": done["error"] or ended, "cards": 0, "results": []}
                where = {"environment": name, "prefix": prefix, "framework": framework}
                found.append({**where, **answer})
        return found


def environments(reader: Reader) -> dict[str, str]:
    """Name -> prefix of every Python environment that is known: ours, conda's, the system's."""
    found: dict[str, str] = {}
    for file in reader.names(RECORDS):
        try:
            prefix = json.loads(reader.text(f"{RECORDS}/{file}") or "")["prefix"]
        except (ValueError, KeyError, TypeError):
            continue
        found[file.rpartition(".")[0]] = str(prefix)
    for folder in ENVIRONMENTS:
        for name in reader.names(folder):
            found.setdefault(name, f"{folder}/{name}")
    for prefix in PREFIXES:
        found.setdefault(prefix, prefix)
    return found


def _python(reader: Reader, prefix: str, module: str) -> Optional[str]:
    """The Python of an environment that has the module; None where it has not."""
    for release in reader.names(f"{prefix}/lib"):
        if not release.startswith("python3"):
            continue
        for packages in ("site-packages", "dist-packages"):
            place = f"{prefix}/lib/{release}/{packages}/{module}"
            if any(os.path.exists(place + end) for end in ("/__init__.py", ".py")):  # noqa: PTH110
                names = ("python", release if release != "python3" else "python3", "python3")
                for name in names:
                    if os.path.exists(f"{prefix}/bin/{name}"):  # noqa: PTH110
                        return f"{prefix}/bin/{name}"
    return None


def _last_json(out: bytes) -> Optional[dict[str, Any]]:
    """The last line: frameworks print what they like before it."""
    try:
        found = json.loads(out.decode("utf-8", "replace").strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None
    return found if isinstance(found, dict) else None


def libraries(_given: Any) -> dict[str, Any]:
    """{"cudnn" and "nccl": {"name", "version", "cuda", "error"}}; versions are the library's own.

    9.1.0 is 90100 (cuDNN 9), 8907 is 8.9.7; NCCL's 22105 is 2.21.5. ``cuda``: what cuDNN was built
    with, 12040 for 12.4.
    """
    found: dict[str, Any] = {}
    for library, names in LIBRARIES.items():
        answer: dict[str, Any] = {"name": names[0], "version": None, "cuda": None, "error": None}
        for name in names:
            try:
                loaded = ctypes.CDLL(name)
            except OSError as error:
                answer["error"] = answer["error"] or str(error)
                continue
            answer.update(name=name, error=None)
            if library == "nccl":
                version = ctypes.c_int()
                loaded.ncclGetVersion(ctypes.byref(version))
                answer["version"] = version.value
            else:
                loaded.cudnnGetVersion.restype = ctypes.c_size_t
                loaded.cudnnGetCudartVersion.restype = ctypes.c_size_t
                answer["version"] = loaded.cudnnGetVersion()
                answer["cuda"] = loaded.cudnnGetCudartVersion()
            break
        found[library] = answer
    return found


#: What runs in a process of its own; each is given what came by standard input.
PARTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "nvml": lambda _given: nvml.collect(),
    "compute": computing.collect,
    "libraries": libraries,
}


def answer(name: str) -> None:
    """Print what one of PARTS says of what comes by standard input."""
    print(json.dumps(PARTS[name](json.loads(sys.stdin.buffer.read() or b"null"))))


def main(argv: list[str]) -> int:
    """The verb ``cards [--json]``; returns an exit code."""
    parser = argparse.ArgumentParser(prog="airlock-node.pyz cards", description=__doc__)
    parser.add_argument("--json", action="store_true", help="on one line, for programs")
    options = parser.parse_args(argv)
    print(json.dumps(Trial().collect(), indent=None if options.json else 1))
    return Exit.PASS
