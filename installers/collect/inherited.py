"""What an image may have kept of the machine that it was made on, or of the people who made it.

By name and date: what is older than the image, and belongs to one machine, came with it.
"""

# Thousands of files are looked at: Path objects would cost more than reading them.

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterable, Iterator
from typing import Any

from installers.collect.reader import Reader

#: Kind -> patterns of files that one machine makes for itself; a * is in the last part only.
DATED = {
    "cloud-init": (
        *("/var/lib/cloud/instances/*", "/var/lib/cloud/sem/*", "/var/lib/cloud/data/instance-id"),
    ),
    "leases": (
        *("/var/lib/dhcp/*.leases", "/var/lib/dhclient/*", "/var/lib/dhcpcd/*.lease*"),
        "/var/lib/NetworkManager/*.lease",
    ),
    "random-seed": ("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed"),
    "apt-lists": ("/var/lib/apt/lists/*_Packages*", "/var/lib/apt/lists/*Release*"),
    "logs": (
        "/var/log/*",
        "/var/log/apt/*",
        "/var/log/unattended-upgrades/*",
        "/var/log/installer/*",
    ),
    "identities": (
        *("/var/lib/dbus/machine-id", "/etc/nvme/hostid", "/etc/nvme/hostnqn"),
        *("/etc/iscsi/initiatorname.iscsi", "/etc/hostid", "/etc/salt/minion_id"),
    ),
}
# cloud-init keeps a folder for each instance.
_CLOUD = "/var/lib/cloud/"
#: What people leave behind, below each home.
TRACES = (
    *(".bash_history", ".zsh_history", ".sh_history", ".ash_history", ".python_history"),
    *(".node_repl_history", ".mysql_history", ".psql_history", ".rediscli_history", ".lesshst"),
    *(".viminfo", ".local/share/nano/search_history", ".wget-hsts", ".sudo_as_admin_successful"),
)
#: What lets whoever has it into some service, below each home.
CREDENTIALS = (
    *(".aws/credentials", ".netrc", ".git-credentials", ".kube/config", ".ngc/config", ".pypirc"),
    *(
        ".config/gcloud/credentials.db",
        ".config/gcloud/access_tokens.db",
        ".azure/accessTokens.json",
    ),
    *(".config/gcloud/application_default_credentials.json", ".cache/huggingface/token"),
    *(".config/gh/hosts.yml", ".docker/config.json", ".wandb/settings", ".kaggle/kaggle.json"),
)
# A docker configuration without a login is none.
_LOGIN = re.compile(rb'"auth"\s*:\s*"[^"]|"identitytoken"\s*:\s*"[^"]')
#: Their programs take them away again; what is there was left by one that was killed.
LOCKS = (
    *("/etc/passwd.lock", "/etc/group.lock", "/etc/shadow.lock", "/etc/gshadow.lock"),
    *("/etc/subuid.lock", "/etc/subgid.lock", "/etc/passwd-.lock", "/etc/gitconfig.lock"),
    *("/root/.gitconfig.lock", "/etc/ptmp", "/var/lib/rpm/.rpm.lock.stale"),
    *("/opt/conda/pkgs/.cidpath.lock", "/opt/conda/.condarc.lock", "/var/lib/dkms/.lock.building"),
)
#: Files that give a card its name, or its addresses, by the number of one card.
NETWORKS = (
    *("/etc/udev/rules.d/*.rules", "/etc/systemd/network/*", "/etc/netplan/*.yaml"),
    *("/etc/NetworkManager/system-connections/*", "/etc/network/interfaces"),
    *("/etc/network/interfaces.d/*", "/etc/sysconfig/network-scripts/ifcfg-*"),
)
_CLOUD_INIT, _CLOUD_INIT_OFF = "/usr/bin/cloud-init", "/etc/cloud/cloud-init.disabled"
_CARD = re.compile(
    r"^[^#\n]*(?:address|hwaddr|macaddr)[^#\n]*?\b((?:[0-9a-f]{2}:){5}[0-9a-f]{2})\b", re.I | re.M
)
#: Where a cache of ours may be on a node, and how its downloads are called until they are whole.
_CACHES = ("/var/cache/airlock", "/var/lib/airlock/cache")
_PARTIAL, _DEEPEST = ".partial-", 4
#: Folder -> how deep it is searched for what everybody can write.
_SEARCHED = {
    "/etc": 4,
    "/root": 3,
    "/usr/local": 3,
    "/usr/lib/airlock": 2,
    "/opt": 2,
    "/var/lib/airlock": 2,
    "/usr/lib/systemd/system": 1,
}
_SHOWN = 20


