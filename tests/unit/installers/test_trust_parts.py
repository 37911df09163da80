"""Key stores, bundles and settings of tools: the proxy's CA in each of them, and out of it again.

The whole installer runs with the real ``update-ca-certificates`` and ``keytool`` on an overlay of
this machine.
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from installers import asn1, bundles, jvm, keystore, pem, strict
from installers.config import from_attributes
from installers.dialects import authorities, cloud, packages
from installers.dialects.base import Dialect, Wanted, put, wanted
from installers.host import Host
from installers.jvmstores import QUICK
from tests.unit.installers.test_trust import (
    engine,
    fresh,
    in_overlay,
    metadata_file,
    node,
    overlay,
    tree,
)
from tests.unit.installers.tools import needs, run, settings

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
WANT = Wanted(ca_bundle=BUNDLE, ca_file="/etc/airlock/proxy-ca.pem")
STORE = "/etc/ssl/certs/java/cacerts"
KEYTOOLS = sorted({Path(found.home) / "bin/keytool" for found in jvm.find(Host())})
FORMATS = {
    "jks": ["-storetype", "JKS"],
    "pkcs12 without password": [
        "-storetype",
        "PKCS12",
        "-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE",
        "-J-Dkeystore.pkcs12.macAlgorithm=NONE",
    ],
    "pkcs12 with password": ["-storetype", "PKCS12"],
}


def keytool(program: Path, *args: str) -> str:
    return run(str(program), *QUICK, *args, "-storepass", "changeit")


@pytest.mark.skipif(not KEYTOOLS, reason="no JVM on this machine")
@pytest.mark.parametrize("kind", FORMATS)
def test_reads_the_key_stores_that_keytool_makes(tmp_path: Path, kind: str) -> None:
    store = tmp_path / "cacerts"
    ders = {}
    for alias in ("airlock-1", "other é"):
        file = tmp_path / "ca.pem"
        file.write_bytes(fresh(alias))
        ders[alias] = asn1.read_pem(file.read_bytes())[0].der
        argv = ("-importcert", "-noprompt", "-keystore", str(store), "-alias", alias)
        keytool(KEYTOOLS[-1], *argv, "-file", str(file), *FORMATS[kind])
    found = keystore.certificates(store.read_bytes())
    assert found == (None if kind == "pkcs12 with password" else ders)
    assert keystore.certificates(store.read_bytes()[:-40]) in (None, ders)


def test_what_is_no_key_store_is_not_read() -> None:
    for data in (b"", b"\xfe\xed\xfe\xed", b"\xfe\xed\xfe\xed\0\0\0\2\0\0\0\1\0\0\0\2", b"0\0"):
        assert keystore.certificates(data) is None


JVM = """
mkdir -p $ROOT/opt/jdk/lib/security $ROOT/opt/jdk8/jre/lib/security $ROOT/opt/p12/lib/security
ln -s /usr/lib/jvm/{home}/bin $ROOT/opt/jdk/bin
ln -s /usr/lib/jvm/{home}/bin $ROOT/opt/p12/bin
cp {store} $ROOT/opt/jdk/lib/security/cacerts
cp {store} $ROOT/opt/jdk8/jre/lib/security/cacerts
cp $P12 $ROOT/opt/p12/lib/security/cacerts
mkdir -p $ROOT/opt/conda/condabin $ROOT/opt/conda/conda-meta $ROOT/opt/conda/ssl
mkdir -p $ROOT/opt/conda/lib/python3.11/site-packages/certifi
cp {bundle} $ROOT/opt/conda/ssl/cacert.pem
ln $ROOT/opt/conda/ssl/cacert.pem $ROOT/opt/conda/lib/python3.11/site-packages/certifi/cacert.pem
"""


@overlay
@needs("keytool")
@pytest.mark.skipif(not Path(STORE).exists(), reason="needs a Java key store of the distribution")
@pytest.mark.parametrize(
    "hooks",
    [
        pytest.param(True, id="with hook"),
        pytest.param(False, id="without hook", marks=pytest.mark.slow),
    ],
)
def test_B11_every_store_again_rotated_and_removed(
    tmp_path: Path, hooks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run must not fail on an alias that is there."""
    if hooks and not Path("/etc/ca-certificates/update.d/jks-keystore").exists():
        pytest.skip("ca-certificates-java is not installed")
    one, two = fresh("Airlock test CA one"), fresh("Airlock test CA two")
    for name, data in (("one", one), ("both", one + two), ("two", two)):
        (tmp_path / name).write_bytes(data)
    asked = {
        name: metadata_file(tmp_path / f"{name}.json", {"http-proxy-pem-uri": f"file://{path}"})
        for name in ("one", "both", "two")
        if (path := tmp_path / name)
    }
    none = metadata_file(tmp_path / "none.json", {})
    p12 = tmp_path / "p12"
    (tmp_path / "foreign").write_bytes(fresh("Foreign"))
    argv = ("-importcert", "-noprompt", "-keystore", str(p12), "-alias", "foreign", "-file")
    keytool(KEYTOOLS[-1], *argv, str(tmp_path / "foreign"), *FORMATS["pkcs12 with password"])
    monkeypatch.setenv("P12", str(p12))
    stores = f"{STORE} /opt/jdk/lib/security/cacerts /opt/jdk8/jre/lib/security/cacerts"
    bundled = "/opt/conda/ssl/cacert.pem /opt/conda/lib/python3.11/site-packages/certifi/cacert.pem"
    look = (
        f"{sys.executable} -m tests.unit.installers.stores $ROOT {stores} "
        f"/opt/p12/lib/security/cacerts {bundled}"
    )
    sums = "(cd $ROOT; sha256sum opt/jdk/lib/security/cacerts opt/jdk8/jre/lib/security/cacerts "
    sums += "opt/conda/ssl/cacert.pem opt/conda/lib/python3.11/site-packages/certifi/cacert.pem)"
    home = Path(jvm.find(Host())[0].home).name
    said = in_overlay(
        tmp_path,
        JVM.format(home=home, store=STORE, bundle=BUNDLE),
        sums,
        node("apply", asked["one"]),
        look,
        node("apply", asked["one"]),
        node("verify", asked["one"]),
        node("apply", asked["both"]),
        look,
        node("apply", asked["two"]),
        look,
        f"cp {STORE} $ROOT/opt/jdk/lib/security/cacerts; {node('verify', asked['two'])}",
        node("apply", asked["two"]),
        node("apply", none),
        look,
        sums,
        node("apply", asked["one"]),
        node("remove", none),
        look,
        hooks=hooks,
    )
    [sha_one], [sha_two] = pem.fingerprints(one), pem.fingerprints(two)

    def outcome(at: int) -> str:
        answer = json.loads(said[at])
        assert answer["exit"] == 0, said[at]
        return str(answer["installers"][0]["outcome"])

    def trusted(at: int) -> list[set[str]]:
        found = [set(line.split()) for line in said[at].splitlines()]
        assert len(found) == 6, said[at]
        assert all(found)
        return [one & {sha_one, sha_two} for one in found]

    assert outcome(2) == "ok"
    assert trusted(3) == [{sha_one}] * 6
    assert outcome(4) == "unchanged"
    assert outcome(5) == "ok"
    assert outcome(6) == "ok"
    assert trusted(7) == [{sha_one, sha_two}] * 6, "both during the overlap"
    assert outcome(8) == "ok"
    assert trusted(9) == [{sha_two}] * 6
    verified = json.loads(said[10].splitlines()[0])
    assert verified["exit"] == 1, "a package update took the CA out of a store"
    assert outcome(11) == "ok"
    assert outcome(12) == "ok"
    assert trusted(13) == [set()] * 6
    assert said[14] == said[1], "byte for byte what they were"
    assert outcome(15) == "ok"
    assert outcome(16) == "ok"
    assert trusted(17) == [set()] * 6


