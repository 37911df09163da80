"""What a translator writes is what the tool itself reads."""

from __future__ import annotations

import ast
import configparser
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installers.dialects import apt, clients, cloud, environment, java, packages, services
from installers.dialects.base import BEGIN, END, Dialect, wanted
from installers.errors import NodeError
from installers.proxy import dialects
from tests.unit.installers.tools import (
    BASIC,
    NO_PROXY,
    NOTHING,
    URL,
    Recorder,
    needs,
    proxied,
    run,
    settings,
    want,
)

# Those whose file is where the tool is installed.
FOUND: list[Dialect] = [
    clients.Npm("/usr/etc/npmrc"),
    cloud.Gcloud("/usr/lib/google-cloud-sdk", (547, 0, 0)),
    java.NetProperties("/usr/lib/jvm/x/conf/net.properties"),
    java.Maven("/etc/maven/settings.xml"),
    services.Renviron("/etc/R/Renviron.site"),
]
EVERY = [pytest.param(dialect, id=dialect.name) for dialect in [*dialects(), *FOUND]]

STALE = ("proxy = http://old:1", "http_proxy=http://old:1")
# Lines that other people have in such files, with and without a final newline.
FOREIGN = st.lists(
    st.sampled_from(
        [
            *STALE,
            "",
            "# a",
            "LANG=C.UTF-8",
            "[user]",
            "name = x",
            "timeout = 60",
            "[global]",
            "a # b",
            "é",
        ]
    ),
    unique=True,
    max_size=9,
).flatmap(lambda lines: st.sampled_from(["\n".join(lines), "\n".join([*lines, ""])]))


@pytest.mark.parametrize("dialect", EVERY)
def test_reads_back_what_it_writes(dialect: Dialect) -> None:
    for credentials in (True, False):
        should = dialect.settings(want(credentials))
        assert should
        text = dialect.write("", should)
        assert dialect.read(text) == should
        assert dialect.ours(text) == should
        assert dialect.write(text, should) == text
        assert dialect.write(text, {}) == ""
    assert dialect.settings(NOTHING) == {}


@pytest.mark.parametrize("dialect", EVERY)
def test_no_credentials_in_an_images_files(dialect: Dialect) -> None:
    text = dialect.write("", dialect.settings(want(credentials=False)))
    assert "bob" not in text
    if dialect.credentials:
        assert "10.0.2.100" in text
        assert "3128" in text
    else:
        assert text == dialect.write("", dialect.settings(want(credentials=True)))


@pytest.mark.parametrize(
    "dialect",
    [
        environment.EtcEnvironment(),
        clients.Curl(),
        clients.Wget(),
        clients.Git(),
        clients.Pip(),
        packages.Dnf(),
        packages.Dirmngr(),
        cloud.Boto(),
        java.Gradle(),
        *(dialect for dialect in FOUND if not isinstance(dialect, java.Maven)),
    ],
    ids=lambda dialect: dialect.name,
)
@given(foreign=FOREIGN)
def test_foreign_lines_survive_and_ours_win(dialect: Dialect, foreign: str) -> None:
    should = dialect.settings(want())
    text = dialect.write(foreign, should)
    read = dialect.read(text)
    assert {key: read[key] for key in should} == should
    assert dialect.write(text, should) == text
    back = dialect.write(text, {})
    assert back in (foreign, foreign + "\n")


def test_torn_block_is_refused() -> None:
    dialect = environment.EtcEnvironment()
    for text in (f"{BEGIN}\nhttp_proxy=x\n", f"{END}\n", f"{BEGIN}\n{BEGIN}\n{END}\n"):
        with pytest.raises(NodeError, match="marks of our block"):
            dialect.write(text, {})


def test_line_after_our_block_is_overruled() -> None:
    dialect = environment.EtcEnvironment()
    should = dialect.settings(want())
    text = dialect.write("", should) + "http_proxy=http://later:1\n"
    assert dialect.read(text)["http_proxy"] == "http://later:1"
    assert dialect.read(dialect.write(text, should))["http_proxy"] == URL


def test_two_proxies_that_differ() -> None:
    differ = wanted(settings(http_proxy="a:1", https_proxy="b:2"), credentials=True)
    assert apt.Apt().settings(differ)["Acquire::http::Proxy"] == "http://a:1"
    assert apt.Apt().settings(differ)["Acquire::https::Proxy"] == "http://b:2"
    assert clients.Curl().settings(differ) == {}
    assert clients.Git().settings(differ) == {"http.proxy": "http://b:2"}
    assert [bool(dialect.notes(differ)) for dialect in (clients.Curl(), clients.Git())] == [
        True
    ] * 2


@needs("apt-config")
def test_apt_reads_it(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "99proxy").write_text('Acquire::http::Proxy "http://stale:1";\n')
    ours = parts / Path(apt.Apt.path).name
    ours.write_text(apt.Apt().write("", apt.Apt().settings(want())))
    base = tmp_path / "apt.conf"
    base.write_text(f'Dir::Etc::parts "{parts}"; Dir::Etc::main "/dev/null";\n')
    said = run("apt-config", "dump", env={"APT_CONFIG": str(base)})
    assert f'Acquire::http::Proxy "{URL}";' in said
    assert f'Acquire::https::Proxy "{URL}";' in said
    assert 'Acquire::http::Proxy::metadata.google.internal "DIRECT";' in said
    assert 'Acquire::https::Proxy::packages.cloud.google.com "DIRECT";' in said


