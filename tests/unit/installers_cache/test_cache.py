"""The cache: verified on read, healed by a rebuild, believed only when signed by whom we trust."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.pki import Identity
from fixtures.storage import Storage
from installers.cache import manifest
from installers.cache.cache import Cache, Entry
from installers.cache.filestore import FileStore
from installers.cache.gcs import GcsStore
from installers.cache.manifest import Manifest, Trust, canonical, key_of
from installers.cache.mirror import MirrorStore
from installers.cache.store import Content, TamperedError, entry_name, object_name
from installers.cache.web import Web
from tests.unit.installers_cache.conftest import BUCKET, Make, signing

KIND = "kernel-modules"
INPUTS: dict[str, Any] = {"kernel": "6.1.0", "source": {"sha256": "ab"}, "make": ["modules"]}
FILES: dict[str, Content] = {"nvidia.ko": b"one" * 1000, "nvidia-uvm.ko": b"two"}
DETAILS: dict[str, Any] = {"built": "2026-01-01T00:00:00Z", "seconds": 1.5}
KEY = Manifest(KIND, INPUTS, {}).key
ENTRY = f"airlock-cache/{entry_name(KEY)}"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def build() -> tuple[dict[str, Content], dict[str, Any]]:
    return dict(FILES), dict(DETAILS)


def never() -> tuple[dict[str, Content], dict[str, Any]]:
    raise AssertionError("this was not to be built")


def content(entry: Entry | None) -> dict[str, bytes]:
    assert entry is not None
    return {name: entry.read(name) for name in entry.files}


@settings(max_examples=40)
@given(st.dictionaries(st.text(), values, max_size=4))
def test_the_order_of_inputs_does_not_matter(inputs: dict[str, Any]) -> None:
    turned = dict(reversed(inputs.items()))
    assert key_of(inputs) == key_of(turned) == key_of(json.loads(json.dumps(inputs)))


def test_B19_every_input_matters() -> None:
    """B19: the key of the scripts this replaces left inputs out."""
    others = [
        Manifest(KIND, {**INPUTS, "kernel": "6.1.1"}, {}),
        Manifest(KIND, {**INPUTS, "source": {"sha256": "ac"}}, {}),
        Manifest(KIND, {**INPUTS, "make": ["V=1"]}, {}),
        Manifest(KIND, {**INPUTS, "more": None}, {}),
        Manifest("other", INPUTS, {}),
    ]
    assert len({KEY, *(other.key for other in others)}) == 6


def test_what_json_has_no_word_for_is_no_key() -> None:
    with pytest.raises(ValueError, match="JSON"):
        key_of({"x": float("nan")})


def test_a_build_comes_back_as_it_was(node: Make) -> None:
    made = node("a").obtain(KIND, INPUTS, build)
    assert made.hit is None
    assert (made.key, made.details, content(made)) == (KEY, DETAILS, FILES)
    again = node("a").obtain(KIND, INPUTS, never)
    other = node("b").obtain(KIND, INPUTS, never)
    assert (again.hit or "").startswith("file:")
    assert (other.hit or "").startswith("gs:")
    assert content(again) == content(other) == FILES
    assert other.details == DETAILS
    assert node("a").get(KIND, {**INPUTS, "kernel": "6.1.1"}) is None


def test_B22_a_hit_asks_nobody_else(node: Make, storage: Storage) -> None:
    """B22: a warm cache still needed the network."""
    node("a").obtain(KIND, INPUTS, build)
    storage.close()
    asked = len(storage.requests)
    assert content(node("a").obtain(KIND, INPUTS, never)) == FILES
    assert len(storage.requests) == asked


def test_B23_one_download_of_each_object(node: Make, storage: Storage) -> None:
    """B23: 4.5 GB were fetched up to three times on one node."""
    node("a").obtain(KIND, INPUTS, build)
    storage.requests.clear()
    for _ in range(3):
        assert content(node("b").obtain(KIND, INPUTS, never)) == FILES
    fetched = [row["path"] for row in storage.requests if "/objects/" in row["path"]]
    assert len(fetched) == len(set(fetched)) == len(FILES)


def _object(name: str) -> str:
    data = FILES[name]
    assert isinstance(data, bytes)
    return f"airlock-cache/{object_name(hashlib.sha256(data).hexdigest())}"


def _envelope(storage: Storage, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the manifest in the bucket, as somebody who may write there can."""
    envelope = json.loads(storage.get(BUCKET, ENTRY).data)
    change(envelope)
    storage.put(BUCKET, ENTRY, json.dumps(envelope).encode())