def collect(reader: Reader) -> dict[str, Any]:
    """``dated``: kind -> [{"path", "mtime" (Unix seconds)}] of files with something in them;
    ``authorized_keys``: the same of SSH's. ``traces``, ``credentials``, ``stale_locks``: paths.
    ``network_names``: [{"path", "card"}]. ``writable``: paths that everybody can write.
    ``partial``: downloads of a cache of ours that were never ended.
    ``passwords``: [{"account", "kind" ("set" or "empty")}] of those that a password lets in.
    """
    homes = ["/root", *(f"/home/{name}" for name in reader.names("/home"))]
    keys = (
        f"{home}/.ssh/{name}" for home in homes for name in ("authorized_keys", "authorized_keys2")
    )
    return {
        "dated": {kind: list(_dated(reader, paths)) for kind, paths in DATED.items()},
        "authorized_keys": list(_dated(reader, keys)),
        "traces": _there(reader, (f"{home}/{name}" for home in homes for name in TRACES)),
        "credentials": _credentials(reader, homes),
        "stale_locks": _there(reader, LOCKS),
        "network_names": _network_names(reader),
        "writable": _writable(reader),
        "partial": [path for top in _CACHES for path in _partial(reader, top, _DEEPEST)],
        "passwords": _passwords(reader),
    }


def _paths(reader: Reader, pattern: str) -> Iterator[str]:
    folder, _, name = pattern.rpartition("/")
    if "*" not in name:
        yield pattern
        return
    for entry in reader.names(folder):
        if fnmatch.fnmatchcase(entry, name):
            yield f"{folder}/{entry}"


def _dated(reader: Reader, patterns: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Files that hold something, and cloud-init's folders; links are others' business."""
    for pattern in patterns:
        for path in _paths(reader, pattern):
            try:
                info = os.lstat(reader.path(os.path.dirname(path)) + path[path.rindex("/") :])  # noqa: PTH120
            except OSError:
                continue
            file = stat.S_ISREG(info.st_mode) and info.st_size
            if file or (stat.S_ISDIR(info.st_mode) and path.startswith(_CLOUD)):
                yield {"path": path, "mtime": info.st_mtime}


def _there(reader: Reader, paths: Iterable[str]) -> list[str]:
    return [path for path in paths if os.path.lexists(reader.path(path))]


def _credentials(reader: Reader, homes: list[str]) -> list[str]:
    found = []
    for path in (f"{home}/{name}" for home in homes for name in CREDENTIALS):
        data = reader.data(path)
        if data and (not path.endswith("/.docker/config.json") or _LOGIN.search(data)):
            found.append(path)
    return found


def _network_names(reader: Reader) -> list[dict[str, str]]:
    """Without cloud-init's, where it works: for another instance it writes them anew."""
    found = []
    works = reader.mode(_CLOUD_INIT) is not None and reader.mode(_CLOUD_INIT_OFF) is None
    for pattern in NETWORKS:
        for path in _paths(reader, pattern):
            if works and "50-cloud-init" in path:
                continue
            match = _CARD.search(reader.text(path) or "")
            if match:
                found.append({"path": path, "card": match[1].lower()})
    return found


def _writable(reader: Reader) -> list[str]:
    found: list[str] = []
    for top, deepest in _SEARCHED.items():
        base = reader.path(top)
        waiting = [(base, deepest)]
        while waiting:
            here, left = waiting.pop()
            try:
                with os.scandir(here) as entries:
                    for entry in entries:
                        mode = entry.stat(follow_symlinks=False).st_mode
                        if stat.S_ISLNK(mode):
                            continue
                        # A sticky folder is meant for everybody, as /tmp is.
                        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                            found.append(top + entry.path[len(base) :])
                        if stat.S_ISDIR(mode) and left > 1:
                            waiting.append((entry.path, left - 1))
            except OSError:
                continue
    return sorted(found)[:_SHOWN]


def _partial(reader: Reader, folder: str, left: int) -> Iterator[str]:
    for name in reader.names(folder):
        if name.startswith(_PARTIAL):
            yield f"{folder}/{name}"
        elif left > 1:
            yield from _partial(reader, f"{folder}/{name}", left - 1)


def _passwords(reader: Reader) -> list[dict[str, str]]:
    found = []
    for line in (reader.text("/etc/shadow", "hygiene.passwords") or "").splitlines():
        words = line.split(":")
        if len(words) > 1 and (not words[1] or words[1][0] not in "!*"):
            found.append({"account": words[0], "kind": "set" if words[1] else "empty"})
    return found
