"""Keys made by the real gpg, an HTTPS server that answers as told, and roots to install into."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fixtures.overlay import OVERLAY
from fixtures.pki import Identity, make_ca, make_leaf
from fixtures.served import server_context
from installers.config import from_attributes
from installers.engine import Engine
from installers.host import Host
from installers.keyrings import Keyrings

REPOSITORY = Path(__file__).parents[3]
DEBIAN = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
ROCKY = 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.4"\n'
RELEASES = {
    "debian-12": 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n',
    "debian-13": 'ID=debian\nVERSION_ID="13"\nVERSION_CODENAME=trixie\n',
    "ubuntu-24.04": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\nVERSION_CODENAME=noble\n',
    "rocky-9": ROCKY,
    "amzn-2023": 'ID="amzn"\nID_LIKE="fedora"\nVERSION_ID="2023"\n',
}
KEYRING = "/usr/share/keyrings/airlock-acme.gpg"
SOURCE = "/etc/apt/sources.list.d/airlock-acme.sources"


class Smith:
    """gpg with a home of its own; its agent ends with it."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def gpg(self, *args: str, input: bytes = b"") -> bytes:
        command = ["gpg", "--homedir", str(self.home), "--no-options", "--batch", "--yes"]
        quiet = ["--pinentry-mode", "loopback", "--passphrase", "", "--quiet"]
        ran = subprocess.run([*command, *quiet, *args], input=input, capture_output=True)
        assert ran.returncode == 0, ran.stderr.decode()
        return ran.stdout

    def key(
        self,
        name: str,
        *,
        algorithm: str = "rsa2048",
        usage: str = "sign",
        expires: str = "never",
        born: str = "20200101T000000",
        options: tuple[str, ...] = (),
    ) -> str:
        """Make a key; its fingerprint."""
        uid = f"{name} <{name}@acme.test>"
        faked = ["--faked-system-time", f"{born}!"]
        self.gpg(*faked, *options, "--quick-gen-key", uid, algorithm, usage, expires)
        return self.fingerprints(self.export(f"={uid}"))[0]

    def export(self, *names: str, armored: bool = False) -> bytes:
        return self.gpg(*(["--armor"] if armored else []), "--export", *names)

    def show(self, data: bytes) -> list[list[str]]:
        """gpg's own reading of a key file: the fields of its colon lines."""
        shown = self.gpg("--show-keys", "--with-colons", input=data).decode()
        return [line.split(":") for line in shown.splitlines()]

    def fingerprints(self, data: bytes) -> list[str]:
        """Of the primary keys."""
        lines = self.show(data)
        return [after[9] for line, after in itertools.pairwise(lines) if line[0] == "pub"]

    def revoke(self, fingerprint: str) -> None:
        prepared = (self.home / f"openpgp-revocs.d/{fingerprint}.rev").read_text()
        self.gpg("--import", input=prepared.replace(":-----BEGIN", "-----BEGIN").encode())


@contextlib.contextmanager
def smithy() -> Iterator[Smith]:
    """A home with a short name: the path of the agent's socket may have 107 bytes."""
    home = Path(tempfile.mkdtemp(prefix="airlock-gpg-", dir="/tmp"))
    try:
        yield Smith(home)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], capture_output=True)
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Answer:
    """One answer of the server. ``promise``: a Content-Length that is not the body's."""

    body: bytes = b""
    status: int = 200
    promise: int | None = None
    location: str | None = None


@dataclass
class KeyServer:
    """HTTPS on a port of 127.0.0.1, its certificate by ``ca``; what it answers, and was asked."""

    ca: Identity
    port: int = 0
    answers: dict[str, Answer | list[Answer]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def give(self, path: str, *answers: Answer | bytes) -> str:
        """Answer ``path`` so, the last one for ever; its address."""
        given = [Answer(one) if isinstance(one, bytes) else one for one in answers]
        self.answers[path] = given
        return f"{self.url}{path}"

    def pop(self, path: str) -> Answer:
        self.requests.append(path)
        given = self.answers.get(path, Answer(b"no such key\n", 404))
        if isinstance(given, Answer):
            return given
        return given.pop(0) if len(given) > 1 else given[0]


@contextlib.contextmanager
def key_server(*names: str) -> Iterator[KeyServer]:
    state = KeyServer(make_ca("Keyrings test CA"))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = state.pop(self.path)
            self.send_response(answer.status)
            size = len(answer.body) if answer.promise is None else answer.promise
            self.send_header("Content-Length", str(size))
            if answer.location is not None:
                self.send_header("Location", answer.location)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:
            """``requests`` is the log."""

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that refuse the certificate are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    context = server_context(make_leaf(state.ca, ["127.0.0.1", "localhost", *names]))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)


