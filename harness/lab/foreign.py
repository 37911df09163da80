"""Runs a user's own installer in the image that is built (see harness.foreign), and judges its end.

It gets what it would get on a machine of its own: root, the metadata server, the environment of its
scenario. It gets no more: the harness sets no proxy, trusts no CA and adds no package for it.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fixtures import capture as captures
from harness.errors import InfraError
from harness.lab import addresses as at
from harness.lab import canary, proxywatch
from harness.lab.namespace import Bind, Chamber, Overran, host_env, root_prefix, run_as_root
from harness.providers.base import Job, NodeFailed
from installers import causes

if TYPE_CHECKING:
    from harness.foreign import Foreign

#: Who the machine is while its image is built: nothing of this may be in the image.
BUILDER = {
    "instance/name": "airlock-builder-5c2e81d7",
    "instance/hostname": "airlock-builder-5c2e81d7.lab.internal",
    "instance/id": 7305810244967318021,
}
HOSTNAME = str(BUILDER["instance/name"])
#: What it printed, in the capsule.
LOG = "foreign.log"
FOLDER = "/run/airlock/foreign"
CERTIFICATE = "/run/airlock/module-signing.der"
_SEED = "/run/airlock/cloud-init"
_LOG = "/run/airlock/foreign.log"
_HOSTS_LINE = f"{at.NODE} {BUILDER['instance/hostname']} {HOSTNAME}  # of the build"
_SHELL = f'exec >>{_LOG} 2>&1; cd /; exec "$@"'
_LINES, _WORDS = 6, 1200

# Of a build, not of an instance: no name, no keys, no disks, no package sources of its own; and our
# images have no locales.
# https://docs.cloud-init.io/en/latest/reference/base_config_reference.html
_CLOUD_CFG = f"""\
datasource_list: [NoCloud]
datasource: {{NoCloud: {{seedfrom: {_SEED}/}}}}
network: {{config: disabled}}
preserve_hostname: true
apt: {{preserve_sources_list: true}}
ssh_deletekeys: false
ssh_genkeytypes: []
ssh: {{emit_keys_to_console: false}}
locale: false
growpart: {{mode: "off"}}
resize_rootfs: false
"""
# All of its stages, as at a boot. What is against its schema it would skip with a warning.
_CLOUD_INIT = f"""
set -eu
case $(head -n 1 {_SEED}/user-data) in
'#cloud-config'*) cloud-init schema --config-file {_SEED}/user-data ;;
esac
run() {{ cloud-init --file {FOLDER}.cfg "$@" || echo "cloud-init $* ended with $?"; }}
run init --local
run init
run modules --mode=config
run modules --mode=final
"""
_RESULT = "/run/cloud-init/result.json"
_NO_HOST = "no hosts matched"


def binds(foreign: Foreign, job: Job, certificate: bytes) -> list[Bind]:
    """Its files, the signing certificate and the log, as the build's namespace has them."""
    folder = job.scratch / "foreign"
    for name, data in foreign.files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)
    der = job.scratch / "module-signing.der"
    der.write_bytes(certificate)
    log = job.capsule / LOG
    log.touch()
    found = [Bind(folder, FOLDER, readonly=True), Bind(der, CERTIFICATE, readonly=True)]
    if foreign.kind == "cloud-init":
        seed, config = job.scratch / "cloud-init", job.scratch / "cloud.cfg"
        seed.mkdir()
        (seed / "user-data").write_bytes((folder / foreign.path.name).read_bytes())
        (seed / "meta-data").write_text("instance-id: airlock-image-build\n")
        config.write_text(_CLOUD_CFG)
        found += [Bind(seed, _SEED, readonly=True), Bind(config, f"{FOLDER}.cfg", readonly=True)]
    return [*found, Bind(log, _LOG)]


def name_host(tree: Path) -> None:
    """The builder's name into the image's hosts file, as clouds do it; removed in the end."""
    run_as_root(["sh", "-c", 'echo "$0" >>"$1"', _HOSTS_LINE, f"{tree}/etc/hosts"], timeout=20)