def _evil(storage: Storage, who: Identity | None) -> None:
    """The attack: a manifest and an object of the attacker's, consistent with one another."""
    evil = b"evil" * 100
    content = manifest.Content(hashlib.sha256(evil).hexdigest(), len(evil))
    made = Manifest(KIND, INPUTS, {"nvidia.ko": content}, DETAILS)
    storage.put(BUCKET, f"airlock-cache/{object_name(content.sha256)}", evil)
    storage.put(BUCKET, ENTRY, manifest.encode(made, signing(who) if who else None))


BREAKS: dict[str, Callable[[Storage], Any]] = {
    "content changed": lambda s: s.put(BUCKET, _object("nvidia-uvm.ko"), b"twO"),
    "content truncated": lambda s: s.put(BUCKET, _object("nvidia.ko"), b"one"),
    "content longer": lambda s: s.put(BUCKET, _object("nvidia.ko"), b"one" * 1001),
    "content gone": lambda s: s.delete(BUCKET, _object("nvidia.ko"), {}),
    "manifest cut": lambda s: s.put(BUCKET, ENTRY, b'{"manifest": {'),
    "manifest of another shape": lambda s: s.put(BUCKET, ENTRY, b"[]"),
    "manifest empty": lambda s: s.put(BUCKET, ENTRY, b""),
    "manifest deep": lambda s: s.put(BUCKET, ENTRY, b"[" * 100_000),
    "other details": lambda s: _envelope(s, lambda e: e["manifest"]["details"].update(x=1)),
    "other inputs": lambda s: _envelope(s, lambda e: e["manifest"]["inputs"].update(kernel="5")),
    "no files": lambda s: _envelope(s, lambda e: e["manifest"].update(files={})),
    "a name that leads out": lambda s: _envelope(
        s, lambda e: e["manifest"]["files"].update({"../../etc/x": {"sha256": "a" * 64, "size": 1}})
    ),
    "another schema": lambda s: _envelope(s, lambda e: e["manifest"].update(schema=2)),
    "signature removed": lambda s: _envelope(s, lambda e: e.update(signature=None)),
    "signature is a text": lambda s: _envelope(s, lambda e: e.update(signature="x")),
    "signature is noise": lambda s: _envelope(
        s, lambda e: e["signature"].update(cms=base64.b64encode(b"noise").decode())
    ),
    "unsigned replacement of both": lambda s: _evil(s, None),
}


@pytest.mark.parametrize("how", BREAKS)
def test_B20_B21_a_tampered_entry_is_put_aside_and_built_anew(
    node: Make, storage: Storage, how: str
) -> None:
    """B20: nothing was verified. B21: a repair deleted what others shared."""
    node("a").obtain(KIND, INPUTS, build)
    BREAKS[how](storage)
    storage.requests.clear()
    notes: list[str] = []
    healed = node("b", notes=notes).obtain(KIND, INPUTS, build)
    assert (healed.hit, content(healed)) == (None, FILES)
    assert any("is not used" in note for note in notes), notes
    # Nothing is deleted but the builder's own lease, and what was bad can be looked at.
    deleted = [row["path"] for row in storage.requests if row["method"] == "DELETE"]
    assert len(deleted) == 1
    assert "/leases/" in deleted[0]
    assert [name for name in storage.names(BUCKET) if "/quarantine/" in name]
    # The next node has a hit.
    assert content(node("c").obtain(KIND, INPUTS, never)) == FILES


def test_a_bad_entry_is_told_of_once(node: Make, storage: Storage) -> None:
    node("a").obtain(KIND, INPUTS, build)
    BREAKS["manifest cut"](storage)
    notes: list[str] = []
    cache = node("b", notes=notes)
    for _ in range(3):
        assert cache.get(KIND, INPUTS) is None
    assert len(notes) == 1


def test_manifest_and_object_both_replaced_by_a_bucket_writer(
    node: Make, storage: Storage, stranger: Identity
) -> None:
    """He signs with a key of his own; nobody believes him."""
    node("a").obtain(KIND, INPUTS, build)
    _evil(storage, stranger)
    notes: list[str] = []
    assert node("b", notes=notes).get(KIND, INPUTS) is None
    assert any("whom this node does not trust" in note for note in notes)
    assert content(node("b").obtain(KIND, INPUTS, build)) == FILES
    assert content(node("c").obtain(KIND, INPUTS, never)) == FILES


def test_a_strangers_signature_under_our_certificate(
    node: Make, storage: Storage, ours: Identity, stranger: Identity
) -> None:
    node("a").obtain(KIND, INPUTS, build)
    mixed = Identity(stranger.key, ours.cert)
    _evil(storage, mixed)
    assert node("b").get(KIND, INPUTS) is None


