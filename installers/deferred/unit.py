"""The unit that configures this node, and the drop-ins that make YARN wait for it and depend on it.

It has no ``[Install]``: the NodeManager and the ResourceManager pull it in, each time they start,
with ``Requires=``. So it runs after whoever starts them (Dataproc's agent) has written their files,
which a unit of multi-user.target would race; and where it fails they do not start. ``Before=``
alone would only order them. It stays inactive after it has run, so that the next start asks it
again: a condition on a stamp would let a stale one through.
"""

from __future__ import annotations

from installers import units
from installers.adopt import taking
from installers.adopt.rows import by_id
from installers.host import Host

NAME = "dataproc-gpu-config.service"
DAEMONS = ("hadoop-yarn-nodemanager.service", "hadoop-yarn-resourcemanager.service")
VERB = "gpu-config"
#: Seconds after which a run gives up, and after which systemd ends it.
PATIENCE = 180
_LIMIT = 300

TEXT = f"""\
# Written by airlock.
[Unit]
Description=Configure YARN and Spark for the GPUs of this node
Wants=network-online.target
After=network-online.target airlock-proxy.service
# Cards behind NVSwitch answer when the fabric is up; slices need the driver's own service.
After=nvidia-fabricmanager.service nvidia-persistenced.service
Before={" ".join(DAEMONS)}

[Service]
Type=oneshot
TimeoutStartSec={_LIMIT}
ExecStart=/usr/bin/python3 {units.NODE_FILE} {VERB}
StandardOutput=journal+console
StandardError=journal+console
"""
DROP_IN_TEXT = f"""\
# Written by airlock: without its configuration it would run, and hand out no GPU.
[Unit]
Requires={NAME}
After={NAME}
"""
# What today's scripts leave behind: their unit has our name, and the other works against ours.
_OF_OTHERS = ("gpu-unit", "cgroup-unit")


def drop_in(daemon: str) -> str:
    """Where the drop-in of a daemon is."""
    return f"/etc/systemd/system/{daemon}.d/10-airlock-gpu.conf"


def files() -> dict[str, str]:
    """Path → text of the unit and its drop-ins."""
    return {units.unit_path(NAME): TEXT, **{drop_in(one): DROP_IN_TEXT for one in DAEMONS}}


def inspect(host: Host) -> dict[str, str]:
    """``unit:<path>`` → ours, differs or absent; and what today's scripts left."""
    state = {}
    for path, text in files().items():
        found = host.read(path)
        state[f"unit:{path}"] = (
            "absent" if found is None else "ours" if found == text else "differs"
        )
    for one in _left(host):
        if state.get(f"unit:{one.path}") != "ours":
            state[f"unit:{one.path}"] = "left by another"
    return state


def desired() -> dict[str, str]:
    """The same, as it should be."""
    return {f"unit:{path}": "ours" for path in files()}


def install(host: Host) -> None:
    """Write unit and drop-ins and take away what works against them."""
    for one in _left(host):
        taking.take(host, one.row, one.path)
    taking.tell(host, None)
    for path, text in files().items():
        host.write(path, text)
    units.reload(host)


def remove(host: Host) -> None:
    """Take them away again, drop-ins first: they require the unit."""
    for path in reversed(list(files())):
        host.remove(path)
    units.reload(host)


def _left(host: Host) -> list[taking.Found]:
    return taking.find(host, [by_id(name) for name in _OF_OTHERS])
