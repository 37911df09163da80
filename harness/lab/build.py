"""The build stage: the installers run inside the image's own root, behind the proxy, natively.

The result is a disk that is kept by content: the same inputs never build twice, and a build that
is taken from the cache shows its own ledger, with its date.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures import capture as captures
from fixtures.ledger import summarise
from fixtures.metadata import MetadataServer
from fixtures.relay import Relay
from fixtures.repository import Repository
from fixtures.signer import SignerServer
from harness.applied import judge
from harness.cached import used
from harness.lab import addresses as at
from harness.lab import (
    canary,
    disk,
    environment,
    foreign,
    packages,
    provenance,
    scripted,
    seam,
    tools,
)
from harness.lab.base import Base, canonical
from harness.lab.namespace import Bind, Chamber, last_words, remove_tree, run_as_root
from harness.lab.outside import Outside
from harness.providers.base import Job, NodeFailed, Refused
from harness.state import cache_dir, exclusive
from installers.collect import modules

if TYPE_CHECKING:
    from fixtures.origin import Origin
    from fixtures.pki import Authority, Identity
    from fixtures.scenarios import Scenario
    from harness.lab.surroundings import AnyProxy
    from harness.pack import Packed

NODE_FILE = "usr/lib/airlock/airlock-node.pyz"
_PYTHON = ["/usr/bin/python3", f"/{NODE_FILE}"]
_SOCKET = "/run/airlock/sign.sock"
_CA = "/run/airlock/proxy-ca.pem"
_STORE = "/var/cache/airlock/store"
_ENV = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "DEBIAN_FRONTEND": "noninteractive",
}
# invoke-rc.d asks this file before it starts a daemon (Debian policy, 9.3.3); in a build nothing
# is started, and the file is gone before the disk is made.
_POLICY = "usr/sbin/policy-rc.d"
_JOURNAL = "/var/lib/airlock/journal.jsonl"
# Compiling the driver takes the longest: 3 to 6 minutes on two cores that do nothing else.
_APPLY_SECONDS = 2400
_AUDIT_SECONDS = 180
# What apt fetches besides lists: packages, and sources of packages.
_PACKAGES = (".deb", ".dsc", ".tar.gz", ".tar.xz")
#: Signed entries of the cache, below the state directory's own.
STORE = "store"


@dataclass(frozen=True)
class Built:
    """A built image on disk. ``manifest`` holds what the build stage learnt."""

    directory: Path
    manifest: dict[str, Any]
    cached: bool

    @property
    def root(self) -> Path:
        return self.directory / "root.img"

    @property
    def esp(self) -> Path:
        return self.directory / "esp.img"

    def stranger(self, module: str) -> Path:
        """The detached signature of ``module`` by a key that nobody enrolled."""
        return self.directory / "stranger" / f"{module}.p7s"


def attributes(job: Job, proxy: str | None) -> dict[str, str]:
    """The instance metadata of the cell. ``proxy`` is ``[user:password@]host:port``."""
    scenario = job.cell.scenario
    values: dict[str, str] = {}
    if proxy:
        values |= {"http-proxy": proxy, "https-proxy": proxy, "no-proxy": "origin-direct.test"}
    if scenario.intercept:
        values["http-proxy-pem-uri"] = f"file://{_CA}"
    own = job.cell.profile.foreign
    return {**values, **(own.metadata if own else {})}


def build_attributes(
    job: Job, proxy: str | None, authority: Authority, origin: Origin
) -> dict[str, str]:
    """The same while the image is built: what is to be installed, and by whose word."""
    values = attributes(job, proxy) | {
        "invocation-type": "custom-images",
        "airlock-signer": _SOCKET,
        "airlock-cache": f"file://{_STORE}",
        "airlock-cache-signers": authority.module.sha256,
        **packages.metadata(job.cell, authority, origin),
        **environment.metadata(job.cell),
    }
    if job.cell.scenario.intercept:
        values["airlock-apt-https"] = "true"
    return values


def key(
    job: Job,
    base: Base,
    node_file: Packed,
    authority: Authority,
    metadata: Mapping[str, str],
    added: tools.Added,
) -> str:
    """Key of a built image: a hash over everything that decides what is on its disk."""
    return canonical(
        {
            "base": base.digest,
            "node_file": node_file.sha256,
            "installers": job.cell.profile.installers,
            "metadata": dict(metadata),
            "ca": _given_ca(job, authority).sha256,
            "certificate": authority.module.sha256,
            "seam": canonical([seam.files(), seam.links()]),
            "disk_mb": job.cell.image.disk_mb,
            "builder": foreign.BUILDER,
            "format": 3,
            **_own(job),
            **({"script": text} if (text := job.cell.scenario.scripts.image) else {}),
            **_disorder(job.cell.scenario.while_built),
            **({"added": canonical(added.files)} if added.files else {}),
            **({"broken": dict(job.broken)} if job.broken else {}),
        }
    )


def _disorder(scenario: Scenario) -> dict[str, Any]:
    """What is wrong with the proxy during the build: an image of better times must not do."""
    if scenario == scenario.ordered:
        return {}
    return {"allow": scenario.proxy.allow, "fault": [asdict(fault) for fault in scenario.fault]}


def _own(job: Job) -> dict[str, Any]:
    """A foreign installer as a part of the key; its metadata is in the metadata."""
    own = job.cell.profile.foreign
    return {"foreign": [own.kind, own.sha256, own.driver, own.hosts]} if own else {}


def _given_ca(job: Job, authority: Authority) -> Identity:
    """The CA of the proxy while the image is built, which is the one it is given."""
    return authority.signing_ca(job.cell.scenario.while_built.trust.ca)


def build(
    job: Job,
    base: Base,
    *,
    node_file: Packed,
    authority: Authority,
    start_proxy: Callable[[Path], AnyProxy],
    origin: Origin,
    proxy: str | None,
    secrets: Mapping[str, bytes],
) -> Built:
    """The built image of a cell, from the cache or made now.

    ``secrets`` (name -> value) must not be in it; where they are is in the build's ledger.

    Raises :class:`Refused` when an installer refuses, :class:`NodeFailed` when one fails, and
    :class:`~harness.errors.InfraError` when the lab does.
    """
    given = build_attributes(job, proxy, authority, origin)
    added = tools.added(job.cell, environment.files(job.cell, authority, cache_dir(STORE)))
    directory = cache_dir("images") / key(job, base, node_file, authority, given, added)[:32]
    with exclusive(directory):
        used(directory)
        if (found := _find(directory)) is not None:
            with job.phase("build", f"the image built {found.manifest['built']}") as phase:
                phase.outcome = "cached"
            return provenance.bound(job, found)
        partial = directory.with_name(f"partial-{directory.name}")
        tree = job.scratch / "tree"
        job.owned.directory(tree, "tree of a build")
        job.owned.directory(partial, "half-made image")
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            manifest = _build(
                *(job, base, tree, partial, node_file, authority, start_proxy, origin),
                *(given, added, secrets),
            )
            with job.phase("disk", "writing the disks"):
                manifest["kernel"] = _make_disks(job, tree, partial)
                builder = {name: str(value).encode() for name, value in foreign.BUILDER.items()}
                hits = canary.search(partial / "root.img", {**secrets, **builder})
                baked = [hit for hit in hits if hit["name"] in builder]
                manifest["ledger"]["secrets"] = [hit for hit in hits if hit not in baked]
                manifest["ledger"]["left"]["builder"] = baked
            (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
            shutil.rmtree(directory, ignore_errors=True)
            partial.rename(directory)
        finally:
            remove_tree(tree)
            shutil.rmtree(partial, ignore_errors=True)
        return provenance.bound(job, Built(directory, manifest, cached=False))


def _find(directory: Path) -> Built | None:
    try:
        return Built(directory, json.loads((directory / "manifest.json").read_text()), cached=True)
    except (OSError, ValueError):
        return None


def _build(
    job: Job,
    base: Base,
    tree: Path,
    out: Path,
    node_file: Packed,
    authority: Authority,
    start_proxy: Callable[[Path], AnyProxy],
    origin: Origin,
    given: Mapping[str, str],
    added: tools.Added,
    secrets: Mapping[str, bytes],
) -> dict[str, Any]:
    own = job.cell.profile.foreign
    with job.phase("unpack", f"unpacking {job.cell.image.name}"):
        _unpack(base, tree, node_file, job.scratch, added)
        if own:
            foreign.name_host(tree)
    store = cache_dir(STORE)
    ca = job.scratch / "proxy-ca.pem"
    ca.write_bytes(_given_ca(job, authority).pem)
    socket_path = job.scratch / "sign.sock"
    stranger = out / "stranger"
    stranger.mkdir()
    capture = out / "build.pcap"
    repository_key = job.scratch / "repository.asc"
    repository_key.write_bytes(Repository(authority).armored)
    metadata = MetadataServer(given, overrides=foreign.BUILDER)
    outside = Outside(job.cell.scenario, tree)
    with contextlib.ExitStack() as stack:
        squid = None
        if "http-proxy" in given:
            directory = job.owned.directory(job.scratch / "build-squid", "proxy of a build")
            squid = stack.enter_context(start_proxy(directory))
        signer = stack.enter_context(SignerServer(authority, socket_path, stranger))
        stack.enter_context(metadata)
        chamber = Chamber(
            tree,
            capture,
            job.capsule / "build.log",
            binds=[
                Bind(socket_path, _SOCKET),
                Bind(ca, _CA, readonly=True),
                Bind(repository_key, packages.KEY_FILE, readonly=True),
                Bind(store, _STORE),
                *outside.names(job.scratch / "hosts"),
                *(foreign.binds(own, job, authority.module.der) if own else ()),
            ],
            env=_ENV,
            places=outside.places,
            hostname=foreign.HOSTNAME if own else "",
        )
        stack.enter_context(chamber)
        job.owned.process(chamber.pid, "build namespace")
        metadata.serve(chamber.metadata)
        stack.enter_context(outside.open_to(chamber))
        if squid:
            stack.enter_context(Relay(chamber.proxy, ("127.0.0.1", squid.port)))
        # Two builds of one base compile the same modules: the second finds them in the cache.
        with (
            exclusive(store / f"base-{base.digest[:16]}"),
            job.phase("install", "plan, apply, verify behind the proxy"),
        ):
            stack.enter_context(scripted.broken(job, chamber, origin))
            try:
                first = foreign.install(job, chamber, capture, secrets)
                results = _apply(job, chamber) if job.cell.profile.installers else {}
            except (NodeFailed, Refused):
                if job.options.reproducing:
                    scripted.show_symptom(job, chamber, origin)
                raise
            # What a scenario's own script fetches is not the installers'.
            fetched = squid.rows() if squid else []
            scripted.run(job, chamber, origin)
        _, journal = chamber.run(["cat", _JOURNAL], timeout=20) if results else (0, "")
        chamber.run([*_PYTHON, "probe"], timeout=60)
        audit = None
        if "driver" in job.cell.profile.parts:
            audit = provenance.audit(
                lambda words: chamber.run([*_PYTHON, *words], timeout=_AUDIT_SECONDS),
                foreign.CERTIFICATE if own and own.driver else modules.CERTIFICATE,
            )
        _, told = chamber.run([*_PYTHON, "facts", "--json"], timeout=_AUDIT_SECONDS)
        chamber.run(["rm", "-f", f"/{_POLICY}"], timeout=20)
    requests = squid.rows() if squid else []
    (out / "journal.jsonl").write_text(journal)
    (out / "facts.json").write_text(told)
    (out / "requests.jsonl").write_text("".join(json.dumps(r) + "\n" for r in requests))
    seen = captures.classify(captures.read(capture), at.peers())
    ours = "proxy" in job.cell.profile.installers
    ledger = summarise(requests, [seen]) | {
        "proxy_step_end": provenance.step_end(journal, "proxy") if ours else first,
        "packages": sum(str(row["url"]).endswith(_PACKAGES) for row in fetched),
        "audit": audit,
        "planned": foreign.planned(job, results),
        "left": {"gpu_config": json.loads(told)["gpu_config"]},
    }
    return {
        "built": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "ledger": ledger,
        "installers": list(job.record.installers),
        "contract": results.get("contract", {}),
        "signatures": list(signer.signatures),
        "provenance": _provenance(results),
    }


def _unpack(base: Base, tree: Path, node_file: Packed, scratch: Path, added: tools.Added) -> None:
    run_as_root(["mkdir", "-p", str(tree)], timeout=20)
    command = ["tar", "-x", "-p", "--numeric-owner", "-C", str(tree)]
    run_as_root([*command, "--exclude=./dev/*", "-f", str(base.tar)], timeout=600)
    archive = seam.archive(
        {
            **{path: text.encode() for path, text in added.files.items()},
            NODE_FILE: node_file.path.read_bytes(),
            _POLICY: b"#!/bin/sh\nexit 101\n",
        },
        executable=frozenset({NODE_FILE, _POLICY}) | added.programs,
        also=added.links,
    )
    packed = scratch / "seam.tar"
    packed.write_bytes(archive)
    run_as_root([*command, "--overwrite", "-f", str(packed)], timeout=60)


def _apply(job: Job, chamber: Chamber) -> dict[str, Any]:
    """Run the installers; the journal and the log say how far they came."""
    only = ",".join(job.cell.profile.installers)
    url = f"http://{at.METADATA}"
    code, out = chamber.run(
        [*_PYTHON, "apply", "--metadata", url, "--only", only, "--json"], timeout=_APPLY_SECONDS
    )
    (job.capsule / "apply.json").write_text(out)
    tail = last_words(job.capsule / "build.log")
    try:
        results: dict[str, Any] = json.loads(out)
    except ValueError as e:
        raise NodeFailed(f"the installers gave no result (exit {code}): {tail}") from e
    judge(job, code, results, tail)
    return results


def _make_disks(job: Job, tree: Path, out: Path) -> str:
    """Write root and ESP; return the release of the kernel that boots (the newest installed)."""
    done = run_as_root(["ls", "-1v", str(tree / "lib/modules")], timeout=20)
    kernels = done.stdout.decode().split()
    if not kernels:
        raise NodeFailed("the image has no kernel under /lib/modules")
    kernel = kernels[-1]
    disk.make_root(tree, out / "root.img", size_mib=job.cell.image.disk_mb)
    disk.make_esp(tree, out / "esp.img", kernel=kernel, vendor=job.cell.image.family)
    return kernel


def _provenance(results: Mapping[str, Any]) -> dict[str, Any]:
    return {i["name"]: i["provenance"] for i in results.get("installers", []) if i["provenance"]}