@needs("apt-config")
def test_apt_command_line_file_wins_over_the_images(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    plain = apt.Apt().write("", apt.Apt().settings(want(credentials=False)))
    (parts / Path(apt.Apt.path).name).write_text(plain)
    base = tmp_path / "apt.conf"
    base.write_text(f'Dir::Etc::parts "{parts}"; Dir::Etc::main "/dev/null";\n')
    secret = tmp_path / "secret.conf"
    secret.write_text(apt.command_line_file(want()))
    said = run("apt-config", f"-c={secret}", "dump", env={"APT_CONFIG": str(base)})
    assert f'Acquire::http::Proxy "{URL}";' in said


HELPER = "/usr/lib/apt/apt-helper"


@pytest.mark.skipif(not Path(HELPER).exists(), reason="apt is not installed")
def test_apt_sends_the_decoded_password(tmp_path: Path, recorder: Recorder) -> None:
    secret = tmp_path / "apt.conf"
    secret.write_text(apt.command_line_file(proxied(recorder.port)))
    secret.chmod(0o600)
    target = tmp_path / "got"
    run(HELPER, f"-c={secret}", "download-file", "http://nowhere.example/x", str(target))
    assert target.read_text() == "ok"
    assert "GET http://nowhere.example/x" in recorder.heads[0]
    assert BASIC in recorder.heads[0]


@needs("git")
def test_git_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "gitconfig"
    file.write_text("[user]\n\tname = x\n[http]\n\tproxy = http://stale:1\n[core]\n\tpager = cat")
    file.write_text(clients.Git().write(file.read_text(), clients.Git().settings(want())))
    env = {"GIT_CONFIG_SYSTEM": str(file)}
    assert run("git", "config", "--system", "--get", "http.proxy", env=env).strip() == URL
    assert run("git", "config", "--system", "--get", "core.pager", env=env).strip() == "cat"
    file.write_text(clients.Git().write(file.read_text(), {}))
    assert run("git", "config", "--system", "--get", "http.proxy", env=env).strip() == (
        "http://stale:1"
    )


def pip_reads(file: Path) -> dict[str, str]:
    """What pip says it has read: what its own classes give differs from release to release."""
    said = run(sys.executable, "-m", "pip", "config", "list", env={"PIP_CONFIG_FILE": str(file)})
    lines = (line.partition("=") for line in said.splitlines())
    return {key: ast.literal_eval(value) for key, _, value in lines}


HAS_PIP = subprocess.run([sys.executable, "-c", "import pip"], capture_output=True).returncode == 0


@pytest.mark.skipif(not HAS_PIP, reason="pip is not installed for this Python")
def test_pip_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    foreign = "[global]\ntimeout = 60\nproxy = http://stale:1\n\n[install]\nno-cache-dir = true\n"
    text = clients.Pip().write(foreign, clients.Pip().settings(want()))
    file.write_text(text)
    assert pip_reads(file)["global.proxy"] == ""
    assert pip_reads(file)["global.timeout"] == "60"
    assert clients.Pip().write(text, {}) == foreign


def test_pip_file_has_no_doubles_for_a_strict_reader() -> None:
    text = clients.Pip().write("[global]\nproxy=x\n", clients.Pip().settings(want()))
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    assert parser["global"]["proxy"] == ""


def test_shell_reads_the_profile(tmp_path: Path) -> None:
    file = tmp_path / "airlock-proxy.sh"
    file.write_text(environment.Profile().write("", environment.Profile().settings(want())))
    said = run("sh", "-c", f". {file}; env")
    for line in (f"http_proxy={URL}", f"HTTPS_PROXY={URL}", f"NO_PROXY={NO_PROXY}"):
        assert line in said


@needs("systemd-analyze")
def test_systemd_reads_the_drop_in(tmp_path: Path) -> None:
    dialect = environment.SystemdManager()
    file = tmp_path / dialect.path.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_text(dialect.write("", dialect.settings(want())))
    assert "%%40" in file.read_text()
    said = run("systemd-analyze", f"--root={tmp_path}", "cat-config", "systemd/system.conf")
    assert dialect.read(said) == dialect.settings(want())


@needs("curl")
def test_curl_uses_it_and_sends_the_decoded_password(tmp_path: Path, recorder: Recorder) -> None:
    dialect = clients.Curl()
    (tmp_path / ".curlrc").write_text(dialect.write("", dialect.settings(proxied(recorder.port))))
    env = {"HOME": str(tmp_path)}
    assert run("curl", "-sS", "http://nowhere.example/x", env=env) == "ok"
    assert "GET http://nowhere.example/x" in recorder.heads[0]
    assert BASIC in recorder.heads[0]
    with pytest.raises(subprocess.CalledProcessError):
        run("curl", "-sS", "-m5", "http://a.direct.example/", env=env)
    assert len(recorder.heads) == 1


@needs("wget")
def test_wget_uses_it(tmp_path: Path, recorder: Recorder) -> None:
    dialect = clients.Wget()
    file = tmp_path / "wgetrc"
    file.write_text(dialect.write("# foreign\n", dialect.settings(proxied(recorder.port))))
    argv = ("wget", "-qO-", "--tries=1", "http://nowhere.example/x")
    assert run(*argv, env={"SYSTEM_WGETRC": str(file)}) == "ok"
    assert BASIC in recorder.heads[0]


@needs("curl")
def test_environment_is_what_curl_reads(recorder: Recorder) -> None:
    env = dict(proxied(recorder.port).environment)
    assert run("curl", "-sS", "http://nowhere.example/x", env=env) == "ok"
    assert BASIC in recorder.heads[0]
