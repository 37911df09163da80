"""What the translators write for tools of this machine, read back by the tools themselves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from installers import jvm
from installers.dialects import clients, cloud, java, packages, services
from installers.dialects.base import Dialect, Wanted, wanted
from installers.host import Host
from tests.unit.installers.tools import PASSWORD, URL, Recorder, needs, run, settings, want

# No blank at the ends: what is stripped is told in a note.
SECRET = "p@:/%#'\" $x;y #z\\é"


def through(port: int, secret: str = SECRET, user: str = "b%b", **more: str) -> Wanted:
    url = f"http://{quote(user, safe='')}:{quote(secret, safe='')}@127.0.0.1:{port}"
    return wanted(settings(proxy_uri=url, no_proxy=".direct.example", **more), credentials=True)


def written(dialect: Dialect, asked: Wanted, before: str = "") -> str:
    text = dialect.write(before, dialect.settings(asked))
    assert dialect.write(text, {}) == before
    assert dialect.ours(text) == dialect.settings(asked)
    return text


@needs("npm")
def test_npm_reads_it(tmp_path: Path) -> None:
    dialect = clients.Npm("/x")
    file = tmp_path / "npmrc"
    # npm shows no proxy that has a password.
    asked = want(credentials=False)
    file.write_text(written(dialect, asked, "proxy=http://stale:1\nfund=false\n"))
    env = {"NPM_CONFIG_GLOBALCONFIG": str(file), "HOME": str(tmp_path)}
    said = json.loads(run("npm", "config", "list", "--json", "--long", env=env))
    assert said["proxy"] == said["https-proxy"] == "http://10.0.2.100:3128"
    assert said["fund"] is False
    assert {".corp.example", "corp.example"} <= set(",".join(said["noproxy"]).split(","))


@needs("npm")
def test_npm_uses_it(tmp_path: Path, recorder: Recorder) -> None:
    file = tmp_path / "npmrc"
    file.write_text(written(clients.Npm("/x"), through(recorder.port)))
    env = {"NPM_CONFIG_GLOBALCONFIG": str(file), "HOME": str(tmp_path)}
    argv = ("npm", "view", "x", "--registry", "http://nowhere.example/", "--fetch-retries", "0")
    with pytest.raises(subprocess.CalledProcessError):
        run(*argv, env=env)
    assert recorder.heads
    assert recorder.credentials == {f"b%b:{SECRET}"}


@needs("npm")
def test_npm_file_is_where_this_npm_looks(tmp_path: Path) -> None:
    said = run("npm", "config", "get", "globalconfig", env={"HOME": str(tmp_path)}).strip()
    host = Host()
    assert host.real(said) in [host.real(path) for path in clients.npm_files(host)]


@needs("gcloud")
def test_gcloud_reads_it(tmp_path: Path) -> None:
    dialect = cloud.Gcloud("/x", (547, 0, 0))
    before = "[core]\nproject = p\n\n[proxy]\naddress = stale\nrdns = False\n"
    folder = tmp_path / "configurations"
    folder.mkdir()
    (folder / "config_default").write_text(written(dialect, through(3128), before))
    (tmp_path / "active_config").write_text("default")
    env = {"CLOUDSDK_CONFIG": str(tmp_path), "HOME": str(tmp_path)}
    said = json.loads(run("gcloud", "config", "list", "--all", "--format=json", env=env))
    assert said["core"]["project"] == "p"
    assert {key: value for key, value in said["proxy"].items() if value} == {
        "type": "http",
        "address": "127.0.0.1",
        "port": "3128",
        "username": "b%b",
        "password": SECRET,
    }


def test_gcloud_that_ignores_no_proxy_is_left_alone(tmp_path: Path) -> None:
    old = cloud.Gcloud("/x", (546, 9, 9))
    assert old.settings(want()) == {}
    assert "older than 547.0.0" in old.notes(want())[0]
    assert cloud.Gcloud("/x", (547, 0, 0)).notes(want()) == []
    root = tmp_path / "opt/google-cloud-sdk"
    (root / "bin").mkdir(parents=True)
    (root / "VERSION").write_text("550.0.0\n")
    assert cloud.gcloud_roots(Host(tmp_path)) == {"/opt/google-cloud-sdk": (550, 0, 0)}


BOTO = """
import boto, json
print(json.dumps(dict(boto.config.items("Boto"))))
"""


@needs("gsutil")
def test_gsutil_reads_it_and_a_doubled_section_is_mended(tmp_path: Path) -> None:
    root = Path(Host().real(shutil.which("gsutil") or "")).parents[1]
    vendored = root / "platform/gsutil/gslib/vendored/boto"
    python = root / "platform/bundledpythonunix/bin/python3"
    if not python.exists() or not vendored.exists():
        pytest.skip("this gsutil has no Python of its own")
    file = tmp_path / "boto.cfg"
    env = {"BOTO_CONFIG": str(file), "PYTHONPATH": str(vendored), "HOME": str(tmp_path)}
    before = "[Boto]\nproxy = stale\n[GSUtil]\nx = 1\n[Boto]\nhttps_validate_certificates = True\n"
    file.write_text(before)
    with pytest.raises(subprocess.CalledProcessError):
        run(str(python), "-c", BOTO, env=env)
    dialect = cloud.Boto()
    file.write_text(dialect.write(before, dialect.settings(through(3128))))
    read = json.loads(run(str(python), "-c", BOTO, env=env))
    assert {key: read[key] for key in read if key not in ("working_dir", "debug")} == {
        "proxy": "127.0.0.1",
        "proxy_port": "3128",
        "proxy_user": "b%b",
        "proxy_pass": SECRET,
        "https_validate_certificates": "True",
    }


@needs("dirmngr")
def test_dirmngr_fetches_through_it(tmp_path: Path, recorder: Recorder) -> None:
    dialect = packages.Dirmngr()
    file = tmp_path / "dirmngr.conf"
    file.write_text(written(dialect, through(recorder.port), "# kept\nverbose\n"))
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    run("dirmngr", "--homedir", str(home), "--options", str(file), "--gpgconf-test")
    said = subprocess.run(
        ["dirmngr", "--homedir", home, "--options", file, "--server"],
        input="KS_FETCH http://nowhere.example/key\nBYE\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert recorder.heads, said.stdout + said.stderr
    assert "GET http://nowhere.example" in recorder.heads[0]
    assert recorder.credentials == {f"b%b:{SECRET}"}


SELECTOR = """
import java.net.*;
public class Probe {
    public static void main(String[] args) throws Exception {
        for (String one : args)
            System.out.println(one + " " + ProxySelector.getDefault().select(new URI(one)).get(0));
    }
}
"""


@needs("java")
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a mount namespace")
@pytest.mark.parametrize("runtime", jvm.find(Host()), ids=lambda found: Path(found.home).name)
def test_java_selects_by_it_without_options(tmp_path: Path, runtime: jvm.Jvm) -> None:
    assert runtime.net_properties is not None
    real = Path(runtime.net_properties)
    dialect = java.NetProperties(runtime.net_properties)
    file = tmp_path / "net.properties"
    file.write_text(written(dialect, want(), real.read_text() + "http.proxyHost=stale\n"))
    (tmp_path / "Probe.java").write_text(SELECTOR)
    ask = {
        "http://any.example/": "HTTP @ 10.0.2.100",
        "https://any.example/": "HTTP @ 10.0.2.100",
        "http://x.corp.example/": "DIRECT",
        "https://corp.example/": "DIRECT",
        "https://storage.googleapis.com/": "DIRECT",
        "http://169.254.169.254/": "DIRECT",
        "http://metadata.google.internal/": "DIRECT",
        "http://[::1]/": "DIRECT",
        "http://xcorp.example/": "HTTP @ 10.0.2.100",
    }
    script = f"mount --bind {file} {real} && exec {runtime.home}/bin/java -Xshare:auto Probe.java"
    said = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{script} "$@"', "sh", *ask],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    lines = dict(line.split(" ", 1) for line in said.splitlines())
    assert {key: value.split("/")[0] for key, value in lines.items()} == ask


PROPERTIES = """
import java.util.*; import java.io.*;
public class Read {
    public static void main(String[] args) throws Exception {
        Properties p = new Properties();
        try (InputStream in = new FileInputStream(args[0])) { p.load(in); }
        for (String key : p.stringPropertyNames())
            System.out.println(key + " "
                + HexFormat.of().formatHex(p.getProperty(key).getBytes("UTF-8")));
    }
}
"""


@needs("java")
def test_gradle_properties_are_what_java_reads(tmp_path: Path) -> None:
    dialect = java.Gradle()
    asked = through(3128, secret=" \\t=é€😀 x")
    file = tmp_path / "gradle.properties"
    file.write_text(written(dialect, asked, "org.gradle.daemon=false\n"))
    (tmp_path / "Read.java").write_text(PROPERTIES)
    said = run("java", str(tmp_path / "Read.java"), str(file))
    read = {
        key: bytes.fromhex(value).decode()
        for key, _, value in (line.partition(" ") for line in said.splitlines())
    }
    assert read == {"org.gradle.daemon": "false", **dialect.settings(asked)}


MAVEN = """<?xml version="1.0" encoding="UTF-8"?>
<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0">
  <localRepository>REPOSITORY</localRepository>
  <!-- <proxies><proxy><host>example</host></proxy></proxies> -->
  <proxies>
    <!-- kept -->
    <proxy><id>stale</id><host>stale.invalid</host><port>1</port></proxy>
  </proxies>