SETTINGS: list[Dialect] = [
    authorities.Environment(),
    authorities.Profile(),
    authorities.SystemdManager(),
    authorities.Git(),
    authorities.Pip(),
    authorities.Conda(),
    authorities.Boto(),
    authorities.Npm("/usr/etc/npmrc"),
    authorities.Gcloud("/usr/lib/google-cloud-sdk"),
]


@pytest.mark.parametrize("dialect", SETTINGS, ids=lambda dialect: dialect.name)
def test_settings_read_back(dialect: Dialect) -> None:
    should = dialect.settings(WANT)
    assert should
    assert dialect.settings(Wanted()) == {}
    text = dialect.write("", should)
    assert dialect.read(text) == should
    assert dialect.ours(text) == should
    assert dialect.write(text, {}) == ""


def test_two_installers_share_a_file(tmp_path: Path) -> None:
    """The proxy's block and the CA's stand in one file, whoever comes and goes first."""
    from installers.dialects import clients

    proxy = wanted(settings(proxy_uri="h:1"), credentials=False)
    host = Host(tmp_path)
    for before in ("", "[global]\ntimeout = 60\ncert = stale\nproxy = stale\n[install]\nx = y\n"):
        pairs: list[tuple[Dialect, Wanted]] = [(clients.Pip(), proxy), (authorities.Pip(), WANT)]
        for order in (pairs, pairs[::-1]):
            path = tmp_path / "etc/pip.conf"
            path.parent.mkdir(exist_ok=True)
            path.write_text(before)
            for dialect, asked in [*order, *order]:
                put(host, dialect, dialect.settings(asked), secret=False)
            text = path.read_text()
            assert text.count("[global]") == 1
            for dialect, asked in order:
                assert dialect.read(text) == dialect.settings(asked)
                assert dialect.ours(text) == dialect.settings(asked)
            first, second = order
            put(host, first[0], {}, secret=False)
            left = path.read_text()
            assert second[0].read(left) == second[0].settings(second[1])
            put(host, second[0], {}, secret=False)
            assert (path.read_text() if path.exists() else "") == before


