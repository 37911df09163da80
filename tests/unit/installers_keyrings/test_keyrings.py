"""The installer on a root of its own, its keys from an HTTPS server that answers as told."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fixtures.pki import make_ca
from installers import keysource, openpgp, repositories
from installers.compat import load_data
from installers.config import from_attributes
from installers.engine import Summary
from installers.errors import ConfigError
from installers.exits import Exit
from installers.host import Host
from installers.journal import read_journal
from installers.keyrings import Keyrings
from tests.unit.installers_keyrings.conftest import Keys
from tests.unit.installers_keyrings.workshop import (
    KEYRING,
    RELEASES,
    ROCKY,
    SOURCE,
    Answer,
    KeyServer,
    acme,
    attributes,
    engine,
    make_root,
)

PAGE = b"<!DOCTYPE html><html><body><h1>Blocked</h1><pre>"


@pytest.fixture
def host(tmp_path: Path, server: KeyServer) -> Host:
    return make_root(tmp_path / "root", ca=server.ca)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keysource, "_PAUSE", 0.01)


def apply(host: Host, *keys: tuple[str, list[str]], servers: list[str] | None = None) -> Summary:
    given = attributes(acme(*keys), servers or ["https://127.0.0.1:1/{fingerprint}"])
    return engine(host, given)[0].apply()


def ring(host: Host) -> list[str]:
    data = host.read_bytes(KEYRING)
    return [] if data is None else [one.fingerprint for one in openpgp.read(data)]


def refused(host: Host, summary: Summary, what: str) -> None:
    """It failed, said so, and wrote nothing that apt or dnf would read."""
    (outcome,) = summary.installers
    assert outcome.outcome == "failed"
    assert what in outcome.problems[0].what, outcome.problems
    for path in ("/usr/share/keyrings", "/etc/apt", keysource.CACHE):
        assert not host.exists(path), path


def test_a_key_by_address_becomes_a_keyring_and_a_source(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/key.asc", keys.file(keys.good))
    summary = apply(host, (keys.good, [url]))
    assert summary.exit == Exit.PASS, summary
    assert ring(host) == [keys.good]
    assert host.path(KEYRING).stat().st_mode & 0o7777 == 0o644
    assert host.read(SOURCE) == (
        "Types: deb\nURIs: https://packages.acme.test/deb\nSuites: bookworm\nComponents: main\n"
        f"Architectures: {repositories.system_of(host).values['arch']}\nSigned-By: {KEYRING}\n"
    )
    (outcome,) = summary.installers
    (key,) = outcome.provenance["repositories"]["acme"]["keys"]
    assert (key["fingerprint"], key["found_at"]) == (keys.good, url)
    assert (key["expires"], key["self_signature"]) == ("never", "sha512")


def test_apply_again_changes_and_asks_nothing(host: Host, server: KeyServer, keys: Keys) -> None:
    url = server.give("/key.asc", keys.file(keys.good))
    apply(host, (keys.good, [url]))
    before = host.path(KEYRING).stat()
    again = apply(host, (keys.good, [url]))
    assert again.installers[0].outcome == "unchanged"
    assert server.requests == ["/key.asc"]
    assert host.path(KEYRING).stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("armored", [True, False])
def test_binary_and_armored_answers_are_both_read(
    host: Host, server: KeyServer, keys: Keys, armored: bool
) -> None:
    url = server.give("/key", keys.file(keys.good, armored=armored))
    assert apply(host, (keys.good, [url])).exit == Exit.PASS
    assert ring(host) == [keys.good]


def test_by_id_the_key_servers_are_asked_in_their_order(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    servers = [f"{server.url}/{name}/{{fingerprint}}" for name in ("first", "second", "third")]
    server.give(f"/first/{keys.good}", Answer(b"down\n", 503))
    server.give(f"/third/{keys.good}", keys.file(keys.good))
    summary = apply(host, (keys.good, []), servers=servers)
    assert summary.exit == Exit.PASS
    paths = [f"/{name}/{keys.good}" for name in ("first", "second", "third")]
    # A server that is down for a moment gets a second chance, one that has no key does not.
    assert server.requests == [paths[0], *paths]
    steps = [(line["step"], line.get("why")) for line in read_journal(host) if "why" in line]
    assert steps == [("key refused", "answers 503"), ("key refused", "answers 404")]


def test_a_server_that_recovers_is_enough(host: Host, server: KeyServer, keys: Keys) -> None:
    url = server.give("/key.asc", Answer(b"", 503), Answer(keys.file(keys.good)))
    assert apply(host, (keys.good, [url])).exit == Exit.PASS


def test_the_vendors_address_comes_before_the_key_servers(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/vendor.asc", PAGE + keys.file(keys.good))
    server.give(f"/ks/{keys.good}", keys.file(keys.good))
    summary = apply(host, (keys.good, [url]), servers=[f"{server.url}/ks/{{fingerprint}}"])
    assert summary.exit == Exit.PASS
    assert server.requests == ["/vendor.asc", f"/ks/{keys.good}"]


# The attacks: whoever answers is not believed.


def test_B12_a_server_that_answers_with_another_key_is_refused(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/key.asc", keys.file(keys.stranger))
    summary = apply(host, (keys.good, [url]))
    refused(host, summary, f"answers with {keys.stranger}, which is not the pinned key")
    assert summary.exit == Exit.FAIL


def test_B12_a_short_id_is_no_pin(keys: Keys) -> None:
    for short in (keys.good[-8:], keys.good[-16:], keys.good.lower(), f"0x{keys.good}"):
        with pytest.raises(ConfigError, match="is not a fingerprint"):
            from_extra(acme((short, [])))


def test_B12_a_subkey_with_the_pinned_fingerprint_is_not_the_key(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    """gpg finds a key by its subkey's id, too; the attacker's primary key would vouch for it."""
    good = next(openpgp.packets(keys.file(keys.good, armored=False))).body
    hung = bytes([0xC0 | openpgp.PUBLIC_SUBKEY, 0xFF]) + len(good).to_bytes(4, "big") + good
    url = server.give("/key", keys.file(keys.stranger, armored=False) + hung)
    refused(host, apply(host, (keys.good, [url])), "not the pinned key")


def test_of_two_keys_only_the_pinned_one_is_taken(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    both = keys.file(keys.stranger, keys.good)
    url = server.give("/key.asc", both)
    assert apply(host, (keys.good, [url])).exit == Exit.PASS
    assert ring(host) == [keys.good]


def test_a_web_page_is_refused_also_by_address(host: Host, server: KeyServer, keys: Keys) -> None:
    url = server.give("/key.asc", PAGE + keys.file(keys.good))
    refused(host, apply(host, (keys.good, [url])), "is a web page, not a key")


@pytest.mark.parametrize("part", [0.3, 0.9])
@pytest.mark.parametrize("armored", [True, False])
def test_a_truncated_answer_is_refused(
    host: Host, server: KeyServer, keys: Keys, armored: bool, part: float
) -> None:
    whole = keys.file(keys.good, armored=armored)
    url = server.give("/key", whole[: int(len(whole) * part)])
    refused(host, apply(host, (keys.good, [url])), "cut off")


def test_an_answer_cut_between_two_packets_is_refused(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    whole = keys.file(keys.good, keys.other, armored=False)
    first = keys.file(keys.good, armored=False)
    assert whole.startswith(first)
    url = server.give("/key", Answer(first, promise=len(whole)))
    refused(host, apply(host, (keys.good, [url])), "cannot be fetched")


def test_an_oversized_answer_is_refused(host: Host, server: KeyServer, keys: Keys) -> None:
    url = server.give("/key.asc", keys.file(keys.good) + b"\n" * keysource.LIMIT)
    refused(host, apply(host, (keys.good, [url])), "is larger than")


def test_an_empty_answer_is_refused(host: Host, server: KeyServer, keys: Keys) -> None:
    refused(host, apply(host, (keys.good, [server.give("/key.asc", b"")])), "is empty")


@pytest.mark.parametrize("to", ["http://127.0.0.1:9/key.asc", "https://localhost:9/key.asc"])
def test_a_redirect_leaves_neither_https_nor_the_named_host(
    host: Host, server: KeyServer, keys: Keys, to: str
) -> None:
    url = server.give("/key.asc", Answer(status=302, location=to))
    refused(host, apply(host, (keys.good, [url])), f"redirects to {to.rsplit(':', 1)[0]}")


def test_a_redirect_on_the_same_host_is_followed(host: Host, server: KeyServer, keys: Keys) -> None:
    server.give("/new.asc", keys.file(keys.good))
    url = server.give("/key.asc", Answer(status=302, location="/new.asc"))
    assert apply(host, (keys.good, [url])).exit == Exit.PASS


def test_a_server_that_the_nodes_store_does_not_trust_is_refused(
    tmp_path: Path, server: KeyServer, keys: Keys
) -> None:
    host = make_root(tmp_path / "stranger")
    url = server.give("/key.asc", keys.file(keys.good))
    summary = apply(host, (keys.good, [url]))
    refused(host, summary, "a certificate that this node does not trust")
    assert summary.exit == Exit.UNKNOWN
    assert "http-proxy-pem-uri" in summary.installers[0].problems[0].remedy


def test_what_this_machine_trusts_is_not_trusted_for_a_mounted_node(
    tmp_path: Path, server: KeyServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours.pem"
    ours.write_bytes(server.ca.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(ours))
    host = make_root(tmp_path / "stranger", ca=make_ca("The node's own"))
    summary = apply(host, (keys.good, [server.give("/key.asc", keys.file(keys.good))]))
    refused(host, summary, "a certificate that this node does not trust")


def test_the_callers_own_variables_are_not_listened_to(
    host: Host, server: KeyServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the shell must not be used, nor its no_proxy switch ours off."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    url = server.give("/key.asc", keys.file(keys.good))
    assert apply(host, (keys.good, [url])).exit == Exit.PASS
    host.remove(KEYRING)
    host.remove(keysource.CACHE)
    host.env["https_proxy"] = "http://127.0.0.1:9"
    monkeypatch.setenv("no_proxy", "*")
    assert apply(host, (keys.good, [url])).exit == Exit.UNKNOWN
    assert len(server.requests) == 1
    host.env["no_proxy"] = "127.0.0.1"
    assert apply(host, (keys.good, [url])).exit == Exit.PASS


# What a ring must be.


def test_B13_the_ring_is_plain_openpgp_and_a_keybox_is_replaced(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    box = keys.smith.home / "made-by-import.gpg"
    keys.smith.gpg("--no-default-keyring", "--keyring", str(box), "--import", input=keys.everything)
    assert box.read_bytes()[8:12] == b"KBXf"
    host.write(KEYRING, box.read_bytes(), mode=0o600)
    url = server.give("/key.asc", keys.file(keys.good))
    summary = apply(host, (keys.good, [url]))
    assert summary.exit == Exit.PASS
    change = next(c for c in summary.installers[0].changes if c.key == f"keyring:{KEYRING}")
    assert "keybox" in change.before["keys"]
    data = host.read_bytes(KEYRING) or b""
    assert data[8:12] != b"KBXf"
    assert next(openpgp.packets(data)).tag == openpgp.PUBLIC_KEY
    assert keys.smith.fingerprints(data) == [keys.good]
    assert host.path(KEYRING).stat().st_mode & 0o7777 == 0o644


def test_B14_several_addresses_are_merged_not_written_over_one_another(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    first = server.give("/first.asc", keys.file(keys.good))
    second = server.give("/second.gpg", keys.file(keys.other, armored=False))
    summary = apply(host, (keys.good, [first]), (keys.other, [second]))
    assert summary.exit == Exit.PASS
    assert sorted(ring(host)) == sorted([keys.good, keys.other])
    assert sorted(keys.smith.fingerprints(host.read_bytes(KEYRING) or b"")) == sorted(ring(host))


def test_B14_one_address_with_several_keys_is_asked_once(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/keys.asc", keys.file(keys.good) + keys.file(keys.other))
    assert apply(host, (keys.good, [url]), (keys.other, [url])).exit == Exit.PASS
    assert len(ring(host)) == 2
    assert server.requests == ["/keys.asc"]


def test_B44_without_a_proxy_the_keys_are_fetched_too(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    assert not host.env
    url = server.give("/key.asc", keys.file(keys.good))
    assert apply(host, (keys.good, [url])).exit == Exit.PASS


def test_all_or_nothing(host: Host, server: KeyServer, keys: Keys) -> None:
    url = server.give("/key.asc", keys.file(keys.good))
    refused(host, apply(host, (keys.good, [url]), (keys.other, [url])), "not the pinned key")


def test_a_failure_leaves_the_ring_that_was_there(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/key.asc", keys.file(keys.good))
    apply(host, (keys.good, [url]))
    before = host.read_bytes(KEYRING)
    assert apply(host, (keys.stranger, [url])).exit == Exit.FAIL
    assert host.read_bytes(KEYRING) == before


# Expiry, revocation, SHA-1.


def test_an_expired_copy_sends_on_to_the_next_server(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    smith = keys.smith
    key = smith.key("prolonged", expires="1y")
    old = server.give("/old.asc", smith.export(key, armored=True))
    smith.gpg("--faked-system-time", "20201201T000000!", "--quick-set-expire", key, "never")
    server.give(f"/ks/{key}", smith.export(key, armored=True))
    summary = apply(host, (key, [old]), servers=[f"{server.url}/ks/{{fingerprint}}"])
    assert summary.exit == Exit.PASS
    assert server.requests == ["/old.asc", f"/ks/{key}"]


@pytest.mark.parametrize(("which", "why"), [("expired", "expired on 2020"), ("revoked", "revoked")])
def test_a_key_that_is_of_no_use_is_not_installed(
    host: Host, server: KeyServer, keys: Keys, which: str, why: str
) -> None:
    key = getattr(keys, which)
    url = server.give("/key.asc", keys.file(key))
    summary = apply(host, (key, [url]))
    refused(host, summary, why)
    assert "pin a new one in airlock-repositories-extra" in summary.installers[0].problems[0].remedy


def test_beside_a_good_key_an_expired_one_is_a_note(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/keys.asc", keys.file(keys.good, keys.expired))
    pinned = acme((keys.good, [url]), (keys.expired, [url]))
    run, installer = engine(host, attributes(pinned, []))
    assert run.apply().exit == Exit.PASS
    notes = installer.contract(host).notes
    assert any(keys.expired in note and "expired on 2020-12-31" in note for note in notes)


def test_a_ring_whose_key_expires_later_is_found_and_fetched_anew(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    key = keys.smith.key("short", expires="2050-06-01")
    url = server.give("/key.asc", keys.smith.export(key))
    given = attributes(acme((key, [url])), [])
    assert engine(host, given)[0].apply().exit == Exit.PASS
    soon, late = 2_535_000_000.0, 2_540_000_000.0
    assert any(
        "expires on" in note for note in engine(host, given, now=soon)[1].contract(host).notes
    )
    summary = engine(host, given, now=late)[0].verify()
    assert summary.exit == Exit.FAIL
    assert "expired on 2050" in summary.installers[0].problems[0].what
    keys.smith.gpg("--quick-set-expire", key, "2051-06-01")
    server.give("/key.asc", keys.smith.export(key))
    assert engine(host, given, now=late)[0].apply().exit == Exit.PASS


def test_sha1_is_a_note_for_gpgv_and_a_refusal_for_sqv(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/key.asc", keys.file(keys.weak))
    given = attributes(acme((keys.weak, [url])), [])
    run, installer = engine(host, given)
    assert run.apply().exit == Exit.PASS
    assert any("bound by SHA1 alone" in note for note in installer.contract(host).notes)
    host.write("/usr/lib/apt/methods/sqv", "", mode=0o755)
    summary = engine(host, given)[0].verify()
    assert "bound by SHA1 alone, which apt here refuses" in summary.installers[0].problems[0].what
    before_the_end = time.mktime((2026, 1, 15, 0, 0, 0, 0, 0, 0))
    assert engine(host, given, now=before_the_end)[0].verify().exit == Exit.PASS
    host.write("/etc/crypto-policies/back-ends/apt-sequoia.config", "")
    assert engine(host, given)[0].verify().exit == Exit.PASS


# Cache, plan, removal.


def test_a_cached_key_needs_no_network(host: Host, server: KeyServer, keys: Keys) -> None:
    host.write(f"{keysource.CACHE}/{keys.good}.asc", keys.file(keys.good))
    given = attributes(acme((keys.good, [f"{server.url}/key.asc"])), [])
    run, installer = engine(host, given)
    contract = installer.contract(host)
    assert (contract.hosts, contract.bytes) == ([], 0)
    assert run.apply().exit == Exit.PASS
    assert server.requests == []
    host.remove(KEYRING)
    assert engine(host, given)[0].apply().exit == Exit.PASS
    assert server.requests == []


def test_a_cached_file_is_believed_no_more_than_a_server(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    host.write(f"{keysource.CACHE}/{keys.good}.pgp", keys.file(keys.stranger))
    url = server.give("/key.asc", keys.file(keys.good))
    assert apply(host, (keys.good, [url])).exit == Exit.PASS
    assert ring(host) == [keys.good]


def test_a_file_of_the_node_may_hold_the_key(host: Host, keys: Keys) -> None:
    host.write("/srv/acme.asc", keys.file(keys.good))
    assert apply(host, (keys.good, ["file:///srv/acme.asc"])).exit == Exit.PASS


def test_plan_names_every_host_and_touches_nothing(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/key.asc", keys.file(keys.good))
    host.offline = True
    given = attributes(acme((keys.good, [url])), ["https://one.test/{fingerprint}"])
    summary = engine(host, given)[0].plan()
    assert summary.contract.hosts == [f"127.0.0.1:{server.port}", "one.test"]
    assert summary.contract.keys == [f"acme: {keys.good}"]
    assert summary.contract.bytes == 2 * keysource.LIMIT
    assert {c.key for c in summary.installers[0].changes} == {
        f"keyring:{KEYRING}",
        f"source:{SOURCE}",
    }
    assert server.requests == []
    assert not host.exists(KEYRING)


def test_nothing_is_asked_for_nothing_is_done(host: Host) -> None:
    run, installer = engine(host, {})
    assert installer.contract(host).hosts == []
    summary = run.apply()
    assert (summary.exit, summary.installers[0].outcome) == (Exit.PASS, "unchanged")
    assert not host.exists("/usr")


def test_a_repository_that_is_asked_for_no_more_goes(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    url = server.give("/key.asc", keys.file(keys.good))
    apply(host, (keys.good, [url]))
    summary = engine(host, {})[0].apply()
    assert summary.exit == Exit.PASS
    assert {c.key for c in summary.installers[0].changes} == {
        f"keyring:{KEYRING}",
        f"source:{SOURCE}",
    }
    assert not host.exists(KEYRING)
    assert not host.exists(SOURCE)


def test_rivals_are_switched_off_and_come_back_byte_for_byte(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    """apt reads nothing at all when two files name different keyrings for one repository."""
    old = {
        "/etc/apt/sources.list.d/acme.list": (
            "# the vendor's\n"
            "deb [arch=amd64 signed-by=/o.gpg] https://packages.acme.test/deb/ bookworm main\n"
            "deb-src https://packages.acme.test/deb bookworm main # sources\n"
            "deb https://packages.acme.test/deb trixie main\n"
        ),
        "/etc/apt/sources.list.d/vendor.sources": (
            "Types: deb\nURIs: https://packages.acme.test/deb\nSuites:\n bookworm\n"
            "Components: main\nSigned-By:\n -----BEGIN\n .\n\nTypes: deb\nURIs: http://else.test\n"
            "Suites: bookworm\n\nEnabled: no\nURIs: https://packages.acme.test/deb\n"
            "Suites: bookworm\n"
        ),
    }
    for path, text in old.items():
        host.write(path, text, mode=0o640)
    url = server.give("/key.asc", keys.file(keys.good))
    summary = apply(host, (keys.good, [url]))
    assert summary.exit == Exit.PASS
    assert {c.key for c in summary.installers[0].changes if c.key.startswith("rival:")} == {
        f"rival:{path}:acme" for path in old
    }
    lines = (host.read("/etc/apt/sources.list.d/acme.list") or "").splitlines()
    assert [line.startswith("#airlock:acme# deb") for line in lines] == [False, True, True, False]
    text = host.read("/etc/apt/sources.list.d/vendor.sources") or ""
    assert text.count("#airlock:acme# ") == 8
    assert "\nTypes: deb\nURIs: http://else.test\n" in text
    assert host.path("/etc/apt/sources.list.d/acme.list").stat().st_mode & 0o777 == 0o640
    assert apply(host, (keys.good, [url])).installers[0].outcome == "unchanged"
    engine(host, {})[0].remove()
    assert {path: host.read(path) for path in old} == old
    assert not host.exists(keysource.CACHE)


def test_an_entry_that_names_others_too_is_refused_before_anything_is_fetched(
    host: Host, server: KeyServer, keys: Keys
) -> None:
    text = "Types: deb\nURIs: https://packages.acme.test/deb\nSuites: bookworm trixie\n"
    host.write("/etc/apt/sources.list.d/both.sources", text)
    summary = apply(host, (keys.good, [server.give("/key.asc", keys.file(keys.good))]))
    assert summary.exit == Exit.FAIL
    assert summary.installers[0].refusals[0].code == "keyrings.source"
    assert server.requests == []


def test_keys_that_vouch_for_everything_are_reported(host: Host, keys: Keys) -> None:
    host.write("/etc/apt/trusted.gpg", keys.file(keys.good, keys.other, armored=False))
    host.write("/etc/apt/trusted.gpg.d/box.gpg", b"\0\0\0\x20\x01\x01\0\0KBXf")
    notes = engine(host, attributes(acme((keys.good, [])), []))[1].contract(host).notes
    assert "/etc/apt/trusted.gpg (2 keys) vouches for every repository: use Signed-By" in notes
    assert any("box.gpg (is a keybox" in note for note in notes)


def test_dnf_gets_an_armored_file_and_a_repo(tmp_path: Path, server: KeyServer, keys: Keys) -> None:
    host = make_root(tmp_path / "rocky", ROCKY, server.ca)
    url = server.give("/keys.asc", keys.file(keys.good) + keys.file(keys.other))
    definition = acme(
        (keys.good, [url]),
        (keys.other, [url]),
        os="rocky",
        uris="https://acme.test/el{major}/{rpm_arch}",
        kind="rpm",
    )
    run, _ = engine(host, attributes(definition, []))
    assert run.apply().exit == Exit.PASS
    data = host.read_bytes("/etc/pki/rpm-gpg/RPM-GPG-KEY-airlock-acme") or b""
    assert data.count(b"-----BEGIN PGP PUBLIC KEY BLOCK-----") == 2
    assert (
        len(
            keys.smith.fingerprints(
                data.split(b"-----END")[0] + b"-----END PGP PUBLIC KEY BLOCK-----\n"
            )
        )
        == 1
    )
    text = host.read("/etc/yum.repos.d/airlock-acme.repo") or ""
    arch = repositories.system_of(host).values["rpm_arch"]
    assert text == (
        f"[airlock-acme]\nname=Acme\nbaseurl=https://acme.test/el9/{arch}\nenabled=1\ngpgcheck=1\n"
        "repo_gpgcheck=0\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-airlock-acme\n"
        "skip_if_unavailable=0\n"
    )
    run.remove()
    assert not host.exists("/etc/yum.repos.d/airlock-acme.repo")


class Killed(BaseException):
    """Nothing of ours catches it."""


def test_killed_at_any_write_it_goes_on_to_the_same_end(
    tmp_path: Path, server: KeyServer, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.give("/key.asc", keys.file(keys.good))
    given = attributes(
        acme((keys.good, [url]), (keys.other, [])), [f"{server.url}/{{fingerprint}}"]
    )
    server.give(f"/{keys.other}", keys.file(keys.other))
    rival = "deb https://packages.acme.test/deb bookworm main\n"
    real = Host.write
    left = 0

    def write(host: Host, p: str, data: Any, mode: int = 0o644) -> bool:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return real(host, p, data, mode)

    def tree(host: Host) -> dict[str, bytes]:
        ours = [
            path for path in host.root.rglob("*") if path.is_file() and "var/lib" not in str(path)
        ]
        return {str(path.relative_to(host.root)): path.read_bytes() for path in ours}

    ends: list[dict[str, bytes]] = []
    killed = 0
    while killed == len(ends):
        position = len(ends) + 1
        host = make_root(tmp_path / f"{position}", ca=server.ca)
        real(host, "/etc/apt/sources.list", rival)
        left = position
        with monkeypatch.context() as patch:
            patch.setattr(Host, "write", write)
            try:
                engine(host, given)[0].apply()
            except Killed:
                killed += 1
        assert engine(host, given)[0].apply().exit == Exit.PASS
        ends.append(tree(host))
    assert killed >= 6
    assert all(end == ends[-1] for end in ends)
    assert len(ends[-1]) == 5


def test_removal_leaves_keys_that_somebody_placed(host: Host, keys: Keys) -> None:
    placed = f"{keysource.CACHE}/{keys.good}.asc"
    host.write(placed, keys.file(keys.good))
    run, _ = engine(host, attributes(acme((keys.good, [])), []))
    assert run.apply().exit == Exit.PASS
    assert host.glob(keysource.CACHE, "*.pgp")
    run.remove()
    assert host.glob(keysource.CACHE, "*") == [placed]


# Bad input.


def from_extra(definition: Any, names: str = "acme") -> Keyrings:
    raw = {"airlock-repositories": names, "airlock-repositories-extra": json.dumps(definition)}
    return Keyrings(from_attributes(raw))


GOOD = "A" * 40


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"airlock-repositories": "dokcer"}, "did you mean docker"),
        ({"airlock-repositories": "zzz"}, "choose from adoptium"),
        ({"airlock-repositories-extra": "{"}, "is not JSON"),
        ({"airlock-repositories-extra": "[]"}, "not a JSON object"),
        ({"airlock-keyservers": "hkp://keyserver.ubuntu.com"}, "does not begin with https"),
        ({"airlock-keyservers": "http://ks.test/{fingerprint}"}, "does not begin with https"),
        ({"airlock-keyservers": "https://ks.test/"}, "has no {fingerprint}"),
    ],
)
def test_metadata_that_is_wrong_says_how(change: dict[str, str], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Keyrings(from_attributes(change))
    assert what in str(caught.value)
    assert caught.value.exit == Exit.USAGE


@pytest.mark.parametrize(
    ("variant", "what"),
    [
        ({}, "lacks 'keys'"),
        ({"keys": []}, "not a list of pinned keys"),
        (
            {"keys": [{"fingerprint": GOOD, "urls": ["http://a.test/k"]}]},
            "does not begin with https",
        ),
        (
            {"keys": [{"fingerprint": GOOD, "urls": ["https://u:p@a.test/k"]}]},
            "without credentials",
        ),
        ({"keys": [{"fingerprint": GOOD, "url": "https://a.test"}]}, "does not know 'url'"),
        ({"keys": [{"fingerprint": GOOD}], "deb": {"uris": "https://a.test"}}, "lacks 'suites'"),
        (
            {
                "keys": [{"fingerprint": GOOD}],
                "deb": {"uris": "https://a.test\nTrusted: yes", "suites": "/"},
            },
            "not a text of one line",
        ),
        (
            {
                "keys": [{"fingerprint": GOOD}],
                "deb": {"uris": "https://a.test/{nmae}", "suites": "/"},
            },
            "unknown {nmae}",
        ),
        (
            {
                "keys": [{"fingerprint": GOOD}],
                "rpm": {"baseurl": "https://a.test", "gpgcheck": False},
            },
            "nothing would be verified",
        ),
    ],
)
def test_a_definition_that_is_wrong_says_how(variant: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_extra({"acme": {"title": "Acme", "variants": [{"os": ["debian"], **variant}]}})
    assert what in str(caught.value)


def test_an_unknown_system_is_refused_with_a_way_out(tmp_path: Path) -> None:
    host = make_root(tmp_path / "suse", 'ID="sles"\nVERSION_ID="15.6"\n')
    summary = engine(host, {"airlock-repositories": "docker,cuda"})[0].apply()
    assert summary.exit == Exit.FAIL
    refusals = summary.installers[0].refusals
    assert [refusal.code for refusal in refusals] == ["keyrings.os", "keyrings.os"]
    assert refusals[0].reason == "no docker repository is known for sles 15.6"
    assert "debian" in refusals[0].remedy


def test_every_shipped_repository_fits_its_systems() -> None:
    catalog = repositories.Catalog({})
    shipped = load_data("repositories.json")
    assert {"cuda", "docker", "nvidia-container-toolkit"} <= set(shipped["repositories"])
    assert all(
        key["cited"]
        for entry in shipped["repositories"].values()
        for variant in entry["variants"]
        for key in variant["keys"]
    )
    assert [url.split("/")[2] for url in catalog.keyservers] == [
        "keyserver.ubuntu.com",
        "keys.openpgp.org",
        "pgp.mit.edu",
    ]
    assert not any("11371" in url or url.startswith("hkp") for url in catalog.keyservers)


@pytest.mark.parametrize("release", RELEASES)
def test_shipped_repositories_on(release: str, tmp_path: Path) -> None:
    host = make_root(tmp_path / "root", RELEASES[release])
    system = repositories.system_of(host)
    shipped = load_data("repositories.json")["repositories"]
    found = [repositories.Catalog({}).find(name, system) for name in shipped]
    fitting = [repository for repository in found if repository is not None]
    assert {"cuda", "nvidia-container-toolkit"} <= {repository.name for repository in fitting}
    for repository in fitting:
        assert "{" not in repository.text
        assert all("{" not in url for key in repository.keys for url in key.urls)
        if repository.kind == "deb":
            assert repository.fields["Signed-By"] == repository.keyring


def test_debian_13_and_12_have_different_cuda_keys(tmp_path: Path) -> None:
    prints = {}
    for release in ("debian-12", "debian-13", "rocky-9"):
        host = make_root(tmp_path / release, RELEASES[release])
        cuda = repositories.Catalog({}).find("cuda", repositories.system_of(host))
        assert cuda is not None
        prints[release] = cuda.fingerprints[0][-8:]
    assert prints == {"debian-12": "63BF863CC"[1:], "debian-13": "8793F200", "rocky-9": "D42D0685"}
