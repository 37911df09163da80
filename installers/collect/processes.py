"""What runs on the node: the environment that daemons really have, and credentials in arguments.

A unit's files say what it should be given at its next start; /proc says what it was given.
"""

from __future__ import annotations

import re
from typing import Any

from installers.collect.proxy import CREDENTIAL, VARIABLES, redact
from installers.collect.reader import Reader

#: Daemons that fetch things themselves, by the names of their units.
DAEMONS = (
    *("containerd", "docker", "kubelet", "crio", "snapd", "google-dataproc-agent"),
    *("google-guest-agent", "amazon-ssm-agent", "rke2-agent", "k3s-agent"),
)
_UNIT = re.compile(r"/(" + "|".join(DAEMONS) + r")\.service(?:/|$)", re.M)
_SHOWN = 200


def collect(reader: Reader) -> dict[str, Any]:
    """``daemons``: [{"unit", "pid", "program", "variables"}], the proxy variables of each process
    of DAEMONS as it was started with, redacted. ``arguments``: [{"pid", "text"}] of processes with
    a credential in their arguments, redacted: everybody on the node can read those.
    """
    found: dict[str, Any] = {"daemons": [], "arguments": []}
    if not reader.need_live("processes"):
        return found
    for name in reader.names("/proc", "processes"):
        if not name.isdigit():
            continue
        # A process may end while it is looked at: then it has no arguments, and no cgroup.
        words = (reader.text(f"/proc/{name}/cmdline") or "").split("\0")
        text = " ".join(words).strip()
        if text and CREDENTIAL.search(text):
            found["arguments"].append({"pid": int(name), "text": redact(text)[:_SHOWN]})
        unit = _UNIT.search(reader.text(f"/proc/{name}/cgroup") or "")
        if text and unit:
            given = (reader.text(f"/proc/{name}/environ") or "").split("\0")
            found["daemons"].append(
                {
                    "unit": unit[1],
                    "pid": int(name),
                    "program": words[0],
                    "variables": _variables(given),
                }
            )
    return found


def _variables(given: list[str]) -> dict[str, str]:
    pairs = (one.partition("=") for one in given)
    return {name: redact(value) for name, _, value in pairs if name.lower() in VARIABLES}
