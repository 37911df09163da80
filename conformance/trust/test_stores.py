"""Every store on the node by fingerprint: what is in it and should not be, and who can read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.checks import check, fact, fail, intercept, ledger, not_verified
from harness.node import Node

READABLE = 0o444
WRITABLE = 0o022
# Time enough to have a CA renewed and brought to every node.
LEAST_DAYS = 30
DAY = 86400.0


@check(
    id="trust.readable",
    severity="blocker",
    title="Everybody can read the OS trust store, and root alone can write it",
    remedy="Run 'chmod 0644' on the bundle, and build images with umask 022: a store that root "
    "alone reads lets root's requests through and refuses everybody else's.",
    source="open(2); hardened images build with umask 077",
    since="2026-11-22",
)
def test_readable(node: Node) -> None:
    """Checks run as root, who can read everything: so the mode is asked for."""
    bundle, mode = fact(node, "trust.os_bundle"), fact(node, "trust.mode")
    bits = int(mode, 8)
    if bits & READABLE != READABLE or bits & WRITABLE:
        fail(f"{bundle} has mode {mode}, not 0644")


@check(
    id="trust.anchors",
    severity="major",
    title="Every CA that was added to the node was taken over into the store",
    remedy="Give the file a name that ends in .crt and run 'update-ca-certificates': other names "
    "are passed over without a word, and a copied file alone changes nothing.",
    source="update-ca-certificates(8); the files of /usr/local/share/ca-certificates",
    since="2026-11-22",
)
def test_anchors(node: Node) -> None:
    """By fingerprint, so that a copy under another name counts."""
    idle = []
    for anchor in fact(node, "trust.anchors"):
        if not anchor["taken"]:
            why = "its name is passed over" if not anchor["read"] else "was never taken over"
            idle.append(f"{anchor['path']}: {why}")
    if idle:
        fail(f"{len(idle)} files of CAs are not in the store: {idle[0]}", idle)


@check(
    id="trust.hashed",
    severity="major",
    title="Programs that look into the folder of certificates find the proxy's CA",
    remedy="Run 'update-ca-certificates --fresh', or 'openssl rehash /etc/ssl/certs': the folder "
    "is searched by the hash of a name, and a file without such a link is not there.",
    requires=intercept,
    depends=["trust.os-store", "trust.anchors"],
    source="SSL_CTX_load_verify_locations(3), CApath; openssl-rehash(1)",
    since="2026-11-22",
)
def test_hashed(node: Node) -> None:
    """Ruby, PHP, wget and everything with SSL_CERT_DIR read no bundle."""
    links = fact(node, "trust.links")
    if not links["hashed"]:
        not_verified("no CA was added to /usr/local/share/ca-certificates")
    if links["dangling"]:
        fail(f"{len(links['dangling'])} links lead nowhere", links["dangling"])
    if not links["hashed"].get(node.expect["ca_sha256"]):
        fail("no link by the hash of its name leads to the proxy's CA in /etc/ssl/certs")


@check(
    id="trust.java",
    severity="blocker",
    title="Every Java runtime on the node trusts the proxy's CA",
    remedy="Run 'airlock-node.pyz apply --only trust', or 'keytool -importcert -cacerts' with the "
    "keytool of that runtime: each has a store of its own, and none looks at the system's.",
    requires=intercept,
    depends=["trust.os-store"],
    source="PKIX path building failed; lib/security/cacerts, read without its runtime",
    since="2026-11-22",
)
def test_java(node: Node) -> None:
    """By fingerprint. One that only its password opens says nothing."""
    _hold(node, "java")
    shut = [s["path"] for s in fact(node, "trust.stores") if s["fingerprints"] is None]
    if shut:
        not_verified(f"only its password opens {shut[0]}")


@check(
    id="trust.bundles",
    severity="major",
    title="The bundles that conda and certifi bring along hold the proxy's CA",
    remedy="Run 'airlock-node.pyz apply --only trust': an update of the package writes its own "
    "bundle over ours, and whatever ignores REQUESTS_CA_BUNDLE is then refused.",
    requires=intercept,
    depends=["trust.os-store"],
    source="ssl/cacert.pem of conda's prefixes, certifi/cacert.pem of every Python beside the "
    "distribution's",
    since="2026-11-22",
)
def test_bundles(node: Node) -> None:
    """mamba's '<system>' means the environment's own bundle first."""
    _hold(node, "bundle")


@check(
    id="trust.no-stranger",
    severity="blocker",
    title="The OS trust store holds no private CA but the proxy's",
    remedy="Find who added it (/usr/local/share/ca-certificates, or appended to the bundle), "
    "remove the file and run 'update-ca-certificates --fresh': its owner can read all of TLS.",
    requires=ledger,
    depends=["trust.os-store"],
    source="certificates of the bundle that are not among /usr/share/ca-certificates",
    since="2026-11-22",
)
def test_no_stranger(node: Node) -> None:
    """A test's CA, an old proxy's, or that of the network the image was built in."""
    wanted = {node.expect.get("ca_sha256"), *node.expect.get("trusted_besides", ())}
    strange = [shown(one) for one in fact(node, "trust.private") if one["sha256"] not in wanted]
    if strange:
        fail(f"{len(strange)} private CAs are trusted besides: {strange[0]}", strange)


@check(
    id="trust.lasting",
    severity="major",
    title=f"No private CA in the store ends within {LEAST_DAYS} days",
    remedy="Ask who runs the proxy for the renewed CA, name both in http-proxy-pem-uri, and run "
    "'airlock-node.pyz apply --only trust' before the old one ends.",
    source="RFC 5280, 4.1.2.5; git says no more than 'certificate verification failed'",
    since="2026-11-22",
)
def test_lasting(node: Node) -> None:
    """An image lives longer than the CA that was copied into it."""
    now = fact(node, "clock")
    ending = []
    for one in fact(node, "trust.private"):
        if one["ends"] is not None and one["ends"] - now < LEAST_DAYS * DAY:
            ending.append(f"{shown(one)}: {(one['ends'] - now) / DAY:.0f} days left")
    if ending:
        fail(f"{len(ending)} private CAs end soon: {ending[0]}", ending)


@check(
    id="trust.sound",
    severity="major",
    title="Every private CA in the store is one that all programs accept",
    remedy="Have the CA issued again: basicConstraints CA:TRUE, RSA of 2048 bits or more or EC, "
    "signed with SHA-256 or better. Look at it with 'openssl x509 -noout -text -in FILE'.",
    source="OpenSSL's security level 1 and 2: 'CA certificate key too weak', 'CA signature digest "
    "algorithm too weak'",
    since="2026-11-22",
)
def test_sound(node: Node) -> None:
    """curl of one release takes what Python of the next refuses."""
    weak = [f"{shown(one)} {one['why']}" for one in fact(node, "trust.private") if one["why"]]
    if weak:
        fail(f"{len(weak)} private CAs are refused by some programs: {weak[0]}", weak)


def shown(one: Mapping[str, Any]) -> str:
    """A certificate for people: its name and the beginning of its fingerprint."""
    return f"{one['name'] or 'without a name'} ({one['sha256'][:16]})"


def _hold(node: Node, kind: str) -> None:
    wanted = node.expect["ca_sha256"]
    stores = [store for store in fact(node, "trust.stores") if store["kind"] == kind]
    without = [
        store["path"]
        for store in stores
        if store["fingerprints"] is not None and wanted not in store["fingerprints"]
    ]
    if without:
        fail(f"{len(without)} of {len(stores)} do not hold the proxy's CA: {without[0]}", without)
