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
#: Units of others that we give a drop-in: what systemd has loaded of them may be older than it.
TOLD = (
    *("containerd.service", "docker.service", "kubelet.service", "crio.service"),
    *("google-dataproc-agent.service", "ssh.service"),
)
# What systemd has loaded of the order of YARN's daemons.
ORDER = (("Unit", "Requires"), ("Unit", "After"))
UNIT_PROPERTIES = (
    ("Unit", "LoadState"),
    ("Unit", "ActiveState"),
    ("Unit", "SubState"),
    ("Unit", "UnitFileState"),
    ("Service", "Result"),
    ("Service", "ExecMainStatus"),
    ("Unit", "NeedDaemonReload"),
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
    wanted = UNIT_PROPERTIES + (ORDER if name in deferred.DAEMONS else ())
    return {prop: bus.ask_property(path, interface, prop) for interface, prop in wanted}


def _stale(units: dict[str, dict[str, Any]], told: dict[str, dict[str, Any]]) -> list[str]:
    """Units of which a file was changed after systemd had loaded it."""
    every = {**units, **told}
    return sorted(name for name, found in every.items() if found.get("NeedDaemonReload"))


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
    reload = ("Unit", "NeedDaemonReload")
    told = {name: {reload[1]: bus.ask_property(dbus.unit_path(name), *reload)} for name in TOLD}
    values = {name: bus.answer(serial)[0] for name, serial in manager.items()}
    found = {name: _unit(bus, asked) for name, asked in units.items()}
    others = {name: _unit(bus, asked) for name, asked in told.items()}
    return {
        "state": values["SystemState"],
        "failed": sorted(unit[0] for unit in bus.answer(failed)[0]),
        "environment": dict(pair.partition("=")[::2] for pair in values["Environment"]),
        "units": found,
        "stale": _stale(found, others),
        "version": values["Version"],
    }


def collect(reader: Reader, socket: Optional[str] = None) -> dict[str, Any]:
    """{"state", "failed", "environment", "units", "stale", "version"}.

    ``stale``: units that were changed on the disk and not loaded anew; of UNITS and TOLD.
    ``state`` is "running", "degraded", "starting", ...; None where no systemd answers.
    ``socket`` is the bus to ask; without it systemd's own socket, then the system bus.
    """
    empty: dict[str, Any] = {
        "state": None,
        "failed": [],
        "environment": None,
        "units": {},
        "stale": None,
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
