"""What each sabotage changes in what a node tells: by name, on which good node, and how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.unit.conformance.good import (
    DIRECTORY,
    KERNEL,
    PROXY,
    RING,
    STRANGER,
    Sample,
    control,
    module,
    variables,
)

CLOSED = "http://10.0.2.100:9"

Break = Callable[[Sample], Any]
BREAKS: dict[str, tuple[str, Break]] = {}


def of(name: str, node: str = "intercepted") -> Callable[[Break], Break]:
    """Register what the sabotage ``name`` does to the good node ``node``."""

    def register(function: Break) -> Break:
        BREAKS[name] = (node, function)
        return function

    return register


def nvidia(sample: Sample, name: str) -> dict[str, Any]:
    """The facts of one module."""
    found: dict[str, Any] = next(m for m in sample.facts["modules"] if m["name"] == name)
    return found


@of("secure-boot-off")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["enabled"] = False


@of("setup-mode")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["setup_mode"] = True


@of("lockdown-none")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["lockdown"] = "none"


@of("db-without-our-certificate")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["db"] = s.facts["secure_boot"]["db"][:3]


@of("db-without-microsoft")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["db"] = s.facts["secure_boot"]["db"][3:]


@of("firmware-without-secure-boot")
def _(s: Sample) -> None:
    s.facts["secure_boot"] |= {"enabled": False, "lockdown": "none"}
    s.facts["kernel"]["tainted"] |= 1 << 13
    tainted = "nvidia: module verification failed: signature and/or required key missing"
    for name in ("unsigned", "stranger"):
        _control(s, name, 19, "ENODEV", tainted, "NVRM: No NVIDIA GPU found.")


@of("certificate-not-enrolled")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["db"].pop()
    s.facts["secure_boot"]["keyrings"][".platform"].pop()
    line = "Loading of module with unavailable key is rejected"
    _control(s, "ours", 129, "EKEYREJECTED", line)


@of("stranger-enrolled")
def _(s: Sample) -> None:
    _control(s, "stranger", 19, "ENODEV", "NVRM: No NVIDIA GPU found.")


def _control(s: Sample, name: str, errno: int, errno_name: str, *log: str) -> None:
    s.facts["controls"] = [
        control(name, errno, errno_name, *log) if c["name"] == name else c
        for c in s.facts["controls"]
    ]


@of("unsigned-module")
def _(s: Sample) -> None:
    unsigned = {"signatures": 0, "signer": None, "cert_sha256": None, "digest_ok": None}
    nvidia(s, "nvidia_uvm").update(unsigned, hash=None)


@of("signed-twice")
def _(s: Sample) -> None:
    nvidia(s, "nvidia_modeset").update(signatures=2, digest_ok=False)


@of("altered-module")
def _(s: Sample) -> None:
    nvidia(s, "nvidia").update(digest_ok=False, body_sha256="ad" * 32)
    _control(s, "ours", 129, "EKEYREJECTED")


@of("stray-module")
def _(s: Sample) -> None:
    path = "/lib/modules/6.1.0-40-amd64/extra/loop.ko"
    found = {"path": path, "kind": "tampered", "detail": "is cut off", "class": "strict"}
    s.ledger["build"]["audit"]["findings"] = [found]


@of("also: an audit of nothing")
def _(s: Sample) -> None:
    s.ledger["build"]["audit"]["modules"] = 0


@of("missing-module")
def _(s: Sample) -> None:
    s.facts["modules"].remove(nvidia(s, "nvidia_drm"))


@of("doubled-module")
def _(s: Sample) -> None:
    path = f"/lib/modules/{KERNEL}/extra/nvidia-uvm.ko"
    s.facts["modules"].append(module("nvidia-uvm", path=path))


@of("wrong-vermagic")
def _(s: Sample) -> None:
    other = nvidia(s, "nvidia_modeset")
    other.update(vermagic=f"9{other['vermagic'][1:]}", digest_ok=False)


@of("newer-kernel")
def _(s: Sample) -> None:
    s.facts["kernel"]["installed"] = [KERNEL, "99.0.0-1-amd64"]


@of("unsigned-taint")
def _(s: Sample) -> None:
    s.facts["kernel"]["tainted"] |= 8192


@of("modules-disabled")
def _(s: Sample) -> None:
    for name in ("unsigned", "stranger", "ours"):
        _control(s, name, 1, "EPERM")


@of("stale-environment")
def _(s: Sample) -> None:
    s.facts["proxy"]["environment"]["HTTP_PROXY"] = CLOSED


@of("stale-profile")
def _(s: Sample) -> None:
    s.facts["proxy"]["profile"]["HTTPS_PROXY"] = CLOSED


@of("stale-manager")
def _(s: Sample) -> None:
    s.facts["proxy"]["systemd_env_effective"]["https_proxy"] = CLOSED


@of("apt-direct")
def _(s: Sample) -> None:
    s.facts["proxy"]["apt"]["Acquire::https::Proxy"] = "DIRECT"


@of("apt-direct-host")
def _(s: Sample) -> None:
    s.facts["proxy"]["apt"]["Acquire::http::Proxy::mirror.example.org"] = "DIRECT"


@of("stale-curl")
def _(s: Sample) -> None:
    s.facts["proxy"]["curl"].append(f'proxy = "{CLOSED}"')


@of("wget-switched-off")
def _(s: Sample) -> None:
    s.facts["proxy"]["wget"].append("use_proxy = off")


@of("stale-git")
def _(s: Sample) -> None:
    s.facts["proxy"]["git"] += ["[http]", f"proxy = {CLOSED}"]


@of("stale-pip")
def _(s: Sample) -> None:
    s.facts["proxy"]["pip"] = [f"proxy = {CLOSED}"]


@of("no-proxy-network")
def _(s: Sample) -> None:
    s.facts["proxy"]["environment"]["NO_PROXY"] = "localhost,10.0.0.0/8"


@of("no-proxy-everywhere-odd")
def _(s: Sample) -> None:
    for place in ("environment", "profile", "systemd_env_effective"):
        for name in ("no_proxy", "NO_PROXY"):
            s.facts["proxy"][place][name] += ",registry.example.org:5000"


@of("service-stopped")
def _(s: Sample) -> None:
    unit = s.facts["proxy"]["unit"]["airlock-proxy.service"]
    unit.update(ActiveState="inactive", SubState="dead")


@of("service-failed")
def _(s: Sample) -> None:
    unit = s.facts["proxy"]["unit"]["airlock-proxy.service"]
    unit.update(ActiveState="failed", SubState="failed", Result="exit-code", ExecMainStatus=1)
    s.facts["systemd"].update(state="degraded", failed=["airlock-proxy.service"])


@of("password-copied", "authenticated")
def _(s: Sample) -> None:
    hit = {"path": "/etc/environment.orig", "offset": 40, "secret": 2, "form": "percent"}
    s.facts["hygiene"]["secrets"].append(hit)


@of("password-wrong", "authenticated")
def _(s: Sample) -> None:
    user, _, rest = s.home[".curlrc"].partition("@")
    s.home[".curlrc"] = f"{user.partition('//')[0]}//airlock:expired@{rest}"


@of("ca-removed")
def _(s: Sample) -> None:
    s.facts["trust"]["fingerprints"].remove(s.expect["ca_sha256"])
    s.facts["trust"]["airlock_ca"] = None
    s.trusts_ca = False


@of("ca-appended")
def _(s: Sample) -> None:
    s.facts["trust"]["fingerprints"].append(s.expect["ca_sha256"])


@of("curl-own-store")
def _(s: Sample) -> None:
    s.home[".curlrc"] = 'cacert = "/etc/ssl/certs/missing.pem"\n'


@of("curl-insecure")
def _(s: Sample) -> None:
    s.home[".curlrc"] = "insecure\n"


@of("direct-connection")
def _(s: Sample) -> None:
    s.ledger["violations"].append(
        {
            "proto": "tcp",
            "dst": "198.51.100.9",
            "port": 80,
            "name": None,
            "time": 1.0,
            "count": 2,
            "text": "tcp to 198.51.100.9 port 80, 2 packets",
        }
    )


@of("direct-name")
def _(s: Sample) -> None:
    text = "udp to 10.0.2.3 port 53, name www.example.org, 2 packets"
    s.ledger["violations"].append({"proto": "udp", "dst": "10.0.2.3", "text": text})


@of("metadata-by-proxy")
def _(s: Sample) -> None:
    s.ledger["metadata_via_proxy"] = 1


@of("request-before-proxy")
def _(s: Sample) -> None:
    build = s.ledger["build"]
    build["first_request"] = build["proxy_step_end"] - 2.5
    build["packages"] = 1


@of("request-unplanned")
def _(s: Sample) -> None:
    build = s.ledger["build"]
    build["first_request"] = build["proxy_step_end"] - 2.5
    build["hosts"]["unplanned.airlock.test"] = 1


@of("capture-blind")
def _(s: Sample) -> None:
    s.ledger |= {"probes": 0, "missing_probes": ["192.0.2.1", "2001:db8::1", "probe.invalid"]}


@of("private-key-left")
def _(s: Sample) -> None:
    s.facts["hygiene"]["private_keys"] = ["/root/.ssh/id_ed25519"]


@of("password-logged", "authenticated")
def _(s: Sample) -> None:
    hit = {"path": "/var/log/setup.log", "offset": 40, "secret": 2, "form": "percent"}
    s.facts["hygiene"]["secrets"].append(hit)


@of("package-cache-left")
def _(s: Sample) -> None:
    s.facts["hygiene"]["leftovers"] = ["/var/cache/apt/archives/gcc-12_12.2.0-14_amd64.deb"]


@of("builder-baked-in")
def _(s: Sample) -> None:
    hit = {"name": "instance/name", "offset": 4096, "path": "/etc/default/cluster"}
    s.ledger["build"]["left"]["builder"] = [hit]


@of("gpus-baked-in")
def _(s: Sample) -> None:
    s.ledger["build"]["left"]["gpu_config"]["spark"]["spark.executor.resource.gpu.amount"] = "4"


@of("also: set-up of a user's own that never set the proxy")
def _(s: Sample) -> None:
    s.expect["foreign"] = True
    s.ledger["build"]["proxy_step_end"] = None


@of("also: packages that came through tunnels")
def _(s: Sample) -> None:
    s.ledger["build"]["bumped_apt_gets"] = 0


@of("also: a cluster baked into the image")
def _(s: Sample) -> None:
    yarn = {"yarn.resourcemanager.hostname": "a-cluster-m"}
    s.ledger["build"]["left"]["gpu_config"]["yarn"]["/etc/hadoop/conf/yarn-site.xml"] = yarn


@of("also: a stamp baked into the image")
def _(s: Sample) -> None:
    s.ledger["build"]["left"]["gpu_config"]["stamp"] = {"instance": "gce:1"}


@of("ssh-host-keys-of-the-image")
def _(s: Sample) -> None:
    for key in s.facts["hygiene"]["ssh_host_keys"]:
        key["mtime"] = 1577836800.0


@of("machine-id-of-the-image")
def _(s: Sample) -> None:
    s.facts["hygiene"]["machine_id_mtime"] = 1577836800.0


@of("failed-unit")
def _(s: Sample) -> None:
    s.facts["systemd"].update(state="degraded", failed=["airlock-broken.service"])


@of("kernel-oops")
def _(s: Sample) -> None:
    line = "BUG: unable to handle page fault for address: 0000000000000010"
    s.facts["kernel_log_flags"].append({"name": "oops", "line": line})


@of("disk-full")
def _(s: Sample) -> None:
    s.facts["disk"][0]["free"] = 64 << 20


@of("clock-two-days-behind")
def _(s: Sample) -> None:
    s.facts["clock"] -= 2 * 86400


@of("port-taken")
def _(s: Sample) -> None:
    s.facts["network"]["listening"].append("tcp 127.0.0.53:53")


@of("volume-unmounted")
def _(s: Sample) -> None:
    s.facts["volumes"].append({"name": "vdc", "size": 100 << 30, "uses": []})


@of("glibc-old")
def _(s: Sample) -> None:
    s.facts["os"]["glibc"] = "2.9"


@of("nouveau-named")
def _(s: Sample) -> None:
    s.facts["loaded_modules"].append("nouveau")


@of("egress-dropped")
def _(s: Sample) -> None:
    for probe in s.facts["probes"]:
        probe.update(outcome="timeout", seconds=1.5)


@of("google-unresolved")
def _(s: Sample) -> None:
    s.expect["google_url"] = "https://storage.airlock.invalid/"


@of("curl-slowed-down")
def _(s: Sample) -> None:
    s.home[".curlrc"] = "limit-rate = 1k\n"


@of("curl-cut-short")
def _(s: Sample) -> None:
    s.home[".curlrc"] = "max-filesize = 1000000\n"


@of("key-server-script")
def _(s: Sample) -> None:
    text = "gpg --keyserver hkp://keyserver.example.org --recv-keys A4B469963BF863CC"
    s.facts["key_servers"] = [{"path": "/usr/local/sbin/add-key", "line": 1, "text": text}]


@of("tool-without-proxy")
def _(s: Sample) -> None:
    s.facts["proxy"]["tools"]["yum"]["proxies"] = []


@of("also: a tool that was never told")
def _(s: Sample) -> None:
    del s.facts["proxy"]["tools"]["unit docker"]


def ring(sample: Sample) -> dict[str, Any]:
    """The facts of the repository's keyring."""
    found: dict[str, Any] = next(
        r for r in sample.facts["repositories"]["keyrings"] if r["path"] == RING
    )
    return found


