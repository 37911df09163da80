"""Sources whose suites have moved to an archive: found, sent there, read by apt, and back."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.openpgp import SigningKey
from fixtures.pki import Authority
from fixtures.served import Served
from installers import archivetext
from installers.archives import Archives
from installers.compat import load_data
from installers.config import from_attributes
from installers.engine import Engine, Summary
from installers.errors import ConfigError
from installers.exits import Exit
from installers.host import Host
from installers.keyrings import Keyrings
from installers.trust import Trust

MIRROR = "https://archive.test/old"
BUSTER = 'ID=debian\nVERSION_ID="10"\nVERSION_CODENAME=buster\n'
LIST = """\
# deb http://mirror.test/debian buster main
deb http://mirror.test/debian buster main contrib  # ours
deb [arch=amd64 check-valid-until=yes] http://bob:pw@mirror.test/debian/ buster-backports main
deb-src http://mirror.test/debian buster main
deb http://mirror.test/debian stretch-updates main
deb http://mirror.test/debian-security buster/updates main
deb http://mirror.test/debian bookworm main
deb [signed-by=/usr/share/keyrings/acme.gpg] http://acme.test/debian buster main
deb http://docker.test/linux/debian buster stable
deb http://docker.test/debian buster stable"""
DEB822 = """\
# The image's own.
Types: deb deb-src
URIs: mirror+file:/etc/apt/mirrors/debian.list
 http://second.test/debian
Suites: bullseye bullseye-updates
 bullseye-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
Enabled: no
URIs: http://mirror.test/debian
Suites: buster
Components: main

Types: deb
URIs: http://mirror.test/security/
Suites: bullseye-security
Components: main
"""


