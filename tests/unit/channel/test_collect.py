"""What the collectors make of a tree of files, and of the texts the kernel prints."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import lzma
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installers import driver
from installers.collect import (
    certificates,
    hygiene,
    inherited,
    kmsg,
    modules,
    network,
    packages,
    proxy,
    remember,
    search,
    trust,
)
from installers.collect.reader import Reader, assignments
from installers.config import from_attributes
from installers.dialects import base as dialects
from installers.facts import Collector
from installers.proxy import dialects as every_dialect

PEM = b"-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n"


def put(root: Path, path: str, data: str | bytes) -> Path:
    """A file in a node's tree."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def test_an_absolute_link_stays_in_the_image(tmp_path: Path) -> None:
    put(tmp_path, "/run/real.conf", "nameserver 10.0.2.3\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/resolv.conf").symlink_to("/run/real.conf")
    (tmp_path / "etc/up").symlink_to("../../../../etc/resolv.conf")
    (tmp_path / "etc/loop").symlink_to("loop")
    reader = Reader(str(tmp_path))
    assert reader.text("/etc/resolv.conf") == "nameserver 10.0.2.3\n"
    assert reader.text("/etc/up") == "nameserver 10.0.2.3\n"
    assert reader.text("/etc/loop", "a.loop") is None
    assert "a.loop" in reader.unreadable


def test_an_image_has_facts_and_says_what_only_a_running_node_has(tmp_path: Path) -> None:
    put(tmp_path, "/etc/os-release", 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n')
    put(tmp_path, "/etc/machine-id", "uninitialized\n")
    put(tmp_path, "/lib/modules/6.1.0-56-cloud-amd64/modules.dep", "")
    facts = Collector(str(tmp_path)).collect()
    assert facts["os"]["version_id"] == "12"
    assert facts["hygiene"]["machine_id"] == "uninitialized"
    assert facts["kernel"]["installed"] == ["6.1.0-56-cloud-amd64"]
    assert facts["kernel"]["release"] is None
    assert "only a running node" in facts["unreadable"]["kernel.release"]
    assert facts["secure_boot"]["enabled"] is None


def test_a_broken_collector_costs_its_own_facts_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_reader: Reader) -> None:
        raise RuntimeError("no such luck")

    monkeypatch.setattr(packages, "collect", broken)
    facts = Collector(str(tmp_path)).collect("n")
    assert facts["packages"] is None
    assert facts["unreadable"]["packages"] == "RuntimeError: no such luck"
    assert facts["nonce"] == "n"


def test_the_signing_certificate_is_where_the_driver_leaves_it() -> None:
    assert modules.CERTIFICATE == driver.CERTIFICATE