def make_root(path: Path, release: str = DEBIAN, ca: Identity | None = None) -> Host:
    """A root with nothing but the system's name and its trust store."""
    (path / "etc").mkdir(parents=True)
    (path / "etc/os-release").write_text(release)
    bundle = "etc/ssl/certs/ca-certificates.crt"
    if "rhel" in release:
        bundle = "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"
    if ca is not None:
        (path / bundle).parent.mkdir(parents=True)
        (path / bundle).write_bytes(ca.pem)
    return Host(path)


def acme(
    *keys: tuple[str, list[str]],
    os: str = "debian",
    uris: str = "https://packages.acme.test/deb",
    kind: str = "deb",
) -> dict[str, Any]:
    """A definition of the repository ``acme``, with (fingerprint, addresses) of its keys."""
    variant: dict[str, Any] = {
        "os": [os],
        "keys": [{"fingerprint": fingerprint, "urls": urls} for fingerprint, urls in keys],
    }
    if kind == "deb":
        variant["deb"] = {"uris": uris, "suites": "{codename}", "components": "main"}
    if kind == "rpm":
        variant["rpm"] = {"baseurl": uris}
    return {"acme": {"title": "Acme", "variants": [variant]}}


def attributes(definition: dict[str, Any] | None, servers: list[str]) -> dict[str, str]:
    """Metadata that asks for ``acme``."""
    given = {"airlock-keyservers": ",".join(servers)}
    if definition is not None:
        given["airlock-repositories"] = "acme"
        given["airlock-repositories-extra"] = json.dumps(definition)
    return given


def engine(
    host: Host, given: dict[str, str], *, now: float | None = None
) -> tuple[Engine, Keyrings]:
    """The engine with the installer alone; at ``now`` if it matters."""
    config = from_attributes(given)
    keyrings = Keyrings(config) if now is None else Keyrings(config, clock=lambda: now)
    return Engine(host, [keyrings]), keyrings


def apt_repository(smith: Smith, signer: str, suite: str = "bookworm") -> dict[str, bytes]:
    """A signed repository with one architecture and no package, by path."""
    packages = b""
    zipped = gzip.compress(packages, mtime=0)
    names = {"main/binary-amd64/Packages": packages, "main/binary-amd64/Packages.gz": zipped}
    lines = [f"Origin: Acme\nSuite: {suite}\nCodename: {suite}\nArchitectures: amd64"]
    lines += ["Components: main\nDate: Wed, 01 Jan 2025 00:00:00 UTC\nSHA256:"]
    for name, content in names.items():
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} {name}")
    release = "\n".join(lines).encode() + b"\n"
    signed = smith.gpg("--local-user", signer, "--clearsign", input=release)
    found = {f"/deb/dists/{suite}/{name}": content for name, content in names.items()}
    return {**found, f"/deb/dists/{suite}/InRelease": signed}


def can_overlay() -> bool:
    """Whether a copy of this machine's root can be mounted, in a namespace of its own."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        return False
    mount = (
        "mkdir $W/u $W/w $W/m && mount -t overlay o -o lowerdir=/,upperdir=$W/u,workdir=$W/w $W/m"
    )
    script = f"W=$(mktemp -d) && mount -t tmpfs t $W && {mount}"
    return (
        subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True).returncode == 0
    )


def in_overlay(work: Path, *lines: str, lower: str = "/") -> list[str]:
    """Run shell lines with $ROOT, a copy of this machine that is gone afterwards; their outputs."""
    work.mkdir()
    script = OVERLAY + "".join(
        f"{{ {line}\n}} 2>&1 || echo failed: $?\necho @@@\n" for line in lines
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env={**os.environ, "WORK": str(work), "LOWER": lower},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [part.strip() for part in done.stdout.split("@@@\n")][:-1]
