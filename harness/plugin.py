"""The pytest plugin: checks over cells, one worker a cell, and exit statuses that mean something.

It does nothing until one of its options is given::

    pytest conformance/ --airlock-target ssh://host     # the same as `airlock check`
    pytest conformance/ --airlock-run SOCKET            # how `airlock run` calls it
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from typing import Any, NoReturn

import pytest
from _pytest.config import ConftestImportFailure

from harness.checks import MARKER_LINE
from installers.exits import Exit

#: Our name among pytest's plugins, and in what xdist's controller tells its workers.
SESSION = "airlock-session"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Our two options; either switches the plugin on."""
    group = parser.getgroup("airlock", "Airlock conformance")
    group.addoption(
        "--airlock-target",
        metavar="TARGET",
        help="check this machine: local, ssh://host, ssh+sudo://host or gce://PROJECT/ZONE/NAME; "
        "it is not changed",
    )
    group.addoption(
        "--airlock-run",
        metavar="SOCKET",
        help="check the nodes of a run (given by `airlock run`)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Join a run, or make one of a single machine."""
    config.addinivalue_line("markers", MARKER_LINE)
    socket = config.getoption("airlock_run")
    target = config.getoption("airlock_target")
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        # A worker sees the command line of its controller, and not the run that was made there.
        socket, target = worker.get(SESSION), None
    if target and socket:
        raise pytest.UsageError("--airlock-target and --airlock-run exclude each other")
    if not (socket or target):
        return
    # xdist's controller collects nothing itself, and would find nothing wrong with such a path.
    for word in config.args:
        if not (config.invocation_params.dir / word.partition("::")[0]).exists():
            raise pytest.UsageError(f"file or directory not found: {word}")
    from harness.errors import AirlockError
    from harness.session import AirlockSession, serve_target

    try:
        socket = socket or serve_target(config, target)
        config.pluginmanager.register(AirlockSession(config, socket), SESSION)
    except AirlockError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None, Any, Any]:
    """End with our status where pytest would end with its 4 before it has a session.

    An option or a value that nobody knows is a usage error, a conftest that cannot be imported
    leaves open what its checks would have said.
    """
    known = early_config.known_args_namespace
    if not (known.airlock_target or known.airlock_run):
        return (yield)
    try:
        result = yield
        _, unknown = parser.parse_known_and_unknown_args(args)
    except pytest.UsageError as error:
        _end(Exit.USAGE, *error.args)
    except ConftestImportFailure as error:
        _end(Exit.UNKNOWN, f"{error.path} cannot be imported: {error.cause}")
    flags = [word for word in unknown if word.startswith("-")]
    if flags:
        _end(Exit.USAGE, f"unrecognized arguments: {' '.join(flags)}")
    return result


def _end(status: Exit, *lines: object) -> NoReturn:
    for line in lines:
        print(f"ERROR: {line}", file=sys.stderr)
    raise SystemExit(int(status))


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Give usage errors our status instead of pytest's 4, which means something else here."""
    try:
        return (yield)
    except pytest.UsageError as error:
        if not (config.getoption("airlock_target") or config.getoption("airlock_run")):
            raise
        for line in error.args:
            print(f"ERROR: {line}")
        return int(Exit.USAGE)


@pytest.fixture
def node(request: pytest.FixtureRequest) -> Any:
    """The node under test: its facts, its ledger, what the lab expects, and a way to ask it."""
    session = request.config.pluginmanager.get_plugin(SESSION)
    if session is None:
        raise pytest.UsageError(
            "a check needs a machine: --airlock-target ssh://host, or `airlock run`"
        )
    return session.node(request.param)