@of("keyring-of-a-stranger")
def _(s: Sample) -> None:
    ring(s)["fingerprints"] = ["4CB50190207B4758A3F73A796ED0E7B82643E131"]


@of("keyring-with-a-second-key")
def _(s: Sample) -> None:
    ring(s)["fingerprints"].append("4CB50190207B4758A3F73A796ED0E7B82643E131")


@of("keyring-private")
def _(s: Sample) -> None:
    ring(s)["mode"] = "0600"


@of("source-without-keyring")
def _(s: Sample) -> None:
    entries = s.facts["repositories"]["sources"]
    path = "/etc/apt/sources.list.d/other.sources"
    entries.append({**entries[1], "path": path, "signed_by": None})


@of("lists-too-old")
def _(s: Sample) -> None:
    s.home["apt.conf"] = 'Acquire { Check-Valid-Until "true"; Max-ValidTime "1"; };\n'


@of("apt-insecure")
def _(s: Sample) -> None:
    s.home["apt.conf"] = 'Acquire::AllowInsecureRepositories "true";\n'


@of("record-without-key")
def _(s: Sample) -> None:
    wrong = "the manifest belongs to other inputs"
    s.facts["built"][0].update(key=None, signer=None, files={}, against=wrong)


@of("entry-unsigned")
def _(s: Sample) -> None:
    s.facts["built"][0].update(signer=None, against="the manifest is not signed")


