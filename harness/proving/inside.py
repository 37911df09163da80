"""The inside of the chamber: the addresses, the origin, squid and the programs.

``python -m harness.proving.inside FOLDER`` as process 1 of namespaces of its own. FOLDER holds
``spec.json``; ``answers.json`` is left there. Both origins and squid listen where the programs can
reach them, so that each program is free to go either way.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from fixtures.bundle import OS_BUNDLES, os_bundle
from fixtures.daemons import SquidInstall
from fixtures.errors import FixtureError
from fixtures.origin import Origin
from fixtures.pki import Authority
from fixtures.squid import Squid
from harness.proving import cases, tools
from harness.proving.cases import Case
from harness.proving.tools import Command, Found, Job

#: Squid calls the origin from these, and nobody else does.
OUTGOING = ("10.0.2.100", "fd00:2::100")
PORTS: tuple[int, int, int, int] = (80, 443, 8080, 8443)
#: A program that is started anew has this long; the slowest take a second on an idle machine.
_SECONDS = 60
#: Added to a job's number when it is done for the second time.
AGAIN = 100_000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 1 << 18
_MARK = re.compile(r"^/?([a-z0-9-]+-\d+)(?:/|$)")
#: Slow programs first, so that none is left alone at the end.
_SLOW = ("npm", "dnf", "pip", "Java", "Java-http", "rattler")


def main() -> int:
    """Measure everything in ``spec.json``."""
    folder = Path(sys.argv[1])
    spec = json.loads((folder / "spec.json").read_text())
    try:
        ipv6 = _network()
        answers = _measure(folder, spec, ipv6)
    except (FixtureError, OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        (folder / "answers.json").write_text(json.dumps({"error": said.strip()}))
        return 1
    (folder / "answers.json").write_text(json.dumps({"answers": answers}))
    return 0


def _network() -> bool:
    """Every address is local; whether IPv6 is there."""
    ipv6 = Path("/proc/sys/net/ipv6").exists()
    addresses = [a for a in (*cases.ADDRESSES, *OUTGOING) if ipv6 or ":" not in a]
    commands = [["link", "set", "lo", "up"]]
    for address in addresses:
        length = "128" if ":" in address else "32"
        commands.append(["addr", "add", f"{address}/{length}", "dev", "lo"])
    for command in commands:
        subprocess.run(["ip", *command], check=True, capture_output=True, text=True)
    return ipv6


def _measure(folder: Path, spec: Mapping[str, Any], ipv6: bool) -> list[dict[str, Any]]:
    paths = {key: Path(value) for key, value in spec["squid"].items()}
    texts = {key: spec["squid"][key] for key in ("library_path", "version")}
    install = SquidInstall(**{**paths, **texts})
    authority = Authority(folder / "keys")
    bundle = folder / "bundle.pem"
    bundle.write_bytes(os_bundle() + authority.origin.pem + authority.proxy.pem)
    names = {**cases.NAMES, "localhost": "127.0.0.1"}
    hosts = "".join(f"{address} {name}\n" for name, address in names.items())
    _mounts(folder, hosts, bundle)
    outgoing = [one for one in OUTGOING if ipv6 or ":" not in one]
    sites = [*names, *cases.ADDRESSES, "127.0.0.1"]
    every = "::" if ipv6 else "0.0.0.0"  # noqa: S104 - of a network of our own
    with (
        Origin(authority, address=every, ports=PORTS[:2], names=sites) as one,
        Origin(authority, address=every, ports=PORTS[2:], names=sites) as two,
        Squid(
            folder / "squid", install, authority, names, connect_ports=PORTS, outgoing=outgoing
        ) as squid,
    ):
        jobs: list[Job] = []
        work: list[Command] = []
        programs = [Found(**raw) for raw in spec["found"]]
        for found in programs:
            mine = []
            for number, raw in enumerate(spec["cases"]):
                case = Case(**raw)
                if ipv6 or ":" not in case.host:
                    home = folder / f"{found.tool}-{number}"
                    home.mkdir()
                    mine.append(Job(found.tool, number, case, home, squid.proxy_url(), str(bundle)))
            if mine:
                _java_settings(folder, found, mine[0])
                work += tools.commands(found, mine)
                jobs += mine
        _work(work)
        first = _answers(jobs, squid.rows(), [*one.requests, *two.requests])
        # Asked once more, since a machine that is busy is no answer.
        failed = [
            replace(job, number=job.number + AGAIN, folder=_folder(job.folder, "again"))
            for job, answer in zip(jobs, first, strict=True)
            if answer["measured"] == "failed"
        ]
        for found in programs:
            mine = [job for job in failed if job.tool == found.tool]
            _work(tools.commands(found, mine) if mine else [])
        squid.close()
        second = _answers(failed, squid.rows(), [*one.requests, *two.requests])
    return [*(answer for answer in first if answer["measured"] != "failed"), *second]


def _folder(beside: Path, word: str) -> Path:
    path = beside.with_name(f"{beside.name}-{word}")
    path.mkdir()
    return path


def _work(commands: list[Command]) -> None:
    commands.sort(key=lambda one: (one.jobs[0].tool not in _SLOW, one.jobs[0].tool))
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        for _ in pool.map(_execute, commands):
            pass


def _mount(source: Path, target: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(str(source).encode(), target.encode(), b"", _MS_BIND, None):
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def _mounts(folder: Path, hosts: str, bundle: Path) -> None:
    """Names as ours, no nameserver, and our CAs in the system's store."""
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n::1 localhost\n{hosts}")
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (folder / "nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    for name in ("hosts", "resolv.conf", "nsswitch.conf"):
        if Path("/etc", name).exists():
            _mount(folder / name, f"/etc/{name}")
    for path in OS_BUNDLES:
        if Path(path).exists():
            _mount(bundle, path)


def _java_settings(folder: Path, found: Found, job: Job) -> None:
    """The translator's ``net.properties``, with what we write, in the place of the JVM's."""
    settings = found.more.get("settings")
    if settings:
        written = Job(**{**vars(job), "case": Case(cases.CUSTOM, job.case.url, written=True)})
        file = folder / f"{found.tool}.properties"
        file.write_text(tools.net_properties(Path(settings).read_text(), written))
        _mount(file, settings)


def _execute(command: Command) -> None:
    """Run one process and wait; what it says is kept beside the job."""
    first = command.jobs[0].folder
    with (first / "said").open("ab") as said:
        process = subprocess.Popen(
            command.argv,
            env=dict(command.env),
            cwd=first,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
        try:
            process.communicate(command.stdin.encode(), timeout=_SECONDS * len(command.jobs))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(
    jobs: Iterable[Job], rows: Iterable[Mapping[str, Any]], requests: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """What both logs say of each job."""
    proxied: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    peers: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["method"] != "CONNECT" and (mark := _mark(re.sub(r"^\w+://[^/]*", "", row["url"]))):
            proxied[mark].append(row)
    for request in requests:
        if mark := _mark(request["path"]):
            peers[mark].append(request["peer"])
    return [
        {
            "tool": job.tool,
            "number": job.number % AGAIN,
            **judge(proxied[job.mark], peers[job.mark]),
            "said": _said(job.folder / "said"),
        }
        for job in jobs
    ]


def judge(rows: list[Mapping[str, Any]], peers: list[str]) -> dict[str, str]:
    """One verdict out of squid's rows and the origin's clients; both have to tell the same."""
    direct = [peer for peer in peers if peer not in OUTGOING]
    handed = [peer for peer in peers if peer in OUTGOING]
    # Squid refuses what is not for it, the metadata server: then the origin never hears of it.
    refused = any(row["squid"] == "TCP_DENIED" for row in rows)
    if direct and not rows and not handed:
        return {"measured": "direct", "why": ""}
    if rows and not direct and (handed or refused):
        return {"measured": "via-proxy", "why": ""}
    why = (
        f"squid's log has {len(rows)} requests; the origin's has {len(direct)} direct ones"
        f" and {len(handed)} from squid"
    )
    return {"measured": "failed", "why": why}


def _mark(path: str) -> str:
    match = _MARK.match(path)
    return match[1] if match else ""


def _said(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
    return lines[-1][:300] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
