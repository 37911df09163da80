"""The proxy, what goes around it, and the CA, out of a capsule. See harness.capsules.derive."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from harness.lab import addresses as at

if TYPE_CHECKING:
    from harness.capsules.derive import Derived

_NO_PROXY = re.compile(r"[A-Za-z0-9._:*/\[\], -]{0,4000}")
_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,300}/?")
_NAMES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
_AROUND = ("no_proxy", "NO_PROXY")
#: Where nobody says more: one of a CA's properties -> how the lab spells it.
_KEYS = {("ec", 256): "ec-256", ("ec", 384): "ec-384", ("ec", 521): "ec-521"} | {
    ("rsa", bits): f"rsa-{bits}" for bits in (1024, 2048, 3072, 4096)
}
_DAY = 86400.0
_REFUSED = re.compile(r"CONNECT tunnel failed, response 403|403 from proxy after CONNECT", re.I)


def derive(
    found: Derived,
    facts: Mapping[str, Any],
    attributes: Mapping[str, Any],
    expect: Mapping[str, Any],
) -> None:
    """Adds what the node's settings, its metadata and its trust store tell of the network."""
    settings = facts.get("proxy")
    settings = settings if isinstance(settings, dict) else {}
    theirs = _proxy(settings, attributes)
    if theirs is None:
        found.put("scenario", network="direct")
        found.known.append(("network", "open: nothing on the node names a proxy"))
        return
    found.put("scenario", network="proxy-only")
    asks = "@" in theirs or bool(expect.get("auth"))
    if asks:
        found.put("proxy", auth="basic")
    found.known.append(("proxy", "asks for a password" if asks else "asks for no password"))
    _authority(found, facts, attributes, expect)
    _around(found, attributes)
    _environment(found, settings, theirs)
    found.lost.append(
        ("what the proxy lets through", "facts do not tell; a list is [proxy] allow")
        if not _hosts_refused(facts)
        else ("hosts that the proxy refused", ", ".join(_hosts_refused(facts)))
    )


def _proxy(settings: Mapping[str, Any], attributes: Mapping[str, Any]) -> str | None:
    """The proxy's URL as most places have it; credentials, if any, are stars."""
    for key in ("http-proxy", "https-proxy", "proxy-uri"):
        if isinstance(attributes.get(key), str) and attributes[key].strip():
            value = attributes[key].strip()
            return value if "://" in value else f"http://{value}"
    seen = [value for value in _values(settings) if _place(value)]
    return max(seen, key=seen.count) if seen else None


def _values(settings: Mapping[str, Any]) -> Iterator[str]:
    for place in ("environment", "profile", "systemd_manager", "systemd_env_effective", "apt"):
        values = settings.get(place)
        for name, value in (values if isinstance(values, dict) else {}).items():
            if isinstance(value, str) and (name in _NAMES or name.endswith("::Proxy")):
                yield value


def _authority(
    found: Derived,
    facts: Mapping[str, Any],
    attributes: Mapping[str, Any],
    expect: Mapping[str, Any],
) -> None:
    """The CA that the node was given, if it was given one: then the proxy opens TLS."""
    trust = facts.get("trust")
    trust = trust if isinstance(trust, dict) else {}
    anchors = [one for one in _rows(trust.get("added")) if one.get("ca") is not False]
    ours = trust.get("airlock_ca")
    given = ours.get("sha256") if isinstance(ours, dict) else None
    told = bool(attributes.get("http-proxy-pem-uri")) or bool(expect.get("intercept"))
    if not (anchors or given or told):
        found.known.append(("TLS", "tunnelled: no CA was added to the node's store"))
        return
    found.put("proxy", intercept=True)
    found.known.append(("TLS", "opened by the proxy: a CA was added to the node's store"))
    wanted = expect.get("ca_sha256")
    if wanted and given and wanted != given:
        found.put("trust", ca="rotated")
        found.explains.append("trust.os-store")
        found.known.append(("CA", "not the one that the proxy signs with"))
    chain = _chain(anchors, given)
    if not chain:
        found.lost.append(("CA", "the capsule does not tell what it is like"))
        return
    _like(found, chain, facts)


