"""The Markdown summary: short, right, and harmless."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from reports.render.markdown import SIZE_LIMIT, render_markdown
from reports.summary import build_report
from tests.unit.reports.hostile import hostile_report
from tests.unit.reports.sample import (
    big_report,
    failing_cell,
    good_report,
    make_cell,
    make_run,
    mixed_report,
)


def _html(text: str) -> str:
    html: str = MarkdownIt("commonmark").enable("table").render(text)
    return html


def test_a_good_run() -> None:
    text = render_markdown(good_report())
    assert text.startswith("## ✓ Airlock: pass\n")
    assert "3 cells: 2 passed, 1 refused as expected. 24 checks passed, 0 failed" in text
    assert "###" not in text


def test_every_cell_has_a_row_and_trouble_is_explained() -> None:
    html = _html(render_markdown(mixed_report()))
    assert html.count("<tr>") == 1 + 6
    assert "<strong>modules.signature</strong> (blocker, fail)" in html
    assert "remedy: sign the module after strip and before compression" in html
    assert "1 more check failed because of it: modules.load-ours" in html
    assert "the VM was not ready after 300 s" in html
    assert "pass (simulated)" in html


def test_hostile_text_makes_no_markup() -> None:
    text = render_markdown(hostile_report())
    html = _html(text)
    tags = set(re.findall(r"<(\w+)", html))
    assert tags <= {"h2", "h3", "p", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"} | {
        "strong"
    }
    assert html.count("<tr>") == 1 + 6
    assert html.count("<h2>") == 1
    assert html.count("<h3>") == 3
    assert "<script>" not in text.replace("\\<", "")
    assert not re.search(r"[@#](?!<!-- -->)\w", text)
    # Neither may start a link where bare addresses become links.
    assert not re.search(r"(?<!\\)://|www\.", text)


def test_a_reason_starts_no_list() -> None:
    cells = [
        make_cell(f"a{at}+b+c", verdict="error", checks=[], reason=reason)
        for at, reason in enumerate(["- one", "+ two", "3. three", "4) four", "===", "#5 five"])
    ]
    html = _html(render_markdown(build_report(make_run(), cells)))
    assert "<li>" not in html
    assert html.count("<h1>") == 0
    assert html.count("<h2>") == 1


def test_large_runs_are_cut() -> None:
    assert len(render_markdown(big_report(2000, 2))) < SIZE_LIMIT
    cells = [failing_cell(f"image-{at}+scenario+gpu") for at in range(5000)]
    text = render_markdown(build_report(make_run(), cells))
    assert len(text.encode()) < SIZE_LIMIT + 1000
    assert "4500 more cells are in `index.html`" in text
    assert "The rest is in `index.html`." in text
