"""A capture of a node: one exchange, by the agent of a machine of the lab, and of this one."""

from __future__ import annotations

import secrets
import tempfile
import time
from pathlib import Path

from bench.lab import lab
from bench.record import Measurement, against
from harness.pack import pack
from harness.transports.base import Transport
from harness.transports.local import LocalTransport

LIMIT = 2.0


def _exchange(transport: Transport) -> float:
    nonce = secrets.token_hex(8)
    began = time.perf_counter()
    captured = transport.capture(nonce)
    took = time.perf_counter() - began
    assert captured["facts"]["nonce"] == nonce
    assert captured["texts"]
    return took


def bench_capture_exchange() -> Measurement:
    """Facts, logs and metadata of a virtual machine, without secrets: under 2 s."""
    with lab() as ready, ready.node() as (node, _, _):
        samples = [_exchange(node.transport) for _ in range(5)]
    return against("capture_exchange", samples, [LIMIT], "limit", "s", ["agent: capture"])


def bench_capture_local() -> Measurement:
    """The same of the machine that this runs on, by an agent that has just been started."""
    samples = []
    with tempfile.TemporaryDirectory(prefix="ab-") as folder:
        node_file = pack(Path(folder)).path
        for _ in range(5):
            transport = LocalTransport(node_file)
            try:
                transport.run("true")
                samples.append(_exchange(transport))
            finally:
                transport.close()
    return against("capture_local", samples, [LIMIT], "limit", "s", ["agent: capture"])
