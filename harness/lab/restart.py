"""A machine that restarts itself, from the firmware up: same QEMU, one console, one capture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness.deadline import DeadlinePassed
from harness.errors import InfraError
from harness.transports.base import TransportError

if TYPE_CHECKING:
    from harness.lab.vm import VirtualMachine
    from harness.transports.agent import AgentTransport


def restart(
    running: VirtualMachine,
    transport: AgentTransport,
    booted: dict[str, Any],
    check: Callable[[], None],
    timeout: float,
) -> dict[str, Any]:
    """Have systemd restart the machine that said ``booted``; the next event ``ready`` of its agent.

    Machines end when they restart (``-no-reboot``), since one of their own accord is a failure;
    for this once they need not (QEMU's ``set-action``). Raises InfraError, also after ``timeout``
    seconds.
    """
    running.monitor(("set-action", {"reboot": "reset"}))
    # By a timer: the agent could be ended before it has answered for "systemctl reboot" itself.
    done = transport.run(
        ["systemd-run", "--quiet", "--on-active=2s", "systemctl", "reboot"], timeout=timeout
    )
    if done.code:
        said = done.err.decode(errors="replace").strip()
        raise InfraError(f"the node could not be restarted: {said}")
    try:
        ready = transport.wait_ready(
            timeout=timeout, alive=running.check_booting, check=check, after=str(booted["boot_id"])
        )
    except (TransportError, DeadlinePassed) as error:
        raise running.explain(error) from error
    running.monitor(("set-action", {"reboot": "shutdown"}))
    return ready