@of("entry-altered")
def _(s: Sample) -> None:
    s.facts["built"][0]["against"] = "the signature does not fit the manifest"
    s.facts["built"][0]["files"]["nvidia.ko"] = "00" * 32


@of("also: a keybox")
def _(s: Sample) -> None:
    ring(s).update(format="keybox", mode="0644")


@of("also: signed by somebody else")
def _(s: Sample) -> None:
    s.facts["built"][0]["signer"] = STRANGER


@of("daemon-without-proxy")
def _(s: Sample) -> None:
    given = {k: v for k, v in variables(PROXY).items() if k.lower() != "https_proxy"}
    daemon = {"unit": "kubelet", "pid": 900, "program": "sleep", "variables": given}
    s.facts["processes"]["daemons"].append(daemon)


@of("also: a daemon that does not know no_proxy")
def _(s: Sample) -> None:
    del s.facts["processes"]["daemons"][0]["variables"]["no_proxy"]


@of("password-shown", "authenticated")
def _(s: Sample) -> None:
    s.facts["proxy"]["credential_modes"]["/root/.curlrc"] = "0644"


@of("password-in-arguments")
def _(s: Sample) -> None:
    text = "python3 --proxy http://***@10.0.2.100:3128"
    s.facts["processes"]["arguments"] = [{"pid": 901, "text": text}]