class TestProxy:
    def test_every_place_is_read_and_redacted(self, tmp_path: Path) -> None:
        url = "http://user:p%40ss@10.0.2.100:3128"
        shown = "http://***@10.0.2.100:3128"
        put(tmp_path, "/etc/environment", f'PATH=/bin\nhttp_proxy="{url}"\nNO_PROXY=.google.com\n')
        put(tmp_path, "/etc/profile.d/a.sh", f"export https_proxy='{url}'\nexport OTHER=1\n")
        put(tmp_path, "/etc/apt/apt.conf.d/99", f'Acquire::http::Proxy "{url}";\n')
        put(
            tmp_path,
            "/etc/systemd/system.conf.d/p.conf",
            f'[Manager]\nDefaultEnvironment="http_proxy={url.replace("%", "%%")}" no_proxy=a\n',
        )
        put(tmp_path, "/root/.curlrc", f'# proxy = "none"\nproxy = "{url}"\n')
        put(
            tmp_path,
            "/etc/systemd/system/airlock-proxy.service",
            "[Service]\nExecStart=/usr/bin/python3 x apply --metadata http://169.254.169.254\n",
        )
        facts = proxy.collect(Reader(str(tmp_path)), {"http_proxy": url, "PATH": "/bin"})
        assert facts["environment"] == {"http_proxy": shown, "NO_PROXY": ".google.com"}
        assert facts["profile"] == {"https_proxy": shown}
        assert facts["apt"] == {"Acquire::http::Proxy": shown}
        assert facts["systemd_manager"] == {"http_proxy": shown, "no_proxy": "a"}
        assert facts["systemd_env_effective"] == {"http_proxy": shown}
        assert facts["curl"] == [f'proxy = "{shown}"']
        assert facts["settings_url"] == "http://169.254.169.254"
        assert facts["credential_files"] == [
            "/etc/apt/apt.conf.d/99",
            "/etc/environment",
            "/etc/profile.d/a.sh",
            "/etc/systemd/system.conf.d/p.conf",
            "/root/.curlrc",
        ]
        assert "p%40ss" not in str(facts)

    def test_what_the_installers_write_is_what_the_facts_read(self, tmp_path: Path) -> None:
        url = "http://us%40er:p%40%3A%2F%25%23@10.0.2.100:3128"
        keys = {"http-proxy": url, "https-proxy": url, "no-proxy": "origin.test"}
        want = dialects.wanted(from_attributes(keys).proxy, credentials=True)
        written = every_dialect()
        for dialect in written:
            put(tmp_path, dialect.path, dialect.write("", dialect.settings(want)))
        facts = proxy.collect(Reader(str(tmp_path)))
        shown = "http://***@10.0.2.100:3128"
        for place in ("environment", "profile", "systemd_manager"):
            assert facts[place]["https_proxy"] == facts[place]["HTTP_PROXY"] == shown
            assert "origin.test" in facts[place]["no_proxy"]
        assert facts["apt"]["Acquire::https::Proxy"] == shown
        assert facts["apt"]["Acquire::http::Proxy::origin.test"] == "DIRECT"
        for tool in ("curl", "wget", "git"):
            assert any(shown in line for line in facts[tool]), tool
        assert facts["pip"] == ["proxy ="]
        read = {"/etc/environment", "/etc/wgetrc", "/etc/gitconfig"}
        assert read <= set(facts["credential_files"]) <= {dialect.path for dialect in written}

    def test_files_that_the_installer_reports_are_listed_too(self, tmp_path: Path) -> None:
        """Maven's settings and boto's hold a credential in no form that shows it to be one."""
        listed = {"credential_files": ["/etc/boto.cfg"]}
        state = {"installers": {"proxy": {"provenance": listed}}}
        put(tmp_path, "/var/lib/airlock/state.json", json.dumps(state))
        assert proxy.collect(Reader(str(tmp_path)))["credential_files"] == ["/etc/boto.cfg"]

    def test_apt_blocks_are_read(self) -> None:
        text = 'Acquire {\n  http { Proxy "http://a:1"; Proxy::b.org "DIRECT"; };\n};\nAPT::X "y";'
        assert proxy.apt(text) == {
            "Acquire::http::Proxy": "http://a:1",
            "Acquire::http::Proxy::b.org": "DIRECT",
        }

    @given(st.text("@:/%#?&=abc", min_size=1, max_size=12))
    def test_no_raw_password_survives(self, password: str) -> None:
        text = f'proxy = "http://user:S{password}T@proxy.example:3128"'
        assert proxy.redact(text) == 'proxy = "http://***@proxy.example:3128"'


