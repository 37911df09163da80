"""The metadata keys of this part, today's scripts' keys among them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Optional

from installers import retired
from installers.errors import ConfigError

TRUE, FALSE = ("1", "yes", "true", "on"), ("0", "no", "false", "off", "")
#: compute mode → the word nvidia-smi -c takes and -x -q answers.
COMPUTE_MODES = {"default": "DEFAULT", "exclusive-process": "EXCLUSIVE_PROCESS"}
_MIG_PROFILES = re.compile(r"[0-9]{1,3}|[1-7]g\.[0-9]+gb(\+[a-z0-9.]+)?")


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    ``role``: ``Master``, ``Worker`` or empty where this is no cluster's node; ``spark_gpu``: jobs
    ask for a GPU unless they say otherwise; ``compute_mode``: of COMPUTE_MODES, None: as it is;
    ``mig``: switch MIG on (True), off (False), leave it (None); ``mig_profiles``: GPU instances to
    make on every card that has none; ``notes``: keys that do nothing any more.
    """

    role: str = ""
    spark_gpu: bool = True
    compute_mode: Optional[str] = None
    mig: Optional[bool] = None
    mig_profiles: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())


def from_attributes(attributes: Mapping[str, str]) -> Settings:
    """Read the keys. Raises ConfigError, which names the key."""
    text = {key: value.strip() for key, value in attributes.items()}
    mode = text.get("airlock-gpu-compute-mode", "").lower()
    if mode and mode not in COMPUTE_MODES:
        raise ConfigError(
            f"{mode!r} is not one of {', '.join(COMPUTE_MODES)}", where="airlock-gpu-compute-mode"
        )
    mig = _flag(text, "ENABLE_MIG")
    profiles = _profiles(text.get("MIG_CGI", ""))
    if profiles and not mig:
        raise ConfigError(
            "names GPU instances and ENABLE_MIG is not 1",
            where="MIG_CGI",
            remedy="set ENABLE_MIG=1 as well, or remove MIG_CGI",
        )
    if mig and mode == "exclusive-process":
        raise ConfigError(
            "exclusive-process cannot be had together with ENABLE_MIG",
            where="airlock-gpu-compute-mode",
            remedy="a MIG device is one process's own already: remove one of the two keys",
        )
    spark_gpu = _flag(text, "airlock-spark-gpu")
    return Settings(
        role=text.get("dataproc-role", ""),
        spark_gpu=True if spark_gpu is None else spark_gpu,
        compute_mode=mode or None,
        mig=mig,
        mig_profiles=profiles or (("9", "9") if mig else ()),
        notes=tuple(retired.notes(attributes, retired.DEFERRED)),
    )


def _flag(text: Mapping[str, str], key: str) -> Optional[bool]:
    value = text.get(key)
    if value is None:
        return None
    if value.lower() not in (*TRUE, *FALSE):
        raise ConfigError(f"{value!r} is neither yes nor no", where=key, remedy="set it to 1 or 0")
    return value.lower() in TRUE


def _profiles(value: str) -> tuple[str, ...]:
    """``9,9`` or ``3g.20gb,3g.20gb``: ids or names of ``nvidia-smi mig -lgip``."""
    names = [name.strip() for name in value.split(",")] if value else []
    for name in names:
        if not _MIG_PROFILES.fullmatch(name):
            raise ConfigError(
                f"{name!r} is no GPU instance profile",
                where="MIG_CGI",
                remedy="list ids or names of 'nvidia-smi mig -lgip', such as 9,9",
            )
    return tuple(names)
