"""What a program's words mean: the cause of a failure in the environment, with its way out.

Programs that fail behind a proxy say so in their own words, and seldom what is wrong. The codes are
stable: reports and scenarios name them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from installers.errors import CommandError, NodeError


@dataclass(frozen=True)
class Cause:
    """``code`` is stable; empty for a failure that nobody knows."""

    code: str = ""
    remedy: str = ""


# The first that matches counts: what explains others stands above them. Words of apt 2.2 to 3.0,
# curl, gpg and the C library.
_KNOWN = (
    (
        "disk.space",
        r"No space left on device|You don't have enough free space",
        "make room, or give the image a larger disk",
    ),
    (
        "clock.wrong",
        r"is not valid yet \(invalid for another|certificate is not yet valid|"
        r"not yet activated|is expired \(invalid since",
        "set the clock; NTP does not go through an HTTP proxy",
    ),
    (
        "proxy.credentials",
        r"\b407 +Proxy Auth|response 407|HTTP/1\.[01] 407|HTTP code 407 from proxy",
        "put user and password into the metadata's proxy URL, percent-encoded",
    ),
    (
        "proxy.host-refused",
        r"\b403 +Forbidden|response 403|HTTP code 403 from proxy|HTTP/1\.[01] 403",
        "have the hosts that the plan names added to the proxy's list, with those that they "
        "redirect to, or use a mirror that is on it",
    ),
    (
        "repository.unavailable",
        r"\b50[0234] +(?:Service Unavailable|Bad Gateway|Gateway Time|Internal Server Error)",
        "the repository, or the proxy's own way to it, is down: try again later, or use a mirror",
    ),
    (
        "trust.untrusted",
        r"certificate issuer is unknown|certificate verif|self-signed certificate|"
        r"unable to get local issuer certificate|The certificate is NOT trusted",
        "name the proxy's CA in http-proxy-pem-uri",
    ),
    (
        "trust.expired",
        r"certificate has expired|certificate chain uses expired",
        "publish the renewed certificate of the proxy's CA",
    ),
    (
        "network.cut",
        r"Connection reset by peer|transfer closed with|Undetermined Error|"
        r"Error reading from server|The TLS connection was non-properly terminated",
        "something on the way ends long transfers: use a mirror inside",
    ),
    (
        "network.no-answer",
        r"[Cc]onnection timed out|Could not connect to|Connection failed|Connection refused|"
        r"Temporary failure resolving|Could not resolve|Network is unreachable",
        "check that the proxy of the metadata is the one of this network, and that it answers",
    ),
)


def of(error: NodeError) -> Cause:
    """The cause of an error, from what the failed program said."""
    said = [str(error)]
    links: Optional[BaseException] = error
    # The tail that goes into a message is often only a consequence of what stood above it.
    while links is not None:
        if isinstance(links, CommandError):
            said += [links.err, links.out]
        links = links.__cause__
    found = find("\n".join(said))
    own = getattr(error, "cause", "")
    return found if found.code or not own else Cause(f"driver.{own}")


def find(text: str) -> Cause:
    """The first known cause in a program's words."""
    for code, pattern, remedy in _KNOWN:
        if re.search(pattern, text):
            return Cause(code, remedy)
    return Cause()
