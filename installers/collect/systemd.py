"""What systemd says of itself: its state, failed units, our units, the environment it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from installers.collect import dbus
from installers.collect.reader import Reader

# Units whose state the facts name, whether or not they exist.
UNITS = ("airlock-proxy.service",)
UNIT_PROPERTIES = (
    ("Unit", "LoadState"),
    ("Unit", "ActiveState"),
    ("Unit", "SubState"),
    ("Unit", "UnitFileState"),
    ("Service", "Result"),
    ("Service", "ExecMainStatus"),
)


def _connect(path: Optional[str]) -> dbus.Bus:
    if path is not None:
        return dbus.Bus(path)
    try:
        return dbus.Bus(dbus.PRIVATE)
    except OSError:
        return dbus.Bus(dbus.SYSTEM)


def _unit(bus: dbus.Bus, name: str) -> dict[str, Any]:
    """The properties of one unit, None for what its kind does not have."""
    path = dbus.unit_path(name)
    found: dict[str, Any] = {}
    for interface, name_of in UNIT_PROPERTIES:
        try:
            found[name_of] = bus.get(path, interface, name_of)
        except dbus.DBusError:
            found[name_of] = None
    return found


def collect(reader: Reader, socket: Optional[str] = None) -> dict[str, Any]:
    """{"state", "failed", "environment", "units", "version"}.

    ``state`` is "running", "degraded", "starting", ...; None where no systemd answers.
    ``socket`` is the bus to ask; without it systemd's own socket, then the system bus.
    """
    empty: dict[str, Any] = {
        "state": None,
        "failed": [],
        "environment": None,
        "units": {},
        "version": None,
    }
    if not reader.need_live("systemd"):
        return empty
    if socket is None and not Path("/run/systemd/system").is_dir():
        reader.miss("systemd", "the node was not started by systemd")
        return empty
    try:
        with _connect(socket) as bus:
            pairs = bus.get(dbus.MANAGER_PATH, "Manager", "Environment")
            failed = bus.manager("ListUnitsFiltered", "as", ["failed"])[0]
            return {
                "state": bus.get(dbus.MANAGER_PATH, "Manager", "SystemState"),
                "failed": sorted(unit[0] for unit in failed),
                "environment": dict(pair.partition("=")[::2] for pair in pairs),
                "units": {name: _unit(bus, name) for name in UNITS},
                "version": bus.get(dbus.MANAGER_PATH, "Manager", "Version"),
            }
    except OSError as error:
        reader.miss("systemd", error)
        return empty
