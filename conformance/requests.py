"""Real requests from the node with its own curl, in an environment of nothing but the necessary.

``/root/.curlrc`` is read on purpose: what switches verification off there must be seen.
"""

from __future__ import annotations

import shlex

from harness.node import Node

CLEAN = ("env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C")
SECONDS = 60

# curl(1), EXIT CODES.
BAD_CERTIFICATE = 60


def curl(url: str, *options: str) -> list[str]:
    """A curl command that prints the answer's status code, 000 without one, and its own errors."""
    quiet = ("-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", str(SECONDS))
    return [*CLEAN, "curl", *quiet, *options, url]


def through_proxy(node: Node, url: str, *options: str, as_login: bool = False) -> str:
    """Shell for a request by the proxy.

    The proxy is named outright, so that a wrong setting elsewhere is another check's finding; with
    ``as_login`` a login shell supplies it, which keeps the password out of every command line.
    """
    if not as_login:
        return shlex.join(curl(url, "--proxy", bare_proxy(node), *options))
    return as_a_login(url, *options)


def as_a_login(url: str, *options: str) -> str:
    """Shell for a request in the environment of a login shell, as a person would make it."""
    request = curl(url, *options)[len(CLEAN) :]
    return shlex.join([*CLEAN, "bash", "-lc", shlex.join(request)])


def bare_proxy(node: Node) -> str:
    """The scenario's proxy without credentials: ``http://host:port``."""
    scheme, _, rest = str(node.expect["proxy_url_redacted"]).partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
