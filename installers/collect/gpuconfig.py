"""What the deferred configuration left on this node: unit, stamp, result, and the files it wrote.

Sources: files below /etc/hadoop/conf and /etc/spark/conf; systemd for the state of unit and
daemons; /proc/sys/kernel/random/boot_id and /etc/machine-id for whose a stamp is.
"""

from __future__ import annotations

import json
from typing import Any, Optional

from installers.collect.reader import Reader
from installers.deferred import hadoopxml, properties, sections, spark, stamp, unit, yarn
from installers.errors import NodeError


def collect(reader: Reader, units: Optional[dict[str, Any]] = None) -> Optional[dict[str, Any]]:
    """The configuration; None on a node without Hadoop.

    ``units`` is what systemd says of the unit and of YARN's daemons. ``unit_files`` maps each file
    of the unit and its drop-ins to ours, differs or absent; ``yarn`` each XML file to its
    properties as Hadoop takes them, None where it cannot be read; ``executor`` and ``spark`` are
    the other two files.
    """
    if not reader.names(yarn.CONF):
        reader.miss("gpu_config", f"{yarn.CONF} is not there")
        return None
    names = (unit.NAME, *unit.DAEMONS)
    xml: dict[str, Any] = {}
    for path in yarn.XML_FILES:
        data = reader.data(path)
        try:
            xml[path] = hadoopxml.read(data, path) if data else {}
        except NodeError as error:
            reader.miss(f"gpu_config.yarn.{path}", error)
            xml[path] = None
    return {
        "unit_files": {
            path: _compared(reader.text(path), text) for path, text in unit.files().items()
        },
        "units": {name: (units or {}).get(name) for name in names},
        "stamp": _record(reader, stamp.STAMP),
        "result": _record(reader, stamp.RESULT),
        "yarn": xml,
        "executor": sections.flat(sections.read(reader.text(yarn.EXECUTOR) or "")),
        "spark": properties.read(reader.text(spark.CONF) or ""),
        "discovery": reader.text(spark.SCRIPT) is not None,
    }


def _compared(found: Optional[str], text: str) -> str:
    return "absent" if found is None else "ours" if found == text else "differs"


def _record(reader: Reader, path: str) -> Optional[dict[str, Any]]:
    try:
        value = json.loads(reader.text(path) or "")
    except ValueError:
        return None
    return value if isinstance(value, dict) else None
