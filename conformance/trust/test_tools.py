"""What tools are told to trust in place of the OS store, and that none is told not to look."""

from __future__ import annotations

from collections.abc import Iterable

from harness.checks import check, fact, fail, intercept
from harness.node import Node

REMEDY = "Run 'airlock-node.pyz apply --only trust' on the node"
SINCE = "2026-11-22"


@check(
    id="trust.environment",
    severity="blocker",
    title="REQUESTS_CA_BUNDLE and SSL_CERT_FILE name a file that holds the proxy's CA, everywhere",
    remedy=f"{REMEDY}: it writes /etc/environment, /etc/profile.d and systemd's manager alike.",
    requires=intercept,
    depends=["trust.os-store"],
    source="requests and certifi; OpenSSL's SSL_CERT_FILE, which httpx, uv and Go read too",
    since=SINCE,
)
def test_environment(node: Node) -> None:
    """Python's requests knows no system store: without the variable it refuses the proxy."""
    places = ("environment", "profile", "systemd")
    _told(node, places, ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"))


@check(
    id="trust.git",
    severity="major",
    title="git trusts the proxy's CA",
    remedy=f"{REMEDY}: http.sslCAInfo of /etc/gitconfig; see 'git config --system --list'.",
    requires=intercept,
    depends=["trust.os-store"],
    source="git-config(1), http.sslCAInfo: git with GnuTLS looks at no variable of OpenSSL's",
    since=SINCE,
)
def test_git(node: Node) -> None:
    """The last setting wins."""
    _told(node, ("git",), ("http.sslCAInfo",))


@check(
    id="trust.pip",
    severity="major",
    title="pip trusts the proxy's CA",
    remedy=f"{REMEDY}: cert of /etc/pip.conf; read it with 'pip config list'.",
    requires=intercept,
    depends=["trust.os-store"],
    source="pip configuration: [global] cert; before 24.2 pip trusts its own bundle alone",
    since=SINCE,
)
def test_pip(node: Node) -> None:
    """A path that is not there ends pip before its first request."""
    _told(node, ("pip",), ("global.cert",))


@check(
    id="trust.conda",
    severity="major",
    title="conda trusts the proxy's CA",
    remedy=f"{REMEDY}: ssl_verify as a path; read it with 'conda config --show ssl_verify'.",
    requires=intercept,
    depends=["trust.os-store"],
    source="conda drops 'ssl_verify: truststore' without a word where a proxy is set",
    since=SINCE,
)
def test_conda(node: Node) -> None:
    """Asked of a node with conda only."""
    _told(node, ("conda",), ("ssl_verify",))


@check(
    id="trust.node",
    severity="major",
    title="Node.js and npm trust the proxy's CA",
    remedy=f"{REMEDY}: NODE_EXTRA_CA_CERTS and npm's cafile; 'npm config get cafile' shows it.",
    requires=intercept,
    depends=["trust.os-store"],
    source="Node.js: NODE_EXTRA_CA_CERTS adds to the roots that node brings; npm config: cafile",
    since=SINCE,
)
def test_node(node: Node) -> None:
    """A file that is missing is a warning to node, and then every request fails."""
    places = ("environment", "profile", "systemd", *_tools(node, "npm"))
    _told(node, places, ("NODE_EXTRA_CA_CERTS", "cafile"))


@check(
    id="trust.google",
    severity="major",
    title="gcloud and gsutil trust the proxy's CA",
    remedy=f"{REMEDY}: core/custom_ca_certs_file and boto's ca_certificates_file; read them with "
    "'gcloud config list' and 'gsutil version -l'.",
    requires=intercept,
    depends=["trust.os-store"],
    source="gcloud brings roots of its own; boto.cfg, [Boto] ca_certificates_file",
    since=SINCE,
)
def test_google(node: Node) -> None:
    """Also by the variable, which gcloud puts before its properties."""
    places = ("environment", "profile", "systemd", "boto", *_tools(node, "gcloud"))
    keys = ("core.custom_ca_certs_file", "Boto.ca_certificates_file")
    _told(node, places, (*keys, "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE"))


@check(
    id="trust.verification-on",
    severity="blocker",
    title="No program on the node was told to take any certificate",
    remedy="Remove the line and run 'airlock-node.pyz apply --only trust': with the proxy's CA in "
    'its store no program needs sslVerify=false, trusted-host or Verify-Peer "false".',
    source="git, pip, wget, npm, conda, apt, gcloud and the variables of Node.js, Python and git",
    since=SINCE,
)
def test_verification_on(node: Node) -> None:
    """What makes the errors go away lets everybody in. curl is judged by trust.tls-needs-ca."""
    found = fact(node, "trust.unverified")
    if found:
        fail(f"{len(found)} settings switch verification off: {found[0]}", found)


def _tools(node: Node, tool: str) -> list[str]:
    """The names under which installations of a tool are told."""
    return [name for name in fact(node, "trust.settings") if name.partition(" ")[0] == tool]


def _told(node: Node, places: Iterable[str], keys: tuple[str, ...]) -> None:
    """Fail unless every file that one of these settings names holds the proxy's CA.

    Where our own installer of trust has run, a place that has no such setting is wrong as well.
    """
    settings, files = fact(node, "trust.settings"), fact(node, "trust.files")
    ours = any(one["name"] == "trust" for one in node.facts.get("installers") or ())
    wrong = []
    for place in places:
        said = {key: path for key, path in settings.get(place, {}).items() if key in keys}
        if not said and ours and place in settings:
            wrong.append(f"{place}: {' and '.join(keys)} are not set")
        for key, path in said.items():
            held = files.get(path)
            if held is None:
                wrong.append(f"{place}: {key} names {path}, which cannot be read")
            elif node.expect["ca_sha256"] not in held:
                wrong.append(f"{place}: {key} names {path}, which lacks the proxy's CA")
    if wrong:
        fail(f"{len(wrong)} settings lead away from the proxy's CA: {wrong[0]}", wrong)
