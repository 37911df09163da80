"""What is in force beside the files of settings: in processes, in homes, after the next boot."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from conformance.proxy.reading import demand, variables, wrong
from harness.checks import auth, check, fact, fail, own_proxy, proxy
from harness.node import Node

SINCE = "2026-11-22"
# Read by root's programs alone. /etc/environment and the like are everybody's, password and all.
OF_ROOT = ("/etc/apt/", "/etc/airlock/", "/etc/systemd/", "/root/", "/run/", "/var/")
OTHERS = 0o007


@check(
    id="proxy.daemons",
    severity="blocker",
    title="Every daemon that fetches things was started with the proxy, in both cases",
    remedy="Run 'systemctl restart UNIT' for the unit in the evidence, and 'systemctl show -p "
    "Environment -p EnvironmentFiles UNIT' if that changes nothing: a daemon keeps the environment "
    "that it was started with, and reads no /etc/environment.",
    requires=proxy,
    depends=["proxy.systemd-manager"],
    source="/proc/PID/environ of containerd, docker, kubelet, CRI-O, snapd and the clouds' agents",
    since=SINCE,
)
def test_daemons(node: Node) -> None:
    """'ctr pull' works in a shell, and the kubelet's pull of the same image times out."""
    found = []
    for one in fact(node, "processes.daemons"):
        settings = variables(one["variables"])
        if not one["variables"].get("no_proxy"):
            found.append(f"{one['unit']} (process {one['pid']}): no_proxy is not set")
        found += [
            f"{one['unit']} (process {one['pid']}): {name}: {why}"
            for name, value in settings.items()
            if (why := wrong(node, value))
        ]
    if found:
        fail(f"a daemon runs without the scenario's proxy: {found[0]}", found)


@check(
    id="proxy.users",
    severity="major",
    title="No user's own files name another proxy",
    remedy="Remove the setting from the file that the evidence names ('git config --global --unset "
    "http.proxy', 'npm config delete proxy'): what a user set wins over what everybody has.",
    requires=proxy,
    source="files of git, wget, npm, conda, pip, docker, uv and gcloud in /root and /home/*",
    since=SINCE,
)
def test_users(node: Node) -> None:
    """Left from the network in which somebody tried the image."""
    wanted = urlsplit(node.expect["proxy_url_redacted"]).netloc.rpartition("@")[2]
    stale = [
        f"{path} names {place}, expected {wanted}"
        for path, places in fact(node, "proxy.users").items()
        for place in places
        if place != wanted
    ]
    if stale:
        fail(f"{len(stale)} settings of users name another proxy: {stale[0]}", stale)


@check(
    id="proxy.lasting",
    severity="major",
    title="systemd's files hold the proxy that its manager has now",
    remedy="Remove the drop-in of /etc/systemd/system.conf.d that sets another value, and run "
    "'airlock-node.pyz apply --only proxy': 'systemctl set-environment' ends with the boot.",
    requires=(proxy, own_proxy),
    depends=["proxy.systemd-manager"],
    source="systemd-system.conf(5): the last file of system.conf.d wins at the next re-execution",
    since=SINCE,
)
def test_lasting(node: Node) -> None:
    """A manager with the right values and the wrong files is right until it is started again."""
    demand(node, "/etc/systemd/system.conf.d", variables(fact(node, "proxy.systemd_manager")))


@check(
    id="proxy.no-other",
    severity="major",
    title="all_proxy and ftp_proxy, where anybody set them, are this proxy",
    remedy="Remove all_proxy and ALL_PROXY from the place that the evidence names: curl, git and "
    "Python take it for every scheme, and 'socks5://' ends pip with 'Missing dependencies for "
    "SOCKS support'.",
    requires=proxy,
    source="curl(1), ENVIRONMENT; requests.utils.select_proxy: all_proxy stands in for a scheme",
    since=SINCE,
)
def test_no_other(node: Node) -> None:
    """Nobody needs them; they are what is left of another network."""
    places: dict[str, Mapping[str, str]] = {
        "/etc/environment": fact(node, "proxy.environment"),
        "/etc/profile.d": fact(node, "proxy.profile"),
        "systemd": fact(node, "proxy.systemd_env_effective"),
    }
    found = [
        f"{place}: {name}: {why}"
        for place, values in places.items()
        for name, value in values.items()
        if name.lower() in ("all_proxy", "ftp_proxy") and (why := wrong(node, value))
    ]
    if found:
        fail(f"another proxy is set beside this one: {found[0]}", found)


@check(
    id="proxy.password-private",
    severity="major",
    title="Files that root's programs alone read show nobody else the proxy's password",
    remedy="Run 'chmod 0600' on the file that the evidence names, or 'airlock-node.pyz apply "
    "--only proxy', which does.",
    requires=auth,
    source="the mode of each file with a credential, but those that every user's programs read",
    since=SINCE,
)
def test_password_private(node: Node) -> None:
    """Every user needs the proxy, and has /etc/environment; root's copies are no one's."""
    shown = [
        f"{path}: mode {mode}"
        for path, mode in fact(node, "proxy.credential_modes").items()
        if path.startswith(OF_ROOT) and int(mode, 8) & OTHERS
    ]
    if shown:
        fail(f"{len(shown)} of root's files show everybody the password: {shown[0]}", shown)