@needs("git")
def test_git_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "gitconfig"
    file.write_text(
        authorities.Git().write("[http]\n\tproxy = x\n", authorities.Git().settings(WANT))
    )
    env = {"GIT_CONFIG_SYSTEM": str(file)}
    assert run("git", "config", "--system", "http.sslcainfo", env=env).strip() == BUNDLE
    assert run("git", "config", "--system", "http.proxy", env=env).strip() == "x"


@needs("npm")
def test_npm_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "npmrc"
    dialect = authorities.Npm("/x")
    file.write_text(dialect.write("", dialect.settings(WANT)))
    env = {"NPM_CONFIG_GLOBALCONFIG": str(file), "HOME": str(tmp_path)}
    assert run("npm", "config", "get", "cafile", env=env).strip() == BUNDLE


@needs("gcloud")
def test_gcloud_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "configurations"
    folder.mkdir()
    (tmp_path / "active_config").write_text("default")
    proxy = cloud.Gcloud("/x", (547, 0, 0))
    text = proxy.write("", proxy.settings(wanted(settings(proxy_uri="h:1"), credentials=False)))
    dialect = authorities.Gcloud("/x")
    (folder / "config_default").write_text(dialect.write(text, dialect.settings(WANT)))
    env = {"CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    assert run("gcloud", "config", "get", "core/custom_ca_certs_file", env=env).strip() == BUNDLE
    assert run("gcloud", "config", "get", "proxy/address", env=env).strip() == "h"


def test_conda_says_who_overrules_us(tmp_path: Path) -> None:
    root = tmp_path / "opt/miniforge3"
    for name in ("conda-meta", "condabin"):
        (root / name).mkdir(parents=True)
    host = Host(tmp_path)
    assert packages.conda_roots(host) == ["/opt/miniforge3"]
    asked = wanted(settings(proxy_uri="h:1"), credentials=False)
    assert packages.Conda().verify(host, asked) == {}
    (root / ".condarc").write_text("proxy_servers:\n  https: http://stale:1\n")
    wrong = packages.Conda().verify(host, asked)
    assert wrong == {
        "proxy_servers.https of /opt/miniforge3/.condarc": ("http://stale:1", "http://h:1")
    }


def test_bundles_are_changed_without_their_hard_links(tmp_path: Path) -> None:
    root = tmp_path / "opt/conda"
    for name in ("conda-meta", "condabin", "ssl", "pkgs"):
        (root / name).mkdir(parents=True)
    cached = root / "pkgs/cacert.pem"
    cached.write_bytes(fresh("Root"))
    original = cached.read_bytes()
    (root / "ssl/cacert.pem").hardlink_to(cached)
    host = Host(tmp_path)
    [certificate] = asn1.read_pem(fresh("Ours"))
    [path] = bundles.find(host)
    bundles.make(host, path, [certificate])
    bundles.make(host, path, [certificate])
    assert bundles.ours(host, path) == {certificate.sha256}
    assert len(bundles.trusted(host, path)) == 2
    assert cached.read_bytes() == original
    context = ssl.create_default_context(cafile=str(root / "ssl/cacert.pem"))
    assert len(context.get_ca_certs()) == 2
    bundles.make(host, path, [])
    assert (root / "ssl/cacert.pem").read_bytes() == original
    # One that the bundle has already is not there twice.
    bundles.make(host, path, asn1.read_pem(original))
    assert bundles.ours(host, path) == set()


def openssl_strict(ca: Path, key: Path) -> bool:
    """Whether OpenSSL, as strict as Python 3.13 asks it to be, takes a leaf of this CA."""
    leaf, request, extensions = (ca.with_name(name) for name in ("leaf", "request", "extensions"))
    extensions.write_text("authorityKeyIdentifier=keyid,issuer\nsubjectKeyIdentifier=hash\n")
    new = ("openssl", "req", "-new", "-key", str(key), "-subj", "/CN=leaf", "-out", str(request))
    run(*new)
    run(
        *("openssl", "x509", "-req", "-in", str(request), "-CA", str(ca), "-CAkey", str(key)),
        *("-CAcreateserial", "-extfile", str(extensions), "-out", str(leaf)),
    )
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", ca, leaf], capture_output=True
    )
    return done.returncode == 0


