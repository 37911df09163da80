"""The open network of a scenario without a proxy, as the build of an image sees it.

A build's namespace has no way out but sockets that are given to us. In an open network each host
of the image's package sources has an address in there that leads to that host; their names are in
a hosts file that only the build sees, so nothing of this is in the image.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from fixtures.relay import Relay
from harness.errors import InfraError
from harness.lab import seam
from harness.lab.namespace import Bind, Chamber
from installers import aptentries
from installers.host import Host

if TYPE_CHECKING:
    from fixtures.scenarios import Scenario

PORTS = (80, 443)
#: More hosts than anybody's sources name; they get addresses beside those of addresses.py.
_FIRST, _MOST = 110, 100


class Outside:
    """What the build of ``tree`` reaches outside: ``known``, name -> its address in the namespace.

    Nothing where there is a proxy. Raises :class:`InfraError` when there are more than fit.
    """

    def __init__(self, scenario: Scenario, tree: Path) -> None:
        self.known = {} if scenario.proxied else _hosts(tree)
        #: What the namespace listens on.
        self.places = [(address, port) for address in self.known.values() for port in PORTS]

    def names(self, path: Path) -> list[Bind]:
        """The node's own hosts file and those names, at ``path``, for the build alone."""
        if not self.known:
            return []
        lines = [f"{address} {name}\n" for name, address in self.known.items()]
        path.write_text(seam.files()["etc/hosts"] + "".join(lines))
        return [Bind(path, "/etc/hosts", readonly=True)]

    @contextlib.contextmanager
    def open_to(self, chamber: Chamber) -> Iterator[None]:
        """Lead what the chamber connects to on to the hosts themselves."""
        names = {address: name for name, address in self.known.items()}
        with contextlib.ExitStack() as stack:
            for (address, port), listener in chamber.outside.items():
                stack.enter_context(Relay(listener, (names[address], port)))
            yield


def _hosts(tree: Path) -> dict[str, str]:
    host = Host(tree)
    names = dict.fromkeys(
        name
        for path in aptentries.files(host, ())
        for source in aptentries.sources(host.read(path) or "", path)
        for uri in source.uris
        if uri.startswith("http") and (name := urlsplit(uri).hostname)
    )
    if len(names) > _MOST:
        raise InfraError(f"the image's package sources name {len(names)} hosts, {_MOST} fit")
    return {name: f"10.0.2.{_FIRST + number}" for number, name in enumerate(names)}
