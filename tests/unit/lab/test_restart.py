"""A machine that is restarted by its own systemd."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.deadline import DeadlinePassed
from harness.errors import InfraError
from harness.lab.restart import restart
from harness.transports.base import Ran


def a_machine(said: list[Any]) -> Any:
    return SimpleNamespace(
        monitor=lambda *commands: said.extend(commands),
        check_booting=lambda: None,
        explain=lambda error: InfraError(f"explained: {error}"),
    )


def a_transport(said: list[Any], *, code: int = 0, ready: Any = None) -> Any:
    def run(argv: list[str], timeout: float) -> Ran:
        del timeout
        said.append(argv)
        return Ran(code, b"", b"no such unit\n" if code else b"")

    def wait_ready(**how: Any) -> Any:
        said.append(how["after"])
        if isinstance(ready, Exception):
            raise ready
        return ready

    return SimpleNamespace(run=run, wait_ready=wait_ready)


def test_only_this_once_it_may_and_what_asks_for_it_has_answered_before_it_happens() -> None:
    """Seen on a busy host: the agent was ended before it had answered for systemctl reboot."""
    said: list[Any] = []
    event = {"boot_id": "two", "state": "running"}
    transport = a_transport(said, ready=event)
    assert restart(a_machine(said), transport, {"boot_id": "one"}, lambda: None, 5) == event
    allowed, command, after, forbidden = said
    assert allowed == ("set-action", {"reboot": "reset"})
    assert command[0] == "systemd-run"
    assert "--on-active=2s" in command
    assert command[-2:] == ["systemctl", "reboot"]
    assert after == "one"
    assert forbidden == ("set-action", {"reboot": "shutdown"})


def test_a_node_that_will_not_or_does_not_come_back_is_the_labs_error() -> None:
    booted = {"boot_id": "one"}
    with pytest.raises(InfraError, match="could not be restarted: no such unit"):
        restart(a_machine([]), a_transport([], code=1), booted, lambda: None, 5)
    late = a_transport([], ready=DeadlinePassed("the event 'ready'", 5))
    with pytest.raises(InfraError, match=r"explained: .*ready"):
        restart(a_machine([]), late, booted, lambda: None, 5)
