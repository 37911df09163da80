"""Hadoop's XML files (``<configuration><property>...``), edited without touching what is foreign.

Our properties are one marked block right before ``</configuration>``: of a name that is there twice
Hadoop takes the last value, so the block wins and nothing of others has to be changed for it. What
cannot win (a foreign ``<final>``) is an error, as is a file that Hadoop could not read.

Source: org.apache.hadoop.conf.Configuration, loadResource; read back with the real class in
tests/lab/deferred.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import Any, Optional
from xml.parsers import expat

from installers.dialects.base import torn
from installers.errors import NodeError

_BEGIN = " >>> airlock gpu: this block is replaced, change the metadata instead "
_END = " <<< airlock gpu "
EMPTY = '<?xml version="1.0" encoding="UTF-8"?>\n<configuration>\n</configuration>\n'
_BOOLEAN = {"true": True, "false": False}


@dataclass
class Property:
    """One ``<property>``; ``value`` None: there is no ``<value>``."""

    name: str = ""
    value: Optional[str] = None
    final: bool = False
    ours: bool = False


@dataclass
class Document:
    """A parsed file. Byte offsets: ``block`` of our marked lines, ``end`` of ``</configuration>``;
    ``closed`` is where ``/>`` of an empty ``<configuration/>`` is, else None."""

    properties: list[Property] = field(default_factory=list)
    block: Optional[tuple[int, int]] = None
    end: int = 0
    closed: Optional[int] = None


def read(data: bytes, where: str) -> dict[str, str]:
    """Name → value as Hadoop takes them: the last value wins, a final one stays. NodeError."""
    values: dict[str, str] = {}
    final: set[str] = set()
    for found in parse(data, where).properties:
        # Hadoop passes over a property without a value, or with an empty one.
        if found.name and found.value and found.name not in final:
            values[found.name] = found.value
            if found.final:
                final.add(found.name)
    return values


def ours(data: bytes, where: str) -> dict[str, str]:
    """The properties of our block."""
    return {p.name: p.value or "" for p in parse(data, where).properties if p.ours}


def write(data: bytes, properties: dict[str, str], where: str) -> bytes:
    """The file with these properties in our block and everything else byte for byte as it was.

    Empty ``properties`` take the block out; empty ``data`` is a file that is not there. NodeError
    for a file that Hadoop cannot read and for a foreign final property with another value.
    """
    text = data if data.strip() else EMPTY.encode()
    document = parse(text, where)
    for found in document.properties:
        wanted = properties.get(found.name)
        if found.final and not found.ours and wanted is not None and found.value != wanted:
            raise NodeError(
                f"{found.name} is final with the value {found.value!r}, not {wanted!r}",
                where=where,
                remedy="remove <final> there, or give it that value",
            )
    if document.block is not None:
        begin, end = document.block
        text = text[:begin] + text[end:]
        document = parse(text, where)
    if not properties:
        return b"" if text == EMPTY.encode() else text
    block = _render(properties, b"\r\n" if b"\r\n" in text else b"\n")
    if document.closed is not None:
        name = re.match(rb"<\s*([\w:.-]+)", text[document.closed :])
        assert name is not None
        tag = text[document.closed : document.end].rstrip().removesuffix(b"/>")
        close = b"</" + name[1] + b">"
        return text[: document.closed] + tag + b">\n" + block + close + text[document.end :]
    # On lines of its own where it can be, and always so that it can be cut out without a trace.
    at = document.end
    line = text.rfind(b"\n", 0, at) + 1
    if line and not text[line:at].strip():
        at = line
        return text[:at] + block + text[at:]
    return text[:at] + block.lstrip() + text[at:]


def parse(data: bytes, where: str) -> Document:
    """Read a file; NodeError with the line and column of the first thing that is wrong."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise NodeError("is UTF-16", where=where, remedy="save it as UTF-8, as Hadoop's tools do")
    reader = _Reader(data, where)
    try:
        return reader.read()
    except expat.ExpatError as error:
        raise NodeError(
            f"is not XML: {expat.ErrorString(error.code)} in line {error.lineno}, column "
            f"{error.offset}",
            where=where,
            remedy="repair it, or restore it from the package; Hadoop would not start with it",
        ) from None


class _Reader:
    """Follows expat's events; offsets are bytes of the file."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where = data, where
        self.found = Document()
        self.path: list[str] = []
        self.text = ""
        self.begin: Optional[int] = None
        self.one = Property()
        self.parser: Any = expat.ParserCreate()
        # Nothing is fetched or read for a DOCTYPE.
        self.parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._stop
        self.parser.CharacterDataHandler = self._data
        self.parser.CommentHandler = self._comment
        self.root_at = 0

    def read(self) -> Document:
        self.parser.Parse(self.data, True)
        if self.begin is not None:
            raise torn(self.where)
        return self.found

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if not self.path:
            if name != "configuration":
                raise NodeError(
                    f"the outermost element is <{name}>, not <configuration>",
                    where=self.where,
                    remedy="this is no configuration file of Hadoop; move it away",
                )
            self.root_at = self.parser.CurrentByteIndex
        self.path.append(name)
        self.text = ""
        if self.path == ["configuration", "property"]:
            # Hadoop also takes <property name="..." value="..." final="..."/>.
            self.one = Property(
                attributes.get("name", "").strip(),
                attributes.get("value"),
                _BOOLEAN.get(attributes.get("final", ""), False),
                self.begin is not None,
            )

    def _stop(self, name: str) -> None:
        at = self.parser.CurrentByteIndex
        if self.path[:2] == ["configuration", "property"]:
            if len(self.path) == 3 and name == "name":
                self.one.name = self.text.strip()
            elif len(self.path) == 3 and name == "value":
                self.one.value = self.text
            elif len(self.path) == 3 and name == "final":
                self.one.final = self.text.strip() == "true"
            elif len(self.path) == 2:
                self.found.properties.append(self.one)
        if len(self.path) == 1:
            self.found.end = at
            if not self.data.startswith(b"</", at):
                # Of <configuration/> expat tells the end: the byte behind "/>".
                self.found.closed = self.root_at
        self.path.pop()

    def _data(self, text: str) -> None:
        self.text += text

    def _comment(self, text: str) -> None:
        if text == _BEGIN and self.path == ["configuration"]:
            if self.begin is not None or self.found.block is not None:
                raise torn(self.where)
            self.begin = self._line_start()
        elif text == _END and self.path == ["configuration"]:
            if self.begin is None:
                raise torn(self.where)
            at = self.data.index(b"-->", self.parser.CurrentByteIndex) + 3
            for line_end in (b"\r\n", b"\n"):
                if self.data.startswith(line_end, at):
                    at += len(line_end)
                    break
            self.found.block = (self.begin, at)
            self.begin = None

    def _line_start(self) -> int:
        """Our comment's own indentation belongs to the block."""
        at: int = self.parser.CurrentByteIndex
        before = self.data[:at].rstrip(b" \t")
        return len(before) if before.endswith(b"\n") else at


def _render(properties: dict[str, str], line_end: bytes) -> bytes:
    lines = [f"  <!--{_BEGIN}-->"]
    for name, value in properties.items():
        lines += [
            "  <property>",
            f"    <name>{_escape(name)}</name>",
            f"    <value>{_escape(value)}</value>",
            "  </property>",
        ]
    lines.append(f"  <!--{_END}-->")
    return b"".join(line.encode("ascii") + line_end for line in lines)


def _escape(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.encode("ascii", "xmlcharrefreplace").decode("ascii")
