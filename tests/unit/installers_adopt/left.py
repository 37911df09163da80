"""What today's scripts write, row by row, put into a root: the forms are theirs, the names ours.

``LEFT``: row → path → content; a text, bytes, ``Link`` or None for an empty directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.unit.installers.test_trust import fresh

PROXY = "http://10.11.0.250:3128"
#: What must never be seen in anything that is said.
SECRET = "http://bob:s3cret%40x@10.11.0.250:3128"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nc2VjcmV0IGtleQ==\n-----END RSA PRIVATE KEY-----\n"
CA = fresh("A proxy's CA of before").decode()
OTHER_CA = fresh("A public authority").decode()
KERNEL = "6.1.0-56-cloud-amd64"
VIDEO = f"/lib/modules/{KERNEL}/kernel/drivers/video"
SCRIPT = "/usr/lib/spark/scripts/gpu/getGpusResources.sh"
NO_PROXY = "localhost,127.0.0.1,::1,metadata.google.internal,169.254.169.254,a,,b"


@dataclass(frozen=True)
class Link:
    """A symbolic link to ``target``."""

    target: str


Content = str | bytes | Link | None
SIX = "".join(
    f"{name}={value}\n"
    for name, value in (
        *(("HTTP_PROXY", PROXY), ("http_proxy", PROXY), ("HTTPS_PROXY", PROXY)),
        *(("https_proxy", SECRET), ("NO_PROXY", NO_PROXY), ("no_proxy", NO_PROXY)),
    )
)
EXECUTOR = "\n[gpu]\nmodule.enabled=true\n[cgroups]\nroot=/sys/fs/cgroup\nyarn-hierarchy=yarn\n"
MIG_EXECUTOR = (
    "\n[gpu]\nmodule.enabled=true\ngpu.major-device-number=508\n\n"
    "[cgroups]\nroot=/sys/fs/cgroup\nyarn-hierarchy=yarn\n"
)
RAPIDS = """\
###### BEGIN : RAPIDS properties for Spark 3.5 ######
# Rapids Accelerator for Spark can utilize AQE, but when the plan is not finalized,
#spark.sql.autoBroadcastJoinThreshold=10m
spark.executor.resource.gpu.amount=1
#spark.executor.cores=12
#spark.plugins=com.nvidia.spark.SQLPlugin
"""
RAPIDS_END = "###### END   : RAPIDS properties for Spark 3.5 ######\n"
DISCOVERY = f"spark.executor.resource.gpu.discoveryScript={SCRIPT}\n"


def _property(name: str, value: str) -> str:
    return f"  <property>\n    <name>{name}</name>\n    <value>{value}</value>\n  </property>\n"


_NM = "yarn.nodemanager"
SITE = (
    '<?xml version="1.0" ?>\n<configuration>\n'
    + _property(f"{_NM}.local-dirs", "/hadoop/yarn/nm-local-dir")
    + "%s"
    + _property("yarn.resource-manager.hostname", "m")
    + "</configuration>\n"
)
GPU_PROPERTIES = (
    _property("yarn.resource-types", "yarn.io/gpu")
    + _property(f"{_NM}.resource-plugins", "yarn.io/gpu")
    + _property(f"{_NM}.resource-plugins.gpu.allowed-gpu-devices", "auto")
    + _property(f"{_NM}.resource-plugins.gpu.path-to-discovery-executables", "/usr/bin")
)
STAMP: dict[str, Content] = {"/opt/install-dpgce/complete/prepare.common": ""}
UNITS = "/etc/systemd/system"
WANTS = f"{UNITS}/multi-user.target.wants"


def unit(name: str, program: str) -> dict[str, Content]:
    """A unit that is enabled."""
    text = f"[Unit]\nDescription=x\n\n[Service]\nType=oneshot\nExecStart={program}\n"
    where = f"{UNITS}/{name}.service"
    return {where: text, f"{WANTS}/{name}.service": Link(where)}


def source(name: str, ring: str = "") -> dict[str, Content]:
    """A one-line apt source."""
    ring = ring or f"/usr/share/keyrings/{name}.gpg"
    line = f"deb [signed-by={ring}] https://{name}.test/ x main\n"
    return {f"/etc/apt/sources.list.d/{name}.list": line}


LEFT: dict[str, dict[str, Content]] = {
    "environment": {
        "/etc/environment": f"PATH=/usr/bin\nJAVA_HOME=/x\n{SIX}http_proxy={PROXY}\nA=b"
    },
    "profile": {
        "/etc/profile.d/proxy.sh": "# Proxy settings from Dataproc init action\n"
        f"export HTTP_PROXY='{SECRET}'\n"
    },
    "systemd": {
        "/etc/systemd/system.conf.d/10-default-env.conf": "[Manager]\nDefaultEnvironment="
        f'"http_proxy={SECRET}" "no_proxy={NO_PROXY}"\n'
    },
    "apt-proxy": {
        "/etc/apt/apt.conf.d/99proxy": f'Acquire::http::Proxy "{PROXY}";\n'
        f'Acquire::https::Proxy "{SECRET}";\n'
    },
    "dnf-proxy": {"/etc/dnf/dnf.conf": f"[main]\nproxy={PROXY}\ngpgcheck=1\n"},
    "dirmngr-proxy": {
        "/etc/gnupg/dirmngr.conf": "hkp-cacert /x\nkeyserver-options http-proxy="
        f"{PROXY}\nhttp-proxy {SECRET}\n"
    },
    "sed-backups": {"/etc/dnf/dnf.conf.bak": "[main]\n", "/etc/gnupg/dirmngr.conf.bak": ""},
    "gcloud-proxy": {
        "/root/.config/gcloud/configurations/config_default": "[core]\naccount = a@b\n\n[proxy]\n"
        "type = http\naddress = 10.11.0.250\nport = 3128\n"
    },
    "boto-proxy": {
        "/etc/boto.cfg": "[Boto]\nproxy = 10.11.0.250\nproxy_port = 3128\nhttps_validate = True\n"
        "[GSUtil]\nproxy = of-another-section\n"
    },
    "proxy-unit": {
        **unit("dataproc-proxy-init", "/usr/local/sbin/gce-proxy-setup.sh"),
        "/usr/local/sbin/gce-proxy-setup.sh": "#!/bin/bash\nset -euo pipefail\n",
    },
    "metadata-cache": {"/dev/shm/metadata_cache/metadata_root.json": f'{{"p": "{SECRET}"}}'},
    "ca-file": {"/usr/local/share/ca-certificates/proxy_ca.crt": CA},
    "ca-conda": {
        "/opt/conda/default/ssl/cacert.pem": f"# roots\n{OTHER_CA}{CA}",
        "/usr/local/share/ca-certificates/proxy_ca.crt": CA,
    },
    "source-without-key": source("adoptium"),
    "image-source-without-key": source("dataproc", "/usr/share/keyrings/bigtop-keyring.gpg"),
    "source-on-disk": {
        "/etc/apt/sources.list.d/cuda-debian12-12-4-local.list": "deb [signed-by=/x.gpg] "
        "file:///var/cuda-repo-debian12-12-4-local /\n"
    },
    "keyring": {"/usr/share/keyrings/mysql.gpg": "<!DOCTYPE html><html>504</html>"},
    "old-ring": {"/etc/apt/old-trusted.gpg": b"\x99\x01"},
    "dnf-sources": {"/etc/yum.repos.d/cuda-rhel9.repo": "[cuda]\nenabled=1\n"},
    "modules": {f"{VIDEO}/nvidia.ko": b"\x7fELFmodule", f"{VIDEO}/nvidia-uvm.ko": b"\x7fEL"},
    "dkms": {"/var/lib/dkms/nvidia/source": ""},
    "key-link": {"/var/lib/dkms/mok.key": Link("/run/tmp/ca_dir-aBcD/db.rsa")},
    "key-certificate": {
        "/var/lib/dkms/mok.pub": b"\x30\x82",
        "/var/lib/dkms/mok.key": Link("/run/tmp/ca_dir-aBcD/db.rsa"),
    },
    "key": {"/run/tmp/ca_dir-aBcD/db.rsa": KEY, "/run/tmp/ca_dir-aBcD/db.der": b"\x30\x82"},
    "key-of-dkms": {"/var/lib/shim-signed/mok/MOK.priv": KEY},
    "runfile-driver": {"/usr/bin/nvidia-uninstall": b"\x7fELF"},
    "runfile-cuda": {"/usr/local/cuda-12.4/bin/cuda-uninstaller": b"\x7fELF"},
    "environments": {"/opt/conda/miniconda3/envs/dpgce/conda-meta/history": ""},
    "conda-packages": {"/root/.condarc": "channels:\n  - x\npkgs_dirs:\n  - /mnt/shm\n"},
    "pip-cache": {"/root/.config/pip/pip.conf": "[global]\ncache-dir = /mnt/shm\ntimeout = 9\n"},
    "gpu-unit": {
        **unit("dataproc-gpu-config", "/usr/local/sbin/apply-dataproc-gpu-config.sh # now"),
        "/usr/local/sbin/apply-dataproc-gpu-config.sh": "#!/bin/bash\nset -xeuo pipefail\n",
    },
    "cgroup-unit": unit("dataproc-cgroup-device-permissions", '/bin/bash -c "chmod a+rwx -R /x"'),
    "executor": {
        "/etc/hadoop/conf/container-executor.cfg": f"{_NM}.linux-container-executor.group=yarn\n"
        f"min.user.id=1000\n{EXECUTOR}{EXECUTOR}{MIG_EXECUTOR}"
    },
    "yarn-environment": {
        "/etc/hadoop/conf/yarn-env.sh": "export A=1\nexport MIG_AS_GPU_ENABLED=1\n"
        "export ENABLE_MIG_GPUS_FOR_CGROUPS=1\n"
    },
    "yarn": {
        "/etc/hadoop/conf/yarn-site.xml": SITE % GPU_PROPERTIES,
        "/etc/hadoop/conf/resource-types.xml": '<?xml version="1.0" ?>\n<configuration>\n'
        + _property("yarn.resource-types", "yarn.io/gpu")
        + "</configuration>",
    },
    "spark": {
        "/etc/spark/conf.dist/spark-defaults.conf": "spark.master yarn\n"
        f"{DISCOVERY}{RAPIDS}{RAPIDS_END}spark.x y\n",
        "/etc/spark/conf": Link("conf.dist"),
    },
    "discovery": {SCRIPT: '#!/bin/bash\nresources_json="/dev/shm/nvidia/gpusResources.json"\n'},
    "gpu-caches": {
        "/dev/shm/nvidia/gpusResources.json": '{"name": "gpu", "addresses":["0"]}\n',
        "/run/nvidia-gpu-index.txt": "0\n",
    },
    "mig-scripts": {"/usr/local/yarn-mig-scripts/nvidia-smi": "#!/bin/bash\n"},
    "gpu-agent": {"/opt/gpu-utilization-agent/report_gpu_metrics.py": "x\n"},
    "jars": {"/usr/lib/spark/jars/rapids-4-spark_2.12-25.08.0.jar": b"PK"},
    "stamps": STAMP,
    "zeros": {"/zero": b"\0" * (3 << 20)},
    "disk-monitor": {"/run/keep-running-df": "", "/run/disk-usage.log": "/dev/sda1 1 2\n"},
    "network-report": {"/run/dpgce-network.json": "{}"},
    "logs": {"/var/log/dataproc-initialization-script-0.log": f"+ export http_proxy={SECRET}\n"},
    "ssh": {"/etc/ssh/sshd_config": "UsePAM yes\nkexalgorithms curve25519-sha256\n"},
}


def put(root: Path, things: dict[str, Content]) -> None:
    """Write them, over what is there."""
    for path, content in things.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            target.symlink_to(content.target)
        elif content is None:
            target.mkdir()
        else:
            target.write_bytes(content.encode() if isinstance(content, str) else content)
            target.chmod(0o640)
