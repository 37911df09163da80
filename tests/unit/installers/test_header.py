"""The shell in front of the node file: which Python it finds, and how it gets one.

Real shells and real Pythons where this machine has them. What an installation does is watched in
a root without any Python, where the package manager is a script that writes down how it was called;
the real one is in the lab's tests.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import installers
from fixtures.metadata import MetadataServer
from harness.pack import pack
from installers.proxy import _FAMILIES
from tests.unit.installers_engine.root import add_program, needs_chroot

HEADER = Path(str(installers.__file__)).with_name("header.sh")
DOCS = Path(__file__).parents[3] / "docs/node-file.md"
SHELLS = ("dash", "bash", "busybox")
MAIN = 'import sys; print("%d.%d" % sys.version_info[:2], *sys.argv[1:])'
PASSWORD = "p%40s%2Fw0rd"


def needs(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")


def words(shell: str) -> list[str]:
    return ["busybox", "sh"] if shell == "busybox" else [shell]


def node_file(folder: Path) -> Path:
    """The header with an archive that says which Python runs it, and with what."""
    buffer = io.BytesIO(HEADER.read_bytes())
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("__main__.py", MAIN)
    path = folder / "airlock-node.pyz"
    path.write_bytes(buffer.getvalue())
    path.chmod(0o755)
    return path


def table() -> list[tuple[str, str, str, str]]:
    """System, version, its Python, and the package that brings one, as the docs have them."""
    rows = re.findall(
        r"^\| (\w+) \| ([\d.]+) \| (3\.\d+) \| `(\S+)`", DOCS.read_text(), re.MULTILINE
    )
    assert len(rows) > 8
    return rows


def python(version: str) -> str | None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    return str(found[0]) if found else shutil.which(f"/usr/bin/python{version}")


def test_the_table_names_supported_systems_and_packages_that_are_tried() -> None:
    header = HEADER.read_text()
    for system, _, version, package in table():
        assert system in _FAMILIES
        assert tuple(map(int, version.split("."))) >= (3, 9)
        assert re.search(rf"for package in .*\b{re.escape(package)}\b", header), package


@pytest.mark.parametrize("version", sorted({row[2] for row in table()} | {"3.10", "3.12"}))
@pytest.mark.parametrize("shell", SHELLS)
def test_runs_by_every_shell_with_every_python(tmp_path: Path, shell: str, version: str) -> None:
    needs(shell)
    real = python(version)
    if real is None:
        pytest.skip(f"Python {version} is not installed")
    (tmp_path / "bin").mkdir()
    # A link of pyenv's would ask pyenv which version is meant.
    (tmp_path / "bin/python3").write_text(f'#!/bin/sh\nexec {real} "$@"\n')
    (tmp_path / "bin/python3").chmod(0o755)
    done = subprocess.run(
        [*words(shell), node_file(tmp_path).name, "plan", "a b", "--only", "*"],
        env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{version} plan a b --only *\n"


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8"])
def test_passes_over_a_python_that_is_too_old(tmp_path: Path, version: str) -> None:
    real = python(version)
    if real is None or not Path("/usr/bin/python3").exists():
        pytest.skip(f"needs Python {version} and the system's")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(real)
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    done = subprocess.run(
        ["sh", node_file(tmp_path)], env={"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(".")[0] == "3"
    assert int(done.stdout.split(".")[1]) >= 9


def test_is_executable_and_still_a_zipapp(tmp_path: Path) -> None:
    packed = pack(tmp_path)
    assert os.access(packed.path, os.X_OK)
    assert packed.path.read_bytes().startswith(HEADER.read_bytes())
    for command in ([str(packed.path)], ["sh", str(packed.path)], ["python3", str(packed.path)]):
        done = subprocess.run([*command, "lint", "a.test"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "a.test" in done.stdout
    with zipfile.ZipFile(packed.path) as archive:
        assert archive.testzip() is None


# A machine without Python.

APT = """#!/bin/sh
{ echo "argv: $*"; echo "http: $http_proxy https: $https_proxy"; } >>/calls
for word in "$@"; do
    case $word in */apt.conf) cat "$word" >>/calls; ls -l "$word" >>/calls;; esac
