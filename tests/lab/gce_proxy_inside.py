"""What test_gce_proxy runs inside: a metadata server, the startup script twice, and who asks."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

WORK = Path(sys.argv[1])
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
NODE, PROXY, ORIGIN, METADATA = "10.126.0.9", "10.126.1.2", "10.9.9.9", "169.254.169.254"
told: dict[str, str] = {}


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes guest attributes, and greets everybody else."""

    def do_PUT(self) -> None:
        assert self.headers["Metadata-Flavor"] == "Google"
        told[self.path] = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"hello")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal."""


def ask(source: str, url: str, *more: str) -> tuple[int, str, str]:
    """curl's exit code, the status and its complaint."""
    words = ["curl", "-sS", "-m", "20", "--interface", source, "-x", f"http://{PROXY}:3128"]
    words += ["-o", "/dev/null", "-w", "%{http_code}", *more, url]
    done = subprocess.run(words, capture_output=True, text=True)
    return done.returncode, done.stdout.strip(), done.stderr[-600:]


def boot() -> tuple[int, str, str]:
    """The startup script, once."""
    done = subprocess.run(
        ["bash", str(WORK / "startup.sh")],
        env={"PATH": PATH, "GCE_METADATA_HOST": METADATA},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr[-1500:]


def main() -> None:
    """Everything, as one line of JSON."""
    for address in (METADATA, ORIGIN):
        server = http.server.ThreadingHTTPServer((address, 80), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    scripts = [boot(), boot()]
    ca = WORK / "ca.pem"
    ca.write_text(next((value for key, value in told.items() if key.endswith("/proxy-ca")), ""))
    asked = {
        "node": ask(NODE, f"http://{ORIGIN}/"),
        "stranger": ask(PROXY, f"http://{ORIGIN}/"),
        "metadata": ask(NODE, f"http://{METADATA}/computeMetadata/v1/"),
        "bumped": ask(NODE, "https://origin.test/", "--cacert", str(ca)),
        "untrusting": ask(NODE, "https://origin.test/"),
    }
    seen = {
        "scripts": scripts,
        "told": told,
        "asked": asked,
        "log": Path("/var/log/squid/access.jsonl").read_text(),
        "mode": Path("/etc/squid/airlock-ca.pem").stat().st_mode & 0o777,
    }
    print(json.dumps(seen))
    subprocess.run(["kill", Path("/run/squid.pid").read_text().strip()], check=True)


if __name__ == "__main__":
    main()
