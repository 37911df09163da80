"""The repository's keyring holds what was pinned, and apt verifies with it and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from harness.checks import check, fact, fail, not_verified, repository
from harness.node import Node

MODE = "0644"

# apt with one source and nothing else, its lists thrown away. $1: the source, $2: another keyring.
# Without a second keyring the source's own decides. Output of apt on standard error.
UPDATE = """
d=$(mktemp -d) && mkdir -p "$d/lists/partial" && cp "$1" "$d/one.sources" || exit 90
if [ -n "$2" ]; then
    sed -i "s#^Signed-By:.*#Signed-By: $2#" "$d/one.sources"
fi
apt-get -q -o Dir::Etc::sourcelist="$d/one.sources" -o Dir::Etc::sourceparts=- \
    -o Dir::State::lists="$d/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
    -o APT::Update::Error-Mode=any \
    -o APT::Sandbox::User=root -o Acquire::Languages=none update >"$d/said" 2>&1
code=$?
cat "$d/said" >&2
rm -rf "$d"
exit $code
"""
# What apt says when nobody it trusts has signed: by gpgv (Debian 12), and by sqv (Debian 13).
_UNSIGNED = ("NO_PUBKEY", "Missing key", "is not signed")


@check(
    id="keyrings.pinned",
    severity="blocker",
    title="The repository's keyring holds the pinned keys and no others",
    remedy="Somebody put another key there, or the vendor has a new one: ask the vendor, pin it in "
    "airlock-repositories-extra and apply again.",
    requires=repository,
    source="the fingerprint of every primary key in the file, computed on the node",
)
def test_pinned(node: Node) -> None:
    """By full fingerprints: a short key id can be forged."""
    ring = _ring(node)
    wanted = sorted(node.expect["repository"]["fingerprints"])
    if ring["fingerprints"] != wanted:
        held = ", ".join(ring["fingerprints"]) or ring["why"] or "nothing"
        fail(f"{ring['path']} holds {held}; pinned is {', '.join(wanted)}")


@check(
    id="keyrings.file",
    severity="major",
    title="The repository's keyring is a plain file that apt's own user can read",
    remedy="Run 'airlock-node.pyz apply --only keyrings': it writes binary OpenPGP with mode 0644.",
    requires=repository,
    source="sources.list(5), Signed-By; apt's methods run as _apt",
)
def test_file(node: Node) -> None:
    """gpg's keybox is what 'gpg --import' into a file makes, and apt ignores it without a word."""
    ring = _ring(node)
    if ring["mode"] != MODE:
        fail(f"{ring['path']} has mode {ring['mode']}, not {MODE}")
    if ring["format"] != "binary":
        fail(f"{ring['path']} is {ring['format']}, not a binary OpenPGP file")


@check(
    id="keyrings.signed-by",
    severity="blocker",
    title="The repository's source names its keyring, and no other source names the repository",
    remedy="Give each entry for the repository the same Signed-By, or remove the one that is not "
    "ours: without it every key in trusted.gpg.d vouches for the repository.",
    requires=repository,
    source="sources.list(5), Signed-By",
)
def test_signed_by(node: Node) -> None:
    """One entry, deb822, bound to one keyring."""
    wanted = node.expect["repository"]
    entries = [
        entry
        for entry in fact(node, "repositories.sources")
        if wanted["uris"].rstrip("/") in [uri.rstrip("/") for uri in entry["uris"].split()]
    ]
    if not entries:
        fail(f"no source names {wanted['uris']}")
    for entry in entries:
        if entry["signed_by"] != wanted["keyring"]:
            fail(
                f"{entry['path']}: {wanted['uris']} is signed by "
                f"{entry['signed_by'] or 'any key that apt knows'}, not by {wanted['keyring']}"
            )


@check(
    id="keyrings.apt-verifies",
    severity="blocker",
    title="apt takes the repository's lists with the pinned key",
    remedy="Read apt's words: a key that ended, a policy that refuses it, or a proxy in the way.",
    requires=repository,
    depends=["keyrings.pinned", "keyrings.file", "trust.os-store", "system.clock"],
    source="apt-get(8), update; through the proxy, as programs on the node are set up",
)
def test_apt_verifies(node: Node) -> None:
    """By apt itself, through the proxy, with the system's trust store."""
    ran = _update(node, "")
    if ran.rc != 0:
        fail(f"apt refuses the repository: {_last(ran.stderr)}", ran.stderr.splitlines()[-8:])


@check(
    id="keyrings.apt-refuses",
    severity="blocker",
    title="apt refuses the repository's lists with another key",
    remedy="Look for 'trusted=yes', 'allow-insecure' or AllowInsecureRepositories in /etc/apt: "
    "apt does not verify what it installs.",
    requires=repository,
    depends=["keyrings.apt-verifies"],
    source="a verification that succeeds proves nothing unless it can fail",
)
def test_apt_refuses(node: Node) -> None:
    """The same request, with the distribution's keyring in place of the repository's."""
    ran = _update(node, "/usr/share/keyrings/debian-archive-keyring.gpg")
    if ran.rc == 0:
        fail("apt took the lists although the key that signed them is not in the keyring it named")
    if not any(words in ran.stderr for words in _UNSIGNED):
        not_verified(f"apt ended before the signature: {_last(ran.stderr)}")


def _ring(node: Node) -> Mapping[str, Any]:
    """The facts of the repository's keyring."""
    path = node.expect["repository"]["keyring"]
    rings = [ring for ring in fact(node, "repositories.keyrings") if ring["path"] == path]
    if not rings or rings[0]["mode"] is None:
        fail(f"there is no {path}")
    found: Mapping[str, Any] = rings[0]
    return found


def _update(node: Node, keyring: str) -> Any:
    words = ["sh", "-c", UPDATE, "sh", node.expect["repository"]["source"], keyring]
    return node.host.run(shlex.join(words))


def _last(said: str) -> str:
    errors = [line for line in said.splitlines() if line.startswith(("E:", "W:", "Err:"))]
    return (errors or said.splitlines() or ["it said nothing"])[0]
