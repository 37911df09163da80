"""All modules of the image, whoever brought them: the audit that the build ended with."""

from __future__ import annotations

from harness.checks import build_ledger, check, fail, not_verified, signed_driver
from harness.node import Node


@check(
    id="modules.audit",
    severity="blocker",
    title="Every module in the image is what its owner signed, for every installed kernel",
    remedy="Run 'airlock-node.pyz audit-modules /lib/modules --cert FILE' in the image: each "
    "finding names its file and what to do about it.",
    requires=(signed_driver, build_ledger),
    source="audit-modules, run in the image: our certificate for the driver's modules and those "
    "that no package owns, the package database's hashes for the distribution's",
)
def test_audit(node: Node) -> None:
    """A module that is loaded only when its device appears is not seen to fail before."""
    audit = ((node.ledger or {}).get("build") or {}).get("audit")
    if not audit:
        not_verified("the build ended without an audit of the image's modules")
    findings = [f"{f['path']}: {f['kind']}: {f['detail']}" for f in audit["findings"]]
    if findings:
        fail(f"{len(findings)} of {audit['modules']} modules: {findings[0]}", findings)
    if not audit["modules"]:
        fail("the audit saw no module at all")
