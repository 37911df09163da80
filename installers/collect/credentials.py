"""The secrets that a node holds, so that they can be taken out of what leaves it.

They are read where programs keep them, and used for nothing else: they never leave the node.
"""

# Hundreds of places are looked at: Path objects would cost more than reading them.
# ruff: noqa: PTH110, PTH112, PTH123

from __future__ import annotations

import base64
import binascii
import fnmatch
import html
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from installers.blacken import looks_secret, worth_hiding
from installers.collect.hygiene import PEM_KEY
from installers.collect.reader import Reader

#: Larger files are no configuration.
LARGEST = 1 << 20
HOMES = ("/root", "/home/*")
# What a home holds; ``*`` is any name of one folder.
OF_A_HOME = """
.netrc _netrc .wgetrc .curlrc .pgpass .my.cnf .boto .npmrc .yarnrc .yarnrc.yml .condarc .pypirc
.git-credentials .gitconfig .config/git/config .config/git/credentials .config/gh/hosts.yml
.pip/pip.conf .config/pip/pip.conf .config/uv/uv.toml .config/conda/.condarc .conda/.condarc
.docker/config.json .config/containers/auth.json .config/ngc/config .ngc/config
.m2/settings.xml .m2/settings-security.xml .gradle/gradle.properties .sbt/.credentials
.ivy2/.credentials .aws/credentials .aws/config .azure/*.json .kube/config .kube/*.conf
.config/gcloud/*.json .config/gcloud/*/*.json .config/gcloud/configurations/*
.huggingface/token .cache/huggingface/token .bashrc .profile .bash_profile .ssh/id_*
.subversion/servers .config/rclone/rclone.conf .s3cfg
"""
OF_THE_SYSTEM = """
/etc/environment /etc/profile.d/*.sh /etc/default/* /etc/sysconfig/*
/etc/systemd/system.conf /etc/systemd/system.conf.d/* /etc/systemd/system/*.service
/etc/systemd/system/*.d/*.conf /usr/lib/systemd/system/*.d/*.conf /etc/environment.d/*
/etc/apt/apt.conf /etc/apt/apt.conf.d/* /etc/apt/auth.conf /etc/apt/auth.conf.d/*
/etc/apt/sources.list /etc/apt/sources.list.d/* /etc/dnf/dnf.conf /etc/yum.conf /etc/yum.repos.d/*
/etc/curlrc /etc/wgetrc /etc/gitconfig /etc/netrc /etc/pip.conf /etc/npmrc /usr/etc/npmrc
/usr/local/etc/npmrc /etc/conda/.condarc /etc/conda/condarc.d/* /opt/conda/.condarc
/opt/*/.condarc /etc/boto.cfg /etc/maven/settings.xml /usr/share/maven/conf/settings.xml
/opt/maven/conf/settings.xml /etc/gradle/gradle.properties /etc/docker/daemon.json
/etc/containers/auth.json /run/containers/0/auth.json /etc/containerd/config.toml
/etc/containerd/certs.d/*/hosts.toml /etc/crio/crio.conf.d/* /var/lib/kubelet/config.json
/var/lib/kubelet/kubeconfig /etc/kubernetes/*.conf /etc/rancher/*/*.yaml
/etc/java*/*.properties /etc/java*/*/*.properties /usr/lib/jvm/*/conf/net.properties
/etc/spark/conf/spark-defaults.conf /etc/spark/conf/spark-env.sh /etc/hadoop/conf/*.xml
/etc/hive/conf/*.xml /etc/airlock/* /run/airlock/* /var/lib/airlock/*.json /var/lib/airlock/*.jsonl
/etc/snap/* /etc/cntlm.conf /etc/tinyproxy/tinyproxy.conf /etc/squid/squid.conf
/etc/krb5.conf /etc/ssh/ssh_host_*_key /etc/ssl/private/* /etc/pki/tls/private/*
/etc/openvpn/*.conf /etc/wireguard/*.conf
"""
# Where a blank stands between a name and its value.
_SPACED = re.compile(r"netrc$|/auth\.conf|spark-defaults|cntlm|\.curlrc$|/curlrc$|\.pypirc$")
_WORDS = (
    r"(?:passw(?:or)?d|passphrase|passcode|proxy_?pass|secret|token|api[_-]?key|access[_-]?key"
    r"|private[_-]?key|client-key-data|credential|pwd)"
)
_VALUE = (
    r"\\*(?:\"(?P<double>(?:[^\"\\\n]|\\.)*)\"|'(?P<single>[^'\n]*)'|(?P<bare>[^\s\"',;<>{}]+))"
)
_KEY_VALUE = re.compile(rf"{_WORDS}[\w.-]*\\*[\"']?[ \t]*(?:=>|[:=])[ \t]*{_VALUE}", re.I)
_KEY_BLANK = re.compile(rf"{_WORDS}[\w.-]*[ \t]+{_VALUE}", re.I)
_BLANK_LOGIN = re.compile(
    r"(?:^|\s)(?:-U|-u|-{0,2}proxy-user|user)[ =:]+\"?(?P<bare>[^\s\"]+:[^\s\"]+)", re.M
)
_XML_PROPERTY = re.compile(rf"{_WORDS}[^<]*</name>\s*<value>(?P<bare>[^<\n]+)</value>", re.I)
_XML_VALUE = re.compile(rf"{_WORDS}[\w.-]*>(?P<bare>[^<\n]+)<", re.I)
_AUTH = re.compile(r"[\"']?_?auth[\"']?\s*[:=]\s*[\"']?(?P<bare>[A-Za-z0-9+/=_-]{8,})", re.I)
_LOOSE = (_KEY_VALUE, _XML_PROPERTY, _XML_VALUE, _AUTH)
_COMMENT = re.compile(r"^[ \t]*[#;].*$|<!--.*?-->", re.M | re.S)
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]{16,}")
# What stands for a value, or says that there is none.
_NO_SECRET = re.compile(
    r"\$\{?\w.*|%\(.*|\{\{.*|<.*|\*+|true|false|none|null|auto|ask|required|optional|yes|no|prompt",
    re.I,
)
_WHOLE_FILES = re.compile(r"/token$")


