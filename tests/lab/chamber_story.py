"""What happens in a chamber, told as JSON: run by test_chamber.py, as root and as an ordinary user.

``python3 chamber_story.py DIRECTORY``; needs the standard library and ``harness.lab`` only.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from harness.lab.namespace import Bind, Chamber, remove_tree, run_as_root

_ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def tree(where: Path) -> None:
    """The host's own programs, seen through symbolic links and binds: no download needed."""
    for name in ("proc", "dev", "tmp", "run", "etc", "usr", "root"):
        (where / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (where / name).symlink_to(f"usr/{name}")
    (where / "etc/resolv.conf").write_text("nameserver 10.0.2.3\noptions timeout:1 attempts:1\n")
    (where / "etc/hosts").write_text("127.0.0.1 localhost\n")


def main() -> int:
    work = Path(sys.argv[1])
    root = work / "tree"
    tree(root)
    told = work / "told.txt"
    told.write_text("from outside")
    story: dict[str, object] = {}
    binds = [Bind(Path("/usr"), "/usr", readonly=True), Bind(told, "/run/told", readonly=True)]
    more = ("10.0.2.110", 80)
    with Chamber(
        root, work / "out.pcap", work / "log", binds=binds, env=_ENV, places=[more]
    ) as chamber:
        for name, listener, place in (
            ("proxy", chamber.proxy, ("10.0.2.100", 3128)),
            ("more", chamber.outside[more], more),
        ):
            answer = threading.Thread(target=_answer, args=(listener,))
            answer.start()
            ask = ["python3", "-c", _ASK, place[0], str(place[1])]
            story[name] = chamber.run(ask, timeout=30)
            answer.join()
        story["told"] = chamber.run(["cat", "/run/told"], timeout=20)
        story["write"] = chamber.run(["sh", "-c", "echo x > /run/told"], timeout=20)[0]
        story["direct"] = chamber.run(["python3", "-c", _DIRECT], timeout=30)
        story["name"] = chamber.run(["getent", "ahostsv4", "probe.invalid"], timeout=30)[0]
        story["owner"] = chamber.run(["sh", "-c", "touch /root/f; chown 12:34 /root/f"], timeout=20)
        story["status"] = chamber.run(["sh", "-c", "exit 7"], timeout=20)[0]
    listed = run_as_root(["stat", "-c", "%u:%g", str(root / "root/f")], timeout=20)
    story["seen_owner"] = listed.stdout.decode().strip()
    story["log"] = (work / "log").read_text()
    remove_tree(root)
    story["left"] = root.exists()
    story["user"] = subprocess.run(["id", "-u"], capture_output=True, text=True).stdout.strip()
    print(json.dumps(story))
    return 0


_ASK = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as asked:
    print(asked.recv(9).decode())
"""
_DIRECT = """
import socket
for family, address in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
    s = socket.socket(family)
    s.settimeout(0.5)
    try:
        s.connect((address, 443))
        print("connected")
    except OSError as e:
        print(type(e).__name__)
"""


def _answer(listener: object) -> None:
    connection, _ = listener.accept()  # type: ignore[attr-defined]
    connection.sendall(b"from host")
    connection.close()


if __name__ == "__main__":
    sys.exit(main())
