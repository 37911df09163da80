"""Which driver, which modules, which CUDA: one decision that says why, before anything is fetched.

Precedence, the same everywhere: CUDA is ``cuda-version`` (``default``: the table's for this
Dataproc image), else the version in ``cuda-url``, else none. The driver is ``gpu-driver-version``,
else the version in ``gpu-driver-url``, else the one that ``cuda-url`` carries, else the table's for
that CUDA. What is asked for is taken or refused, never replaced; only a default gives way to what
the GPU can do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from installers import gpus
from installers.compat import numbers, within
from installers.engine import Refusal
from installers.errors import ConfigError
from installers.gpus import Architecture

#: The value of cuda-version that takes the table's for the Dataproc image.
DEFAULT = "default"
FLAVOURS = ("auto", "open", "proprietary")
#: Where a driver may come from.
SOURCES = ("distribution", "nvidia-repository", "runfile", "open-source")
_PROVIDERS = {"os": "distribution", "nvidia": "runfile", "none": "none"}
_VERSION = re.compile(r"\d{2,4}(\.\d{1,4}){1,2}")
_CUDA = re.compile(r"\d{1,2}\.\d{1,2}(\.\d{1,4})?")
_IN_DRIVER_URL = re.compile(r"(\d{3}\.\d{2,3}(?:\.\d{2})?)(?:/|\.run$)")
_IN_CUDA_URL = re.compile(r"cuda_(\d{1,2}\.\d{1,2}\.\d{1,4})_(\d{3}\.\d{2,3}(?:\.\d{2})?)_linux")


@dataclass(frozen=True)
class Asked:
    """What the metadata says, checked for form and nothing else. None: not said."""

    cuda: Optional[str] = None
    driver: Optional[str] = None
    flavour: str = "auto"
    source: Optional[str] = None
    cudnn: Optional[str] = None
    nccl: Optional[str] = None
    gpus: tuple[int, ...] = ()
    licences: frozenset[str] = frozenset()
    why: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Decision:
    """What will be installed. ``refusals`` empty: it may be. ``reasons`` in the order taken."""

    driver: Optional[str] = None
    branch: Optional[str] = None
    flavour: str = "open"
    cuda: Optional[str] = None
    cudnn: Optional[str] = None
    nccl: Optional[str] = None
    source: str = "distribution"
    reasons: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, code: str, reason: str, remedy: str) -> None:
        """One more reason why this cannot be."""
        self.refusals.append(Refusal(f"gpu.{code}", reason, remedy))


def read(attributes: Mapping[str, str]) -> Asked:
    """The metadata's keys. Raises ConfigError for a value that has no meaning."""
    why: dict[str, str] = {}
    cuda = _text(attributes, "cuda-version")
    if cuda != DEFAULT:
        cuda = _version(attributes, "cuda-version", _CUDA)
    driver = _version(attributes, "gpu-driver-version", _VERSION)
    cuda_url, driver_url = (_text(attributes, key) for key in ("cuda-url", "gpu-driver-url"))
    inside = _IN_CUDA_URL.search(cuda_url or "")
    if cuda_url and not inside:
        raise ConfigError(
            "names no CUDA version", where="cuda-url", remedy="give .../cuda_X.Y.Z_DRIVER_linux.run"
        )
    of_driver = _IN_DRIVER_URL.findall(driver_url or "")
    if driver_url and not of_driver:
        raise ConfigError(
            "names no driver version",
            where="gpu-driver-url",
            remedy="give .../NVIDIA-Linux-x86_64-VERSION.run",
        )
    for name, first, others in (
        ("cuda", ("cuda-version", cuda), [("cuda-url", inside and inside[1])]),
        (
            "driver",
            ("gpu-driver-version", driver),
            [("gpu-driver-url", of_driver and of_driver[-1]), ("cuda-url", inside and inside[2])],
        ),
    ):
        given = [(key, value) for key, value in (first, *others) if value]
        if given:
            over = [f"{key} ({value})" for key, value in given[1:] if value != given[0][1]]
            why[name] = given[0][0] + (f", which overrides {', '.join(over)}" if over else "")
    flavour = (_text(attributes, "airlock-driver-flavour") or "auto").lower()
    if flavour not in FLAVOURS:
        raise ConfigError(
            f"{flavour!r} is not one of {', '.join(FLAVOURS)}", where="airlock-driver-flavour"
        )
    licences = frozenset(re.split(r"[\s,]+", _text(attributes, "airlock-accept-licences") or ""))
    known = set(gpus.table()["licences"])
    if licences - known - {""}:
        raise ConfigError(
            f"{', '.join(sorted(licences - known))} is not one of {', '.join(sorted(known))}",
            where="airlock-accept-licences",
        )
    return Asked(
        cuda=cuda or (inside[1] if inside else None),
        driver=driver or (of_driver[-1] if of_driver else inside[2] if inside else None),
        flavour=flavour,
        source=_source(attributes),
        cudnn=_version(attributes, "cudnn-version", re.compile(r"\d+(\.\d+){1,3}")),
        nccl=_version(attributes, "nccl-version", re.compile(r"\d+(\.\d+){1,2}")),
        gpus=tuple(gpus.parse(attributes.get("airlock-gpu", ""), "airlock-gpu")),
        licences=licences - {""},
        why=why,
    )