def test_a_good_entry_of_another_key_is_no_entry_of_this_one(node: Make, storage: Storage) -> None:
    other = {**INPUTS, "kernel": "5.10"}
    node("a").obtain(KIND, other, build)
    name = entry_name(Manifest(KIND, other, {}).key)
    storage.put(BUCKET, ENTRY, storage.get(BUCKET, f"airlock-cache/{name}").data)
    assert node("b").get(KIND, INPUTS) is None


def test_a_signature_of_a_module_fits_no_manifest(ours: Identity) -> None:
    made = Manifest(KIND, INPUTS, {"x": manifest.Content("a" * 64, 1)})
    cms, der = signing(ours)(canonical(made.document()))  # without the prefix
    parts = {
        "certificate": base64.b64encode(der).decode(),
        "cms": base64.b64encode(cms).decode(),
    }
    trust = Trust(frozenset({ours.sha256}))
    assert trust.against(made, parts) == "the signature does not fit the manifest"


def test_unsigned_entries_of_a_bucket_only_by_explicit_flag(
    tmp_path: Path, bucket: GcsStore, storage: Storage
) -> None:
    def cache(name: str, *, unsigned: bool) -> Cache:
        local = FileStore(tmp_path / name)
        return Cache([local, bucket], local, unsigned=unsigned, every=0.1)

    # Without a signer nothing is published that nobody would believe.
    cache("a", unsigned=False).obtain(KIND, INPUTS, build)
    assert storage.names(BUCKET) == []
    cache("b", unsigned=True).obtain(KIND, INPUTS, build)
    assert content(cache("c", unsigned=True).obtain(KIND, INPUTS, never)) == FILES
    assert cache("d", unsigned=False).get(KIND, INPUTS) is None


def test_where_signers_are_named_a_directory_is_believed_no_more_than_a_bucket(
    tmp_path: Path, ours: Identity, stranger: Identity
) -> None:
    """Unsigned, or signed by another: put aside and built anew. What is built then is signed."""
    local = FileStore(tmp_path / "store")
    trust = Trust(frozenset({ours.sha256}))

    def cache(signer: Identity | None, *, strict: bool = True) -> Cache:
        sign = signing(signer) if signer else None
        return Cache([local], local, trust=trust, sign=sign, strict=strict, every=0.1)

    cache(None, strict=False).obtain(KIND, INPUTS, build)
    assert content(cache(None, strict=False).obtain(KIND, INPUTS, never)) == FILES
    assert cache(ours).get(KIND, INPUTS) is None
    made = cache(ours).obtain(KIND, INPUTS, build)
    assert made.hit is None
    found = cache(ours).obtain(KIND, INPUTS, never)
    assert (content(found), found.hit) == (FILES, local.url)
    assert manifest.fingerprint(json.loads(found.envelope)["signature"]) == ours.sha256
    other = Cache([local], local, trust=Trust(frozenset({stranger.sha256})), strict=True)
    assert other.get(KIND, INPUTS) is None
    # Nobody to sign: what nobody would believe is not written.
    cache(None).obtain(KIND, INPUTS, build)
    assert cache(None).get(KIND, INPUTS) is None


@pytest.mark.parametrize("name", FILES)
def test_a_broken_local_copy_is_fetched_again(node: Make, tmp_path: Path, name: str) -> None:
    entry = node("a").obtain(KIND, INPUTS, build)
    place = tmp_path / "a" / object_name(entry.manifest.files[name].sha256)
    place.write_bytes(b"broken")
    with pytest.raises(TamperedError):
        Entry(entry.manifest, {name: place}).read(name)
    healed = node("a").obtain(KIND, INPUTS, never)
    assert content(healed) == FILES
    (aside,) = (tmp_path / "a" / "quarantine").glob(f"{place.name}.*[0-9a-f]")
    assert aside.read_bytes() == b"broken"
    assert (aside.with_name(f"{aside.name}.reason")).read_text().strip()


def test_unread_files_are_believed_until_they_are_refused(node: Make, tmp_path: Path) -> None:
    node("a").obtain(KIND, INPUTS, build)
    store = FileStore(tmp_path / "other")
    cache = Cache([store], store)
    cache.put(KIND, INPUTS, FILES, DETAILS)
    broken = store.path(object_name(hashlib.sha256(b"two").hexdigest()))
    broken.write_bytes(b"owt")
    entry = cache.get(KIND, INPUTS, unread=True)
    assert entry is not None
    assert entry.files["nvidia-uvm.ko"] == broken
    with pytest.raises(TamperedError, match="was changed"):
        entry.read("nvidia-uvm.ko")
    cache.refuse(entry, "nvidia-uvm.ko differs")
    assert not broken.exists()
    assert len([p for p in (tmp_path / "other/quarantine").iterdir() if p.suffix != ".reason"]) == 1
    # What is gone is fetched again where another tier has it.
    healed = Cache([store, FileStore(tmp_path / "a")], store).get(KIND, INPUTS, unread=True)
    assert content(healed) == FILES
    assert broken.read_bytes() == b"two"


