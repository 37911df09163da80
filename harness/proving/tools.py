"""The programs that are asked: which of them are here, and how one is told to fetch a URL."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.proving.cases import Case
from installers import proxyurl
from installers.config import ProxySettings
from installers.dialects import apt, authorities, clients, environment, java, packages
from installers.dialects.base import Wanted, wanted

HERE = Path(__file__).parent
#: Seconds that a program waits for an answer: much, for machines that are busy.
PATIENCE = "30"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Found:
    """A program that is here. ``program``: its path; ``more``: what else it needs, by name."""

    tool: str
    version: str
    program: str
    more: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One case for one program. ``number`` is part of the path that is asked for."""

    tool: str
    number: int
    case: Case
    folder: Path
    proxy: str
    bundle: str

    @property
    def mark(self) -> str:
        """What the logs tell the job by."""
        return f"{self.tool.lower()}-{self.number}"

    @property
    def url(self) -> str:
        """What is fetched."""
        return f"{self.case.url}/{self.mark}/"

    @property
    def want(self) -> Wanted:
        """What the translators are given: our list, or the one that nobody made portable."""
        proxy = proxyurl.parse(self.proxy, "proxy")
        case = self.case
        entries = case.entries if case.written else [case.entry]
        asked = wanted(ProxySettings(http=proxy, https=proxy, no_proxy=entries), True)
        return replace(asked, ca_bundle=self.bundle, ca_file=self.bundle)

    def environment(self, found: Found) -> dict[str, str]:
        """As on an installed node, and a home that nobody has touched."""
        want = self.want
        return {
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.folder),
            **environment.EtcEnvironment().settings(want),
            **authorities.Environment().settings(want),
            **found.env,
        }

    def file(self, name: str, text: str) -> str:
        """Write a file of the program's into the job's folder; its path."""
        path = self.folder / name
        path.write_text(text)
        return str(path)


@dataclass(frozen=True)
class Command:
    """One process for one job or, where a program takes many, for several."""

    argv: Sequence[str]
    env: Mapping[str, str]
    jobs: Sequence[Job]
    stdin: str = ""


Words = Callable[[Job], tuple[list[str], dict[str, str]]]


def _curl(job: Job) -> tuple[list[str], dict[str, str]]:
    dialect = clients.Curl()
    job.file(".curlrc", dialect.write("", dialect.settings(job.want)))
    argv = ["-sS", "--max-time", PATIENCE, "-o", "/dev/null", job.url]
    return argv, {"CURL_HOME": str(job.folder)}


def _wget(job: Job) -> tuple[list[str], dict[str, str]]:
    dialect = clients.Wget()
    file = job.file("wgetrc", dialect.write("", dialect.settings(job.want)))
    argv = ["-nv", "-t", "1", "-T", PATIENCE, "-O", "/dev/null", "--no-hsts", job.url]
    return argv, {"SYSTEM_WGETRC": file}


def _git(job: Job) -> tuple[list[str], dict[str, str]]:
    text = ""
    for dialect in (clients.Git(), authorities.Git()):
        text = dialect.write(text, dialect.settings(job.want))
    return ["ls-remote", job.url], {
        "GIT_CONFIG_SYSTEM": job.file("gitconfig", text),
        "GIT_TERMINAL_PROMPT": "0",
    }


def _apt(job: Job) -> tuple[list[str], dict[str, str]]:
    dialect = apt.Apt()
    settings = dialect.settings(job.want)
    if not job.case.written:
        # Single hosts in its own file are ours alone; a list as it is goes by the environment.
        settings = {**settings, "direct": "nobody.example"}
    file = job.file("apt.conf", dialect.write("", settings) + 'APT::Sandbox::User "root";\n')
    argv = ["-o", "Acquire::Retries=0", "-o", f"Acquire::http::Timeout={PATIENCE}", "download-file"]
    return [*argv, job.url, str(job.folder / "got")], {"APT_CONFIG": file}


def _uv(job: Job) -> tuple[list[str], dict[str, str]]:
    argv = ["pip", "install", "--no-cache", "--index-url", job.url, "--target", str(job.folder)]
    env = {"UV_HTTP_TIMEOUT": PATIENCE, "UV_HTTP_RETRIES": "0", "UV_PYTHON_DOWNLOADS": "never"}
    return [*argv, "airlock-nothing"], env


