"""One HTML file that needs nothing else: no request, no script, readable with styles off.

Jinja escapes everything, and a content security policy forbids every request and script, so text
from a hostile node stays text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from reports.model import Report
from reports.render import view
from reports.render.words import headline, mark, matrix_name
from reports.text import count, duration, plain

_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)


def render_html(report: Report) -> str:
    """Return the report as one HTML document."""
    views = view.cell_views(report)
    run = report.run
    seconds = (run.finished - run.started).total_seconds() if run.finished else None
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
            trouble=[item for item in views if not item.fine],
            grid=view.grid(views),
            checks=view.check_views(report.cells),
            full=report.summary.checks.total <= view.FULL_TABLE_LIMIT,
            verdict_tone={"nothing": "none"}.get(report.summary.verdict, report.summary.verdict),
        )
    )


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
        name=view.check_name,
        mark=mark,
        n=count,
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
