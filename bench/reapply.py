"""A second apply that changes nothing, on a copy of this machine with a proxy, a CA and keys."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.record import Measurement, against
from fixtures.overlay import OVERLAY
from harness.pack import pack
from tests.unit.installers_keyrings.workshop import acme, attributes, key_server, smithy

_ROUNDS = 7
_LIMIT = 1.0
# An overlay in a mount namespace, with a few lines of metadata; what follows is timed in it.
_SCRIPT = OVERLAY + 'exec "$PYTHON" -m bench.reapply "$ROOT" "$NODE" "$METADATA"\n'


def bench_reapply() -> Measurement:
    """Wall seconds of the whole command, with the shell's header and the interpreter's start."""
    with _metadata() as (node_file, metadata), tempfile.TemporaryDirectory() as work:
        environment = {
            **os.environ,
            "WORK": work,
            "PYTHON": sys.executable,
            "NODE": str(node_file),
            "METADATA": str(metadata),
        }
        argv = ["unshare", "--mount", "sh", "-c", _SCRIPT]
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the copy of this machine failed: {done.stderr[-800:]}")
    seconds = json.loads(done.stdout)
    return against(
        "reapply",
        seconds,
        [_LIMIT] * len(seconds),
        "limit",
        "s",
        ["sh airlock-node.pyz apply --only proxy,trust,keyrings --root COPY-OF-THIS-MACHINE"],
    )


@contextlib.contextmanager
def _metadata() -> Iterator[tuple[Path, Path]]:
    """The node file, and metadata that names a proxy, a pinned CA and a repository."""
    system = platform.freedesktop_os_release()["ID"]
    with tempfile.TemporaryDirectory() as folder, smithy() as smith, key_server() as server:
        key = smith.key("bench")
        url = server.give("/key.asc", smith.export(key, armored=True))
        ca = server.give("/ca.pem", server.ca.pem)
        given = {
            **attributes(acme((key, [url]), os=system), []),
            "http-proxy": "http://10.0.2.100:3128",
            "http-proxy-pem-uri": f"{ca}#sha256={hashlib.sha256(server.ca.pem).hexdigest()}",
        }
        metadata = Path(folder) / "metadata.json"
        metadata.write_text(json.dumps({"instance": {"attributes": given}}))
        yield pack(Path(folder)).path, metadata


def _measure(root: str, node_file: str, metadata: str) -> list[float]:
    """Apply once, then time what changes nothing."""
    words = ["apply", "--only", "proxy,trust,keyrings", "--root", root, "--metadata", metadata]
    argv = ["sh", node_file, *words, "--json"]
    # As systemd and sudo give it: the Python is the distribution's, not one of this machine's own.
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    seconds = []
    for _ in range(_ROUNDS + 1):
        began = os.times()
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
        seconds.append(os.times().elapsed - began.elapsed)
        if done.returncode:
            sys.exit(
                f"apply ended with {done.returncode}: {done.stdout[-600:]}{done.stderr[-600:]}"
            )
    outcomes = {one["outcome"] for one in json.loads(done.stdout)["installers"]}
    if outcomes != {"unchanged"}:
        sys.exit(f"the second run was {outcomes}")
    return seconds[1:]


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))