done
case "$*" in *update) exit 0;; *"install"*python3) ;; *) exit 1;; esac
printf '#!/bin/sh\\n[ "$2" = -c ] && exit 0\\necho "ran: $*"\\n' >/usr/bin/python3
chmod 755 /usr/bin/python3
"""
DNF = APT.replace("*/apt.conf", "*/dnf.conf")
FAILS = "#!/bin/sh\nexit 100\n"


def bare(folder: Path, shell: str, manager: str, text: str) -> Path:
    """A root with a shell, a few small programs, a package manager, and no Python."""
    root = folder / "root"
    for name in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("tr", "sed", "mktemp", "rm", "id", "cat", "ls", "chmod", "curl", "wget"):
        if shutil.which(name):
            add_program(root, name)
    add_program(root, shell)
    sh = "/usr/bin/sh"
    if shell == "busybox":
        (root / sh.lstrip("/")).symlink_to("busybox")
    else:
        (root / sh.lstrip("/")).symlink_to(shell)
    (root / "usr/bin" / manager).write_text(text)
    (root / "usr/bin" / manager).chmod(0o755)
    (root / "tmp").mkdir()
    (root / "etc/dnf").mkdir(parents=True)
    (root / "etc/dnf/dnf.conf").write_text("[main]\nbest=1\nproxy=http://stale.test:1\n")
    (root / "dev").mkdir()
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    node_file(root)
    return root


def run(root: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    given = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **env}
    argv = ["chroot", str(root), "/bin/sh", "/airlock-node.pyz", *args]
    return subprocess.run(argv, env=given, capture_output=True, text=True)


def metadata(root: Path, project: dict[str, str] | None = None, **instance: str) -> str:
    named = {key.replace("_", "-"): value for key, value in instance.items()}
    document = {"project": {"attributes": project or {}}, "instance": {"attributes": named}}
    (root / "m.json").write_text(json.dumps(document, indent=2))
    return "--metadata=/m.json"


def calls(root: Path) -> str:
    path = root / "calls"
    return path.read_text() if path.exists() else ""


@needs_chroot
@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("manager", ["apt-get", "dnf", "yum"])
def test_installs_python_through_the_proxy_of_the_metadata(
    tmp_path: Path, shell: str, manager: str
) -> None:
    needs(shell)
    root = bare(tmp_path, shell, manager, APT if manager == "apt-get" else DNF)
    url = f"http://bob:{PASSWORD}@proxy.test:3128"
    file = metadata(root, {"http-proxy": "not-this.test:1"}, http_proxy=url)
    done = run(root, "apply", file, "--only", "proxy")
    assert (done.returncode, done.stdout) == (
        0,
        f"ran: /airlock-node.pyz apply {file} --only proxy\n",
    )
    said = calls(root)
    assert f"http: {url} https: {url}" in said
    argv = [line for line in said.splitlines() if line.startswith("argv:")]
    assert argv
    assert not [line for line in argv if PASSWORD in line or "bob" in line]
    assert PASSWORD not in done.stderr
    if manager == "apt-get":
        assert f'Acquire::https::Proxy "{url}";' in said
    else:
        assert "best=1" in said
        assert "stale.test" not in said
    assert "-rw------- " in said
    assert list((root / "tmp").iterdir()) == []


@needs_chroot
@pytest.mark.parametrize("program", ["curl", "wget"])
def test_asks_the_metadata_server_directly(tmp_path: Path, program: str) -> None:
    needs(program)
    root = bare(tmp_path, "dash", "apt-get", APT)
    (root / "usr/bin" / {"curl": "wget", "wget": "curl"}[program]).unlink(missing_ok=True)
    with MetadataServer({"https-proxy": "10.0.0.9:3128"}, {"proxy-uri": "10.0.0.8:1"}) as server:
        server.serve()
        source = f"http://127.0.0.1:{server.port}"
        done = run(root, "apply", "--metadata", source, http_proxy="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "http: http://10.0.0.8:1 https: http://10.0.0.9:3128" in calls(root)


@needs_chroot
def test_without_metadata_the_environment_is_used_and_without_both_nothing(tmp_path: Path) -> None:
    root = bare(tmp_path, "dash", "apt-get", APT)
    run(root, "apply", "--metadata", "/none", HTTP_PROXY="http://env.test:1")
    assert "http: http://env.test:1 https: http://env.test:1" in calls(root)
    for name in ("calls", "usr/bin/python3"):
        (root / name).unlink()
    run(root, "apply", metadata(root, http_proxy=":"))
    assert "http:  https: " in calls(root)
    assert 'Proxy "DIRECT"' in calls(root)


@needs_chroot
@pytest.mark.parametrize(
    ("args", "text", "value", "code", "said"),
    [
        (["verify"], APT, "h:1", 1, "there is no Python >= 3.9 here: install python3"),
        (["apply", "--root", "/mnt"], APT, "h:1", 1, "there is no Python >= 3.9 here"),
        (["apply"], APT, "h:1\\\\n", 2, "must be percent-encoded"),
        (["apply"], APT, "h:1 $(reboot)", 2, "must be percent-encoded"),
        (["apply"], FAILS, "h:1", 3, "no Python >= 3.9 could be installed; check http-proxy"),
    ],
)
def test_one_line_and_an_exit_code_for_what_cannot_be(
    tmp_path: Path, args: list[str], text: str, value: str, code: int, said: str
) -> None:
    root = bare(tmp_path, "dash", "apt-get", text)
    (root / "m.json").write_text('{"instance": {"attributes": {"http-proxy": "' + value + '"}}}')
    done = run(root, *args, "--metadata=/m.json")
    assert done.returncode == code, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("airlock-node: ")
    assert said in last
    assert calls(root) == "" or code == 3
