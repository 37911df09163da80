"""``airlock-node.pyz user-data``: cloud-init's user data that prepares a node at its first boot.

For images that this program is not on. The files are the installer's own, the commands are what it
would run; what depends on the files of the image is decided there, by a small script for sh.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from installers import metadata
from installers.collect.kubernetes import MODULES
from installers.collect.registries import CONFIG, IMAGE_PLUGINS
from installers.collect.resolver import RESOLV_CONF, UPSTREAM
from installers.config import Config, from_attributes
from installers.dialects import services
from installers.dialects.base import wanted as proxy_wanted
from installers.errors import ConfigError
from installers.exits import Exit
from installers.kubernetes import files
from installers.kubernetes.resolver import LINK
from installers.kubernetes.wanted import KEY, Cluster, cluster

SCRIPT = "/usr/local/lib/airlock/first-boot.sh"
#: System -> units by which somebody gets in, the first one that is there is enabled.
ACCESS: Mapping[str, tuple[str, ...]] = {
    "ubuntu": ("snap.amazon-ssm-agent.amazon-ssm-agent", "amazon-ssm-agent"),
    "debian": ("amazon-ssm-agent",),
    "amazon-linux-2023": ("amazon-ssm-agent",),
}
_RUNTIMES = ("containerd", "kubelet")


def main(argv: list[str]) -> int:
    """The verb: prints the user data. Returns an exit code."""
    parser = argparse.ArgumentParser(
        prog="airlock-node.pyz user-data",
        description="Prints cloud-init's user data for a node of a cluster.",
    )
    parser.add_argument("--os", required=True, choices=sorted(ACCESS), help="of the image")
    parser.add_argument("--metadata", required=True, metavar="FILE.json|URL")
    options = parser.parse_args(argv)
    attributes = metadata.load(options.metadata, patience=metadata.PATIENCE)
    wanted = cluster(attributes)
    if wanted is None:
        raise ConfigError(
            f"does not ask for a node of a cluster: {KEY} is not true", where=options.metadata
        )
    print(render(options.os, wanted, from_attributes(attributes, options.metadata)), end="")
    return int(Exit.PASS)


def render(system: str, wanted: Cluster, config: Config) -> str:
    """The whole text. It holds no password: whoever is on the instance can read user data."""
    lines = ["#cloud-config", "# Made by airlock-node.pyz user-data."]
    if config.proxy.has_credentials:
        lines.append("# The proxy's password is left out: write it into the node's own files.")
    proxy = proxy_wanted(config.proxy, credentials=False)
    if proxy.asserted and system != "amazon-linux-2023":
        lines += ["apt:"]
        for key, url in (("http_proxy", proxy.http), ("https_proxy", proxy.https)):
            lines += [f"  {key}: {json.dumps(url)}"] if url else []
    lines.append("write_files:")
    for path, text in written(system, wanted, config).items():
        mode = "0755" if path == SCRIPT else "0644"
        lines += [f"  - path: {path}", f"    permissions: '{mode}'", "    content: |"]
        lines += [f"      {line}" if line else "" for line in text.splitlines()]
    lines += ["runcmd:", f"  - [sh, {SCRIPT}]"]
    return "\n".join(lines) + "\n"


def written(system: str, wanted: Cluster, config: Config) -> dict[str, str]:
    """Path -> text of every file."""
    found = {**files.kernel(), **files.mirrors(wanted)}
    proxy = proxy_wanted(config.proxy, credentials=False)
    for dialect in (services.ServiceEnvironment(), *map(services.DropIn, _RUNTIMES)):
        settings = dialect.settings(proxy)
        if settings:
            found[dialect.path] = dialect.render(settings)
    found[SCRIPT] = script(system, wanted, proxy.single)
    return found


def script(system: str, wanted: Cluster, proxy: str) -> str:
    """What is done on the node; every step may be done twice."""
    parts = ["#!/bin/sh", "# Written by airlock.", "set -u", "ended=0"]
    parts += [f"modprobe -a {' '.join(MODULES)}", f"sysctl -q -p {files.SYSCTL_FILE} || ended=1"]
    parts.append(_RESOLVER)
    if wanted.mirrors:
        parts.append(_MIRRORS)
    if proxy and system == "amazon-linux-2023":
        parts.append(_DNF.format(proxy=_bare(proxy)))
    parts.append("systemctl daemon-reload")
    parts += [f"systemctl try-restart {unit}" for unit in _RUNTIMES]
    units = " ".join(ACCESS[system])
    parts.append(_ACCESS.format(units=units))
    parts.append("exit $ended")
    return "\n".join(parts) + "\n"


def _bare(proxy: str) -> str:
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc}"


# Only where systemd-resolved runs, the link is its own and it knows servers: as the installer does.
_RESOLVER = f"""
if systemctl is-active -q systemd-resolved && grep -qs '^nameserver' {UPSTREAM}; then
  case "$(readlink {RESOLV_CONF} || true)" in
    *systemd*resolv.conf) ln -sfn {LINK} {RESOLV_CONF} ;;
  esac
  if grep -qsE '^nameserver 127\\.0\\.0\\.5[34]' {RESOLV_CONF}; then
    echo "airlock: {RESOLV_CONF} is a file that names the stub; port 53 is left as it is" >&2
    ended=1
  else
    mkdir -p {files.RESOLVED_FILE.rpartition("/")[0]}
    printf '{files.RESOLVED_TEXT.replace(chr(10), chr(92) + "n")}' >{files.RESOLVED_FILE}
    systemctl restart systemd-resolved
  fi
fi
"""
# Into the table where there is one, else at the end; never beside the old tables of mirrors.
_MIRRORS = f"""
f={CONFIG}
[ -s $f ] || {{ mkdir -p "${{f%/*}}"; echo 'version = 2' >$f; }}
plugin='{IMAGE_PLUGINS[0]}'
grep -qE '^version *= *3' $f && plugin='{IMAGE_PLUGINS[1]}'
if grep -qE '^[^#]*(registry[.](mirrors|configs)|disabled_plugins.*"cri")' $f ||
  ! grep -qE '^version *=' $f; then
  echo "airlock: $f cannot have a config_path as it is; images come from where they came" >&2
  ended=1
elif ! grep -qE '^ *config_path *= *"{files.CERTS_D}' $f; then
  table="^ *\\\\[plugins[.][\\"']$plugin[\\"'][.]registry\\\\]"
  if grep -qE "$table" $f; then
    sed -E -i "/$table/,/^ *\\\\[/{{/^ *config_path *=/d}}" $f
    sed -E -i "/$table/a\\\\  config_path = \\"{files.CERTS_D}\\"" $f
  else
    printf '\\n[plugins."%s".registry]\\n  config_path = "%s"\\n' "$plugin" {files.CERTS_D} >>$f
  fi
fi
"""
_DNF = """
grep -qs '^proxy *=' /etc/dnf/dnf.conf || echo 'proxy={proxy}' >>/etc/dnf/dnf.conf
"""
_ACCESS = """
for unit in {units}; do
  if systemctl cat "$unit" >/dev/null 2>&1; then
    systemctl enable --now "$unit" && break
  fi
done
"""
