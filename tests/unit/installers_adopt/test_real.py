"""What the node's own programs say: dpkg, apt-mark, keytool and update-ca-certificates.

On a copy of this machine's root, an overlay that is gone with its namespace.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from installers import jvm
from installers.adopt.rows import by_id
from installers.host import Host
from tests.unit.installers.test_trust import in_overlay, metadata_file, overlay
from tests.unit.installers.tools import needs
from tests.unit.installers_adopt.left import CA

STAMP = "mkdir -p $ROOT/opt/install-dpgce/complete"
STORE = "/etc/ssl/certs/java/cacerts"
STATUS = "dpkg-query --admindir=$ROOT/var/lib/dpkg -W -f '${db:Status-Abbrev}' nvidia-test"
#: A package that is configured only when $ROOT/etc/airlock-test-ok is there.
PACKAGE = """
mkdir -p $ROOT/tmp/deb/DEBIAN
printf 'Package: nvidia-test\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@x.test>\\n'\
'Description: x\\n' > $ROOT/tmp/deb/DEBIAN/control
printf '#!/bin/sh\\ntest -e /etc/airlock-test-ok\\n' > $ROOT/tmp/deb/DEBIAN/postinst
chmod 755 $ROOT/tmp/deb/DEBIAN/postinst
dpkg-deb --root-owner-group -b $ROOT/tmp/deb $ROOT/tmp/x.deb >/dev/null
"""
pytestmark = [overlay, needs("dpkg"), needs("apt-mark")]


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    return metadata_file(tmp_path / "metadata.json", {"gpu-driver-provider": "NONE"})


def node(verb: str, metadata: Path, only: str = "adopt") -> str:
    argv = [sys.executable, "-m", "installers", verb, "--only", only, "--json"]
    return f'{shlex.join(argv)} --root "$ROOT" --metadata {shlex.quote(str(metadata))}'


def answer(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text.splitlines()[0])
    return found


def outcome(text: str) -> str:
    assert answer(text)["exit"] == 0, text
    return str(answer(text)["installers"][0]["outcome"])


@pytest.mark.parametrize(
    ("begun", "state"),
    [
        pytest.param("--unpack", "iU", id="unpacked"),
        pytest.param("-i", "iF", id="half configured"),
    ],
)
def test_dpkg_ends_what_it_had_begun(tmp_path: Path, asked: Path, begun: str, state: str) -> None:
    said = in_overlay(
        tmp_path,
        f"{PACKAGE}chroot $ROOT dpkg {begun} /tmp/x.deb >/dev/null 2>&1 || true; {STATUS}",
        node("plan", asked),
        node("apply", asked),
        f"touch $ROOT/etc/airlock-test-ok; {node('apply', asked)}",
        STATUS,
        node("apply", asked),
        node("remove", asked),
    )
    assert said[0] == state
    [change] = answer(said[1])["installers"][0]["changes"]
    assert change["key"] == "dpkg:/var/lib/dpkg/status"
    failed = answer(said[2])
    assert failed["exit"] == 1
    problem = failed["installers"][0]["problems"][0]
    assert "half installed and dpkg cannot end it" in problem["what"]
    assert "dpkg --audit" in problem["remedy"]
    assert outcome(said[3]) == "ok"
    assert said[4] == "ii"
    assert outcome(said[5]) == "unchanged"
    assert outcome(said[6]) == "ok"


def test_their_holds_are_released_and_come_back(tmp_path: Path, asked: Path) -> None:
    install = f"touch $ROOT/etc/airlock-test-ok; {PACKAGE}chroot $ROOT dpkg -i /tmp/x.deb"
    hold = "chroot $ROOT apt-mark hold nvidia-test >/dev/null"
    said = in_overlay(
        tmp_path,
        f"{install} >/dev/null 2>&1; {hold}; {node('apply', asked)}",
        STATUS,
        f"{STAMP}; {node('apply', asked)}",
        STATUS,
        node("apply", asked),
        node("remove", asked),
        STATUS,
    )
    assert outcome(said[0]) == "unchanged", "a hold of somebody else's"
    assert said[1] == "hi"
    assert outcome(said[2]) == "ok"
    assert said[3] == "ii"
    assert outcome(said[4]) == "unchanged"
    assert said[6] == "hi"


def test_apt_reads_its_settings_and_sources_again(tmp_path: Path, asked: Path) -> None:
    """A proxy file that was cut off, and a source whose key was never imported."""
    torn = "printf 'Acquire::http::Proxy \"http' > $ROOT/etc/apt/apt.conf.d/99proxy"
    ring = "/usr/share/keyrings/adoptium.gpg"
    listed = "$ROOT/etc/apt/sources.list.d/adoptium.list"
    source = f"echo 'deb [signed-by={ring}] https://a.test/ x main' > {listed}; : > $ROOT{ring}"
    reads = "chroot $ROOT apt-config dump >/dev/null 2>&1; echo $?"
    names = "chroot $ROOT apt-get indextargets --no-release-info 2>&1 | grep -c a.test || true"
    said = in_overlay(
        tmp_path,
        f"{source}; {names}",
        f"{torn}; {reads}",
        node("apply", asked, "adopt,proxy,keyrings"),
        reads,
        names,
        node("remove", asked, "adopt,proxy,keyrings"),
        f"test ! -s $ROOT{ring}; cat {listed}; cat $ROOT/etc/apt/apt.conf.d/99proxy",
    )
    assert said[0] != "0"
    assert said[1] == "100"
    assert outcome(said[2]) == "ok"
    assert said[3:5] == ["0", "0"]
    assert said[6].endswith('x main\nAcquire::http::Proxy "http')


def test_the_store_forgets_their_authority_and_learns_it_again(tmp_path: Path, asked: Path) -> None:
    (tmp_path / "ca.pem").write_text(CA)
    anchor = by_id("ca-file").paths[0]
    bundle = "sha256sum < $ROOT/etc/ssl/certs/ca-certificates.crt"
    trusts = f"grep -c '{CA.splitlines()[3]}' $ROOT/etc/ssl/certs/ca-certificates.crt || true"
    said = in_overlay(
        tmp_path,
        f"{bundle}; cp {tmp_path}/ca.pem $ROOT{anchor}; "
        "chroot $ROOT update-ca-certificates --fresh >/dev/null 2>&1",
        bundle,
        trusts,
        node("apply", asked, "adopt,trust"),
        trusts,
        node("apply", asked, "adopt,trust"),
        node("remove", asked, "adopt,trust"),
        trusts,
        bundle,
    )
    assert said[2] == "1"
    assert outcome(said[3]) == "ok"
    assert said[4] == "0"
    assert outcome(said[5]) == "unchanged"
    assert said[7] == "1"
    assert said[8] == said[1] != said[0]


@needs("keytool")
@pytest.mark.skipif(not Path(STORE).exists(), reason="needs a Java key store of the distribution")
def test_their_alias_goes_from_every_key_store_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(CA)
    given = {"gpu-driver-provider": "NONE", "http-proxy-pem-uri": f"file://{tmp_path}/new.pem"}
    (tmp_path / "new.pem").write_text(CA)
    asked = metadata_file(tmp_path / "new.json", given)
    keytool = shutil.which("keytool")
    add = f"{keytool} -importcert -noprompt -keystore $ROOT{STORE} -storepass changeit"
    alias = (
        f"{sys.executable} -c 'import sys; from installers import keystore; from pathlib import "
        "Path; print(*(a for a in keystore.certificates(Path(sys.argv[1]).read_bytes()) "
        f'if a == "swp_ca" or a.startswith("airlock")))\' $ROOT{STORE}'
    )
    sums = f"sha256sum < $ROOT{STORE}"
    assert any(one.cacerts == STORE for one in jvm.find(Host()))
    said = in_overlay(
        tmp_path,
        f"{add} -alias swp_ca -file {tmp_path}/ca.pem 2>/dev/null; {alias}",
        sums,
        node("apply", asked, "adopt,trust"),
        alias,
        node("apply", asked, "adopt,trust"),
        node("remove", asked, "adopt,trust"),
        sums,
    )
    assert said[0] == "swp_ca"
    assert outcome(said[2]) == "ok"
    assert said[3].startswith("airlock-")
    assert "swp_ca" not in said[3]
    assert outcome(said[4]) == "unchanged"
    assert not answer(said[5])["installers"][-1]["notes"]
    assert said[6] == said[1], "byte for byte"


def test_a_thing_keeps_owner_mode_and_links_on_another_disk(tmp_path: Path, asked: Path) -> None:
    """The state is on a file system of its own: a rename cannot do it."""
    done = "$ROOT/opt/install-dpgce/complete"
    make = f"mkdir -p {done}; echo x > {done}/cuda; ln -s cuda {done}/link; chmod 604 {done}/cuda"
    find = "cd $ROOT/opt && find install-dpgce -printf '%p %m %U:%G %l\\n' | sort"
    look = f"({find}); cat {done}/cuda"
    state = "$ROOT/var/lib/airlock"
    said = in_overlay(
        tmp_path,
        f"{make}; chown 1000:100 {done}/cuda; {look}",
        f"mkdir -p {state}; mount -t tmpfs t {state}; stat -c %d {state} $ROOT/opt | uniq | wc -l",
        node("apply", asked),
        f"test ! -e {done}; find {state}/adopted -name cuda | wc -l",
        node("remove", asked),
        f"{look}; test ! -e {state}/adopted",
    )
    assert said[1] == "2"
    assert outcome(said[2]) == "ok"
    assert said[3] == "1"
    assert not answer(said[4])["installers"][0]["notes"]
    assert said[5] == said[0]
    assert "cuda 604 1000:100" in said[0]