@contextlib.contextmanager
def watching(tree: Path) -> Iterator[Callable[[], float | None]]:
    """Watch for the first file of the image that names the proxy; afterwards: when it was."""
    argv = [*root_prefix(), sys.executable, "-I", str(proxywatch.__file__), str(tree)]
    found: list[float] = []
    process = subprocess.Popen(
        [*argv, f"{at.PROXY}:{at.PROXY_PORT}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,  # a buffer would keep what communicate is to read
        env=host_env(),
    )
    try:
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise InfraError("the image's configuration cannot be watched")
        yield lambda: found[0] if found else None
    finally:
        out, _ = process.communicate(timeout=20)
    if process.returncode:
        raise InfraError(f"the watch on the image's configuration ended with {process.returncode}")
    found += [float(json.loads(line)["time"]) for line in out.splitlines()]


def install(
    job: Job, chamber: Chamber, capture: Path, secrets: Mapping[str, bytes]
) -> float | None:
    """Run the cell's foreign installer, if it has one; when it first named the proxy (unix time).

    Its row of the report goes into ``job.record``. Raises :class:`NodeFailed` when it fails or
    takes too long, with its last words (less the secrets) and what ``capture`` saw go astray.
    """
    if (own := job.cell.profile.foreign) is None:
        return None
    with watching(chamber.tree) as named:
        _run(own, job, chamber, capture, secrets)
    _forget(own, chamber)
    return named()


def planned(job: Job, results: Mapping[str, Any]) -> list[str] | None:
    """The hosts that were to be asked; None where a foreign installer has not said it."""
    ours: list[str] = results.get("contract", {}).get("hosts", [])
    own = job.cell.profile.foreign
    if own is None:
        return ours
    return None if own.hosts is None else [*own.hosts, *ours]


def _run(
    foreign: Foreign, job: Job, chamber: Chamber, capture: Path, secrets: Mapping[str, bytes]
) -> None:
    began = time.monotonic()
    job.say("install", f"{foreign.kind} {foreign.path.name}")
    row: dict[str, Any] = {
        "name": foreign.kind,
        "outcome": "failed",
        "provenance": {"file": foreign.path.name, "sha256": foreign.sha256},
    }
    job.record.installers.append(row)
    try:
        words = ["/bin/sh", "-c", _SHELL, "sh", *_argv(foreign)]
        code, _ = chamber.run(words, timeout=foreign.minutes * 60.0)
        why = f"ended with {code}" if code else _judged(foreign, job, chamber)
    except Overran:
        why = f"did not end within {foreign.minutes} minutes"
    finally:
        row["seconds"] = time.monotonic() - began
    if why:
        seen = captures.classify(captures.read(capture), at.peers())
        raise _failure(foreign, job, row, why, secrets, seen["violations"])
    row["outcome"] = "ok"


def _forget(foreign: Foreign, chamber: Chamber) -> None:
    """Take away what running it needed: the builder's name, and cloud-init's own instance."""
    chamber.run(["sed", "-i", f"/{HOSTNAME}.*of the build$/d", "/etc/hosts"], timeout=20)
    if foreign.kind == "cloud-init":
        code, said = chamber.run(["cloud-init", "clean"], timeout=60)
        if code:
            raise InfraError(f"cloud-init clean ended with {code}: {said[-300:]}")


def _argv(foreign: Foreign) -> list[str]:
    file = f"{FOLDER}/{foreign.path.name}"
    if foreign.kind == "cloud-init":
        return ["/bin/sh", "-c", _CLOUD_INIT]
    if foreign.kind == "playbook":
        # Its own files below /tmp, which is no part of the image.
        places = [f"ANSIBLE_{kind}_TEMP=/tmp/ansible-{kind}" for kind in ("LOCAL", "REMOTE")]
        quiet = ["ANSIBLE_NOCOLOR=1", "ANSIBLE_LOCALHOST_WARNING=False"]
        words = ["ansible-playbook", "-i", "localhost,", "-c", "local", file]
        return ["env", "-C", FOLDER, *places, *quiet, *words]
    return [file]


def _judged(foreign: Foreign, job: Job, chamber: Chamber) -> str:
    """What is wrong although the program ended well; empty if nothing is."""
    if foreign.kind == "cloud-init":
        code, said = chamber.run(["cat", _RESULT], timeout=20)
        if code:
            return "ran, and left no result"
        errors = json.loads(said)["v1"]["errors"]
        return f"ended with errors: {'; '.join(map(str, errors))}" if errors else ""
    if foreign.kind == "playbook":
        said = (job.capsule / LOG).read_text(errors="replace")
        tasks = re.search(r"^localhost\s*:\s*ok=(\d+)", said, re.MULTILINE)
        if _NO_HOST in said or tasks is None or tasks[1] == "0":
            return "did nothing: its hosts must match localhost"
    return ""


def _failure(
    foreign: Foreign,
    job: Job,
    row: dict[str, Any],
    why: str,
    secrets: Mapping[str, bytes],
    tried: list[dict[str, Any]],
) -> NodeFailed:
    """The error, which tells the cause where the program's words or its packets do."""
    said = canary.blackened((job.capsule / LOG).read_bytes(), secrets).decode(errors="replace")
    words = " | ".join(said.strip().splitlines()[-_LINES:])[-_WORDS:] or "it said nothing"
    what = f"{canary.blackened(why.encode(), secrets).decode()}: {words}"
    cause = causes.find(said[-64_000:])
    hints = [cause.remedy] if cause.remedy else []
    if tried:
        ways = "; ".join(captures.describe(entry) for entry in tried[:3])
        hints.append(f"it tried to go around the proxy ({ways}), which this network does not allow")
    hint = "; ".join([*hints, f"the whole output is {LOG} in the cell's folder"])
    code = cause.code or f"installer.{foreign.kind}"
    row["problems"] = [{"what": what, "remedy": hint, "cause": code}]
    return NodeFailed(f"{foreign.kind} {foreign.path.name} {what}", cause=code, hint=hint)