def _source(attributes: Mapping[str, str]) -> Optional[str]:
    asked = _text(attributes, "airlock-driver-source")
    if asked is not None:
        if asked not in SOURCES:
            raise ConfigError(
                f"{asked!r} is not one of {', '.join(SOURCES)}", where="airlock-driver-source"
            )
        return asked
    provider = (_text(attributes, "gpu-driver-provider") or "").lower()
    if provider and provider not in _PROVIDERS:
        raise ConfigError(
            f"{provider!r} is not one of NVIDIA, OS, NONE", where="gpu-driver-provider"
        )
    if _text(attributes, "gpu-driver-url") or _text(attributes, "cuda-url"):
        return "runfile"
    return _PROVIDERS.get(provider)


def _text(attributes: Mapping[str, str], key: str) -> Optional[str]:
    return (attributes.get(key) or "").strip() or None


def _version(attributes: Mapping[str, str], key: str, form: re.Pattern[str]) -> Optional[str]:
    """A version of two or three parts (four for cuDNN)."""
    text = _text(attributes, key)
    if text is not None and not form.fullmatch(text):
        raise ConfigError(
            f"{text!r} is not a version", where=key, remedy="write numbers with dots, as 550.142"
        )
    return text


def decide(
    asked: Asked,
    *,
    os_id: str,
    os_version: str,
    kernel: Optional[str],
    machine: str = "x86_64",
    present: Sequence[int] = (),
    image: Optional[str] = None,
) -> Decision:
    """What to install on this system with these GPUs (PCI device ids), and why; or why not."""
    table, made = gpus.table(), Decision(source=asked.source or "distribution")
    if machine not in table["machines"]:
        made.refuse(
            "machine",
            f"there is no row for {machine} in the compatibility table",
            f"use a machine of {', '.join(table['machines'])}",
        )
        return made
    cards = _cards(made, asked.gpus or tuple(present))
    made.cuda = _cuda(made, asked, cards, table, image)
    made.driver = _driver(made, asked, cards, table)
    made.branch = made.driver.split(".")[0] if made.driver else None
    made.flavour = _flavour(made, asked, cards, table)
    _check_cards(made, cards)
    _check_pair(made, table)
    _check_system(made, os_id, os_version, kernel, table)
    _libraries(made, asked, table)
    return made


def _cards(made: Decision, devices: Sequence[int]) -> list[tuple[int, Architecture]]:
    found = []
    for device in dict.fromkeys(devices):
        kind = gpus.architecture(device)
        if kind is None:
            made.unknown.append(f"GPU 10de:{device:04x} is in no row of the table")
        else:
            made.reasons.append(f"GPU 10de:{device:04x} is {kind.name}")
            found.append((device, kind))
    if not devices:
        made.unknown.append("no GPU is here to look at, and airlock-gpu names none")
    return found


