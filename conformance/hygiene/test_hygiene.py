"""What an image must not hold, and what each node must have made for itself."""

from __future__ import annotations

import re

from conformance.hygiene.searching import configuration, searched
from harness.checks import build_ledger, check, fact, fail, image_built
from harness.node import Node

# Packages that only a build needs. "gcc-12-base" and its like are a part of every Debian.
BUILD_PACKAGES = re.compile(
    r"(gcc|g\+\+|cpp|clang|make|build-essential|dkms|binutils|libc6-dev|linux-libc-dev)(-\d[\d.]*)?$"
    r"|linux-(headers|kbuild|compiler|source)-|kernel-(devel|headers)$"
    r"|nvidia-.*-(source|dkms)$"
)
MACHINE_ID = re.compile(r"[0-9a-f]{32}")


@check(
    id="hygiene.private-keys",
    severity="blocker",
    title="The node holds no private key but its own SSH host keys",
    remedy="Keep signing keys outside: the installers hand modules to a signer over a socket. "
    "Remove the file, build the image again, and replace the key: who had the image has it.",
    requires=build_ledger,
    source="PEM and DER private keys, by content",
)
def test_private_keys(node: Node) -> None:
    """A key in an image is a key in every clone and in every backup of it."""
    keys = fact(node, "hygiene.private_keys")
    if keys:
        fail(f"{len(keys)} private keys are on the node", keys)


@check(
    id="hygiene.secrets",
    severity="blocker",
    title="No secret of the build is anywhere on the node",
    remedy="Find who writes the file: shell traces, logs, caches and journals are the usual ones. "
    "Build the image again and replace the secret.",
    source="a search of every file for the lab's own secrets, in all their encodings",
)
def test_secrets(node: Node) -> None:
    """In the image as built, and on the node.

    The proxy password in a running node's configuration is proxy.credentials-listed's affair.
    """
    build = (node.ledger or {}).get("build") or {}
    baked = [
        f"image: {hit['name']} at byte {hit['offset']} {hit.get('path', '')}".rstrip()
        for hit in build.get("secrets", ())
    ]
    if baked:
        fail(f"the image was built with {len(baked)} secrets in it", baked)
    found = {hit["path"] for hit in searched(node)}
    if node.expect.get("auth"):
        found -= configuration(node, found)
    if found:
        fail(f"{len(found)} files hold a secret", sorted(found))


@check(
    id="hygiene.build-leftovers",
    severity="major",
    title="Compilers, kernel headers, driver sources and caches are gone",
    remedy="Run the seal installer last: it removes what the build brought in, and nothing else.",
    requires=build_ledger,
    source="files and packages that only a build needs",
)
def test_build_leftovers(node: Node) -> None:
    """They make the image larger, and what is attacked longer."""
    leftovers = fact(node, "hygiene.leftovers")
    packages = [name for name in fact(node, "packages") if BUILD_PACKAGES.match(name)]
    if leftovers or packages:
        fail(
            f"the build left {len(leftovers)} files and {len(packages)} packages behind",
            [*leftovers, *(f"package {name}" for name in sorted(packages))],
        )


@check(
    id="hygiene.ssh-host-keys",
    severity="blocker",
    title="The SSH host keys were made on this node",
    remedy="Remove /etc/ssh/ssh_host_*_key from the image; a unit makes them at the first boot.",
    requires=image_built,
    source="one key in all clones: whoever has the image is any node",
)
def test_ssh_host_keys(node: Node) -> None:
    """Made after the image; an image without an SSH server needs none."""
    if "openssh-server" not in fact(node, "packages"):
        return
    keys = fact(node, "hygiene.ssh_host_keys")
    if not keys:
        fail("the SSH server has no host key: nobody can log in")
    built = node.expect["image_built"]
    old = [
        f"{key['path']}: {built - key['mtime']:.0f} s older than the image"
        for key in keys
        if key["mtime"] <= built
    ]
    if old:
        fail(f"{len(old)} SSH host keys are not younger than the image: they are the image's", old)


@check(
    id="hygiene.machine-id",
    severity="blocker",
    title="The machine id was made on this node",
    remedy="Leave /etc/machine-id in the image empty, or with the word 'uninitialized'.",
    requires=image_built,
    source="machine-id(5); DHCP leases, journals and licences are told apart by it",
)
def test_machine_id(node: Node) -> None:
    """Thirty-two hexadecimal digits, written after the image was."""
    value = fact(node, "hygiene.machine_id")
    if not MACHINE_ID.fullmatch(value) or not value.strip("0"):
        fail(f"{value!r} is not a machine id")
    built, made = node.expect["image_built"], fact(node, "hygiene.machine_id_mtime")
    if made <= built:
        fail(f"the machine id is {built - made:.0f} s older than the image: it is the image's")
