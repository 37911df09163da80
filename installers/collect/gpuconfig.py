"""What the deferred configuration left on this node: unit, stamp, result, and the files it wrote.

Sources: files below /etc/hadoop/conf and /etc/spark/conf; systemd for the state of unit and
daemons; /proc/sys/kernel/random/boot_id and /etc/machine-id for whose a stamp is.
"""

from __future__ import annotations

import json
from typing import Any, Optional

from installers import metadata
from installers.collect.reader import Reader
from installers.config import METADATA_SERVER
from installers.deferred import hadoopxml, properties, sections, spark, stamp, unit, yarn
from installers.errors import NodeError


def collect(reader: Reader, units: Optional[dict[str, Any]] = None) -> Optional[dict[str, Any]]:
    """The configuration; None on a node without Hadoop.

    ``units`` is what systemd says of the unit and of YARN's daemons. ``unit_files`` maps each file
    of the unit and its drop-ins to ours, differs or absent; ``yarn`` each XML file to its
    properties as Hadoop takes them, None where it cannot be read; ``executor`` and ``spark`` are
    the other two files. ``programs``: those that find cards -> mode in octal, None where one is not
    there. ``instance`` is who this machine is now, named as its stamp names it.
    """
    if not reader.names(yarn.CONF):
        reader.miss("gpu_config", f"{yarn.CONF} is not there")
        return None
    names = (unit.NAME, *unit.DAEMONS)
    found = _record(reader, stamp.STAMP)
    xml: dict[str, Any] = {}
    for path in yarn.XML_FILES:
        data = reader.data(path)
        try:
            xml[path] = hadoopxml.read(data, path) if data else {}
        except NodeError as error:
            reader.miss(f"gpu_config.yarn.{path}", error)
            xml[path] = None
    properties_ = properties.read(reader.text(spark.CONF) or "")
    return {
        "unit_files": {
            path: _compared(reader.text(path), text) for path, text in unit.files().items()
        },
        "units": {name: (units or {}).get(name) for name in names},
        "instance": _instance(reader, found),
        "stamp": found,
        "result": _record(reader, stamp.RESULT),
        "yarn": xml,
        "executor": sections.flat(sections.read(reader.text(yarn.EXECUTOR) or "")),
        "spark": properties_,
        "discovery": reader.text(spark.SCRIPT) is not None,
        "programs": {path: reader.mode(path) for path in sorted(_programs(xml, properties_))},
    }


def _programs(xml: dict[str, Any], asked: dict[str, str]) -> set[str]:
    """Programs that YARN and Spark were told to start, to find cards."""
    found = {asked[key] for key in asked if key.endswith(".discoveryScript")}
    site = xml.get(yarn.YARN_SITE) or {}
    told = site.get(yarn.DISCOVERY)
    if told:
        # A folder, or the program itself (GpuDiscoverer.initialize).
        found.add(told if told.endswith("/nvidia-smi") else f"{told.rstrip('/')}/nvidia-smi")
    return found


def _instance(reader: Reader, found: Optional[dict[str, Any]]) -> Optional[str]:
    """By the same authority as the stamp; None where that does not know it."""
    kind = str((found or {}).get("instance")).partition(":")[0]
    try:
        if kind == "gce":
            if not reader.need_live("gpu_config.instance"):
                return None
            number = metadata.instance_id(METADATA_SERVER)
            return None if number is None else f"gce:{number}"
    except NodeError as error:
        reader.miss("gpu_config.instance", error)
        return None
    text = (reader.text(stamp.IDENTITIES.get(kind, stamp.MACHINE_ID)) or "").strip()
    return f"{kind}:{text}" if text and kind in stamp.IDENTITIES else None


def _compared(found: Optional[str], text: str) -> str:
    return "absent" if found is None else "ours" if found == text else "differs"


def _record(reader: Reader, path: str) -> Optional[dict[str, Any]]:
    try:
        value = json.loads(reader.text(path) or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
