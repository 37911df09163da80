"""Good nodes, as facts of two real Debian 12 machines would tell of them.

What is asked of a node by a command (curl, stat) runs on this machine against a small real proxy:
``Sample.home`` holds what root's home directory on the node would.
"""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

from tests.unit.conformance import good_deferred

KERNEL = "6.1.0-40-cloud-amd64"
CERT = "5e" * 32
STRANGER = "77" * 32
CA_OF_OTHERS = "c0" * 32
PROXY = "http://10.0.2.100:3128"
NO_PROXY = (
    "localhost,127.0.0.1,::1,169.254.169.254,metadata.google.internal,"
    ".google.com,google.com,.googleapis.com,googleapis.com,origin-direct.test"
)
BUILT = 1_790_000_000.0
MODULES = ("nvidia", "nvidia-uvm", "nvidia-modeset", "nvidia-drm", "nvidia-peermem")
SOURCE = "/etc/apt/sources.list.d/airlock-lab.sources"
RING = "/usr/share/keyrings/airlock-lab.gpg"
DISTRIBUTION = "/usr/share/keyrings/debian-archive-keyring.gpg"
PINNED = "0123456789ABCDEF" * 2 + "01234567"
URIS = "https://origin.airlock.test:18443/deb"
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
DIRECTORY = f"/lib/modules/{KERNEL}/updates/airlock"


@dataclass
class Sample:
    """One node as the checks see it. ``home``: name -> text of files in root's home.

    ``trusts_ca``: whether curl's own store on this node holds the proxy's CA.
    """

    name: str
    facts: dict[str, Any]
    expect: dict[str, Any]
    ledger: dict[str, Any]
    home: dict[str, str] = field(default_factory=dict)
    trusts_ca: bool = True

    def copy(self, name: str) -> Sample:
        """The same node under another name, to be broken."""
        made = copy.deepcopy(self)
        made.name = name
        return made


def module(name: str, **other: Any) -> dict[str, Any]:
    """A module of ours, as the node describes it."""
    return {
        "path": f"{DIRECTORY}/{name}.ko",
        "kernel": KERNEL,
        "name": name.replace("-", "_"),
        "vermagic": f"{KERNEL} SMP preempt mod_unload modversions ",
        "version": "535.247.01",
        "size": 11_000_000,
        "compressed": None,
        "signatures": 1,
        "signer": {"issuer_cn": "Airlock lab module signing", "serial": "4711", "key_id": None},
        "cert_sha256": CERT,
        "digest_ok": True,
        "hash": "sha256",
        "sha256": "ab" * 32,
        "body_sha256": hashlib.sha256(name.encode()).hexdigest(),
        "owner": None,
        **other,
    }


def variables(url: str) -> dict[str, str]:
    """The six proxy variables, both cases."""
    lower = {"http_proxy": url, "https_proxy": url, "no_proxy": NO_PROXY}
    return {**lower, **{name.upper(): value for name, value in lower.items()}}


def control(name: str, errno: int, errno_name: str, *log: str) -> dict[str, Any]:
    """The answer to one load control."""
    return {
        "name": name,
        "module": "nvidia",
        "errno": errno,
        "errno_name": errno_name,
        "kernel_log": list(log),
    }


def _proxy(url: str, credential_files: list[str]) -> dict[str, Any]:
    direct = [host for host in NO_PROXY.split(",") if host[0] not in ".:"]
    apt = {f"Acquire::{scheme}::Proxy": url for scheme in ("http", "https")}
    apt |= {
        f"Acquire::{scheme}::Proxy::{host}": "DIRECT"
        for scheme in ("http", "https")
        for host in [*direct, "packages.cloud.google.com", "dl.google.com"]
    }
    unit = {
        "LoadState": "loaded",
        "ActiveState": "active",
        "SubState": "exited",
        "UnitFileState": "enabled",
        "Result": "success",
        "ExecMainStatus": 0,
    }
    return {
        "environment": variables(url),
        "profile": variables(url),
        "systemd_manager": variables(url),
        "systemd_env_effective": variables(url),
        "apt": apt,
        "dnf": [],
        "curl": [f'proxy = "{url}"', f'noproxy = "{NO_PROXY}"'],
        "wget": [
            *("use_proxy = on", f"http_proxy = {url}", f"https_proxy = {url}"),
            f"no_proxy = {NO_PROXY}",
        ],
        "git": ["[http]", f'proxy = "{url}"'],
        "pip": ["proxy = "],
        "tools": {
            name: {"path": path, "proxies": proxies, "refers": refers}
            for name, path, proxies, refers in (
                ("environment", "/etc/environment", ["10.0.2.100:3128"], []),
                ("yum", "/etc/yum.conf", ["10.0.2.100:3128"], []),
                ("sudo", "/etc/sudoers.d/airlock-proxy", [], ["http_proxy https_proxy"]),
                ("unit docker", "/etc/systemd/x.conf", [], ["/etc/airlock/proxy.env"]),
            )
        },
        "credential_files": credential_files,
        "credential_modes": dict.fromkeys(credential_files, "0600"),
        "users": {},
        "settings_url": "http://169.254.169.254",
        "unit": {"airlock-proxy.service": unit},
    }