def made(tmp_path: Path, release: str = BUSTER, **files: str) -> Host:
    """A root with these files; ``list`` and ``sources`` name the usual two."""
    usual = {"list": "sources.list", "sources": "sources.list.d/debian.sources"}
    for name, text in files.items():
        path = tmp_path / "etc/apt" / usual[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
        path.chmod(0o640)
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/os-release").write_text(release)
    return Host(tmp_path)


def engine(host: Host, **given: str) -> Engine:
    attributes = {key.replace("_", "-"): value for key, value in given.items()}
    return Engine(host, [Archives(from_attributes(attributes))])


def done(host: Host, verb: str = "apply", **given: str) -> Summary:
    summary: Summary = getattr(engine(host, **given), verb)()
    assert summary.exit == Exit.PASS, summary.as_json(host)
    return summary


def active(text: str) -> list[str]:
    return [line.partition("  #")[0] for line in text.splitlines() if line.startswith("deb")]


def test_lists_go_to_the_archive_and_come_back(tmp_path: Path) -> None:
    host = made(tmp_path, list=LIST)
    path = tmp_path / "etc/apt/sources.list"
    planned = done(host, "plan", airlock_archive_mirror=MIRROR).installers[0].changes
    assert path.read_text() == LIST, "plan writes nothing"
    name = "archive:/etc/apt/sources.list"
    assert {(c.key, c.before, c.after) for c in planned} == {
        (f"{name}:buster", "http://mirror.test/debian", f"{MIRROR}/debian"),
        (f"{name}:buster-backports", "http://mirror.test/debian/", f"{MIRROR}/debian"),
        (f"{name}:stretch-updates", "http://mirror.test/debian", None),
        (
            f"{name}:buster/updates",
            "http://mirror.test/debian-security",
            f"{MIRROR}/debian-security",
        ),
    }
    summary = done(host, airlock_archive_mirror=f"{MIRROR}/")
    assert summary.contract.hosts == ["archive.test"]
    assert "pw" not in json.dumps(summary.as_json(host))
    options = "[check-valid-until=no]"
    assert active(path.read_text()) == [
        f"deb {options} {MIRROR}/debian buster main contrib",
        f"deb [arch=amd64 check-valid-until=no] {MIRROR}/debian buster-backports main",
        f"deb-src {options} {MIRROR}/debian buster main",
        f"deb {options} {MIRROR}/debian-security buster/updates main",
        "deb http://mirror.test/debian bookworm main",
        "deb [signed-by=/usr/share/keyrings/acme.gpg] http://acme.test/debian buster main",
        "deb http://docker.test/linux/debian buster stable",
        "deb http://docker.test/debian buster stable",
    ]
    assert done(host, airlock_archive_mirror=MIRROR).installers[0].outcome == "unchanged"
    assert done(host, "verify", airlock_archive_mirror=MIRROR).installers[0].changes == []
    done(host, "remove")
    assert path.read_text() == LIST
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_entry_of_both_kinds_is_split(tmp_path: Path) -> None:
    host = made(tmp_path, sources=DEB822)
    path = tmp_path / "etc/apt/sources.list.d/debian.sources"
    done(host, airlock_archive_mirror=MIRROR)
    kept = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    signed = "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg"
    assert kept[:12] == [
        *("Types: deb deb-src", "Components: main", signed),
        "URIs: mirror+file:/etc/apt/mirrors/debian.list http://second.test/debian",
        "Suites: bullseye bullseye-updates",
        "",
        *("Types: deb deb-src", "Components: main", signed),
        f"URIs: {MIRROR}/debian",
        "Suites: bullseye-backports",
        "Check-Valid-Until: no",
    ]
    assert "\n".join(kept[12:]) + "\n" == DEB822[DEB822.index("\nTypes: deb\nEnabled") :]
    done(host)  # the key is gone: so is what we wrote
    assert path.read_text() == DEB822


@pytest.mark.parametrize("text", [LIST, LIST + "\n", LIST.replace("\n", "\r\n"), "", "deb x"])
def test_the_way_back_is_the_same_bytes(text: str) -> None:
    def everything(_source: Any, _uri: str, suite: str) -> str:
        return f"https://archive.test/{suite}"

    for path, given in (("/a.list", text), ("/a.sources", DEB822), ("/a.sources", DEB822[:-1])):
        there = archivetext.rewrite(given, path, everything)
        assert archivetext.restore(there, path) == given
        assert archivetext.restore(given, path) == given


def test_another_mirror_and_foreign_hands(tmp_path: Path) -> None:
    host = made(tmp_path, list=LIST)
    path = tmp_path / "etc/apt/sources.list"
    done(host, airlock_archive_mirror=MIRROR)
    first = path.read_text()
    done(host, airlock_archive_mirror="https://other.test")
    assert path.read_text() == first.replace(MIRROR, "https://other.test")
    path.write_text(first.replace("check-valid-until=no", "check-valid-until=yes"))
    assert engine(host, airlock_archive_mirror=MIRROR).verify().exit == Exit.FAIL
    done(host, airlock_archive_mirror=MIRROR)
    assert path.read_text() == first
    torn = first.replace("#airlock-archive end\n", "", 1)
    path.write_text(torn)
    for verb in ("plan", "apply", "remove"):
        summary = getattr(engine(host, airlock_archive_mirror=MIRROR), verb)()
        assert summary.exit == Exit.FAIL
        assert "marks around our sources" in json.dumps(summary.as_json(host))
    assert path.read_text() == torn


def test_without_an_archive_the_plan_says_what_is_missing(tmp_path: Path) -> None:
    host = made(tmp_path, list=LIST)
    notes = done(host, "plan").contract.notes
    said = "/etc/apt/sources.list: buster is in no mirror any more; airlock-archive-mirror names"
    assert any(note.startswith(said) for note in notes)
    assert any("buster of http://acme.test/debian is left as it is" in note for note in notes)
    assert done(host).installers[0].outcome == "unchanged"
    assert (tmp_path / "etc/apt/sources.list").read_text() == LIST


def test_what_a_site_adds_and_where_there_is_no_archive(tmp_path: Path) -> None:
    row = {"repository": "debian", "suites": ["bullseye"], "to": "debian"}
    extra = json.dumps({"debian": [row]})
    text = "deb http://mirror.test/debian bullseye main\n"
    host = made(tmp_path / "a", list=text)
    done(host, airlock_archive_mirror=MIRROR)
    assert (tmp_path / "a/etc/apt/sources.list").read_text() == text
    done(host, airlock_archive_mirror=MIRROR, airlock_archived_extra=extra)
    assert f"{MIRROR}/debian bullseye main" in (tmp_path / "a/etc/apt/sources.list").read_text()
    host = made(tmp_path / "b", release="ID=rocky\n", list=text)
    notes = done(host, airlock_archive_mirror=MIRROR).contract.notes
    assert notes == ["airlock-archive-mirror: no archive of rocky is known"]


@pytest.mark.parametrize("order", [("trust", "archives"), ("archives", "trust")])
def test_beside_https_for_apt_each_gives_its_own_back(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    """With airlock-apt-https both write the same file; in either order every byte comes back."""
    text = LIST.replace("bob:pw@", "")
    host = made(tmp_path, list=text)
    given = {"airlock-archive-mirror": "http://archive.test", "airlock-apt-https": "true"}
    config = from_attributes(given)
    both = Engine(host, [Archives(config), Trust(config)])
    assert both.apply().exit == Exit.PASS
    assert {one.outcome for one in both.apply().installers} == {"unchanged"}
    shown = active((tmp_path / "etc/apt/sources.list").read_text())
    assert not [line for line in shown if "http://" in line]
    kinds = {"trust": Trust, "archives": Archives}
    for name in order:
        assert Engine(host, [kinds[name](config)]).remove().exit == Exit.PASS
    assert (tmp_path / "etc/apt/sources.list").read_text() == text


def test_the_sources_of_keyrings_are_not_touched(tmp_path: Path) -> None:
    host = made(tmp_path, list="")
    ours = tmp_path / "etc/apt/sources.list.d/airlock-acme.sources"
    ours.parent.mkdir(parents=True)
    ours.write_text(
        "Types: deb\nURIs: http://mirror.test/debian\nSuites: buster\nComponents: main\n"
    )
    before = ours.read_text()
    done(host, airlock_archive_mirror=MIRROR)
    assert ours.read_text() == before
    assert Engine(host, [Keyrings(from_attributes({}))]).apply().exit == Exit.PASS


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("airlock-archive-mirror", "archive.test", "is not an address"),
        ("airlock-archive-mirror", "https://a:b@archive.test", "without credentials"),
        ("airlock-archived-extra", '{"suse": []}', "knows no 'suse'"),
    ],
)
def test_bad_input(key: str, value: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Archives(from_attributes({key: value}))


def test_the_data_is_whole_and_cited() -> None:
    for entry in load_data("archived.json")["distributions"].values():
        for row in entry["archived"]:
            assert row["repository"] in entry["repositories"]
            assert row["suites"]
            assert row["cited"]
            assert len(row["since"]) == 7


class Files(Served):
    """Plain HTTP of the given paths, and 404 for all others."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    def make_server(self) -> http.server.ThreadingHTTPServer:
        files, asked = self.files, self.asked

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                body = files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tuple[Files, bytes]]:
    """An archive with buster, whose lists ended in 2022, and the key that signs them."""
    key = SigningKey(Authority(tmp_path / "pki").packages, "Archive <archive@airlock.test>")
    release = (
        "Origin: Debian\nSuite: oldoldstable\nCodename: buster\nArchitectures: amd64\n"
        "Components: main\nDate: Sat, 10 Sep 2022 10:00:00 UTC\n"
        "Valid-Until: Sat, 17 Sep 2022 10:00:00 UTC\nSHA256:\n"
        " e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 0 "
        "main/binary-amd64/Packages\n"
    )
    place = "/old/debian/dists/buster"
    files = {
        f"{place}/InRelease": key.clear_signed(release),
        f"{place}/main/binary-amd64/Packages": b"",
    }
    with Files(files) as served:
        yield served, key.armored()


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt")
def test_apt_itself_finds_the_suite_again(tmp_path: Path, archive: tuple[Files, bytes]) -> None:
    """The mirror has it no more; the archive's lists are years past their date, and signed."""
    served, key = archive
    ring = tmp_path / "debian-archive-keyring.asc"
    ring.write_bytes(key)
    here = f"http://127.0.0.1:{served.port}"
    signed = "/usr/share/keyrings/debian-archive-keyring.gpg"
    text = f"deb [arch=amd64 signed-by={signed}] {here}/debian buster main\n"
    host = made(tmp_path / "root", list=text)

    def update(name: str) -> subprocess.CompletedProcess[str]:
        base = tmp_path / name
        for folder in ("etc/sources.list.d", "etc/preferences.d", "state/lists/partial", "cache"):
            (base / folder).mkdir(parents=True)
        said = (tmp_path / "root/etc/apt/sources.list").read_text().replace(signed, str(ring))
        (base / "etc/sources.list").write_text(said)
        options = {
            "Dir::Etc": f"{base}/etc/",
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::State": f"{base}/state/",
            "Dir::Cache": f"{base}/cache/",
            "Dir::State::status": "/dev/null",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "",
            "APT::Update::Error-Mode": "any",
            "Acquire::Languages": "none",
            # Whatever this machine's own configuration says.
            "Acquire::Check-Valid-Until": "true",
            "Acquire::Check-Date": "true",
            "Acquire::http::Proxy": "DIRECT",
        }
        words = [word for item in options.items() for word in ("-o", "=".join(item))]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "APT_CONFIG": "/dev/null"}
        return subprocess.run(
            ["apt-get", *words, "update"], capture_output=True, text=True, env=environment
        )

    before = update("before")
    assert before.returncode != 0
    assert "does not have a Release file" in before.stderr
    done(host, airlock_archive_mirror=f"{here}/old")
    after = update("after")
    assert after.returncode == 0, after.stdout + after.stderr
    assert "/old/debian/dists/buster/InRelease" in served.asked
    # Without the option apt would not have them; and a signature is still asked for.
    sources = tmp_path / "root/etc/apt/sources.list"
    ours = sources.read_text()
    sources.write_text(ours.replace("check-valid-until=no", ""))
    assert "is expired" in update("expired").stderr
    sources.write_text(ours)
    ring.write_bytes(SigningKey(Authority(tmp_path / "o").packages, "Other <o@o.test>").armored())
    assert update("stranger").returncode != 0
    done(host, "remove")
    assert (tmp_path / "root/etc/apt/sources.list").read_text() == text
