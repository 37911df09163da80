"""The NoCloud seed of a vendor's image: what its cloud-init must do so that it can live in the lab.

A FAT volume with the label ``cidata`` (https://docs.cloud-init.io, "NoCloud"): the network, a name,
and one command that brings up our agent. Everything else of the image stays the vendor's.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.lab import addresses as at
from harness.lab import disk, seam
from harness.lab_units import NODE_FILE

if TYPE_CHECKING:
    from harness.pack import Packed

#: What the seed's script says on the serial console when it cannot do its work.
FAILED = "airlock-seed: FAILED: "
_PLACE = "/run/airlock-seed"
_ARCHIVE, _SCRIPT = "airlock.tar", "airlock.sh"
_LABEL = "CIDATA"
_MIB = 1 << 20

# A bootcmd runs at every boot, before the network is said to be up, so that the agent can tell why
# a boot is stuck. Nothing is upgraded: the image is what is under test. The mirrors are not used,
# because its sources stay as they are; without any, cloud-init would look names up.
_USER_DATA = f"""\
#cloud-config
package_update: false
package_upgrade: false
repo_upgrade: none
manage_etc_hosts: false
apt:
  preserve_sources_list: true
  primary: [{{arches: [default], uri: "http://mirror.invalid/"}}]
  security: [{{arches: [default], uri: "http://mirror.invalid/"}}]
growpart: {{mode: auto, devices: ["/"]}}
resize_rootfs: true
bootcmd:
  - mkdir -p {_PLACE}
  - mountpoint -q {_PLACE} || mount -r -L {_LABEL} {_PLACE} || mount -r -L {_LABEL.lower()} {_PLACE}
  - sh {_PLACE}/{_SCRIPT}
"""
_META_DATA = "instance-id: airlock-node\nlocal-hostname: airlock-node\n"
_RUN = f"""\
set -u
failed() {{
  echo "{FAILED}$1" >/dev/console
  exit 1
}}
/usr/bin/python3 -c 'import json, sys; sys.exit(sys.version_info < (3, 9))' ||
  failed "/usr/bin/python3 is not there, or older than 3.9"
tar -x -f {_PLACE}/{_ARCHIVE} -C / --no-same-owner --no-overwrite-dir ||
  failed "the agent cannot be unpacked"
grep -q metadata.google.internal /etc/hosts || cat {_PLACE}/hosts >>/etc/hosts
if ip route show default | grep -q . && ! grep -q ^nameserver /etc/resolv.conf; then
  echo 'nameserver {at.NAMESERVER}' >/etc/resolv.conf || :
fi
command -v restorecon >/dev/null && restorecon -R {NODE_FILE} /etc/systemd/system || :
systemctl daemon-reload
for unit in {" ".join((*seam.SILENT, *seam.SILENT_VENDOR))}; do
  systemctl mask --now --quiet "$unit" 2>/dev/null || :
done
systemctl enable --quiet airlock-agent.service ||
  failed "systemd does not take the agent's unit"
systemctl start --no-block airlock-agent.service || failed "the agent does not start"
"""


def network(*, silent: bool = False) -> str:
    """The configuration of both cards, of version 2, as JSON (which YAML is a superset of).

    ``silent``: no way out and nobody to ask for names, so that nothing of the vendor's gets a
    packet out before it was switched off; :data:`OPEN` then makes it what it is otherwise.
    """
    first: dict[str, object] = {
        "match": {"macaddress": at.MAC},
        "set-name": "eth0",
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "addresses": [f"{at.NODE}/{at.NODE_PREFIX}", f"{at.NODE6}/64"],
    }
    if not silent:
        # A route and a nameserver, so that attempts to get out leave the card: see seam.files.
        first |= {
            "routes": [{"to": "0.0.0.0/0", "via": at.GATEWAY}, {"to": "::/0", "via": at.GATEWAY6}],
            "nameservers": {"addresses": [at.NAMESERVER]},
        }
    second = {
        "match": {"macaddress": at.METADATA_MAC},
        "set-name": "eth1",
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "addresses": [f"{at.METADATA_NODE}/24"],
    }
    return json.dumps({"version": 2, "ethernets": {"eth0": first, "eth1": second}}, indent=1) + "\n"


def texts(*, silent: bool = False) -> dict[str, str]:
    """Name on the volume -> text: all of it but the agent. See :func:`network`."""
    return {
        "user-data": _USER_DATA,
        "meta-data": _META_DATA,
        "network-config": network(silent=silent),
        _SCRIPT: _RUN,
        "hosts": f"127.0.1.1 airlock-node\n{seam.hosts()}",
    }


#: Opens a silent network.
OPEN = f"""
ip route replace default via {at.GATEWAY} dev eth0
ip -6 route replace default via {at.GATEWAY6} dev eth0
if ! resolvectl dns eth0 {at.NAMESERVER} 2>/dev/null; then
  echo 'nameserver {at.NAMESERVER}' >/etc/resolv.conf
fi
"""


def make(volume: Path, node_file: Packed, *, silent: bool = False) -> None:
    """Write the seed as a raw file, whole or not at all. Raises InfraError."""
    path = NODE_FILE.lstrip("/")
    entries = {name: text.encode() for name, text in seam.units().items()}
    archive = seam.packed(
        {**entries, path: node_file.path.read_bytes()},
        executable=frozenset({path}),
        pointing={},
    )
    with tempfile.TemporaryDirectory(dir=volume.parent) as folder:
        for name, text in texts(silent=silent).items():
            Path(folder, name).write_text(text)
        Path(folder, _ARCHIVE).write_bytes(archive)
        disk.make_volume(volume, Path(folder), label=_LABEL, size=2 * len(archive) + 34 * _MIB)