def test_a_file_that_is_too_short_is_not_believed_unread(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "other")
    cache = Cache([store], store)
    cache.put(KIND, INPUTS, FILES, DETAILS)
    store.path(object_name(hashlib.sha256(b"two").hexdigest())).write_bytes(b"tw")
    assert cache.get(KIND, INPUTS, unread=True) is None


def test_an_entry_whose_files_are_right_is_refused_as_a_whole(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "other")
    said: list[str] = []
    cache = Cache([store], store, say=said.append)
    entry = cache.put(KIND, INPUTS, FILES, DETAILS)
    cache.refuse(entry, "its manifest is another one's")
    assert cache.get(KIND, INPUTS) is None
    assert "its manifest is another one's" in said[0]


def test_without_any_store_it_is_built() -> None:
    entry = Cache([], None).obtain(KIND, INPUTS, build)
    assert content(entry) == FILES


def test_a_bucket_that_may_only_be_read(node: Make, storage: Storage) -> None:
    node("a").obtain(KIND, INPUTS, build)
    storage.denied = lambda method, _path: method != "GET"
    assert content(node("b").obtain(KIND, INPUTS, never)) == FILES
    BREAKS["content changed"](storage)
    notes: list[str] = []
    assert content(node("c", notes=notes).obtain(KIND, INPUTS, build)) == FILES
    assert any("no lease" in note for note in notes)
    assert any("403" in note for note in notes)
    # The node has its own from now on.
    assert content(node("c").obtain(KIND, INPUTS, never)) == FILES


def test_a_bucket_that_does_not_answer_stops_nobody(node: Make, storage: Storage) -> None:
    storage.close()
    notes: list[str] = []
    assert content(node("a", notes=notes).obtain(KIND, INPUTS, build)) == FILES
    assert any("cannot be used" in note for note in notes)


def test_a_mirror_is_the_last_tier(
    tmp_path: Path, node: Make, storage: Storage, ours: Identity
) -> None:
    node("a").obtain(KIND, INPUTS, build)
    storage.token = None
    local = FileStore(tmp_path / "far")
    mirror = MirrorStore(f"{storage.url}/mirror/{BUCKET}/airlock-cache", Web(patience=1.0))
    cache = Cache([local, mirror], local, trust=Trust(frozenset({ours.sha256})))
    assert content(cache.obtain(KIND, INPUTS, never)) == FILES
    assert Cache([local, mirror], local).get(KIND, INPUTS) is not None


def test_what_may_change_is_renewed(node: Make) -> None:
    node("a").put("resolution", {"kernel": "6.1"}, {"r.json": b"1"}, {})
    node("a").put("resolution", {"kernel": "6.1"}, {"r.json": b"2"}, {})
    assert content(node("b").get("resolution", {"kernel": "6.1"})) == {"r.json": b"1"}
    node("a").put("resolution", {"kernel": "6.1"}, {"r.json": b"2"}, {}, renew=True)
    assert content(node("c").get("resolution", {"kernel": "6.1"})) == {"r.json": b"2"}


def test_a_copy_is_signed_anew(
    tmp_path: Path, bucket: GcsStore, ours: Identity, node: Make
) -> None:
    source = FileStore(tmp_path / "source")
    Cache([source], source).obtain(KIND, INPUTS, build)
    cache = Cache([source], source, sign=signing(ours))
    assert cache.copy(source, KEY, bucket) is not None
    assert cache.copy(source, "0" * 64, bucket) is None
    assert content(node("b").obtain(KIND, INPUTS, never)) == FILES


def test_names_of_files_are_plain() -> None:
    for name in ("../x", "a/b", ".hidden", "", "a\0b"):
        with pytest.raises(ValueError, match="plain"):
            Cache([], None).put(KIND, INPUTS, {name: b"x"}, {})


def test_no_directory_to_fetch_to(bucket: GcsStore, ours: Identity, node: Make) -> None:
    node("a").obtain(KIND, INPUTS, build)
    notes: list[str] = []
    cache = Cache([bucket], None, trust=Trust(frozenset({ours.sha256})), say=notes.append)
    assert cache.get(KIND, INPUTS) is None
    assert any("no directory" in note for note in notes)
