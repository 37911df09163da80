"""One HTML file that needs nothing else: no request, readable without its script.

Jinja escapes everything, and a content security policy forbids every request, and every script and
style but the file's own, named by their hashes: text from a hostile node stays text.

The page of every cell is made here, by one template. A report of many cells keeps the pages that
have no room packed (deflate, base64, a line each); its script, which shows filters as well, unpacks
one when somebody looks at it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from reports.model import CheckResult, Report
from reports.render import overview, view
from reports.render.view import CellView
from reports.render.words import headline, mark, matrix_name, part_of
from reports.text import count, duration, plain, size

PLAIN_LIMIT = 1_000_000
"""Characters of cells' pages that are in the file as they are; those in trouble come first."""

_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)


def render_html(report: Report) -> str:
    """Return the report as one HTML document."""
    views = view.cell_views(report)
    run = report.run
    seconds = (run.finished - run.started).total_seconds() if run.finished else None
    times = overview.times(views)
    pages, packed = _pages(views, times.kinds)
    style, script = _own("report.css"), _own("report.js")
    return (
        _templates()
        .get_template("report.html.j2")
        .render(
            report=report,
            run=run,
            summary=report.summary,
            headline=headline(report),
            matrix=matrix_name(run),
            seconds=seconds,
            cells=views,
            causes=overview.causes(views),
            opened=overview.CAUSES_OPEN,
            grid=overview.grid(views),
            checks=overview.check_views(report.cells),
            times=times,
            cache=overview.cache_rows(report.cells),
            hosts=overview.hosts(report.cells),
            pages=pages,
            packed=packed,
            brief=_templates().get_template("brief.html.j2"),
            verdict_tone={"nothing": "none"}.get(report.summary.verdict, report.summary.verdict),
            style=Markup(style),  # noqa: S704 - our own files
            script=Markup(script),  # noqa: S704
            style_hash=_hash(style),
            script_hash=_hash(script),
        )
    )


def _pages(
    views: Sequence[CellView], kinds: dict[str, int]
) -> tuple[dict[str, Markup], dict[str, str]]:
    """Return the cells' pages by anchor: those in the file as they are, and the packed ones."""
    page, check_rows = _templates().get_template("cell.html.j2"), _check_rows()
    room = PLAIN_LIMIT
    pages: dict[str, Markup] = {}
    packed: dict[str, str] = {}
    for item in sorted(views, key=lambda item: item.fine):
        text = page.render(item=item, kinds=kinds, check_rows=check_rows)
        room -= len(text)
        if room >= 0:
            pages[item.anchor] = Markup(text)  # noqa: S704 - Jinja has escaped it
        else:
            data = zlib.compress(text.encode("utf-8", "backslashreplace"), 6)
            packed[item.anchor] = base64.b64encode(data).decode("ascii")
    return pages, packed


def _check_rows() -> Callable[[Sequence[CheckResult]], Markup]:
    """Return what makes a table's rows of checks; the like of one is made once.

    A thousand cells have the same two hundred checks: all but the time is the same for most.
    """
    macros: Any = _templates().get_template("macros.html.j2").module
    known: dict[tuple[object, ...], str] = {}

    def rows(checks: Sequence[CheckResult]) -> Markup:
        lines = []
        for check in checks:
            key = (check.id, check.instance, check.title, check.severity, check.outcome,
                   check.message, check.simulated)  # fmt: skip
            begin = known.get(key)
            if begin is None:
                begin = known[key] = str(macros.check_row(check))
            lines.append(f'{begin}<td class="num">{duration(check.seconds)}</td></tr>')
        return Markup("\n".join(lines))  # noqa: S704 - the macro has escaped its part

    return rows


def _own(name: str) -> str:
    """The text of our own style or script, as it stands in the page."""
    text = files("reports.render").joinpath("templates", name).read_text(encoding="utf-8")
    return _INDENT.sub("", text)


def _hash(text: str) -> str:
    """The source expression of a content security policy for this text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=_PackedLoader("reports.render", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        duration=duration,
        moment=_moment,
        value=view.value_text,
        excerpt=view.excerpt,
        ends_matter=view.ends_matter,
        seen=view.seen,
        name=view.check_name,
        mark=mark,
        part_of=part_of,
        n=count,
        size=size,
    )
    return environment


class _PackedLoader(jinja2.PackageLoader):
    """Drops the templates' indentation, which a thousand cells would repeat."""

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, str, Any]:
        source, name, fresh = super().get_source(environment, template)
        return _INDENT.sub("", source), name, fresh


def _finalize(value: Any) -> Any:
    """Spell out control characters in everything that is printed, but not in our own markup."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
