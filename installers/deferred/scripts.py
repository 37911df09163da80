"""The two programs that Spark and the NodeManager run to find GPUs."""

from __future__ import annotations

#: Where the NodeManager finds its ``nvidia-smi`` on a node with MIG.
MIG_DIRECTORY = "/usr/lib/airlock/yarn-mig"
MIG_SMI = f"{MIG_DIRECTORY}/nvidia-smi"

# No cache: what nvidia-smi says now is what there is now, and YARN's isolation shows each container
# its own GPUs only, so that two callers rightly get different answers.
DISCOVERY = """\
#!/bin/sh
# Written by airlock. Prints the GPUs that this process may use, as Spark wants to read them:
# {"name": "gpu", "addresses": ["0", "1"]}; for a card in MIG mode the UUIDs of its slices.
# Nothing is remembered between two calls, and no GPU is an error: Spark would take "" for one.
set -u
export LC_ALL=C
cards=$(timeout 60 nvidia-smi --query-gpu=index,mig.mode.current --format=csv,noheader) || {
    echo "getGpusResources.sh: nvidia-smi failed: $cards" >&2
    exit 1
}
addresses=$(
    printf '%s\\n' "$cards" | while IFS=', ' read -r index mig; do
        if [ "$mig" = Enabled ]; then
            timeout 60 nvidia-smi -L -i "$index" |
                sed -n 's/^ .*MIG .*(UUID: \\(MIG-[^)]*\\)).*/"\\1"/p'
        else
            case $index in
                '' | *[!0-9]*) ;;
                *) printf '"%s"\\n' "$index" ;;
            esac
        fi
    done | paste -sd, -
)
if [ -z "$addresses" ]; then
    echo "getGpusResources.sh: this process may use no GPU" >&2
    exit 1
fi
printf '{"name": "gpu", "addresses": [%s]}\\n' "$addresses"
"""

# YARN knows cards only. It is shown each slice as one, with the minor number of its GPU instance's
# access capability: the container-executor allows or denies that, by gpu.major-device-number.
MIG_AS_CARDS = '''\
#!/usr/bin/python3 -I
"""Written by airlock: nvidia-smi as YARN's GPU plugin asks it, each MIG device as a card."""

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
CAPABILITY = "/proc/driver/nvidia/capabilities/gpu%d/mig/gi%s/access"


def real():
    for folder in os.environ.get("PATH", "/usr/bin:/bin").split(":") + ["/usr/bin", "/bin"]:
        path = os.path.join(folder, "nvidia-smi")
        if folder and os.path.abspath(folder) != HERE and os.access(path, os.X_OK):
            return path
    sys.exit("nvidia-smi is not installed")


def minor(card, instance):
    with open(CAPABILITY % (card, instance)) as file:
        return re.search(r"DeviceFileMinor: (\\d+)", file.read()).group(1)


def main():
    program = real()
    if sorted(sys.argv[1:]) != ["-q", "-x"]:
        os.execv(program, [program] + sys.argv[1:])
    done = subprocess.run([program, "-x", "-q"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    root = ElementTree.fromstring(done.stdout)
    cards = root.findall("gpu")
    for card in cards:
        if card.findtext("mig_mode/current_mig") != "Enabled":
            continue
        root.remove(card)
        number = int(card.findtext("minor_number"))
        for device in card.iter("mig_device"):
            instance = device.findtext("gpu_instance_id")
            one = ElementTree.SubElement(root, "gpu", dict(card.attrib))
            for name in ("product_name", "uuid"):
                ElementTree.SubElement(one, name).text = card.findtext(name)
            one.find("uuid").text += "/%s/%s" % (instance, device.findtext("compute_instance_id"))
            ElementTree.SubElement(one, "minor_number").text = minor(number, instance)
            for name in ("utilization", "fb_memory_usage", "bar1_memory_usage", "temperature"):
                found = device.find(name)
                found = card.find(name) if found is None else found
                if found is not None:
                    one.append(found)
    attached = root.find("attached_gpus")
    if attached is not None:
        attached.text = str(len(root.findall("gpu")))
    print('<?xml version="1.0" ?>')
    print(ElementTree.tostring(root, encoding="unicode"))


main()
'''
