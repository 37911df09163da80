"""A pytest plugin that gives the checks hand-made nodes, in place of a run's.

``-p tests.unit.conformance.double`` with AIRLOCK_DOUBLE_OUT=FILE: every check runs on every sample,
and FILE gets ``{"sample|check id": record}``. Commands of checks run on this machine, by real
shells and the real curl, with another home directory and a small real proxy.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fixtures.pki import Authority, Identity, make_ca
from fixtures.repository import ARCHIVE, COMPONENT, KEY, STRANGER, SUITE, Repository
from harness.checks import Check, check_of, record
from harness.node import CellNames, Node, Ran
from harness.plugin import SESSION
from harness.station import CARDS
from harness.transports.base import AgentOperations, TransportError
from installers.deferred import spark
from tests.unit.conformance import good
from tests.unit.conformance.breaks_deferred import BREAKS
from tests.unit.conformance.proxy import Proxy

LOGIN = "airlock:p@:/%#secret"
ENCODED = "airlock:p%40%3A%2F%25%23secret"


class ThisMachine(AgentOperations):
    """Runs a sample's commands here, with its home for /root and the real proxy for the node's.

    ``said`` is shared by all samples: those that differ in facts only get the same answers.
    """

    def __init__(
        self, sample: good.Sample, directory: Path, bundle: Path, said: dict[object, Ran]
    ) -> None:
        self.name = sample.name
        self._sample = sample
        self._said = said
        self._home = Path(tempfile.mkdtemp(dir=directory))
        # On a node curl finds the CA in the OS store; here its configuration points at one.
        own = {".curlrc": f'cacert = "{bundle}"\n' if sample.trusts_ca else ""}
        own["cards.sh"] = 'echo \'{"name": "gpu", "addresses": ["0"]}\'\n'
        # This machine's own settings are not the node's: APT_CONFIG is read before all others.
        (self._home / "none").mkdir()
        alone = f'Dir::Etc::parts "{self._home}/none";\nDir::Etc::main "-";\n'
        apt = {"apt.conf": alone, "lab.sources": _source(directory)}
        for name, text in (own | apt).items():
            (self._home / name).write_text(text + sample.home.get(name, ""))

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """Checks may run commands, and nothing else."""
        raise TransportError(f"{self.name}: a check asked for {op!r} ({args}, {timeout} s)")

    def close(self) -> None:
        """Nothing is open."""

    def run(self, command: str | Sequence[str], *, stdin: bytes = b"", timeout: float = 60) -> Ran:
        """See Transport."""
        assert isinstance(command, str)
        sample = self._sample
        home = tuple(sorted(sample.home.items()))
        same = (command, home, sample.trusts_ca)
        if same not in self._said:
            self._said[same] = self._run(command, stdin, timeout)
        return self._said[same]

    def _run(self, command: str, stdin: bytes, timeout: float) -> Ran:
        for node, here in (
            ("HOME=/root", f"HOME={self._home}"),
            (good.SOURCE, f"{self._home}/lab.sources"),
            (spark.SCRIPT, f"{self._home}/cards.sh"),
            (good.DISTRIBUTION, f"{self._home.parent}{STRANGER}"),
            (good.PROXY, self._sample.expect["real_proxy"]),
        ):
            command = command.replace(node, here)
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            input=stdin,
            capture_output=True,
            timeout=timeout,
            check=False,
            env={**os.environ, "APT_CONFIG": f"{self._home}/apt.conf"},
        )
        return Ran(done.returncode, done.stdout, done.stderr)


def _source(directory: Path) -> str:
    """The lab's package repository, as files of this machine."""
    fields = {"Types": "deb", "URIs": f"file:{directory}{ARCHIVE}", "Suites": SUITE}
    fields |= {"Components": COMPONENT, "Architectures": "amd64"}
    fields["Signed-By"] = f"{directory}{KEY}"
    return "".join(f"{name}: {value}\n" for name, value in fields.items())


class Double:
    """pytest's hooks; stands where the session of a run would."""

    def __init__(self, directory: Path, out: Path) -> None:
        self._directory = directory
        self._out = out
        self._records: dict[str, dict[str, Any]] = {}
        self._nodes: dict[str, Node] = {}
        self._functions: dict[Check, Callable[[Node], None]] = {}
        self._said: dict[object, Ran] = {}
        authority, other = make_ca("Airlock lab proxy CA"), make_ca("another CA")
        self._bundle = directory / "bundle.pem"
        self._bundle.write_bytes(other.pem + authority.pem)
        for name, content in Repository(Authority(directory / "keys-of-the-lab")).files.items():
            path = directory / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.samples = {sample.name: sample for sample in self._samples(authority)}

    def _samples(self, authority: Identity) -> list[good.Sample]:
        bundle = str(self._bundle)
        plain = Proxy(self._directory, authority)
        asking = Proxy(self._directory, authority, LOGIN)
        whole = {
            "intercepted": good.intercepted(authority.sha256, bundle, plain.url, 80),
            "authenticated": good.authenticated(authority.sha256, bundle, asking.url, 80, ENCODED),
        }
        broken = []
        for name, (base, apply) in BREAKS.items():
            sample = whole[base].copy(name)
            apply(sample)
            broken.append(sample)
        return [*whole.values(), good.mute(whole["intercepted"]), *broken]

    def node(self, name: str) -> Node:
        """The node of a sample; what the plugin's ``node`` fixture asks for."""
        if name not in self._nodes:
            sample = self.samples[name]
            self._nodes[name] = Node(
                name=name,
                cell=CellNames("debian-12", name, "driver", "double"),
                facts=sample.facts,
                transport=ThisMachine(sample, self._directory, self._bundle, self._said),
                expect=sample.expect,
                ledger=sample.ledger,
                simulated=True,
            )
        return self._nodes[name]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Every check on the whole samples, as pytest runs it; see pytest_sessionfinish."""
        names = [name for name in self.samples if name not in BREAKS]
        metafunc.parametrize("node", names, indirect=True)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Keep the functions of checks; those of the cards, which no sample has, but once."""
        for item in session.items:
            this = check_of(item)
            assert this is not None, f"{item.nodeid} is no check"
            if item.path.parent.name not in CARDS:
                self._functions[this] = item.function  # type: ignore[attr-defined]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep what the check said."""
        this = check_of(item)
        assert this is not None, f"{item.nodeid} is no check"
        error = call.excinfo.value if call.excinfo else None
        if call.when == "call" or error is not None:
            sample = item.callspec.params["node"]  # type: ignore[attr-defined]
            self._records[f"{sample}|{this.id}"] = record(this, error)
        return (yield)

    def pytest_sessionfinish(self) -> None:
        """Every check on every broken sample, by itself: as tests these would take a minute."""
        for name in BREAKS:
            for this, function in self._functions.items():
                self._records[f"{name}|{this.id}"] = record(this, _error(function, self.node(name)))
        self._out.write_text(json.dumps(self._records))


def _error(function: Callable[[Node], None], node: Node) -> BaseException | None:
    try:
        function(node)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # pytest's outcomes are no Exception
        return error
    return None


def pytest_configure(config: pytest.Config) -> None:
    """Stand in for the session of a run."""
    directory = tempfile.TemporaryDirectory(prefix="airlock-double-")
    config.add_cleanup(directory.cleanup)
    double = Double(Path(directory.name), Path(os.environ["AIRLOCK_DOUBLE_OUT"]))
    config.pluginmanager.register(double, SESSION)
