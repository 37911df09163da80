"""The recorder in a network namespace of its own, read back by our reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures import netcapture
from fixtures.capture import Allowed, classify, missing_probes, read

pytestmark = pytest.mark.lab

# A card whose other end nobody serves: the neighbours are given, so that packets leave it.
STORY = r"""
set -e
ip link add eth0 address 52:54:00:12:34:56 type veth peer name peer
ip link set peer up; ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
ip -6 addr add fec0::15/64 dev eth0 nodad; ip -6 route add default via fec0::2
ip neigh add 10.0.2.2 lladdr 52:55:0a:00:02:02 dev eth0
ip neigh add 10.0.2.3 lladdr 52:55:0a:00:02:02 dev eth0
ip -6 neigh add fec0::2 lladdr 52:55:0a:00:02:02 dev eth0
mkfifo "$2/stop" "$2/said"
"$3" -I "$1" peer "$2/out.pcap" <"$2/stop" >"$2/said" &
exec 9>"$2/stop" 8<"$2/said"
read -r word <&8; test "$word" = ready
"$3" -I - <<'SENDS'
import socket, struct
def question(name):
    labels = b"".join(bytes([len(p)]) + p.encode() for p in name.split("."))
    return struct.pack("!6H", 1, 256, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"
for family, address in ((2, "192.0.2.1"), (10, "2001:db8::1"), (2, "203.0.113.9")):
    s = socket.socket(family, socket.SOCK_STREAM); s.setblocking(False)
    s.connect_ex((address, 443))
for name in ("probe.invalid", "stray.example"):
    socket.socket(2, socket.SOCK_DGRAM).sendto(question(name), ("10.0.2.3", 53))
SENDS
exec 9>&-
cat <&8
wait
"""


@pytest.mark.parametrize("as_user", [False, True], ids=["root", "user"])
def test_what_leaves_is_recorded(tmp_path: Path, as_user: bool) -> None:
    namespace = ["unshare", "--user", "--map-root-user", "--net"]
    if as_user and os.geteuid() == 0:
        os.chown(tmp_path, 65534, 65534)
        for parent in tmp_path.parents[:3]:
            parent.chmod(parent.stat().st_mode | 0o111)
        user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
        namespace = [*user, *namespace]
    elif os.geteuid() == 0:
        namespace = ["unshare", "--net"]
    # Where an ordinary user can read it, and an interpreter that any user can run.
    script = tmp_path / "netcapture.py"
    script.write_text(Path(netcapture.__file__).read_text())
    script.chmod(0o644)
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    ran = subprocess.run(
        [*namespace, "sh", "-c", STORY, "sh", script, tmp_path, python],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout)
    capture = read(tmp_path / "out.pcap")
    assert said == {"packets": len(capture.frames), "dropped": 0}
    result = classify(capture, Allowed(node=["52:54:00:12:34:56"], peers=[]))
    assert missing_probes(result["probes"]) == []
    assert [(v["proto"], v["dst"], v["name"]) for v in result["violations"]] == [
        ("tcp", "203.0.113.9", None),
        ("udp", "10.0.2.3", "stray.example"),
    ]


def test_no_interface_is_said(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-I", netcapture.__file__, "no-such-card", tmp_path / "c.pcap"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 3
    assert "cannot record no-such-card" in ran.stderr