def _like(found: Derived, chain: list[dict[str, Any]], facts: Mapping[str, Any]) -> None:
    """A CA with the properties of the one at the root of ``chain``."""
    root = chain[0]
    kind = _KEYS.get((str(root.get("key")), root.get("bits") or 0))
    moment, start, end = (
        value if isinstance(value, (int, float)) else None
        for value in (facts.get("received"), root.get("not_before"), root.get("not_after"))
    )
    if kind is None or moment is None or start is None or end is None or end <= start:
        told = f"{root.get('key')} of {root.get('bits')} bits"
        found.lost.append(("CA", f"{told}: the lab makes none like it"))
        return
    digest = re.search(r"sha(256|384|512)", str(root.get("signature")), re.I)
    if digest is None:
        found.lost.append(
            ("the CA's digest", f"{root.get('signature')}: the lab signs with sha256")
        )
    left = round((end - moment) / _DAY, 2)
    values = {
        "key": kind,
        "digest": f"sha{digest[1]}" if digest else "sha256",
        "age_days": round(max(moment - start, 0) / _DAY, 2),
        "left_days": left,
        "depth": min(len(chain), 4),
    }
    found.put("trust", **values)
    found.known.append(
        ("CA", f"{kind}, {values['digest']}, {left:g} days left, {len(chain)} in its chain")
    )
    if left <= 0:
        found.put("scenario", stage="build")
        found.explains.insert(0, "trust.pem")
    if len(chain) > 4:
        found.lost.append(("CA", f"its chain has {len(chain)} certificates, the lab's 4"))


def _chain(anchors: list[dict[str, Any]], given: Any) -> list[dict[str, Any]]:
    """From a self-signed CA down through those that it vouches for; the given one is in it."""
    roots = [one for one in anchors if one.get("subject") == one.get("issuer")]
    chains = []
    for root in roots or anchors[:1]:
        chain = [root]
        while (
            below := next(
                (
                    one
                    for one in anchors
                    if one.get("issuer") == chain[-1].get("subject") and one not in chain
                ),
                None,
            )
        ) is not None:
            chain.append(below)
        chains.append(chain)
    ours = [chain for chain in chains if given in [one.get("sha256") for one in chain]]
    return next(iter(ours or chains), [])


def _around(found: Derived, attributes: Mapping[str, Any]) -> None:
    """no-proxy as the metadata has it."""
    value = attributes.get("no-proxy")
    if not isinstance(value, str):
        return
    if not _NO_PROXY.fullmatch(value):
        found.lost.append(("no_proxy", "its value in the metadata is no list of hosts"))
    elif value:
        found.put("proxy", no_proxy=value)
        found.known.append(("no_proxy", value))


def _environment(found: Derived, settings: Mapping[str, Any], theirs: str) -> None:
    """/etc/environment where it is not as its proxy would have it: the lab's is made like it."""
    seen = settings.get("environment")
    if not isinstance(seen, dict):
        return
    lines, names = [], []
    usual = _place(theirs)
    for name in _NAMES:
        value = seen.get(name)
        if isinstance(value, str) and _place(value) == usual:
            continue
        names.append(name)
        if isinstance(value, str) and _URL.fullmatch(value):
            lines.append(f'{name}="{value}"')
    for name in _AROUND:
        value = seen.get(name)
        if not isinstance(value, str) or not _NO_PROXY.fullmatch(value):
            value = ""
        if all(word in value.split(",") for word in (at.METADATA, "localhost", "127.0.0.1")):
            continue
        names.append(name)
        lines += [f'{name}="{value}"'] if value else []
    if not names:
        return
    gone = f"sed -i -E '/^({'|'.join(names)})=/d' /etc/environment"
    added = [f"printf '%s\\n' {shlex.quote(line)} >>/etc/environment" for line in lines]
    found.put("scripts", node="\n".join(["set -e", gone, *added]) + "\n")
    found.explains += ["proxy.environment", "proxy.no-proxy"]
    found.known.append(("/etc/environment", f"{', '.join(names)} as on the node"))


def _place(url: str) -> tuple[str, int | None] | None:
    """Host and port of a URL, None where it has no host."""
    try:
        parts = urlsplit(url)
        return (parts.hostname, parts.port) if parts.hostname else None
    except ValueError:
        return None


def _hosts_refused(facts: Mapping[str, Any]) -> list[str]:
    """Hosts that our installers were refused by the proxy."""
    hosts = {
        str(problem.get("where"))
        for one in _rows(facts.get("installers"))
        for problem in _rows(one.get("problems"))
        if problem.get("cause") == "proxy.host-refused"
    }
    return sorted(host for host in hosts if re.fullmatch(r"[A-Za-z0-9.-]{1,253}", host))


def _rows(value: Any) -> Iterator[dict[str, Any]]:
    yield from (one for one in (value if isinstance(value, list) else ()) if isinstance(one, dict))
