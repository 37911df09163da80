"""What systemd says of itself: its state, failed units, our units, the environment it gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from installers.collect import dbus
from installers.collect.reader import Reader
from installers.deferred import unit as deferred

# Units whose state the facts name, whether or not they exist.
PROXY = "airlock-proxy.service"
UNITS = (PROXY, deferred.NAME, *deferred.DAEMONS)
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


def _ask_unit(bus: dbus.Bus, name: str) -> dict[str, int]:
    """Asks for each property of a unit: property -> serial of the question."""
    path = dbus.unit_path(name)
    return {prop: bus.ask_property(path, interface, prop) for interface, prop in UNIT_PROPERTIES}


def _unit(bus: dbus.Bus, asked: dict[str, int]) -> dict[str, Any]:
    """The properties of one unit, None for what its kind does not have."""
    found: dict[str, Any] = {}
    for name, serial in asked.items():
        try:
            found[name] = bus.answer(serial)[0]
        except dbus.DBusError:
            found[name] = None
    return found


def _ask(bus: dbus.Bus) -> dict[str, Any]:
    """All questions at once and then all answers: systemd is woken up once."""
    path = dbus.MANAGER_PATH
    wanted = ("SystemState", "Environment", "Version")
    manager = {name: bus.ask_property(path, "Manager", name) for name in wanted}
    failed = bus.ask_manager("ListUnitsFiltered", "as", ["failed"])
    units = {name: _ask_unit(bus, name) for name in UNITS}
    values = {name: bus.answer(serial)[0] for name, serial in manager.items()}
    return {
        "state": values["SystemState"],
        "failed": sorted(unit[0] for unit in bus.answer(failed)[0]),
        "environment": dict(pair.partition("=")[::2] for pair in values["Environment"]),
        "units": {name: _unit(bus, asked) for name, asked in units.items()},
        "version": values["Version"],
    }


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
            return _ask(bus)
    except OSError as error:
        reader.miss("systemd", error)
        return empty
