"""The proxy's CA is in the store, and TLS through the proxy works because of it."""

from __future__ import annotations

import shlex

from conformance.requests import BAD_CERTIFICATE, through_proxy
from harness.checks import check, fact, fail, intercept, not_verified, origin
from harness.node import Node

# The OS bundle without one certificate, on standard output. Arguments: bundle, sha256 of the DER.
WITHOUT = """
import base64, hashlib, re, sys
bundle, unwanted = sys.argv[1:]
for pem in re.findall("-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----",
                      open(bundle, encoding="utf-8", errors="replace").read()):
    der = base64.b64decode("".join(pem.split("-----")[2].split()))
    if hashlib.sha256(der).hexdigest() != unwanted:
        print(pem)
"""


@check(
    id="trust.os-store",
    severity="blocker",
    title="The OS trust store holds the proxy's CA",
    remedy="Name the CA in http-proxy-pem-uri and run 'airlock-node.pyz apply --only trust', and "
    "again whenever the CA changes.",
    requires=intercept,
    source="by SHA-256 of the certificate in the bundle that programs read",
)
def test_os_store(node: Node) -> None:
    """In the bundle itself: a file among the anchors that was never taken over does not count."""
    wanted = node.expect["ca_sha256"]
    if wanted not in fact(node, "trust.fingerprints"):
        ours = node.facts["trust"].get("airlock_ca")
        fail(
            f"{fact(node, 'trust.os_bundle')} does not hold the proxy's CA {wanted}",
            [f"anchor: {ours}", f"{fact(node, 'trust.count')} certificates in the bundle"],
        )


@check(
    id="trust.os-store-once",
    severity="major",
    title="The OS trust store holds the proxy's CA once",
    remedy="Add the CA as a file among the anchors and have the system's own tool take it over; "
    "never append to the bundle: the next update of it drops what was appended, and a renewal of "
    "the CA leaves the other copy behind.",
    requires=intercept,
    source="by SHA-256 of each certificate in the bundle; update-ca-certificates(8)",
)
def test_os_store_once(node: Node) -> None:
    """Twice is once by the system's tool, and once by hand."""
    wanted = node.expect["ca_sha256"]
    times = list(fact(node, "trust.fingerprints")).count(wanted)
    if times > 1:
        fail(f"{fact(node, 'trust.os_bundle')} holds the proxy's CA {times} times", [wanted])


@check(
    id="trust.tls-through-proxy",
    severity="blocker",
    title="TLS through the intercepting proxy works with the OS store",
    remedy="Put the CA that the proxy signs with into the OS store, and check the node's clock: a "
    "CA that is not yet or no longer valid is refused the same way.",
    requires=(intercept, origin),
    depends=["trust.os-store"],
    source="curl(1), EXIT CODES",
)
def test_tls_through_proxy(node: Node) -> None:
    """A real request to an origin that only the proxy can reach."""
    url = node.expect["origin_url"]
    ran = node.host.run(through_proxy(node, url, as_login=bool(node.expect.get("auth"))))
    if ran.rc != 0 or ran.stdout.strip() != "200":
        why = ran.stderr.strip() or f"status {ran.stdout.strip()}"
        fail(f"{url} through the proxy failed: {why}", [f"curl exit {ran.rc}", ran.stderr.strip()])


@check(
    id="trust.tls-needs-ca",
    severity="blocker",
    title="TLS through the proxy fails without the CA",
    remedy="Verification is off: look for 'insecure' in .curlrc. If it is not there, a second "
    "certificate in the store vouches for the proxy.",
    requires=(intercept, origin),
    source="a request that succeeds proves nothing unless it can fail",
)
def test_tls_needs_ca(node: Node) -> None:
    """The same request with the same store, less one certificate."""
    url = node.expect["origin_url"]
    without = shlex.join(
        ["python3", "-c", WITHOUT, fact(node, "trust.os_bundle"), node.expect["ca_sha256"]]
    )
    # Debian's curl looks into /etc/ssl/certs as well, unless it is told another place.
    request = through_proxy(
        node,
        url,
        *("--cacert", "CERTIFICATES", "--capath", "NOWHERE"),
        as_login=bool(node.expect.get("auth")),
    )
    request = request.replace("CERTIFICATES", "$d/ca.pem").replace("NOWHERE", "$d/none")
    ran = node.host.run(
        f"d=$(mktemp -d) && mkdir $d/none && {without} >$d/ca.pem && {request}; "
        "code=$?; rm -rf $d; exit $code"
    )
    if ran.rc == 0:
        fail(f"{url} answered {ran.stdout.strip()} although the proxy's CA was not trusted")
    if ran.rc != BAD_CERTIFICATE:
        not_verified(f"the request ended before the certificate: {ran.stderr.strip()}")