def _secure_boot() -> dict[str, Any]:
    names = ("Microsoft Windows Production PCA 2011", "Microsoft Corporation UEFI CA 2011")
    new = "Microsoft UEFI CA 2023"
    ours = "Airlock lab module signing"
    keys = [{"description": f"Microsoft Corporation: {name}", "keyid": "a9" * 20} for name in names]
    return {
        "efi": True,
        "enabled": True,
        "setup_mode": False,
        "lockdown": "integrity",
        "keyrings": {
            ".platform": [*keys, {"description": ours, "keyid": "11" * 20}],
            ".machine": [{"description": "Debian Secure Boot CA", "keyid": "6c" * 20}],
            ".builtin_trusted_keys": [],
            ".secondary_trusted_keys": [],
        },
        "db": [
            *(
                {"sha256": f"{number}f" * 32, "subject_cn": name}
                for number, name in enumerate((*names, new))
            ),
            {"sha256": CERT, "subject_cn": ours},
        ],
        "dbx_entries": 1,
        "mok": [{"sha256": "de" * 32, "subject_cn": "Debian Secure Boot CA"}],
        "mok_unverified": False,
        "shim": {"path": "/usr/lib/shim/shimx64.efi.signed", "generations": {"sbat": 1, "shim": 4}},
        "sbat_level": {"sbat": 1, "shim": 2},
    }


def entry() -> dict[str, Any]:
    """The cache's entry beside the modules, and its signature."""
    return {
        "key": "e7" * 32,
        "outcome": "hit",
        "store": "file:///var/cache/airlock/modules",
        "signer": CERT,
        "against": "",
        "files": {f"{name}.ko": module(name)["body_sha256"] for name in MODULES},
    }


def _built() -> dict[str, Any]:
    record = {"driver": module("nvidia")["version"], "made_for": KERNEL}
    return {"kernel": KERNEL, **entry(), **record}


