"""None of the secrets that a node holds gets into a capsule, from anywhere, in any spelling."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.capsules import archive, contents
from harness.pack import pack
from harness.transports import shell
from harness.transports.base import Ran, TransportError
from harness.transports.local import LocalTransport
from installers import capture
from installers.collect import credentials
from installers.collect.reader import Reader
from installers.facts import Collector
from tests.unit.capsules.spellings import plant, spellings


def everywhere(secrets: dict[str, str]) -> str:
    """A log in which somebody printed every secret in every way."""
    return "\n".join(
        f"Nov 22 node app[1]: {name}, {how}: <{text}>".replace("\0", "")
        for name, secret in secrets.items()
        for how, text in spellings(secret)
    )


def assert_clean(data: bytes, secrets: dict[str, str]) -> None:
    """Nothing of them is in a capsule's bytes, packed or not."""
    plain = gzip.decompress(data).decode("utf-8", "replace")
    # Not asserted one by one: pytest would print the secrets, and take minutes to compare.
    found = [
        f"{name}, {how}"
        for name, secret in secrets.items()
        for how, text in spellings(secret)
        if text in plain or json.dumps(text)[1:-1] in plain
    ]
    assert found == []


def test_the_places_of_a_node(tmp_path: Path) -> None:
    secrets = plant(tmp_path)
    found = credentials.find(Reader(str(tmp_path)))
    missing = [name for name, secret in secrets.items() if secret not in found.secrets]
    assert missing == []
    assert "/root/.docker/config.json" in found.places
    assert all(place.startswith("/") for place in found.places)


def test_none_of_them_is_in_the_capsule(tmp_path: Path) -> None:
    secrets = plant(tmp_path)
    facts = Collector(str(tmp_path)).collect("n")
    facts["journal"] = [{"t": 1, "event": "said", "what": everywhere(secrets)}]
    facts["environments"] = {f"/opt/{secrets['git']}": {"channels": [everywhere(secrets)]}}
    texts = {"journal.txt": everywhere(secrets), "kernel.txt": everywhere(secrets)}
    attributes = {
        "http-proxy": f"http://u:{secrets['apt']}@p.test:1",
        "airlock-note": everywhere(secrets),
        "startup-script": "whatever it does",
    }
    found = credentials.find(Reader(str(tmp_path)))
    captured = capture.clean(
        facts, texts, capture.chosen(attributes.items()), {"x": secrets["pip"]}, found
    )
    gathered = contents.gather(captured, {"way": "test"})
    data = archive.pack(gathered.members, gathered.notes)
    assert_clean(data, secrets)
    assert "startup-script" not in gathered.members["metadata.json"].decode()
    assert gathered.blackened["journal.txt"] > len(secrets)
    assert b"Nov 22 node app[1]" in gathered.members["journal.txt"]
    # And what a person is shown holds none either.
    shown = "\n".join(contents.shown(gathered, len(data)))
    assert not [name for name, secret in secrets.items() if secret in shown]
    assert "/root/.netrc" in shown


def test_words_of_the_users_own_go_too() -> None:
    captured = {
        "facts": {"identity": {"hostname": "gpu-7.corp.example"}, "os": None},
        "texts": {"journal.txt": "from gpu-7.corp.example"},
        "metadata": None,
        "missing": {},
        "blackened": {},
        "looked_in": [],
    }
    gathered = contents.gather(captured, {}, hide=["corp.example"])
    assert all(b"corp.example" not in data for data in gathered.members.values())
    assert gathered.blackened == {"facts.json": 1, "journal.txt": 1}


def test_a_running_node_and_its_processes(tmp_path: Path) -> None:
    """The whole way through a real agent: one exchange, and a JVM's password is not in it."""
    property_, variable = "jvmS3cret-canary-1", "envS3cret-canary-2"
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = subprocess.Popen(
        [*words, f"-Dhttps.proxyPassword={property_}"],
        env={**os.environ, "HTTPS_PROXY": f"http://u:{variable}@p.test:1"},
    )
    transport = LocalTransport(pack(tmp_path).path)
    asked: list[str] = []
    call = transport.call

    def counted(op: str, *, timeout: float, **args: Any) -> Any:
        asked.append(op)
        return call(op, timeout=timeout, **args)

    transport.call = counted  # type: ignore[method-assign]
    try:
        captured = transport.capture("a nonce")
    finally:
        transport.close()
        process.kill()
        process.wait()
    assert asked == ["capture"]
    assert captured["facts"]["nonce"] == "a nonce"
    assert captured["facts"]["kernel"]["release"] == os.uname().release
    assert f"process {process.pid}" in captured["looked_in"]
    assert property_ not in json.dumps(captured)
    assert variable not in json.dumps(captured)
    assert "journal.txt" in {**captured["texts"], **captured["missing"]}


class Sh:
    """A node that has only sh: this machine's."""

    def __init__(self, before: str = "") -> None:
        self._before = before

    def __call__(self, argv: list[str], *, timeout: float) -> Ran:
        argv = [*argv[:2], self._before + argv[2], *argv[3:]]
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False)
        return Ran(done.returncode, done.stdout, done.stderr)


def test_a_node_without_python() -> None:
    said = "dmesg() { echo 'kernel: http://u:hunter2@p.test/ in the log'; }; "
    captured = shell.capture(Sh(said), "n", 60, "only sh")
    assert captured["facts"]["kernel"]["release"] == os.uname().release
    assert captured["texts"]["kernel.txt"] == "kernel: http://***@p.test/ in the log"
    assert captured["blackened"]["kernel.txt"] == 1
    assert captured["missing"]["metadata.json"] == "only sh"


@pytest.mark.parametrize("name", ["../../evil", "/etc/../../../evil", "/..", ""])
def test_a_node_without_python_names_no_file_of_ours(name: str) -> None:
    script = f"printf '%s\\n' glibc x86_64 1 \"$1\" '{name}' bad \"$1\"; exit; "
    with pytest.raises(TransportError, match="named a file"):
        shell.facts(Sh(script), "n", 60, "only sh")
