"""Each dialect holds the scenario's proxy: the environment's places, and each program's own."""

from __future__ import annotations

from conformance.proxy.reading import SCHEMES, demand, environment, settings, variables
from harness.checks import check, fact, fail, proxy
from harness.node import Node

REMEDY = "Run 'airlock-node.pyz apply --only proxy' on the node, with http-proxy, https-proxy or "
REMEDY += "proxy-uri in its metadata."


@check(
    id="proxy.environment",
    severity="blocker",
    title="/etc/environment names the proxy, in both cases",
    remedy=REMEDY,
    requires=proxy,
    source="pam_env(8); curl and wget read http_proxy, uv and Go prefer HTTP_PROXY",
)
def test_environment(node: Node) -> None:
    """All four variables: a tool that reads the one that is stale goes the wrong way."""
    demand(node, "/etc/environment", variables(environment(node)))


@check(
    id="proxy.profile",
    severity="major",
    title="Login shells export the proxy, in both cases",
    remedy=REMEDY,
    requires=proxy,
    source="/etc/profile.d/*.sh",
)
def test_profile(node: Node) -> None:
    """What a person who logs in by SSH gets."""
    demand(node, "/etc/profile.d", variables(fact(node, "proxy.profile")))


@check(
    id="proxy.systemd-manager",
    severity="blocker",
    title="systemd gives the proxy to its services",
    remedy="systemd reads no /etc/environment: set DefaultEnvironment in system.conf.d, each "
    "variable quoted by itself and every % doubled, and run 'systemctl daemon-reexec'. " + REMEDY,
    requires=proxy,
    source="systemd-system.conf(5), DefaultEnvironment=; systemd.exec(5), specifiers",
)
def test_systemd_manager(node: Node) -> None:
    """The manager's own environment now, not the file that should have set it."""
    demand(node, "systemd's manager", variables(fact(node, "proxy.systemd_env_effective")))


@check(
    id="proxy.apt",
    severity="blocker",
    title="apt goes through the proxy",
    remedy=REMEDY,
    requires=proxy,
    source="apt-transport-http(1), apt-transport-https(1)",
)
def test_apt(node: Node) -> None:
    """Both schemes said outright, and a host goes DIRECT only if no_proxy says so."""
    found = fact(node, "proxy.apt")
    demand(node, "apt", {key: found.get(key) for key in map("Acquire::{}::Proxy".format, SCHEMES)})
    own = {key.partition("::Proxy::")[2]: value for key, value in found.items()}
    own.pop("", None)
    around = [host for host, value in own.items() if value == "DIRECT" and not _direct(node, host)]
    if around:
        fail(
            f"apt goes around the proxy for {around[0]}, which no_proxy does not name",
            [f"Acquire::http::Proxy::{host} DIRECT" for host in around],
        )
    demand(node, "apt", {host: value for host, value in own.items() if value != "DIRECT"})


def _direct(node: Node, host: str) -> bool:
    """Whether no_proxy lets ``host`` go around the proxy: itself, or a domain above it."""
    entries = environment(node).get("no_proxy", "").split(",")
    return any(f".{host}".endswith(f".{entry.lstrip('.')}") for entry in entries if entry)


@check(
    id="proxy.curl",
    severity="major",
    title="curl goes through the proxy",
    remedy=REMEDY,
    requires=proxy,
    source="curl(1): --proxy in .curlrc wins over http_proxy (lower case only) and https_proxy",
)
def test_curl(node: Node) -> None:
    """Its configuration file decides; without one, the environment in lower case."""
    own = settings(fact(node, "proxy.curl"))
    value = own.get("proxy", own.get("--proxy"))
    demand(node, "curl", _per_scheme(node, value, value))


@check(
    id="proxy.wget",
    severity="major",
    title="wget goes through the proxy",
    remedy=REMEDY,
    requires=proxy,
    source="wget manual, Wgetrc Commands; the environment in lower case only",
)
def test_wget(node: Node) -> None:
    """``use_proxy = off`` would make every other setting idle."""
    own = settings(fact(node, "proxy.wget"))
    if own.get("use_proxy") in ("off", "no"):
        fail("wget has its proxy switched off: use_proxy = off")
    demand(node, "wget", _per_scheme(node, own.get("http_proxy"), own.get("https_proxy")))


@check(
    id="proxy.git",
    severity="major",
    title="git goes through the proxy",
    remedy=REMEDY,
    requires=proxy,
    source="git-config(1): http.proxy serves http and https, and wins over the environment",
)
def test_git(node: Node) -> None:
    """The setting of all users, and of single URLs; without one, libcurl's environment."""
    own = settings(fact(node, "proxy.git"))
    value = own.pop("http.proxy", None)
    demand(node, "git", _per_scheme(node, value, value))
    demand(node, "git", {key: value for key, value in own.items() if key.endswith(".proxy")})


@check(
    id="proxy.pip",
    severity="major",
    title="pip goes through the proxy",
    remedy=REMEDY,
    requires=proxy,
    source="pip configuration: [global] proxy; wins over the environment unless it is empty",
)
def test_pip(node: Node) -> None:
    """The setting of all users; without one, the environment."""
    value = settings(fact(node, "proxy.pip")).get("proxy") or None
    demand(node, "pip", _per_scheme(node, value, value))


def _per_scheme(node: Node, http: str | None, https: str | None) -> dict[str, str | None]:
    """A program's own settings, and the environment's where it has none."""
    shared = environment(node)
    return {
        "http": http if http is not None else shared.get("http_proxy"),
        "https": https if https is not None else shared.get("https_proxy"),
    }