def _trust(ca: str, bundle: str) -> dict[str, Any]:
    """The store, and what tools are told beside it."""
    anchor = "/usr/local/share/ca-certificates/airlock-proxy.crt"
    places = ("environment", "profile", "systemd")
    names = (
        *("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS"),
        "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    )
    far = time.time() + 3650 * 86400.0
    return {
        "os_bundle": bundle,
        "mode": "0644",
        "fingerprints": [CA_OF_OTHERS, ca],
        "count": 2,
        "airlock_ca": {"path": anchor, "sha256": ca},
        "anchors": [{"path": anchor, "fingerprints": [ca], "read": True, "taken": True}],
        "links": {"hashed": {ca: ["0a775a30.0"]}, "dangling": []},
        "private": [{"sha256": ca, "name": "Airlock lab proxy CA", "ends": far, "why": ""}],
        "stores": [],
        "settings": {
            **{place: dict.fromkeys(names, BUNDLE) for place in places},
            "git": {"http.sslCAInfo": BUNDLE},
            "pip": {"global.cert": BUNDLE},
        },
        "files": {BUNDLE: [CA_OF_OTHERS, ca]},
        "unverified": [],
    }


def _boot() -> dict[str, Any]:
    kernel = {
        "release": KERNEL,
        "image": {"path": f"/boot/vmlinuz-{KERNEL}", "size": 14 << 20},
        "signed": True,
        "initrd": {"path": f"/boot/initrd.img-{KERNEL}", "size": 13 << 20},
        "archive": True,
        "unlisted": [],
        "lost": [],
    }
    settings = {"blacklist": ["nouveau"], "install": {}, "ignored": []}
    return {"kernels": [kernel], "modprobe": settings, "dkms": []}


def _inherited() -> dict[str, Any]:
    kinds = ("cloud-init", "leases", "random-seed", "apt-lists", "logs", "identities")
    lists = ("authorized_keys", "traces", "credentials", "stale_locks", "network_names")
    more = ("writable", "partial", "passwords")
    return {
        "dated": {kind: [] for kind in kinds},
        **{name: [] for name in (*lists, *more)},
    }


def _repositories() -> dict[str, Any]:
    distribution = {"path": "/etc/apt/sources.list.d/debian.sources", "suites": "bookworm"}
    return {
        "keyrings": [
            {
                "path": RING,
                "mode": "0644",
                "format": "binary",
                "fingerprints": [PINNED],
                "keys": [{"fingerprint": PINNED, "ends": None, "unusable": "", "weak": ""}],
                "why": None,
            }
        ],
        "trusted": [],
        "sources": [
            {
                **distribution,
                "uris": "http://mirror.airlock.test/debian",
                "signed_by": None,
                "unchecked": None,
            },
            {
                "path": SOURCE,
                "uris": URIS,
                "suites": "stable",
                "signed_by": RING,
                "unchecked": None,
            },
        ],
    }


def _inodes(every: int, free: int) -> dict[str, int]:
    return {"inodes": every, "inodes_free": free}


def _agent() -> dict[str, Any]:
    program = {"unit": "google-dataproc-agent", "pid": 412, "program": "/usr/bin/java"}
    return {**program, "variables": variables(PROXY)}


def _facts(ca: str, bundle: str) -> dict[str, Any]:
    now = time.time()
    return {
        "schema": 1,
        "unreadable": {},
        "clock": now,
        "received": now + 0.2,
        "os": {"id": "debian", "version_id": "12", "codename": "bookworm", "glibc": "2.36"},
        "network": {
            "listening": ["tcp 0.0.0.0:22", "tcp [::]:22"],
            "resolv": ["10.0.2.3"],
            "interfaces": [{"name": "eth0", "mac": "52:54:00:12:34:56"}],
        },
        "boot": _boot(),
        "processes": {"daemons": [_agent()], "arguments": []},
        "upkeep": {
            "fstab": [{"what": "/dev/vda", "where": "/", "mounted": True}],
            "temporary": {"/tmp": "1777", "/var/tmp": "1777"},
            "unfinished": {},
            "own_name": "/etc/hosts: 127.0.1.1",
            "time_sources": [],
        },
        "installers": [{"name": "trust", "outcome": "ok"}],
        "identity": good_deferred.IDENTITY,
        "gpu_config": good_deferred.gpu_config(),
        "environments": good_deferred.environments(),
        "volumes": [
            {"name": "vda", "size": 100 << 30, "uses": ["/"]},
            {"name": "vdb", "size": 90 << 20, "uses": []},
        ],
        "key_servers": [],
        "kernel": {
            "release": KERNEL,
            "tainted": 1 << 12,
            "installed": [KERNEL],
            "module_sig_enforce": True,
            "cmdline": "BOOT_IMAGE=/boot/vmlinuz root=/dev/vda ro",
        },
        "secure_boot": _secure_boot(),
        "proxy": _proxy(PROXY, []),
        "trust": _trust(ca, bundle),
        "modules": [module(name) for name in MODULES],
        "built": [_built()],
        "repositories": _repositories(),
        "loaded_modules": ["ext4", "virtio_net"],
        "signing": {"path": "/usr/lib/airlock/signing-cert.der", "certificate_sha256": CERT},
        "controls": [
            control("unsigned", 129, "EKEYREJECTED", "Loading of unsigned module is rejected"),
            control(
                *("stranger", 129, "EKEYREJECTED"),
                "Loading of module with unavailable key is rejected",
            ),
            control(
                *("ours", 19, "ENODEV", "nvidia: loading out-of-tree module taints kernel."),
                *("NVRM: No NVIDIA GPU found.", "nvidia-nvlink: Unregistered Nvlink Core"),
            ),
        ],
        "probes": [
            {"target": "tcp 192.0.2.1:443", "outcome": "ECONNREFUSED", "seconds": 0.1},
            {"target": "tcp [2001:db8::1]:443", "outcome": "ECONNREFUSED", "seconds": 0.1},
            {"target": "dns probe.invalid", "outcome": "timeout", "seconds": 1.5},
        ],
        "systemd": {"state": "running", "failed": [], "version": "252", "stale": []},
        "disk": [
            {"path": "/", "size": 6 << 30, "free": 3 << 30, **_inodes(393_216, 350_000)},
            {"path": "/run", "size": 200 << 20, "free": 199 << 20, **_inodes(0, 0)},
        ],
        "hygiene": {
            **_inherited(),
            "private_keys": [],
            "secrets": [],
            "files": 4312,
            "leftovers": [],
            "ssh_host_keys": [{"path": "/etc/ssh/ssh_host_ed25519_key", "mtime": now}],
            "machine_id": "0123456789abcdef0123456789abcdef",
            "machine_id_mtime": now,
        },
        "packages": {"openssh-server": "1:9.2p1-2", "gcc-12-base": "12.2.0-14", "python3": "3.11"},
        "kernel_log_flags": [
            {"name": "module-rejected", "line": "Loading of unsigned module is rejected"},
            {"name": "nvrm", "line": "NVRM: No NVIDIA GPU found."},
            {"name": "hung-task", "line": "INFO: task blocked for more than 120 seconds."},
        ],
    }


def _ledger(intercept: bool) -> dict[str, Any]:
    seen = {
        "requests": 0,
        "google_direct": 0,
        "violations": [],
        "metadata_via_proxy": 0,
        "probes": 5,
        "missing_probes": [],
        "truncated": False,
        "first_request": None,
        "bumped_apt_gets": 0,
    }
    build = {
        **seen,
        "requests": 104,
        "first_request": BUILT + 3.2,
        "proxy_step_end": BUILT,
        "packages": 0,
        "hosts": {"mirror.example.org": 102, "origin.airlock.test": 2},
        "planned": ["mirror.example.org", "origin.airlock.test:8443", "169.254.169.254"],
        "bumped_apt_gets": 100 if intercept else 0,
        "inherited": None,
        "secrets": [],
        "left": {"gpu_config": {"yarn": {}, "spark": {"spark.master": "yarn"}}, "builder": []},
        "audit": {"modules": 4012, "distribution": 4007, "findings": [], "exit": 0},
    }
    return {**seen, "build": copy.deepcopy(build)}


def intercepted(ca: str, bundle: str, proxy: str, port: int) -> Sample:
    """debian-12 behind the intercepting proxy. ``proxy`` is where the small real one listens."""
    expect = {
        "ca_sha256": ca,
        "cert_sha256": CERT,
        "boot_kernel": KERNEL,
        "image_built": time.time() - 3600.0,
        "proxy_url_redacted": PROXY,
        "origin_url": f"https://origin.airlock.test:{port}/",
        "origin_http_url": f"http://origin.airlock.test:{port}/",
        "secure_boot": True,
        "intercept": True,
        "auth": False,
        "gpu": False,
        "deferred": True,
        "environments": good_deferred.ENVIRONMENTS,
        "restarted": True,
        "rehearsed": good_deferred.rehearsed(),
        "refuses": True,
        "ports": [53],
        "glibc": "2.36",
        "proxy_tools": ["environment", "yum", "sudo", "unit docker"],
        "repository": {
            "keyring": RING,
            "source": SOURCE,
            "uris": URIS,
            "fingerprints": [PINNED],
        },
        "google_url": None,
        "real_proxy": proxy,
    }
    return Sample("intercepted", _facts(ca, bundle), expect, _ledger(True))


def mute(sample: Sample) -> Sample:
    """A node of which nothing could be read."""
    made = sample.copy("mute")
    made.facts = {"unreadable": {"modules": "the disk is gone", "proxy": "the disk is gone"}}
    return made


def authenticated(ca: str, bundle: str, proxy: str, port: int, login: str) -> Sample:
    """debian-12 behind the proxy that asks for a password; ``login`` is ``user:password``."""
    sample = intercepted(ca, bundle, proxy, port).copy("authenticated")
    sample.expect |= {"ca_sha256": None, "intercept": False, "auth": True}
    files = [
        *("/etc/apt/apt.conf.d/99zz-airlock-proxy", "/etc/environment", "/etc/gitconfig"),
        *("/etc/profile.d/airlock-proxy.sh", "/etc/wgetrc", "/root/.curlrc"),
    ]
    sample.facts["proxy"] = _proxy("http://***@10.0.2.100:3128", files)
    daemon = sample.facts["processes"]["daemons"][0]
    daemon["variables"] = variables("http://***@10.0.2.100:3128")
    sample.facts["trust"]["private"] = []
    sample.facts["hygiene"]["secrets"] = [
        {"path": path, "offset": 40, "secret": 2, "form": "percent"} for path in files
    ]
    sample.ledger["build"]["bumped_apt_gets"] = 0
    sample.home[".curlrc"] = f'proxy = "http://{login}@{proxy.partition("://")[2]}"\n'
    return sample