class TestTrust:
    def test_fingerprints_are_of_the_der(self) -> None:
        ders = [b"one", b"two" * 100]
        blocks = [
            b"-----BEGIN CERTIFICATE-----\n"
            + base64.encodebytes(der)
            + b"-----END CERTIFICATE-----\n"
            for der in ders
        ]
        bundle = b"# comment\n" + b"\n".join(blocks)
        assert certificates.fingerprints(bundle) == [
            hashlib.sha256(der).hexdigest() for der in ders
        ]

    def test_a_block_that_is_no_base64_is_left_out(self) -> None:
        assert (
            certificates.fingerprints(b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE--")
            == []
        )

    def test_this_machines_bundle_is_the_one_openssl_reads(self) -> None:
        import ssl

        found = trust.collect(Reader())
        if found["os_bundle"] is None:
            pytest.skip("this machine has no bundle")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(found["os_bundle"])
        loaded = {hashlib.sha256(der).hexdigest() for der in context.get_ca_certs(True)}
        assert loaded <= set(found["fingerprints"])
        assert loaded


class TestPackages:
    def test_only_installed_packages_count(self) -> None:
        status = (
            b"Package: a\nStatus: install ok installed\nPriority: x\nVersion: 1:2-3\n\n"
            b"Package: b\nStatus: hold ok installed\nVersion: 7\nDescription: x\n\n"
            b"Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n"
            b"Package: half\nStatus: install ok half-installed\nVersion: 1\n"
        )
        assert packages.dpkg(status) == {"a": "1:2-3", "b": "7"}

    def test_dpkg_itself_says_the_same(self) -> None:
        import shutil
        import subprocess

        if shutil.which("dpkg-query") is None:
            pytest.skip("this machine has no dpkg")
        shown = subprocess.run(
            ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Package} ${Version}\n"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        rows = [line.split() for line in shown.splitlines()]
        wanted = {row[1]: row[2] for row in rows if row[0] == "installed"}
        assert packages.collect(Reader()) == wanted


class TestNetwork:
    def test_routes_as_the_kernel_prints_them(self) -> None:
        text = (
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
            "ens3\t00000000\t0202000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\n"
            "ens3\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        )
        assert network.routes(text) == [
            {
                "interface": "ens3",
                "destination": "0.0.0.0/0",
                "gateway": "10.0.2.2",
                "metric": 100,
            },
            {"interface": "ens3", "destination": "10.0.2.0/24", "gateway": None, "metric": 0},
        ]

    def test_a_listening_socket_of_ours_is_seen(self) -> None:
        import socket

        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            with socket.socket(family) as server:
                server.bind((address, 0))
                server.listen()
                port = server.getsockname()[1]
                shown = f"[{address}]" if ":" in address else address
                assert f"tcp {shown}:{port}" in network.collect(Reader())["listening"]

    def test_interfaces_have_the_addresses_the_kernel_gives(self) -> None:
        found = network.collect(Reader())
        assert "network.interfaces.addresses" not in found
        for interface in found["interfaces"]:
            assert all(re.fullmatch(r"[0-9a-f.:]+/\d+", a) for a in interface["addresses"])


class TestHygiene:
    @pytest.mark.parametrize(
        ("write", "form"),
        [
            (lambda s: s, "plain"),
            (lambda s: quote(s.decode(), safe="").encode(), "percent"),
            (lambda s: quote(s.decode(), safe="").lower().encode(), "percent-lower"),
            (lambda s: s.decode().encode("utf-16-le"), "utf-16-le"),
            (lambda s: s.decode().encode("utf-16-be"), "utf-16-be"),
            (lambda s: base64.b64encode(b"user:" + s), "base64"),
            (lambda s: base64.b64encode(b"us:" + s), "base64"),
            (lambda s: base64.b64encode(b"use:" + s), "base64"),
        ],
    )
    def test_a_secret_is_found_in_every_form(
        self, tmp_path: Path, write: Callable[[bytes], bytes], form: str
    ) -> None:
        secret = b"c@n:a/r%y#1234"
        put(tmp_path, "etc/hidden", b"x" * 5000 + write(secret) + b"y" * 5000)
        put(tmp_path, "etc/clean", b"nothing here")
        found = search.search([b"not this one", secret], [str(tmp_path)])
        assert {(hit["path"], hit["secret"]) for hit in found["secrets"]} == {
            (f"{tmp_path}/etc/hidden", 1)
        }
        assert found["secrets"][0]["form"].startswith(form)
        assert secret.decode() not in str(found)

    @given(st.binary(min_size=12, max_size=24), st.binary(max_size=8), st.binary(max_size=8))
    def test_base64_hides_nothing(self, secret: bytes, before: bytes, after: bytes) -> None:
        needles = search.forms(secret)
        coded = base64.b64encode(before + secret + after)
        assert any(needle in coded for needle in needles.values())

    @pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".xz", lzma.open)])
    def test_packed_files_are_searched_across_their_chunks(
        self,
        tmp_path: Path,
        suffix: str,
        opener: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(search, "CHUNK", 1000)
        with opener(tmp_path / f"log{suffix}", "wb") as file:
            file.write(b"a" * 995 + b"canary-canary" + b"b" * 5000)
        found = search.search([b"canary-canary"], [str(tmp_path)])
        assert [hit["offset"] for hit in found["secrets"]] == [995]

    def test_what_was_only_set_aside_for_a_file_is_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A disk image or a swap file has gigabytes of it; what was written there is found."""
        path = tmp_path / "disk.img"
        places = [20 << 20, (63 << 20) + 7]
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 64 << 20)
            for offset in places:
                file.seek(offset)
                file.write(b"canary-canary")
        read: list[int] = []
        scan = search._Needles.scan

        def counted(self: search._Needles, data: bytes, base: int) -> Iterator[search.Hit]:
            read.append(len(data))
            return scan(self, data, base)

        monkeypatch.setattr(search._Needles, "scan", counted)
        found = search.search([b"canary-canary"], [str(tmp_path)])
        assert [hit["offset"] for hit in found["secrets"]] == places
        assert found["bytes"] == 64 << 20
        assert sum(read) < 4 << 20

    def test_a_second_search_reads_what_somebody_touched_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And everything for another secret: what was looked for then was not this one."""
        for name in ("clean", "leak", "later"):
            put(tmp_path, name, "canary-canary" if name == "leak" else "nothing here")
        time.sleep(remember.FRESH + 0.1)
        read: list[str] = []
        scan = search._scan_file

        def counted(path: str, needles: search._Needles) -> Iterator[search.Hit]:
            read.append(Path(path).name)
            return scan(path, needles)

        monkeypatch.setattr(search, "_scan_file", counted)
        found = search.Found()

        def leaks(secret: bytes = b"canary-canary") -> list[str]:
            read.clear()
            told = search.search([secret], [str(tmp_path)], found=found)
            assert told["files"] == 3
            return sorted(Path(hit["path"]).name for hit in told["secrets"])

        assert (leaks(), sorted(read)) == (["leak"], ["clean", "later", "leak"])
        assert (leaks(), read) == (["leak"], [])
        put(tmp_path, "later", "canary-canary")
        assert (leaks(), read) == (["later", "leak"], ["later"])
        assert (leaks(b"another one"), sorted(read)) == ([], ["clean", "later", "leak"])

    def test_a_file_of_nothing_but_a_hole_holds_no_secret(self, tmp_path: Path) -> None:
        with (tmp_path / "hole").open("wb") as file:
            file.truncate(1 << 20)
        assert search.search([b"canary-canary"], [str(tmp_path)])["secrets"] == []

    def test_private_keys_are_found_by_content(self, tmp_path: Path) -> None:
        from cryptography.hazmat.primitives import serialization as s
        from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

        keys: dict[str, Any] = {
            "rsa": rsa.generate_private_key(65537, 2048),
            "ec": ec.generate_private_key(ec.SECP256R1()),
            "ed": ed25519.Ed25519PrivateKey.generate(),
        }
        wanted: set[str] = set()
        for name, key in keys.items():
            for encoding in (s.Encoding.PEM, s.Encoding.DER):
                for form in (s.PrivateFormat.PKCS8, s.PrivateFormat.TraditionalOpenSSL):
                    if name == "ed" and form is not s.PrivateFormat.PKCS8:
                        continue
                    data = key.private_bytes(encoding, form, s.NoEncryption())
                    path = f"/{name}-{len(wanted)}.bin"
                    put(tmp_path, path, data)
                    wanted.add(str(tmp_path) + path)
        put(tmp_path, "/public.pem", b"-----BEGIN PUBLIC KEY-----\n")
        put(tmp_path, "/etc/ssh/ssh_host_rsa_key", PEM)
        found = search.search([], [str(tmp_path)])
        assert set(found["private_keys"]) == wanted

    def test_facts_look_in_the_usual_places(self, tmp_path: Path) -> None:
        put(tmp_path, "/usr/lib/airlock/signing.key", PEM)
        put(tmp_path, "/etc/ssh/ssh_host_ed25519_key", PEM)
        put(tmp_path, "/var/cache/apt/archives/gcc.deb", "")
        put(tmp_path, "/tmp/left", "")
        found = hygiene.collect(Reader(str(tmp_path)))
        assert found["private_keys"] == ["/usr/lib/airlock/signing.key"]
        assert [key["path"] for key in found["ssh_host_keys"]] == ["/etc/ssh/ssh_host_ed25519_key"]
        assert found["leftovers"] == ["/tmp/left", "/var/cache/apt/archives/gcc.deb"]

    def test_what_cloud_init_writes_anew_is_about_no_other_machine(self, tmp_path: Path) -> None:
        """Unless somebody has switched it off: the image's file then stays as it is."""
        card = "52:54:00:12:34:56"
        put(tmp_path, "/etc/netplan/50-cloud-init.yaml", f"match: {{macaddress: '{card}'}}\n")
        put(tmp_path, "/etc/netplan/90-ours.yaml", f"match: {{macaddress: '{card}'}}\n")

        def told() -> list[str]:
            found = inherited.collect(Reader(str(tmp_path)))["network_names"]
            return [one["path"] for one in found]

        both = ["/etc/netplan/50-cloud-init.yaml", "/etc/netplan/90-ours.yaml"]
        assert told() == both
        put(tmp_path, "/usr/bin/cloud-init", "#!/usr/bin/python3\n")
        assert told() == both[1:]
        put(tmp_path, "/etc/cloud/cloud-init.disabled", "")
        assert told() == both

    def test_cloud_inits_folder_of_this_boot_is_no_leftover(self, tmp_path: Path) -> None:
        put(tmp_path, "/var/tmp/cloud-init/x", "")
        put(tmp_path, "/var/tmp/cloud-init-of-the-builder", "")
        found = hygiene.collect(Reader(str(tmp_path)))
        assert found["leftovers"] == ["/var/tmp/cloud-init-of-the-builder"]

    def test_a_secret_that_would_be_everywhere_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 4 bytes"):
            search.search([b"abc"])


class TestModules:
    def test_owned_modules_are_left_out_and_nvidia_is_always_told(self, tmp_path: Path) -> None:
        tree = "/lib/modules/6.1"
        put(tmp_path, f"{tree}/kernel/owned.ko", "x")
        put(tmp_path, f"{tree}/kernel/nvidia-uvm.ko", "x")
        put(tmp_path, f"{tree}/updates/stranger.ko.xz", "x")
        put(tmp_path, "/var/lib/dpkg/status", "")
        listed = f"/usr{tree}/kernel/owned.ko\n{tree}/kernel/nvidia-uvm.ko\n"
        put(tmp_path, "/var/lib/dpkg/info/linux-image-6.1.list", listed)
        reader = Reader(str(tmp_path))
        found = modules.collect(reader, [], modules.Seen())
        assert [(m["path"], m["owner"], m["compressed"]) for m in found] == [
            (f"{tree}/kernel/nvidia-uvm.ko", "linux-image-6.1", None),
            (f"{tree}/updates/stranger.ko.xz", None, "xz"),
        ]
        # Neither is an ELF file: that is said, and the rest of the entry stands.
        assert f"modules.{tree}/kernel/nvidia-uvm.ko" in reader.unreadable
        assert found[0]["name"] == "nvidia_uvm"

    def test_a_module_that_appears_or_goes_is_seen_at_once(self, tmp_path: Path) -> None:
        put(tmp_path, "/var/lib/dpkg/status", "")
        put(tmp_path, "/lib/modules/6.1/kernel/a.ko", "x")
        time.sleep(remember.FRESH + 0.1)
        reader, seen = Reader(str(tmp_path)), modules.Seen()

        def names() -> list[str]:
            return [module["name"] for module in modules.collect(reader, [], seen)]

        assert names() == ["a"]
        new = put(tmp_path, "/lib/modules/6.1/updates/b.ko", "x")
        assert names() == ["a", "b"]
        listed = put(tmp_path, "/var/lib/dpkg/info/linux-b.list", "/lib/modules/6.1/updates/b.ko")
        assert names() == ["a"]
        listed.unlink()
        new.rename(new.with_name("c.ko"))
        assert names() == ["a", "c"]


class TestRemembered:
    def test_an_unchanged_file_is_read_once(self, tmp_path: Path) -> None:
        file = put(tmp_path, "m.ko", "one")
        seen: remember.Remembered[object] = remember.Remembered()

        def get(also: str = "") -> object:
            return seen.get(str(file), lambda _path: object(), also)

        assert get() is not get(), "it changed a moment ago"
        time.sleep(remember.FRESH + 0.1)
        first = get()
        assert get() is first
        assert get("another certificate") is not first

    def test_same_size_and_mtime_do_not_deceive_it(self, tmp_path: Path) -> None:
        file = put(tmp_path, "m.ko", "one")
        time.sleep(remember.FRESH + 0.1)
        seen: remember.Remembered[str] = remember.Remembered()
        assert seen.get(str(file), lambda path: Path(path).read_text()) == "one"
        times = file.stat()
        file.write_text("two")
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert seen.get(str(file), lambda path: Path(path).read_text()) == "two"


def test_the_kernel_log_is_flagged_by_name() -> None:
    text = (
        "<6>[ 1.0] all is well\n"
        "<4>[ 2.0] nvidia: loading out-of-tree module taints kernel.\n"
        "<3>[ 3.0] Loading of unsigned module is rejected\n"
    )
    assert kmsg.flags(text) == [
        {"name": "taint", "line": "[ 2.0] nvidia: loading out-of-tree module taints kernel."},
        {"name": "module-rejected", "line": "[ 3.0] Loading of unsigned module is rejected"},
    ]


def test_assignments_are_read_as_a_shell_would_write_them() -> None:
    text = "# A=1\nexport B='two words'\nC=\"x\"\nD=plain\nno assignment\n"
    assert assignments(text) == {"B": "two words", "C": "x", "D": "plain"}