@dataclass
class Found:
    """``secrets``: never to be shown or sent; ``places``: the files and processes that hold any."""

    secrets: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)

    def add(self, place: str, secrets: Iterable[str]) -> None:
        """Takes what was found at a place."""
        found = {form for secret in secrets for form in _forms(secret) if worth_hiding(form)}
        if found:
            self.secrets |= found
            self.places.add(place)


def find(reader: Reader, keys: Iterable[str] = ()) -> Found:
    """Every secret in the usual places, in the surroundings of processes, and in the files
    ``keys``."""
    found = Found()
    patterns = [f"{home}/{name}" for home in HOMES for name in OF_A_HOME.split()]
    for pattern in [*patterns, *OF_THE_SYSTEM.split()]:
        for path in _matching(reader, pattern):
            found.add(path, of_file(path, _read(reader, path)))
    for path in keys:
        found.add(path, of_file(path, _read(reader, path)))
    if reader.live:
        for place, text in _processes():
            found.add(place, of_text(text))
    return found


def of_text(text: str) -> Iterator[str]:
    """What looks like a secret in any text."""
    for match in looks_secret(text):
        value = match.group("secret")
        if "PRIVATE KEY" in match.group().upper():
            yield from _KEY_LINE.findall(value.replace("\\n", "\n"))
        else:
            yield value


def of_file(path: str, text: str) -> Iterator[str]:
    """What a configuration file holds that is secret; comments count where they look like it."""
    if _WHOLE_FILES.search(path):
        yield text.strip()
    if re.search(PEM_KEY.decode(), text):
        yield from _KEY_LINE.findall(text)
    yield from of_text(text)
    bare = _COMMENT.sub("", text)
    patterns = (*_LOOSE, _KEY_BLANK, _BLANK_LOGIN) if _SPACED.search(path) else _LOOSE
    for pattern in patterns:
        for match in pattern.finditer(bare):
            value = next(part for part in match.groups() if part is not None)
            if not os.path.exists(value) or not value.startswith("/"):
                yield value
    if path.endswith(".pgpass"):
        yield from (line.rpartition(":")[2] for line in bare.splitlines())


def _forms(secret: str) -> Iterator[str]:
    """A value as it was written, and as it is meant: decoded, and without the user's name."""
    value = secret.strip().strip("\"'")
    if _NO_SECRET.fullmatch(value):
        return
    meant = {value, unquote(value), html.unescape(value), value.replace("%%", "%")}
    if "\\" in value:
        try:
            meant.add(str(json.loads(f'"{value}"')))
        except ValueError:
            meant.add(re.sub(r"\\(.)", r"\1", value))
    try:
        plain = base64.b64decode(value, validate=True).decode()
        if plain.isprintable() and ":" in plain:
            meant.add(plain)
    except (binascii.Error, ValueError):
        pass
    for form in meant:
        user, colon, password = form.partition(":")
        # "user:password"; and a value with a colon of its own stays what it is.
        yield form
        if colon and user and "/" not in user:
            yield password
            yield unquote(password)


def _matching(reader: Reader, pattern: str) -> list[str]:
    """The paths that a pattern means; ``*`` is any part of one name."""
    found = [""]
    for part in pattern.strip("/").split("/"):
        if "*" not in part:
            found = [f"{path}/{part}" for path in found]
            continue
        found = [
            f"{path}/{name}"
            for path in found
            for name in (reader.names(path) if os.path.isdir(reader.path(path)) else ())
            if fnmatch.fnmatchcase(name, part)
        ]
    return found


def _read(reader: Reader, path: str) -> str:
    real = reader.path(path)
    try:
        if not os.path.isfile(real) or os.path.getsize(real) > LARGEST:  # noqa: PTH113, PTH202
            return ""
        with open(real, "rb") as file:
            return file.read(LARGEST).decode("utf-8", "replace")
    except OSError:
        return ""


def _processes() -> Iterator[tuple[str, str]]:
    """What runs, with its arguments and surroundings: JVMs have passwords in both."""
    for number in os.listdir("/proc"):  # noqa: PTH208
        if not number.isdigit():
            continue
        for name in ("cmdline", "environ"):
            try:
                with open(f"/proc/{number}/{name}", "rb") as file:
                    data = file.read(LARGEST)
            except OSError:
                continue
            # Line by line: a pattern must not reach from one argument into the next; but a value
            # may stand in the one after its name.
            text = data.decode("utf-8", "replace")
            yield f"process {number}", text.replace("\0", "\n" if name == "environ" else " ")
