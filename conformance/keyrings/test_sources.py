"""Every source of apt's and every key that it believes, whoever set them up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from harness.checks import check, fact, fail, not_verified
from harness.node import Node

SINCE = "2026-11-22"
DAY = 86400.0
LEAST_DAYS = 30
EVERYBODY = 0o004
# The last part of the address of a distribution's own archive; its suites begin with the codename.
ARCHIVES = ("debian", "debian-security", "ubuntu", "ubuntu-ports", "archive", "dists")

Source = Mapping[str, Any]


@check(
    id="keyrings.every-source",
    severity="blocker",
    title="Every source that is not the distribution's names the keyring that vouches for it",
    remedy="Add signed-by=/usr/share/keyrings/NAME.gpg to the entry (Signed-By: in a .sources "
    "file): without it every key in /etc/apt/trusted.gpg.d vouches for the repository.",
    source="sources.list(5), Signed-By; one-line and deb822 entries alike",
    since=SINCE,
)
def test_every_source(node: Node) -> None:
    """One vendor's key must not be able to sign another's packages."""
    own = str(fact(node, "os").get("codename") or "")
    loose = [shown(one) for one in _sources(node) if not one["signed_by"] and not _own(one, own)]
    if loose:
        fail(f"{len(loose)} sources of others name no keyring: {loose[0]}", loose)


@check(
    id="keyrings.no-trusted",
    severity="blocker",
    title="No source is taken without a signature",
    remedy="Remove 'trusted=yes' and 'allow-insecure=yes' from the entry, and give it the "
    "vendor's key: 'airlock-node.pyz apply --only keyrings' fetches and pins it.",
    source="sources.list(5), Trusted, Allow-Insecure, Allow-Weak",
    since=SINCE,
)
def test_no_trusted(node: Node) -> None:
    """Whoever sits on the way decides then what is installed; behind a proxy somebody does."""
    found = [f"{shown(one)}: {one['unchecked']}" for one in _sources(node) if one["unchecked"]]
    if found:
        fail(f"{len(found)} sources are taken unsigned: {found[0]}", found)


@check(
    id="keyrings.no-conflict",
    severity="blocker",
    title="No two entries give one repository different keyrings",
    remedy="Keep one of the entries that the evidence names: 'apt-get update' says 'Conflicting "
    "values set for option Signed-By' and reads no source at all.",
    source="apt: debReleaseIndex, by address and suite",
    since=SINCE,
)
def test_no_conflict(node: Node) -> None:
    """A vendor's package brings its own entry beside the one that is there."""
    seen: dict[tuple[str, str], dict[str, str]] = {}
    for one in _sources(node):
        for uri in one["uris"].split():
            for suite in one["suites"].split():
                place = (uri.rstrip("/"), suite)
                ring = " ".join(sorted(str(one["signed_by"] or "any key").split()))
                seen.setdefault(place, {})[ring] = one["path"]
    found = [
        f"{uri} {suite}: " + "; ".join(f"{ring} ({path})" for ring, path in rings.items())
        for (uri, suite), rings in seen.items()
        if len(rings) > 1
    ]
    if found:
        fail(f"{len(found)} repositories have two keyrings: {found[0]}", found)


@check(
    id="keyrings.named",
    severity="blocker",
    title="apt's own user can read every keyring that a source names",
    remedy="Write the keyring as binary OpenPGP ('gpg --dearmor') or armored as .asc, and 'chmod "
    "0644' it: apt passes over what it cannot read, and says NO_PUBKEY.",
    source="sources.list(5), Signed-By; apt's methods run as _apt; GnuPG's keybox is read by gpg "
    "alone",
    since=SINCE,
)
def test_named(node: Node) -> None:
    """Those of others too; the pinned repository's own is keyrings.file's affair."""
    pinned = (node.expect.get("repository") or {}).get("keyring")
    wrong = []
    for ring in fact(node, "repositories.keyrings"):
        path = ring["path"]
        if path == pinned:
            continue
        if ring["mode"] is None:
            wrong.append(f"{path} is not there")
        elif not int(ring["mode"], 8) & EVERYBODY:
            wrong.append(f"{path} has mode {ring['mode']}")
        elif ring["why"] or ring["format"] not in ("binary", "armored"):
            wrong.append(f"{path} is no keyring of apt's: {ring['why'] or ring['format']}")
    if wrong:
        fail(f"{len(wrong)} keyrings cannot be used: {wrong[0]}", wrong)


