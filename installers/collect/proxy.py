"""Proxy settings in every place programs take them from. Credentials never leave the node.

A value is read by its own program's rules where they are simple; a check that must know what the
program itself makes of it runs the program.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Optional

from installers.collect.reader import Reader, assignments

VARIABLES = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "ftp_proxy")
APT_FOLDER = "/etc/apt/apt.conf.d"
# Asks the metadata server at each boot; its command line says which one.
UNIT = "/etc/systemd/system/airlock-proxy.service"
SYSTEMD_FOLDER = "/etc/systemd/system.conf.d"
# Everything of a word up to its last @: files of others may hold a raw password with / or @.
USERINFO = re.compile(r"(\w+://)[^\s\"'<>]*@")
CREDENTIAL = re.compile(r"\w+://[^\s/@:\"'<>]*:[^\s\"'<>]*@")
# A tool's file names the proxy in one word, or by host and port (gcloud, boto, Java's, Maven's) on
# lines beside which the password stands: so these are taken out, and no line is.
PLACE = re.compile(r"\w+://(?:[^\s\"'<>]*@)?([\w.-]+|\[[\da-f:.]+\]):(\d+)", re.I)
HOST = re.compile(r"(?:<host>|proxyHost=|^proxy\s*=\s*|^address\s*=\s*)([\w.-]+)", re.M)
PORT = re.compile(r"(?:<port>|proxyPort=|^proxy_port\s*=\s*|^port\s*=\s*)(\d+)", re.M)
# Or it names whom to ask: the file of services, the variables that sudo lets through.
# Pip's is empty, which leaves the proxy to the variables of the environment.
REFERS = re.compile(
    r"^(?:EnvironmentFile=-?(\S+)|Defaults env_keep \+= \"([\w ]*)\"|(proxy) =[ \t]*$)", re.M
)
COMMENT = re.compile(r"^[ \t]*[#;].*", re.M)
# Settings of one user's, which programs take before everybody's. root's .curlrc is curl's own
# dialect, and Gradle's and Maven's files are tools'.
OF_USERS = (
    *(".gitconfig", ".config/git/config", ".wgetrc", ".npmrc", ".condarc", ".conda/.condarc"),
    *(".config/pip/pip.conf", ".pip/pip.conf", ".docker/config.json", ".config/uv/uv.toml"),
    *(".boto", ".config/gcloud/configurations/config_default", ".bashrc", ".profile"),
)
NAMES_PROXY = re.compile(r"^.*(?<!no_)(?<!no)proxy.*$", re.I | re.M)
APT_BLOCK = re.compile(r"([\w:.-]+)\s*\{|\}|([\w:.-]+)\s+\"([^\"]*)\"\s*;|//.*|#.*")


def redact(text: str) -> str:
    """The text with the user and password of every URL replaced by ``***``."""
    return USERINFO.sub(r"\1***@", text)


def _proxies(values: dict[str, str]) -> dict[str, str]:
    """The proxy variables among ``values``, either case, redacted."""
    return {key: redact(value) for key, value in values.items() if key.lower() in VARIABLES}


def apt(text: str) -> dict[str, str]:
    """Proxy keys of apt configuration, plain ("A::B "x";") or in blocks, redacted."""
    found: dict[str, str] = {}
    scope: list[str] = []
    for match in APT_BLOCK.finditer(text):
        opened, key, value = match.groups()
        if opened:
            scope.append(opened)
        elif key:
            name = "::".join([*scope, key])
            if name.startswith("Acquire::") and "proxy" in name.lower():
                found[name] = redact(value)
        elif match.group() == "}":
            del scope[-1:]
    return found


def default_environment(text: str) -> dict[str, str]:
    """DefaultEnvironment= of systemd's manager configuration: space-separated, quoted words."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "DefaultEnvironment":
            for word in re.findall(r'"([^"]*)"|(\S+)', value):
                name, _, rest = (word[0] or word[1]).partition("=")
                # systemd doubles % because it expands specifiers.
                found[name] = rest.replace("%%", "%")
    return found


class _Files:
    """Reads files once and remembers which of them hold a credential."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.credentials: set[str] = set()

    def text(self, path: str) -> Optional[str]:
        text = self.reader.text(path)
        if text is not None and CREDENTIAL.search(text):
            self.credentials.add(path)
        return text

    def folder(self, folder: str, suffix: str) -> str:
        """The text of every file with that suffix, in the order programs read them."""
        names = [name for name in self.reader.names(folder) if name.endswith(suffix)]
        return "\n".join(self.text(f"{folder}/{name}") or "" for name in names)


def _lines(text: Optional[str], pattern: str) -> list[str]:
    """Redacted lines that match, comments left out; [] where the file is not there."""
    lines = (line.strip() for line in COMMENT.sub("", text or "").splitlines())
    return [redact(line) for line in lines if re.search(pattern, line, re.I)]


def _provenance(state: Optional[str]) -> dict[str, Any]:
    """What the proxy installer says of its files."""
    try:
        found = json.loads(state or "{}")["installers"]["proxy"]["provenance"]
        return found if isinstance(found, dict) else {}
    except (ValueError, LookupError, TypeError):
        return {}


def _tools(files: _Files, provenance: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each tool that was told of the proxy: its file, the ``proxies`` in it as host:port, or what
    it ``refers`` to. No credentials.
    """
    listed = provenance.get("tools")
    if not isinstance(listed, dict):
        return {}
    return {str(name): _told(files, str(path)) for name, path in listed.items()}