@of("kernel-died")
def _(s: Sample) -> None:
    s.facts["kernel"]["tainted"] |= 128


@of("also: a module that was forced")
def _(s: Sample) -> None:
    s.facts["kernel"]["tainted"] |= 2


@of("inodes-used-up")
def _(s: Sample) -> None:
    full = {"path": "/srv", "size": 1 << 30, "free": 1 << 30, "inodes": 8, "inodes_free": 0}
    s.facts["disk"].append(full)


@of("drop-in-not-loaded")
def _(s: Sample) -> None:
    s.facts["systemd"]["stale"] = ["airlock-proxy.service"]


@of("shim-told-not-to-verify")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["mok_unverified"] = True


# More ways to be wrong than the sabotages show.
@of("also: a shim without generations")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["shim"]["generations"] = {}


@of("also: a shim below the firmware's level")
def _(s: Sample) -> None:
    s.facts["secure_boot"]["sbat_level"] = {"sbat": 1, "shim": 5}


@of("also: a key baked into the image")
def _(s: Sample) -> None:
    s.ledger["build"]["secrets"] = [{"name": "module signing key", "offset": 4096}]


@of("also: signed by a stranger")
def _(s: Sample) -> None:
    nvidia(s, "nvidia_drm").update(cert_sha256=STRANGER)


@of("also: another kernel's module, unsigned")
def _(s: Sample) -> None:
    path = f"{DIRECTORY.replace('6.1.0', '6.0.0')}/nvidia.ko"
    vermagic = f"{KERNEL.replace('6.1.0', '6.0.0')} SMP "
    s.facts["modules"].append(module("nvidia", path=path, signatures=0, vermagic=vermagic))