def _cuda(
    made: Decision,
    asked: Asked,
    cards: list[tuple[int, Architecture]],
    table: dict[str, Any],
    image: Optional[str],
) -> Optional[str]:
    """The full CUDA version, or None where none is wanted."""
    rows = table["cuda"]
    if asked.cuda is None:
        return None
    if asked.cuda == DEFAULT:
        default = table["images"].get(".".join((image or "").split(".")[:2]))
        if default is None:
            what = f"Dataproc image {image} is in no row" if image else "this is no Dataproc image"
            made.refuse("image", f"cuda-version=default: {what}", "write a version, as 12.6")
            return None
        fitting = [
            row["newest"]
            for row in rows.values()
            if numbers(row["newest"]) <= numbers(default)
            and all(within(row["newest"], list(kind.cuda)) for _, kind in cards)
        ]
        chosen = max(fitting, key=numbers, default=default)
        made.reasons.append(f"CUDA {chosen}: the default of image {image} is {default}")
        return str(chosen)
    minor = ".".join(asked.cuda.split(".")[:2])
    if minor not in rows:
        made.refuse(
            "cuda-unknown",
            f"CUDA {asked.cuda} is in no row of the compatibility table",
            f"choose one of {', '.join(rows)}",
        )
        return None
    full = asked.cuda if asked.cuda.count(".") == 2 else str(rows[minor]["newest"])
    made.reasons.append(f"CUDA {full}: {asked.why.get('cuda', 'as asked')}")
    return full


def _driver(
    made: Decision, asked: Asked, cards: list[tuple[int, Architecture]], table: dict[str, Any]
) -> Optional[str]:
    if asked.driver is not None:
        made.reasons.append(f"driver {asked.driver}: {asked.why.get('driver', 'as asked')}")
        return asked.driver
    if made.cuda is None:
        return None
    minor = ".".join(made.cuda.split(".")[:2])
    row = table["cuda"][minor]
    if made.source == "distribution":
        made.reasons.append(f"the distribution's driver, {row['minimum_driver']} or later")
        return None
    preferred = row["driver"] or row["minimum_driver"]
    fits = [
        newest
        for newest in [preferred, *table["branches"].values()]
        if numbers(newest) >= numbers(row["minimum_driver"])
        and all(kind.has_branch(newest) for _, kind in cards)
    ]
    if preferred in fits or not fits:
        made.reasons.append(f"driver {preferred}: the table's for CUDA {minor}")
        return str(preferred)
    chosen = min(fits, key=lambda one: (numbers(one) < numbers(preferred), numbers(one)))
    names = ", ".join(sorted({kind.name for _, kind in cards}))
    made.reasons.append(
        f"driver {chosen}: {preferred}, the table's for CUDA {minor}, has no {names}"
    )
    return str(chosen)


def _flavour(
    made: Decision, asked: Asked, cards: list[tuple[int, Architecture]], table: dict[str, Any]
) -> str:
    kinds = [kind for _, kind in cards]
    old = made.driver is not None and numbers(made.driver) < numbers(table["open_since"])
    if asked.flavour != "auto":
        made.reasons.append(f"{asked.flavour} modules: airlock-driver-flavour")
        if asked.flavour == "open" and old:
            made.refuse(
                "flavour",
                f"driver {made.driver} has no open modules; the first is {table['open_since']}",
                "ask for proprietary modules or a newer driver",
            )
        return asked.flavour
    needs_open = [kind.name for kind in kinds if not kind.proprietary]
    needs_proprietary = [kind.name for kind in kinds if not kind.open]
    if needs_open and needs_proprietary:
        made.refuse(
            "mixed-cards",
            f"{needs_open[0]} takes open modules only and {needs_proprietary[0]} proprietary only",
            "put these GPUs into different machines",
        )
    if needs_proprietary or (old and not needs_open):
        because = f"{needs_proprietary[0]} has no GSP" if needs_proprietary else "the driver is old"
        made.reasons.append(f"proprietary modules: {because}")
        return "proprietary"
    made.reasons.append(
        "open modules: "
        + (f"{needs_open[0]} takes no others" if needs_open else "NVIDIA's choice since Turing")
    )
    return "open"


