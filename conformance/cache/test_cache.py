"""Where the driver's modules come from: an entry of the cache, its signature, its hashes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.checks import build_ledger, check, fact, fail, not_verified, signed_driver
from harness.node import Node


@check(
    id="cache.provenance",
    severity="major",
    title="The modules name the cache's entry they are, and whether it was found or made",
    remedy="Run 'airlock-node.pyz apply --only driver': the record beside the modules is older "
    "than the cache, or was edited.",
    requires=signed_driver,
    source="the driver installer's record beside the modules; a key is the SHA-256 of all inputs",
)
def test_provenance(node: Node) -> None:
    """Without its key nobody can find, rebuild or compare what runs here."""
    built = _built(node)
    key = built["key"]
    if not isinstance(key, str) or len(key) != 64:
        fail(f"the modules' record names no key of the cache: {key!r}")
    if built["outcome"] not in ("hit", "miss"):
        fail(f"the record does not say whether the cache had them: {built['outcome']!r}")
    if built["outcome"] == "hit" and not built["store"]:
        fail("the record does not say which store of the cache had them")


@check(
    id="cache.signed",
    severity="blocker",
    title="The cache's entry is signed by whom the node was told to believe",
    remedy="Take the entry out of the store (airlock cache verify STORE --trust SHA256 "
    "--quarantine) and apply again: whoever wrote it could have written anything.",
    requires=signed_driver,
    source="the detached CMS beside the manifest, verified on the node by its own code",
)
def test_signed(node: Node) -> None:
    """A store is written by many: its word alone counts for nothing."""
    built = _built(node)
    wanted = node.expect["cert_sha256"]
    if built["against"]:
        fail(f"the entry of {built['kernel']}: {built['against']}")
    if built["signer"] != wanted:
        fail(f"the entry of {built['kernel']} is signed by {built['signer']}, not by {wanted}")


@check(
    id="cache.contents",
    severity="blocker",
    title="Every module is, byte for byte, the one in the cache's entry",
    remedy="Run 'airlock-node.pyz apply --only driver': a module was changed, or comes from "
    "somewhere else.",
    requires=signed_driver,
    depends=["cache.signed", "modules.signature"],
    source="SHA-256 of each module without its signature, computed on the node",
)
def test_contents(node: Node) -> None:
    """The entry holds the modules before they were signed, so their signature is left out."""
    built = _built(node)
    files: Mapping[str, str] = built["files"]
    place = f"/{built['kernel']}/updates/airlock/"
    found = {
        module["path"].rpartition("/")[2]: module.get("body_sha256")
        for module in fact(node, "modules")
        if place in module["path"]
    }
    wrong = sorted(name for name in {*files, *found} if files.get(name) != found.get(name))
    if wrong:
        fail(
            f"{len(wrong)} modules are not those of the cache's entry",
            [f"{name}: {found.get(name)}, the entry has {files.get(name)}" for name in wrong],
        )


@check(
    id="cache.hit-fetches-nothing",
    severity="major",
    title="What the cache had was not fetched or built again",
    remedy="Read the build's requests: packages were fetched although the modules were in the "
    "cache, so its key names less than what is built from it, or somebody else installs.",
    requires=(signed_driver, build_ledger),
    source="the proxy's ledger of the image's build",
)
def test_hit_fetches_nothing(node: Node) -> None:
    """On a hit no package goes through the proxy: neither compiler nor headers nor source."""
    built = _built(node)
    if node.ledger is None or "packages" not in node.ledger["build"]:
        not_verified("the build's ledger does not count packages")
    fetched = node.ledger["build"]["packages"]
    if built["outcome"] == "hit" and fetched:
        fail(f"the modules came from {built['store']}, and {fetched} packages were fetched")


@check(
    id="cache.describes",
    severity="blocker",
    title="The record beside the modules tells of these modules, for this kernel",
    remedy="Run 'airlock-node.pyz apply --only driver': the record was copied from another "
    "kernel's folder, or the modules were changed under it.",
    requires=signed_driver,
    depends=["modules.one-release"],
    source="the record's kernel and driver beside 'modinfo -F version' of each module",
    since="2026-11-22",
)
def test_describes(node: Node) -> None:
    """Who looks up what runs here looks into the record, and finds another driver."""
    built = _built(node)
    if built["made_for"] != built["kernel"]:
        fail(f"the record below {built['kernel']} is of modules for {built['made_for']}")
    place = f"/{built['kernel']}/updates/airlock/"
    found = {m["path"]: m["version"] for m in fact(node, "modules") if place in m["path"]}
    wrong = [f"{path}: {v}" for path, v in found.items() if v and v != built["driver"]]
    if wrong:
        fail(f"the record names driver {built['driver']}; {len(wrong)} modules are not", wrong)


@check(
    id="cache.nothing-half",
    severity="minor",
    title="No download of the cache's was left half done",
    remedy="Remove the files that the evidence names; 'airlock cache gc STORE' does that for a "
    "store of files.",
    requires=signed_driver,
    source="/var/cache/airlock: a download has another name until its hash is right",
    since="2026-11-22",
)
def test_nothing_half(node: Node) -> None:
    """They are as large as a driver, and in every clone."""
    found = fact(node, "hygiene.partial")
    if found:
        fail(f"{len(found)} downloads were never ended: {found[0]}", found)


def _built(node: Node) -> Mapping[str, Any]:
    """What is known of the modules of the kernel that boots."""
    kernel = node.expect["boot_kernel"]
    rows = [built for built in fact(node, "built") if built["kernel"] == kernel]
    if not rows:
        fail(f"no modules of ours for {kernel}, with a record of what they are made from")
    found: Mapping[str, Any] = rows[0]
    return found