</settings>
"""


WITHOUT = f"{MAVEN.split('  <!--')[0]}</settings>\n"


@needs("mvn")
@pytest.mark.parametrize("before", [MAVEN, WITHOUT], ids=["with proxies", "without"])
def test_maven_uses_it(tmp_path: Path, challenger: Recorder, before: str) -> None:
    before = before.replace("REPOSITORY", str(tmp_path / "repository"))
    file = tmp_path / "settings.xml"
    secret = "p@:/%#'\" $x;<y>&"
    file.write_text(written(java.Maven("/x"), through(challenger.port, secret), before))
    said = subprocess.run(
        ["mvn", "-B", "-q", "-s", file, "dependency:get", "-Dartifact=a:b:1"],
        # It lives for two seconds: the optimising compiler would take one of them.
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "MAVEN_OPTS": "-XX:TieredStopAtLevel=1",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert challenger.heads, said.stdout
    assert all(head.startswith("CONNECT ") for head in challenger.heads)
    assert challenger.credentials == {f"b%b:{secret}"}


def test_maven_escapes_and_ignores_the_example() -> None:
    dialect = java.Maven("/x")
    asked = through(3128, secret='<&>"]]>--x')
    text = written(dialect, asked, MAVEN)
    assert "stale.invalid" not in text
    assert dialect.read(text)["https.password"] == '<&>"]]>--x'
    assert dialect.read(text)["http.nonProxyHosts"].startswith("localhost|127.0.0.1|[::1]|")
    assert "*.direct.example|direct.example" in dialect.read(text)["http.nonProxyHosts"]
    assert dialect.read("not xml") == {}


@needs("systemd-analyze")
def test_systemd_takes_the_drop_in(tmp_path: Path) -> None:
    dialect = services.DropIn("docker")
    unit = tmp_path / "etc/systemd/system/docker.service"
    drop_in = tmp_path / dialect.path.lstrip("/")
    drop_in.parent.mkdir(parents=True)
    unit.write_text("[Service]\nEnvironment=http_proxy=http://stale:1\nExecStart=/bin/true\n")
    drop_in.write_text(written(dialect, want()))
    said = run(
        "systemd-analyze", f"--root={tmp_path}", "cat-config", "systemd/system/docker.service"
    )
    assert f"EnvironmentFile=-{services.ENV_FILE}" in said


@pytest.mark.skipif(not Path("/run/systemd/system").is_dir(), reason="needs a running systemd")
def test_environment_file_wins_over_the_units_own(tmp_path: Path) -> None:
    file = tmp_path / "proxy.env"
    file.write_text(written(services.ServiceEnvironment(), want()))
    said = run(
        *("systemd-run", "-q", "--pipe", "--wait", "-p", f"EnvironmentFile=-{file}"),
        *("-p", "Environment=http_proxy=http://stale:1", "env"),
    )
    assert f"http_proxy={URL}\n" in said
    assert "stale" not in said


def test_password_constant_is_still_awkward() -> None:
    assert set("@:/%#") <= set(PASSWORD)
