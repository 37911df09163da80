"""SSH to instances that have no external address: through Google's Identity-Aware Proxy.

The tunnel is Google's own (``gcloud compute start-iap-tunnel``), as ssh's ProxyCommand. A host key
is known before the first connection: the guest agent publishes it in guest attributes, which only
the instance itself can write and only the project's people can read; a key that is another one ends
the connection. Nothing is ever asked of a person.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.errors import InfraError, UsageError
from harness.providers.gce_api import Api, CloudError, NotThere
from harness.transports.base import RemoteError, TransportError
from harness.transports.ssh import SshTransport

if TYPE_CHECKING:
    from harness.targets import Target

_KEY_TYPE = re.compile(r"[a-z0-9-]+(@[a-z.]+)?")
_KEY = re.compile(r"[A-Za-z0-9+/]+=*")
#: Where gcloud keeps the host keys that it has seen, and a person's key; `gcloud compute ssh`.
GCLOUD_HOSTS = Path("~/.ssh/google_compute_known_hosts")
GCLOUD_KEY = Path("~/.ssh/google_compute_engine")
#: States of an instance in which nobody will answer any more.
ENDED = ("STOPPING", "STOPPED", "TERMINATED", "SUSPENDING", "SUSPENDED", "PENDING_STOP")


#: Where images are: in no zone.
GLOBAL = "global"


@dataclass(frozen=True)
class Place:
    """One instance; or an image, whose ``zone`` is GLOBAL."""

    project: str
    zone: str
    name: str

    @property
    def text(self) -> str:
        """The target that means it; an image's partial URL."""
        if self.zone == GLOBAL:
            return f"projects/{self.project}/global/images/{self.name}"
        return f"gce://{self.project}/{self.zone}/{self.name}"


class RunKey:
    """The key that a run logs in with: made for it, in memory, and on disk only beside a node."""

    def __init__(self) -> None:
        key = Ed25519PrivateKey.generate()
        self._private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        self.public = (
            key.public_key()
            .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
            .decode()
        )

    @property
    def secret(self) -> bytes:
        """A line of the file that holds the private part but for a byte, and must be on no node.

        By "PROTOCOL.key" of OpenSSH its 32 bytes begin at 161, and a line here has 48.
        """
        return self._private.splitlines()[4]

    def write(self, path: Path) -> Path:
        """Put it where ssh can read it, mode 0600."""
        path.touch(mode=0o600)
        path.write_bytes(self._private)
        return path


def tunnel(place: Place) -> list[str]:
    """ssh's options that lead through IAP. InfraError without gcloud."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        raise InfraError(
            f"{place.name}: there is no gcloud here, which makes the tunnel to it",
            hint="install the Google Cloud CLI",
        )
    command = [
        *(gcloud, "compute", "start-iap-tunnel", place.name, "%p", "--listen-on-stdin"),
        *(f"--project={place.project}", f"--zone={place.zone}", "--verbosity=error"),
    ]
    # Nothing of these words can hold a quote or a blank, but a path may.
    words = " ".join(word if word == "%p" else shlex.quote(word) for word in command)
    return ["-o", f"ProxyCommand={words}"]


def pinned(place: Place, keys: Mapping[str, str], known_hosts: Path) -> list[str]:
    """ssh's options that believe these host keys and no others. ``known_hosts`` is written."""
    alias = f"{place.name}.{place.zone}.{place.project}".replace(":", ".")
    lines = []
    for kind, key in sorted(keys.items()):
        # They come from a machine: what is no key must not get into a file that ssh obeys.
        if not _KEY_TYPE.fullmatch(kind) or not _KEY.fullmatch(key):
            raise InfraError(f"{place.name} published a host key that is none: {kind[:40]!r}")
        lines.append(f"{alias} {kind} {key}\n")
    known_hosts.write_text("".join(lines))
    return [
        *("-o", f"UserKnownHostsFile={known_hosts}", "-o", "GlobalKnownHostsFile=/dev/null"),
        *("-o", "StrictHostKeyChecking=yes", "-o", f"HostKeyAlias={alias}"),
        *("-o", "UpdateHostKeys=no", "-o", "CheckHostIP=no"),
    ]


def own_key(key: Path) -> list[str]:
    """ssh's options that offer this key and no other, whatever the user has configured."""
    return [
        *("-F", "none", "-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"),
        *("-o", "PasswordAuthentication=no", "-o", "ForwardAgent=no"),
    ]


class IapTransport(SshTransport):
    """SSH to an instance. When it fails, the API is asked what has become of the instance."""

    def __init__(
        self,
        place: Place,
        node_file: Path,
        options: Sequence[str],
        *,
        keys: Mapping[str, str],
        user: str | None,
        become: Sequence[str] = (),
        state: Callable[[], str],
    ) -> None:
        """``keys``: the host's (see ``pinned``), if they are known; else ``options`` say how.

        ``state`` says in words what the API knows of it; empty: nothing worth saying.
        """
        options = [*tunnel(place), *options]
        super().__init__(place.name, node_file, user=user, become=become, options=options)
        self._state = state
        if keys:
            self._ssh += pinned(place, keys, Path(self._folder.name, "known_hosts"))

    def call(self, op: str, *, timeout: float, **args: Any) -> Any:
        """See Transport."""
        try:
            return super().call(op, timeout=timeout, **args)
        except RemoteError:
            raise  # it answered
        except TransportError as error:
            if said := self._state():
                raise type(error)(f"{error.message}; {said}") from error
            raise


def state_of(api: Api, place: Place) -> str:
    """What the API says of an instance that does not answer, in words."""
    try:
        found = api.instance(place.zone, place.name)
    except NotThere:
        return "the instance does not exist any more: somebody, or its time limit, deleted it"
    except InfraError as error:
        return f"and the API does not say what became of it: {error.message}"
    if found.status in ENDED:
        return f"the instance is {found.status}: it was preempted or stopped"
    return ""


def connect_existing(target: Target, node_file: Path) -> IapTransport:
    """To an instance that is not ours, as the user. Nothing of it or its project is changed.

    Host keys are those in guest attributes, or else those that ``gcloud compute ssh`` has seen.
    Raises UsageError for an instance that does not exist.
    """
    place = Place(target.project, target.zone, target.host)
    api = Api(place.project)
    try:
        found = api.instance(place.zone, place.name)
    except NotThere as error:
        raise UsageError(f"{place.text}: there is no such instance", hint=error.message) from error
    if found.status != "RUNNING":
        raise InfraError(f"{place.text} is {found.status}: nobody answers there")
    try:
        keys = api.host_keys(place.zone, place.name)
    except CloudError:
        keys = {}  # no permission for guest attributes: what gcloud has seen will have to do
    options: list[str] = []
    if not keys:
        options = [
            *("-o", f"UserKnownHostsFile={GCLOUD_HOSTS.expanduser()}"),
            *("-o", f"HostKeyAlias=compute.{found.id}", "-o", "StrictHostKeyChecking=yes"),
            *("-o", "CheckHostIP=no"),
        ]
    if GCLOUD_KEY.expanduser().is_file():
        options += ["-i", str(GCLOUD_KEY.expanduser())]
    return IapTransport(
        place,
        node_file,
        options,
        keys=keys,
        user=target.user or None,
        become=() if target.user == "root" else ("sudo", "-n"),
        state=lambda: state_of(api, place),
    )