def _check_cards(made: Decision, cards: list[tuple[int, Architecture]]) -> None:
    for device, kind in cards:
        what = f"GPU 10de:{device:04x} ({kind.name})"
        if made.driver and not kind.has_branch(made.driver):
            until = (
                f"branches {kind.first} to {kind.last}" if kind.last else f"{kind.first} or later"
            )
            made.refuse("card-driver", f"driver {made.driver} does not know {what}", f"use {until}")
        if not (kind.open if made.flavour == "open" else kind.proprietary):
            other = "proprietary" if made.flavour == "open" else "open"
            made.refuse(
                "card-flavour",
                f"{made.flavour} modules do not support {what}",
                f"set airlock-driver-flavour={other}, or leave it out",
            )
        if made.cuda and not within(made.cuda, list(kind.cuda)):
            span = f"from {kind.cuda[0]}" + (f" to below {kind.cuda[1]}" if kind.cuda[1] else "")
            made.refuse(
                "card-cuda", f"CUDA {made.cuda} does not support {what}", f"use CUDA {span}"
            )


def _check_pair(made: Decision, table: dict[str, Any]) -> None:
    if made.cuda is None or made.driver is None:
        return
    least = table["cuda"][".".join(made.cuda.split(".")[:2])]["minimum_driver"]
    if numbers(made.driver) < numbers(least):
        made.refuse(
            "cuda-driver",
            f"CUDA {made.cuda} needs driver {least} or later, not {made.driver}",
            "ask for a newer driver or an older CUDA",
        )


def _check_system(
    made: Decision, os_id: str, os_version: str, kernel: Optional[str], table: dict[str, Any]
) -> None:
    alias = {"rhel": "rocky", "almalinux": "rocky"}.get(os_id, os_id)
    version = os_version.split(".")[0] if alias == "rocky" else os_version
    rows = [r for r in table["systems"] if (r["os"], r["version"]) == (alias, version)]
    if not rows:
        made.unknown.append(f"{os_id} {os_version} is in no row of the table")
    for row in rows:
        for name, value in (("driver", made.driver), ("cuda", made.cuda)):
            if value and not within(value, row[name]):
                low, below = row[name]
                span = f"{low or 'any'} to {'below ' + below if below else 'any'}"
                made.refuse(
                    "system", f"{name} {value} does not go with {os_id} {os_version}", f"use {span}"
                )
    if kernel is None or made.driver is None:
        return
    for row in table["kernels"]:
        if within(kernel, row["kernel"]) and within(made.driver, row["driver"]):
            if row.get("flavour", made.flavour) != made.flavour:
                continue
            if row["builds"] == "no":
                made.refuse("kernel", f"kernel {kernel}: {row['why']}", "use a newer kernel")
            else:
                made.reasons.append(f"kernel {kernel}: builds ({row['source']})")
            return
    made.unknown.append(f"nobody has built {made.driver} for kernel {kernel} here")


def with_driver(asked: Asked, driver: str) -> Asked:
    """The same wishes with the driver that the distribution turned out to have."""
    why = {**asked.why, "driver": "what the distribution has"}
    return replace(asked, driver=driver, why=why)


def _libraries(made: Decision, asked: Asked, table: dict[str, Any]) -> None:
    """cuDNN and NCCL as asked, else the table's for this CUDA; only where there is a CUDA."""
    if made.cuda is None:
        for name, value in (("cudnn-version", asked.cudnn), ("nccl-version", asked.nccl)):
            if value:
                made.refuse("library", f"{name} {value} without any CUDA", "set cuda-version too")
        return
    row = table["cuda"][".".join(made.cuda.split(".")[:2])]
    made.cudnn, made.nccl = asked.cudnn or row["cudnn"], asked.nccl or row["nccl"]


def unaccepted(asked: Asked, wanted: Mapping[str, Optional[str]]) -> list[Refusal]:
    """Licences that nobody accepted, of what is wanted: name in the table -> version, or None."""
    titles = gpus.table()["licences"]
    return [
        Refusal(
            "gpu.licence",
            f"{name} {version} comes under the {titles[name]}, which nobody accepted",
            f"read it, then add {name} to airlock-accept-licences",
        )
        for name, version in wanted.items()
        if version and name not in asked.licences
    ]
