"""Packing: what an archive or a manifest may not do, and what survives the change of prefix."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from installers import envmanifest, envpack
from installers.cache.store import TamperedError
from installers.errors import NodeError

OLD, NEW = b"/a/very/long/prefix/of/a/build", b"/opt/e"


@given(st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 3))
def test_programs_keep_their_length(before: bytes, after: bytes, times: int) -> None:
    data = b"\x7fELF\0" + before + b"\0" + (OLD + b"/lib:") * times + b"\0" + after
    made = envpack.rewritten(data, envpack.BINARY, OLD, NEW)
    assert len(made) == len(data)
    assert OLD not in made or OLD in before + after
    assert made.startswith(data[: 5 + len(before)]) or OLD in before
    assert made.endswith(after) or OLD in after


def test_strings_end_where_they_ended() -> None:
    data = b"\x7fELF\0" + OLD + b"/x:" + OLD + b"/y\0next\0"
    made = envpack.rewritten(data, envpack.BINARY, OLD, NEW)
    text, _, rest = made[5:].partition(b"\0")
    assert text == NEW + b"/x:" + NEW + b"/y"
    assert rest.lstrip(b"\0") == b"next\0"


def _packed(tmp_path: Path) -> tuple[Path, envmanifest.Manifest]:
    prefix = tmp_path / "build_______________________________"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib/__pycache__").mkdir(parents=True)
    (prefix / "bin/tool").write_text(f"#!{prefix}/bin/python\n")
    (prefix / "bin/tool").chmod(0o4775)
    (prefix / "lib/m.py").write_text(f"home = '{prefix}'\n")
    (prefix / "lib/__pycache__/m.cpython-311.pyc").write_bytes(b"stale")
    (prefix / "lib/n.py").write_text("x = 1\n")
    (prefix / "conda-meta").mkdir()
    (prefix / "conda-meta/m-1.0-0.json").write_text("{}")
    (prefix / "conda-meta/m-1.0-0.json").chmod(0o600)
    (prefix / "lib/__pycache__/n.cpython-311.pyc").write_bytes(str(prefix).encode())
    os.utime(prefix / "lib/n.py", (1000, 1000))
    (prefix / "lib/absolute").symlink_to(prefix / "bin/tool")
    os.link(prefix / "lib/n.py", prefix / "lib/hard.py")
    return prefix, envpack.pack(prefix, tmp_path / "out")


def _archives(tmp_path: Path, manifest: envmanifest.Manifest) -> dict[str, Path]:
    return {name: tmp_path / "out" / name for name in manifest.shards}


def test_what_is_packed(tmp_path: Path) -> None:
    prefix, made = _packed(tmp_path)
    assert "lib/__pycache__/m.cpython-311.pyc" not in made.files
    assert made.files["lib/__pycache__/n.cpython-311.pyc"].how is None
    assert made.links == {"lib/absolute": "../bin/tool"}
    again = envmanifest.read_manifest(made.text())
    assert again == made
    target = tmp_path / "new"
    target.mkdir()
    digests = envpack.unpack(_archives(tmp_path, made), made, target, seen_as="/opt/e")
    assert (target / "bin/tool").read_text() == "#!/opt/e/bin/python\n"
    assert (target / "bin/tool").stat().st_mode & 0o7777 == 0o755
    # Some solvers write their records for themselves alone; an environment is everybody's.
    assert (target / "conda-meta/m-1.0-0.json").stat().st_mode & 0o7777 == 0o644
    assert (target / "lib/n.py").stat().st_mtime == 1000
    assert (target / "lib/hard.py").read_text() == "x = 1\n"
    assert envpack.differing(target, digests, made.links) == []
    (target / "lib/absolute").unlink()
    (target / "lib/absolute").symlink_to("/etc/passwd")
    (target / "bin/tool").unlink()
    assert envpack.differing(target, digests, made.links) == ["bin/tool", "lib/absolute"]
    assert prefix.exists()


def test_the_same_tree_gives_the_same_archives(tmp_path: Path) -> None:
    prefix, made = _packed(tmp_path)
    envpack.pack(prefix, tmp_path / "again")
    for name in made.shards:
        one, two = (tmp_path / where / name for where in ("out", "again"))
        assert one.read_bytes() == two.read_bytes()


def test_a_prefix_that_is_too_long(tmp_path: Path) -> None:
    _, made = _packed(tmp_path)
    with pytest.raises(NodeError, match="is longer than"):
        envpack.unpack(_archives(tmp_path, made), made, tmp_path, seen_as="/" + "x" * 300)


def test_a_link_that_leads_out_is_not_packed(tmp_path: Path) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e/link").symlink_to("../../etc/passwd")
    with pytest.raises(NodeError, match="outside of the environment"):
        envpack.pack(tmp_path / "e", tmp_path / "out")


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../evil": ["ab", 1, 493, 0, None]}},
        {"files": {"/etc/evil": ["ab", 1, 493, 0, None]}},
        {"files": {"a//b": ["ab", 1, 493, 0, None]}},
        {"links": {"lib/x": "/etc/passwd"}},
        {"links": {"lib/x": "../../etc/passwd"}},
        {"shards": {"../x": []}},
        {"shards": {"part-0.zip": 5}},
        {"shards": {"part-0.zip": [["lib/unknown"]]}},
        {"files": {"lib/in_no_archive": ["ab", 1, 493, 0, None]}},
        {"files": []},
        {"schema": 1},
    ],
)
def test_manifests_that_name_something_outside(change: dict[str, object]) -> None:
    good = {"schema": 2, "prefix": "/p", "files": {}, "links": {}, "shards": {}}
    assert envmanifest.read_manifest(json.dumps(good))
    with pytest.raises(TamperedError):
        envmanifest.read_manifest(json.dumps({**good, **change}))


def test_archives_that_are_not_the_manifests(tmp_path: Path) -> None:
    _, made = _packed(tmp_path)
    archives = _archives(tmp_path, made)
    (tmp_path / "new").mkdir()
    name = next(iter(archives))
    data = archives[name].read_bytes()
    middle = len(data) // 2
    flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
    for wrong in (data[:middle], b"no archive", b"", data[:-8] + bytes(8), flipped):
        archives[name].write_bytes(wrong)
        with pytest.raises(TamperedError):
            envpack.unpack(archives, made, tmp_path / "new", seen_as="/opt/e")


@pytest.mark.parametrize("of", ["lib/n.py", "bin/tool"])
def test_an_archive_that_is_whole_and_has_another_content(tmp_path: Path, of: str) -> None:
    """Nobody hashes an archive: each file is compared, as packed or as it was rewritten."""
    prefix, made = _packed(tmp_path)
    archives = _archives(tmp_path, made)
    shard, blocks = next(
        (shard, blocks)
        for shard, blocks in made.shards.items()
        if any(of in names for names in blocks)
    )
    turned = (prefix / of).read_bytes()[::-1]
    (prefix / of).unlink()
    (prefix / of).write_bytes(turned)
    blobs = [b"".join((prefix / n).read_bytes() for n in names) for names in blocks]
    (tmp_path / "new").mkdir()

    def unpack_with(members: dict[str, bytes], match: str) -> None:
        with zipfile.ZipFile(archives[shard], "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        with pytest.raises(TamperedError, match=match):
            envpack.unpack(archives, made, tmp_path / "new", seen_as="/opt/e")

    unpack_with({str(n): data for n, data in enumerate(blobs)}, f"{of} has other content")
    unpack_with({str(n): data + b"x" for n, data in enumerate(blobs)}, "block 0 has ")
    unpack_with({"other": b""}, "lacks block 0")


def test_small_files_share_a_block_and_a_large_one_has_its_own(tmp_path: Path) -> None:
    prefix = tmp_path / "e"
    prefix.mkdir()
    sizes = {"0": 0, "a": 10, "b": 3 << 20, "c": 0, "d": 600 << 10, "e": 600 << 10, "f": 5}
    for name, size in sizes.items():
        (prefix / name).write_bytes(os.urandom(size))
    made = envpack.pack(prefix, tmp_path / "out")
    blocks = [names for shard in made.shards.values() for names in shard]
    assert sorted(name for names in blocks for name in names) == sorted(sizes)
    for names in blocks:
        assert len(names) == 1 or sum(sizes[name] for name in names) <= 1 << 20
    (tmp_path / "new").mkdir()
    digests = envpack.unpack(_archives(tmp_path, made), made, tmp_path / "new", seen_as="/opt/e")
    assert {n: (tmp_path / "new" / n).read_bytes() for n in digests} == {
        n: (prefix / n).read_bytes() for n in sizes
    }
    # One file, and nothing of those that it shares a block with.
    (tmp_path / "one").mkdir()
    envpack.unpack(
        _archives(tmp_path, made), made, tmp_path / "one", seen_as="/opt/e", only=["f", "b"]
    )
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["b", "f"]


@given(st.data())
def test_a_damaged_archive_is_named_so(data: st.DataObject) -> None:
    """Whatever a damage does to it: its own files come out, or one error that says what it is."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, made = _packed(folder)
        archives = _archives(folder, made)
        shard = data.draw(st.sampled_from(sorted(archives)))
        whole = bytearray(archives[shard].read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        archives[shard].write_bytes(whole)
        target = folder / "new"
        target.mkdir()
        try:
            digests = envpack.unpack(archives, made, target, seen_as="/opt/e")
        except TamperedError:
            return
        assert envpack.differing(target, digests, made.links) == []
        assert (target / "lib/n.py").read_text() == "x = 1\n"