@check(
    id="keyrings.lasting",
    severity="major",
    title=f"Every keyring that a source names verifies for {LEAST_DAYS} days more",
    remedy="Fetch the vendor's renewed key ('gpg --show-keys FILE' shows when one ends), pin its "
    "fingerprint, and run 'airlock-node.pyz apply --only keyrings'.",
    depends=["system.clock"],
    source="RFC 9580, key expiration time; apt: EXPKEYSIG, NO_PUBKEY after the vendor's rotation",
    since=SINCE,
)
def test_lasting(node: Node) -> None:
    """One good key is enough: vendors keep the old one beside the new."""
    now, ending = fact(node, "clock"), []
    for ring in _rings(node):
        left = [_left(key, now) for key in ring["keys"]]
        if max(left) < LEAST_DAYS:
            why = next((key["unusable"] for key in ring["keys"] if key["unusable"]), "")
            ending.append(f"{ring['path']}: {why or f'{max(left):.0f} days left'}")
    if ending:
        fail(f"{len(ending)} keyrings hold no key that lasts: {ending[0]}", ending)


@check(
    id="keyrings.strong",
    severity="major",
    title="No source hangs on a weak key",
    remedy="Ask the vendor for a key of RSA 2048 bits or more, or Ed25519, with a self-signature "
    "of SHA-256 or better; 'gpg --list-packets FILE' shows 'digest algo 2' for SHA-1.",
    source="Debian 13's apt refuses SHA-1 since 2026-02-01 (sqv's default policy), and DSA and "
    "RSA of less than 2048 bits at once",
    since=SINCE,
)
def test_strong(node: Node) -> None:
    """What today's release verifies with a warning, the next one refuses."""
    weak = []
    for ring in _rings(node):
        if all(key["weak"] for key in ring["keys"]):
            weak.append(
                f"{ring['path']}: {ring['keys'][0]['fingerprint']} {ring['keys'][0]['weak']}"
            )
    if weak:
        fail(f"{len(weak)} keyrings hold weak keys alone: {weak[0]}", weak)


@check(
    id="keyrings.no-global",
    severity="major",
    title="No key but the distribution's vouches for every repository",
    remedy="Move the key from /etc/apt/trusted.gpg or trusted.gpg.d to /usr/share/keyrings, and "
    "name it by signed-by in its own source: apt-key is gone, and so is what it kept.",
    source="apt-key(8), DEPRECATION; files of trusted.gpg.d that no package of keys owns",
    since=SINCE,
)
def test_no_global(node: Node) -> None:
    """Found in nearly every image that a 'curl | apt-key add' has passed through."""
    loose = [one["path"] for one in fact(node, "repositories.trusted") if not one["owner"]]
    if loose:
        fail(f"{len(loose)} files of keys vouch for everything: {loose[0]}", loose)


def shown(one: Source) -> str:
    """An entry for people."""
    return f"{one['path']}: {one['uris']} {one['suites']}"


def _sources(node: Node) -> Sequence[Source]:
    found: Sequence[Source] = fact(node, "repositories.sources")
    if not found:
        not_verified("apt has no source")
    return found


def _rings(node: Node) -> list[Mapping[str, Any]]:
    """Keyrings with keys in them; the others are keyrings.named's affair."""
    return [ring for ring in fact(node, "repositories.keyrings") if ring["keys"]]


def _own(one: Source, codename: str) -> bool:
    """Whether an entry is of the distribution itself."""
    names = {urlsplit(uri).path.rstrip("/").rpartition("/")[2] for uri in one["uris"].split()}
    suites = one["suites"].split()
    return names <= {*ARCHIVES} and all(s.startswith(codename) for s in suites) and bool(codename)


def _left(key: Mapping[str, Any], now: float) -> float:
    """Days for which a key can be used."""
    if key["unusable"]:
        return 0.0
    return float("inf") if key["ends"] is None else (key["ends"] - now) / DAY