def _told(files: _Files, path: str) -> dict[str, Any]:
    text = COMMENT.sub("", files.text(path) or "")
    places = [*PLACE.findall(text), *zip(HOST.findall(text), PORT.findall(text))]  # noqa: B905
    return {
        "path": path,
        "proxies": sorted({f"{host}:{port}" for host, port in places}),
        "refers": sorted({"".join(one) for one in REFERS.findall(text)}),
    }


def settings_url(reader: Reader) -> Optional[str]:
    """Where the unit that applies the settings takes them from; None without the unit."""
    source = re.search(r"^ExecStart=.* --metadata (\S+)", reader.text(UNIT) or "", re.M)
    return source.group(1) if source else None


def _of_users(files: _Files) -> dict[str, list[str]]:
    """Path of each file of a single user's that names a proxy -> the proxies in it, host:port."""
    homes = ["/root", *(f"/home/{name}" for name in files.reader.names("/home"))]
    found = {}
    for path in (f"{home}/{name}" for home in homes for name in OF_USERS):
        text = COMMENT.sub("", files.text(path) or "")
        lines = "\n".join(NAMES_PROXY.findall(text))
        places = PLACE.findall(lines)
        if places:
            found[path] = sorted({f"{host}:{port}" for host, port in places})
    return found


def _modes(reader: Reader, paths: Iterable[str]) -> dict[str, str]:
    """Path -> mode in octal, of those that are there."""
    modes = ((path, reader.mode(path)) for path in paths)
    return {path: mode for path, mode in modes if mode is not None}


def collect(reader: Reader, effective: Optional[dict[str, str]] = None) -> dict[str, Any]:
    """The proxy's traces on the node.

    ``environment`` is /etc/environment, ``profile`` /etc/profile.d, ``systemd_manager`` what
    is configured and ``systemd_env_effective`` what the manager gives its services now
    (``effective``). ``credential_files`` names every file read here that holds a
    credential, and those that the installer lists; ``credential_modes`` their modes. ``users``:
    files of single users that name a proxy, and which.
    """
    files = _Files(reader)
    profile: dict[str, str] = {}
    for name in reader.names("/etc/profile.d"):
        text = files.text(f"/etc/profile.d/{name}") if name.endswith(".sh") else None
        if text and "proxy" in text.lower():
            profile.update(_proxies(assignments(text)))
    manager = files.text("/etc/systemd/system.conf") or ""
    manager += "\n" + files.folder(SYSTEMD_FOLDER, ".conf")
    apt_text = (files.text("/etc/apt/apt.conf") or "") + "\n" + files.folder(APT_FOLDER, "")
    facts: dict[str, Any] = {
        "environment": _proxies(assignments(files.text("/etc/environment") or "")),
        "profile": profile,
        "systemd_manager": _proxies(default_environment(manager)),
        "systemd_env_effective": None if effective is None else _proxies(effective),
        "apt": apt(apt_text),
        "dnf": _lines(files.text("/etc/dnf/dnf.conf"), r"^proxy"),
        "curl": _lines(files.text("/root/.curlrc") or files.text("/etc/curlrc"), r"proxy"),
        "wget": _lines(files.text("/etc/wgetrc"), r"proxy"),
        "git": _lines(files.text("/etc/gitconfig"), r"proxy|^\["),
        "pip": _lines(files.text("/etc/pip.conf"), r"proxy|cert"),
    }
    source = settings_url(reader)
    facts["settings_url"] = None if source is None else redact(source)
    for folder in ("/run/airlock", "/etc/airlock", "/var/lib/airlock"):
        for name in reader.names(folder):
            files.text(f"{folder}/{name}")
    provenance = _provenance(reader.text("/var/lib/airlock/state.json"))
    facts["tools"] = _tools(files, provenance)
    listed = provenance.get("credential_files")
    files.credentials.update(map(str, listed if isinstance(listed, list) else ()))
    facts["users"] = _of_users(files)
    credentials = sorted(files.credentials)
    return {
        **facts,
        "credential_files": credentials,
        "credential_modes": _modes(reader, credentials),
    }