@needs("openssl")
@pytest.mark.parametrize(
    ("options", "good"),
    [
        (["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign"], True),
        (["basicConstraints=CA:TRUE", "keyUsage=critical,keyCertSign"], False),
        (["basicConstraints=critical,CA:TRUE"], False),
        (["basicConstraints=critical,CA:TRUE", "keyUsage=keyCertSign", "NO SKI"], False),
    ],
)
def test_strict_rules_are_those_of_openssl(tmp_path: Path, options: list[str], good: bool) -> None:
    file, config, key = tmp_path / "ca.pem", tmp_path / "conf", tmp_path / "key"
    names = [o for o in options if o != "NO SKI"]
    names.append(f"subjectKeyIdentifier={'none' if 'NO SKI' in options else 'hash'}")
    config.write_text(
        "[req]\ndistinguished_name=dn\nx509_extensions=x\n[dn]\n[x]\n" + "\n".join(names)
    )
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-config", str(config)),
        *("-keyout", str(key), "-out", str(file), "-subj", "/CN=Lab", "-days", "30"),
    )
    [certificate] = asn1.read_pem(file.read_bytes())
    assert openssl_strict(file, key) is good
    assert (strict.violations(certificate) == []) is good


def test_a_lax_ca_is_refused_where_a_strict_python_is(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (root / "ca.pem").write_bytes(fresh("Lax", key_usage=None))
    attributes = {"http-proxy-pem-uri": "file:///ca.pem"}
    plan = engine(root, attributes).plan()
    assert any("Python 3.13" in note for note in plan.contract.notes)
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/python3.12").touch()
    assert engine(root, attributes).plan().installers[0].refusals == []
    (root / "usr/bin/python3.14").touch()
    [refusal] = engine(root, attributes).plan().installers[0].refusals
    assert refusal.code == "trust.strict"
    assert "no keyUsage" in refusal.reason
    assert "python3.14" in refusal.reason


def test_T07_interception_and_tls_to_the_proxy_are_two_settings() -> None:
    """A CA never changes the proxy's scheme, and a scheme installs no CA."""
    with_ca = from_attributes({"http-proxy": "h:1", "http-proxy-pem-uri": "file:///ca.pem"})
    assert dict(with_ca.proxy.environment(True))["https_proxy"] == "http://h:1"
    tls = from_attributes({"http-proxy": "https://h:1"})
    assert dict(tls.proxy.environment(True))["https_proxy"] == "https://h:1"
    assert tls.pem_uri is None
    asked = wanted(tls.proxy, credentials=True)
    for dialect in (packages.Dirmngr(), cloud.Boto(), cloud.Gcloud("/x", (547,))):
        assert dialect.settings(asked) == {}
        assert "TLS" in dialect.notes(asked)[0]


def test_unpacked_stores_are_found_not_guessed(tmp_path: Path) -> None:
    for home in ("opt/a/b/jdk-21", "usr/java/jdk8/jre", "opt/conda/envs/x/lib/jvm", "home/u/jdk"):
        path = tmp_path / home / "lib/security/cacerts"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    (tmp_path / "opt/link").symlink_to("/opt/a")
    assert [found.home for found in jvm.find(Host(tmp_path))] == [
        "/home/u/jdk",
        "/opt/a/b/jdk-21",
        "/opt/conda/envs/x/lib/jvm",
        "/usr/java/jdk8/jre",
    ]
