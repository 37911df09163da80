"""Settings that are applied at boot, and credentials: where they are, and that they work."""

from __future__ import annotations

import shlex

from conformance.hygiene.searching import configuration, searched
from conformance.requests import bare_proxy, curl, through_proxy
from harness.checks import (
    auth,
    broken,
    check,
    fact,
    fail,
    not_verified,
    origin_http,
    own_proxy,
    proxy,
)
from harness.node import Node

UNIT = "airlock-proxy.service"


@check(
    id="proxy.service",
    severity="blocker",
    title="The proxy settings were applied from metadata at this boot",
    remedy=f"Read 'journalctl -u {UNIT}': it needs the metadata server and nothing else.",
    requires=(proxy, own_proxy),
    source="an image holds no settings of one cluster; the unit reads them on each boot",
)
def test_service(node: Node) -> None:
    """It ran to its end in this boot; systemd keeps it active afterwards.

    How others do it is theirs to choose: the settings themselves are judged all the same.
    """
    unit = fact(node, "proxy.unit").get(UNIT) or {}
    seen = [f"{key}={value}" for key, value in sorted(unit.items())]
    if unit.get("LoadState", "loaded") != "loaded" or not unit:
        fail(f"{UNIT} is not on the node", seen)
    if unit.get("Result") != "success":
        fail(f"{UNIT} failed: {unit.get('Result')}", seen)
    if unit.get("ActiveState") != "active":
        fail(f"{UNIT} did not run at this boot: it is {unit.get('ActiveState')}", seen)


@check(
    id="proxy.credentials-listed",
    severity="major",
    title="Every configuration file that holds the proxy password is known",
    remedy="Remove the password from files that airlock did not write; it lists its own.",
    requires=auth,
    source="a search of the whole node for the password, against what the node lists",
)
def test_credentials_listed(node: Node) -> None:
    """A file nobody lists is one nobody empties when the password changes."""
    listed = set(fact(node, "proxy.credential_files"))
    found = {hit["path"] for hit in searched(node)}
    if not found & listed:
        not_verified("the search found the password nowhere, not even where it must be")
    unlisted = sorted(configuration(node, found - listed))
    if unlisted:
        fail(f"{len(unlisted)} files hold the proxy password and are not listed", unlisted)


@check(
    id="proxy.auth-required",
    severity="blocker",
    title="The proxy refuses who has no password, and takes the node's",
    remedy="Check http-proxy in the metadata: user and password percent-encoded, and valid at the "
    "proxy.",
    requires=(proxy, auth, origin_http),
    depends=["proxy.service", "proxy.profile"],
    source="RFC 9110, 15.5.8: 407 Proxy Authentication Required",
)
def test_auth_required(node: Node) -> None:
    """Both requests in one exchange: 407 without credentials, 200 as a login shell sends it."""
    url = node.expect["origin_http_url"]
    without = curl(url, "--proxy", bare_proxy(node))
    script = f"{shlex.join(without)}; echo; {through_proxy(node, url, as_login=True)}"
    ran = node.host.run(script)
    answers = ran.stdout.split()
    if len(answers) != 2:
        broken("curl did not answer twice", [ran.stdout, ran.stderr])
    anonymous, authenticated = answers
    if anonymous != "407":
        fail(f"the proxy answered {anonymous} without credentials, not 407", [ran.stderr])
    if authenticated != "200":
        fail(
            f"the node's own credentials got {authenticated} from the proxy, not 200", [ran.stderr]
        )
