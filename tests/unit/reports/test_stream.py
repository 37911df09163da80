"""A report read through a small window says what the whole says, however it is laid out."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from reports import stream
from reports.errors import ReportError
from reports.read import Reading, decode_report, open_report
from reports.stream import TooMuch, Window, members
from tests.unit.reports.sample import big_report, good_report, mixed_report

DOCUMENT = {
    "a": 1,
    "cells": [{"x": "]},{"}, 12.5e3, [1, [2]], 'é"\\', 3.5, None],
    "b": {"c": [True]},
}


def _read(data: bytes, limit: int = 1 << 20) -> list[tuple[str, Any]]:
    window = Window(io.BytesIO(data), limit, lambda _: None)
    return [
        (name, ... if value is None else json.loads(bytes(value)))
        for name, value in members(window, "cells")
    ]


@pytest.mark.parametrize("window", [1, 2, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_members_through_any_window(
    window: int, indent: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "WINDOW", window)
    data = json.dumps(DOCUMENT, indent=indent, ensure_ascii=False).encode()
    cells: Any = DOCUMENT["cells"]
    expected = [
        ("a", 1),
        *(("cells", cell) for cell in cells),
        ("cells", ...),
        ("b", {"c": [True]}),
    ]
    assert _read(data) == expected
    for end in range(1, len(data)):
        with pytest.raises(msgspec.DecodeError, match="truncated"):
            _read(data[:end])


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b'{"a": 1,}', "expected a name"),
        (b'{"a" 1}', "expected ':' (byte 6)"),
        (b'{"a": 1} x', "trailing characters (byte 10)"),
        (b'{"a": 1 "b": 2}', "expected ',' or '}' (byte 9)"),
        (b'{"cells": [1 2]}', "expected ',' or ']' (byte 14)"),
        (b'{"cells": [1, tru]}', "(byte 15)"),
        (b'{"a": 1, "a": 2}', "field 'a' twice"),
        (b"[]", "Expected `object`"),
    ],
)
def test_what_is_malformed_is_named_with_its_place(data: bytes, says: str) -> None:
    with pytest.raises(msgspec.DecodeError) as caught:
        _read(data)
    assert says in str(caught.value)


def test_empty_objects_and_lists() -> None:
    assert _read(b" { } ") == []
    assert _read(b'{"cells": [ ]}') == [("cells", ...)]
    assert _read(b'{"cells": 3}') == [("cells", 3)]


def test_a_file_that_grows_beyond_the_limit_while_it_is_read() -> None:
    with pytest.raises(TooMuch):
        _read(json.dumps(DOCUMENT).encode(), limit=20)


def test_the_order_and_the_layout_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "WINDOW", 1000)
    report = mixed_report()
    document = json.loads(msgspec.json.encode(report))
    backwards = {name: document[name] for name in reversed(document)}
    assert decode_report(json.dumps(backwards, indent=3).encode()) == report


def test_a_member_twice_hides_nothing() -> None:
    data = msgspec.json.encode(good_report())
    with pytest.raises(ReportError, match="field 'cells' twice"):
        decode_report(data[:-1] + b',"cells":[]}')


@pytest.mark.parametrize("name", ["cells", "run", "summary"])
def test_a_member_that_is_missing_or_strange(name: str) -> None:
    document = json.loads(msgspec.json.encode(good_report()))
    for broken in ({**document, name: 3}, {k: v for k, v in document.items() if k != name}):
        with pytest.raises(ReportError, match=name):
            decode_report(json.dumps(broken).encode())
    for strange in ({"colour": 1, **document}, {**document, "colour": 1}):
        with pytest.raises(ReportError, match="unknown field `colour`"):
            decode_report(json.dumps(strange).encode())


def test_the_digest_is_the_files(tmp_path: Path) -> None:
    data = b"\n" + msgspec.json.encode(good_report()) + b"\n\n"
    (tmp_path / "report.json").write_bytes(data)
    with open_report(tmp_path, digest=True) as reading:
        assert reading.sha256 == ""
        assert [cell.verdict for cell in reading.cells] == ["pass", "pass", "refused"]
        assert reading.sha256 == hashlib.sha256(data).hexdigest()


def test_one_cell_is_in_memory_at_a_time() -> None:
    import tracemalloc

    data = msgspec.json.encode(big_report(400, 200))
    reading = Reading(io.BytesIO(data), "big")
    tracemalloc.start()
    for _ in reading.cells:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(data) > 20 << 20
    assert peak < 4 << 20