def _npm(job: Job) -> tuple[list[str], dict[str, str]]:
    dialect = clients.Npm("")
    file = job.file("npmrc", dialect.write("", dialect.settings(job.want)))
    argv = [
        "ping",
        "--registry",
        job.url,
        "--fetch-retries",
        "0",
        "--fetch-timeout",
        f"{PATIENCE}000",
    ]
    return [*argv, "--cache", str(job.folder / "cache"), "--no-update-notifier"], {
        "NPM_CONFIG_GLOBALCONFIG": file
    }


def _go(job: Job) -> tuple[list[str], dict[str, str]]:
    return [job.url], {}


def _dnf(job: Job) -> tuple[list[str], dict[str, str]]:
    dialect = packages.Dnf()
    text = dialect.write("[main]\n", dialect.settings(job.want))
    folder = job.folder
    for name in ("root", "repos"):
        (folder / name).mkdir()
    argv = [
        *(f"--config={job.file('dnf.conf', text)}", f"--installroot={folder}/root"),
        *(f"--setopt=reposdir={folder}/repos", f"--setopt=cachedir={folder}/cache"),
        *(f"--setopt=logdir={folder}", f"--setopt=persistdir={folder}/persist"),
        *("--setopt=retries=1", f"--setopt=timeout={PATIENCE}", "--releasever=9", "-y"),
        *(f"--repofrompath=x,{job.url}", "makecache"),
    ]
    return argv, {}


#: Programs that are started anew for each job.
SINGLE: dict[str, Words] = {
    "curl": _curl,
    "wget": _wget,
    "git": _git,
    "apt": _apt,
    "uv": _uv,
    "npm": _npm,
    "Go": _go,
    "dnf": _dnf,
}
#: What ``driver.py`` imports once for all jobs.
PYTHON = ("urllib", "requests", "httpx", "aiohttp", "rattler", "pip")
#: ``Probe.java``, by the name of its client.
JAVA = {"Java": "url", "Java-http": "http"}
#: Nobody can be handed these by a package index or the distribution.
ELSEWHERE = ("conda", "mamba")
TOOLS = (*SINGLE, *PYTHON, *JAVA, *ELSEWHERE)

#: Whose reading of the list a program has, where the model has another name for it.
MODEL = {"Java-http": "Java"}


def commands(found: Found, jobs: Sequence[Job]) -> list[Command]:
    """The processes that do these jobs with this program; writes the files that it reads."""
    if found.tool in SINGLE:
        made = []
        for job in jobs:
            argv, env = SINGLE[found.tool](job)
            words = [*shlex.split(found.program), *argv]
            made.append(Command(words, {**job.environment(found), **env}, [job]))
        return made
    if found.tool in JAVA:
        lines = [_java_line(job) for job in jobs]
        argv = [found.program, "-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp"]
        argv += [found.more["classes"], "Probe", JAVA[found.tool], jobs[0].bundle]
        return [Command(argv, jobs[0].environment(found), jobs, "".join(lines))]
    lines = []
    for job in jobs:
        env = job.environment(found)
        if found.tool == "pip":
            env["PIP_CONFIG_FILE"] = job.file("pip.conf", _pip_conf(job))
        lines.append(json.dumps({"url": job.url, "env": env, "folder": str(job.folder)}) + "\n")
    argv = [found.program, "-I", str(HERE / "driver.py"), found.tool]
    return [Command(argv, {"PATH": PATH, "HOME": "/nonexistent"}, jobs, "".join(lines))]


def _pip_conf(job: Job) -> str:
    text = ""
    for dialect in (clients.Pip(), authorities.Pip()):
        text = dialect.write(text, dialect.settings(job.want))
    return text


def _java_line(job: Job) -> str:
    # Java's own list has bars where others have commas; ours is in net.properties.
    hosts = "-" if job.case.written else job.case.entry.replace(",", "|")
    return f"{hosts}\t{job.folder}\t{job.url}\n"


def net_properties(text: str, job: Job) -> str:
    """A JVM's ``net.properties`` with what a node's would have."""
    dialect = java.NetProperties("")
    return dialect.write(text, dialect.settings(job.want))
