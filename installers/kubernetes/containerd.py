"""containerd asks the mirrors: ``config_path`` in its configuration, read back by itself."""

from __future__ import annotations

from typing import Any

from installers import originals, tomledit, tomltext
from installers.collect import registries
from installers.collect.reader import Reader
from installers.collect.registries import CONFIG, IMAGE_PLUGINS
from installers.engine import Problem, Refusal
from installers.errors import NodeError
from installers.host import Host
from installers.journal import recall, remember
from installers.kubernetes import wanted
from installers.kubernetes.files import CERTS_D

SETTING = "containerd:config_path"
_MEMORY = "kubernetes-containerd"
_NEW = "# Written by airlock.\nversion = 2\n"
_PLUGINS = tuple((name,) for name in IMAGE_PLUGINS)
_OLD = (("registry", "mirrors"), ("registry", "configs"))
# Others keep containerd's configuration as their own, and write it anew at each start.
_OWNERS = {
    "/etc/rancher/k3s": "k3s",
    "/var/lib/rancher/k3s": "k3s",
    "/var/lib/rancher/rke2": "RKE2",
    "/var/snap/microk8s": "MicroK8s",
    "/var/lib/k0s": "k0s",
}


def refuse(host: Host) -> list[Refusal]:
    """Configurations in which ``config_path`` would break containerd, or would not be seen."""
    for folder, owner in _OWNERS.items():
        if host.exists(folder):
            return [
                Refusal(
                    "kubernetes.distribution",
                    f"containerd is {owner}'s here, which writes its configuration by itself",
                    f"give the mirrors to {owner}, and leave them out of the metadata",
                )
            ]
    found = []
    for path in _files(host):
        tables = _tables(path, host.read(path) or "")
        version = tables[()].get("version", 1) if path == CONFIG else 2
        if version == 1:
            found.append(
                Refusal(
                    "kubernetes.containerd-version",
                    f"{path} has no version, and containerd reads it as of version 1",
                    "put version = 2 into its first line and the names of plug-ins in full, or "
                    "move the file away: containerd starts without one",
                )
            )
        if "cri" in (tables[()].get("disabled_plugins") or ()):
            found.append(
                Refusal(
                    "kubernetes.cri-disabled",
                    f"{path} disables the plug-in that kubelet talks to, as Docker's package does",
                    'take "cri" out of disabled_plugins',
                )
            )
        old = [names for names in tables if names[:1] == ("plugins",) and names[2:4] in _OLD]
        if old:
            found.append(
                Refusal(
                    "kubernetes.old-mirrors",
                    f"{path} has [{'.'.join(old[0])}]: containerd takes no config_path beside it",
                    f"move it to {CERTS_D}/HOST/hosts.toml, or to {wanted.MIRRORS}",
                )
            )
    return found


def inspect(host: Host) -> dict[str, Any]:
    """The folder of hosts.toml files that containerd's files name, imports and all."""
    found = registries.collect(Reader(str(host.root)))
    if found is None:
        return {SETTING: None}
    if found["why"]:
        raise NodeError(f"cannot be read: {found['why']}", where="containerd")
    return {SETTING: found["config_path"] or None}


def desired(_host: Host) -> dict[str, Any]:
    return {SETTING: CERTS_D}


def apply(host: Host) -> None:
    """Into the main file, and into every imported one that has the plug-in's own table: what such
    a one says of a plug-in takes the place of all that was said before (containerd 1.7).
    """
    known = recall(host, _MEMORY)
    if host.read(CONFIG) is None:
        remember(host, _MEMORY, {**known, CONFIG: "made"})
        host.write(CONFIG, _NEW)
    for path in _files(host):
        text = host.read(path) or ""
        table = _table(path, text, host)
        if table is None:
            continue
        before = tomltext.tables(text).get(table, {}).get("config_path")
        if path not in known and recall(host, _MEMORY).get(path) != "made":
            value = None if before is None else f'"{before}"'
            remember(host, _MEMORY, {**recall(host, _MEMORY), path: {"before": value}})
            ours = tomledit.put(text, table, "config_path", f'"{CERTS_D}"')
            bare = tomledit.put(ours, table, "config_path", value)
            originals.keep(host, path, text, bare)
        new = tomledit.put(text, table, "config_path", f'"{CERTS_D}"')
        host.write(path, new, mode=host.path(path).stat().st_mode & 0o7777)


def verify(host: Host) -> list[Problem]:
    """What containerd itself makes of its files."""
    program = host.find_program("containerd")
    if program is None:
        return []
    said = host.run([program, "config", "dump"], check=False, timeout=60)
    if said.code != 0:
        last = " ".join(said.err.strip().splitlines()[-1:])
        return [Problem(f"containerd cannot read its configuration: {last}", f"mend {CONFIG}")]
    tables = tomltext.tables(said.out)
    read = [
        str(tables[names].get("config_path", ""))
        for names in tables
        if names[:1] == ("plugins",) and names[1:2] in _PLUGINS and names[2:] == ("registry",)
    ]
    if any(CERTS_D in value.split(":") for value in read):
        return []
    return [
        Problem(
            f"containerd reads config_path as {', '.join(read) or 'nothing'}, not {CERTS_D}",
            f"a file that {CONFIG} imports has the plug-in's table as well: set config_path there",
        )
    ]


def remove(host: Host) -> None:
    """As it was."""
    for path, record in recall(host, _MEMORY).items():
        text = host.read(path)
        if text is None:
            continue
        table = _table(path, text, host)
        value = record["before"] if isinstance(record, dict) else None
        bare = tomledit.put(text, table, "config_path", value) if table else text
        if record == "made":
            if bare.strip() == _NEW.strip():
                host.remove(path)
            else:
                host.write(path, bare)
        elif not originals.restore(host, path, bare):
            host.write(path, bare, mode=host.path(path).stat().st_mode & 0o7777)
    remember(host, _MEMORY, {})


def _files(host: Host) -> list[str]:
    """The main file and those it imports, as far as they are there."""
    text = host.read(CONFIG)
    if text is None:
        return []
    imports = _tables(CONFIG, text)[()].get("imports") or []
    return [CONFIG, *registries.imported(Reader(str(host.root)), imports)]


def _tables(path: str, text: str) -> dict[tuple[str, ...], dict[str, Any]]:
    try:
        return tomltext.tables(text)
    except ValueError as error:
        raise NodeError(f"is no TOML: {error}", where=path, remedy="mend it") from None


def _table(path: str, text: str, host: Host) -> tuple[str, ...] | None:
    """Where config_path belongs in this file; None where it is none of its business."""
    tables = _tables(path, text)
    for names in tables:
        if names[:1] == ("plugins",) and len(names) > 1 and names[1] in IMAGE_PLUGINS:
            return ("plugins", names[1], "registry")
    if path != CONFIG:
        return None
    main = _tables(CONFIG, host.read(CONFIG) or "")
    return ("plugins", IMAGE_PLUGINS[int(main[()].get("version", 2)) >= 3], "registry")
