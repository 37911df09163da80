"""The HTML page: whole, offline, accessible, and harmless whatever a node says."""

from __future__ import annotations

import itertools
import re
import time
from html.parser import HTMLParser

import pytest

from reports.model import Evidence, Phase, Report
from reports.render.html import render_html
from reports.render.view import EVIDENCE_LIMIT
from reports.summary import build_report
from tests.unit.reports.hostile import hostile_report
from tests.unit.reports.sample import (
    big_report,
    failing_cell,
    good_report,
    make_cell,
    make_check,
    make_run,
    mixed_report,
    refused_cell,
)

BLOCKS = {"td", "th", "dt", "dd", "p", "li", "small"}
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()
        if tag in BLOCKS:
            self.text.append(" ")

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


REPORTS = {
    "good": good_report(),
    "mixed": mixed_report(),
    "hostile": hostile_report(),
    "one cell": build_report(make_run(), [failing_cell()]),
    "empty": build_report(make_run(finished=None), []),
    "big": big_report(150, 150),
}


@pytest.fixture(params=REPORTS, scope="module")
def page(request: pytest.FixtureRequest) -> Page:
    return Page(render_html(REPORTS[request.param]))


def test_asks_for_nothing_and_runs_nothing(page: Page) -> None:
    """Offline: no script, no source, every link stays in the page."""
    names = {name for name, _ in page.elements}
    assert not names & {"script", "img", "iframe", "object", "embed", "form", "svg", "base"}
    for name, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), name
        assert not set(attributes) & {"src", "srcset", "action", "ping", "background"}, name
        assert (attributes.get("href") or "#").startswith("data:," if name == "link" else "#")
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert (policy["content"] or "").startswith("default-src 'none'")


def test_style_fetches_nothing() -> None:
    style = re.search(r"<style>(.*)</style>", render_html(good_report()), re.DOTALL)
    assert style
    assert not re.search(r"url\(|@import|image-set", style[1])


def test_text_stands_out_in_light_and_dark() -> None:
    """WCAG AA: a contrast of 4.5 between every text colour and what it stands on."""
    style = render_html(good_report())
    themes = re.findall(r":root {(.*?)}", style, re.DOTALL)
    assert len(themes) == 2
    for theme in themes:
        colour = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", theme))
        pairs = [(ink, ground) for ink in ("ink", "muted", "link") for ground in ("bg", "panel")]
        pairs += [(name.removesuffix("-bg"), name) for name in colour if name.endswith("-bg")]
        pairs += [("ink", "code"), ("muted", "code"), ("fail", "panel"), ("error", "panel")]
        for ink, ground in pairs:
            light, dark = sorted((_luminance(colour[ink]), _luminance(colour[ground])))[::-1]
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def _luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_links_lead_somewhere_and_ids_are_unique(page: Page) -> None:
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for link in page.all("a"):
        assert (link["href"] or "")[1:] in ids
    for _, attributes in page.elements:
        label = attributes.get("aria-labelledby")
        assert label is None or label in ids


def test_is_accessible_in_structure(page: Page) -> None:
    """Language, title, one h1, headings without gaps, scoped table headers, reachable scrollers."""
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("title")) == len(page.all("main")) == len(page.all("h1")) == 1
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch(r"h[1-6]", name)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(header.get("scope") in ("row", "col") for header in page.all("th"))
    for attributes in page.all("div"):
        if attributes.get("class") == "scroll":
            assert attributes["tabindex"] == "0"
            assert attributes["role"] == "region"
            assert attributes.get("aria-label") or attributes.get("aria-labelledby")


def test_hostile_text_stays_text() -> None:
    source = render_html(hostile_report())
    page = Page(source)
    assert "<script>alert(1)</script>" in page.words
    assert "{{ 7*7 }}" in page.words
    assert "onerror" not in {key for _, attributes in page.elements for key in attributes}
    assert source.count("<style>") == 1
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe]", source)
    assert "\\x00" in page.words
    assert "\\u202e" in page.words


def test_colour_is_never_alone() -> None:
    page = Page(render_html(mixed_report()))
    for words in (
        "✓ pass",
        "✗ fail",
        "! error",
        "⊘ refused, as expected",
        "– not run",
        "simulated",
        "1 not verified",
    ):
        assert words in page.words


def test_failed_checks_come_first_with_message_remedy_and_evidence() -> None:
    words = Page(render_html(mixed_report())).words
    words = words[words.index("← All cells debian-13+proxy-intercept+gpu") :]
    order = [
        "Failed checks",
        "modules.signature",
        "nvidia.ko carries no signature",
        "Remedy sign the module after strip and before compression",
        "the end of nvidia.ko",
        "1 check failed because of it",
        "modules.load-ours",
        "Not verified",
        "hygiene.machine-id",
        "Phases",
        "All checks",
    ]
    places = [words.index(text) for text in order]
    assert places == sorted(places)


def test_build_from_the_cache_shows_its_own_ledger_with_its_date() -> None:
    words = Page(render_html(good_report())).words
    assert "from the cache, built 2025-11-19 09:30 UTC 212" in words
    assert "198 requests of apt went through the intercepted TLS" in words
    assert "First request of the build: 1.3 s after the proxy step ended" in words


def test_a_matrix_is_named_without_its_directories() -> None:
    assert "/home/user" not in render_html(good_report())
    other = build_report(make_run(matrix="ssh://root@node/"), [make_cell()])
    assert "ssh://root@node/" in render_html(other)


def test_provenance_is_shown() -> None:
    words = Page(render_html(good_report())).words
    for text in ("6.1.0-42-amd64", "535.261.03", "5f" * 32, "conftest-gcc", "61,234,112", "↺ hit"):
        assert text in words


def test_a_long_console_is_cut_at_its_beginning() -> None:
    serial = Evidence(kind="serial", text="start" + "x" * EVIDENCE_LIMIT + "panic", path="s.log")
    words = Page(render_html(build_report(make_run(), [make_cell(evidence=[serial])]))).words
    assert "panic" in words
    assert "start" not in words.partition("Evidence")[2]
    assert "10 characters left out here. The whole of it: s.log" in words


def test_timeline_places_phases_by_their_start() -> None:
    phases = [
        Phase(name="a", seconds=10, outcome="ok", started=0),
        Phase(name="b", seconds=30, outcome="ok", started=10),
        Phase(name="c", seconds=10, outcome="failed"),
    ]
    source = render_html(build_report(make_run(), [make_cell(phases=phases)]))
    assert re.findall(r'style="margin-left:([\d.]+)%;width:([\d.]+)%"', source) == [
        ("0.0", "20.0"),
        ("20.0", "60.0"),
        ("80.0", "20.0"),
    ]


def test_anchors_of_like_named_cells_differ() -> None:
    names = ["a+b+c", "a b+b+c", "A+b+c", "a+b+c_2"]
    cells = [make_cell(name) for name in names]
    page = Page(render_html(build_report(make_run(), cells)))
    ids = [a["id"] for a in page.all("section") if a.get("class") == "cell"]
    assert len(set(ids)) == len(names)


def test_refusal_shows_reason_and_way_out() -> None:
    words = Page(render_html(build_report(make_run(), [refused_cell()]))).words
    assert "Debian 11's kernel does not trust keys in the firmware's db" in words
    assert "Remedy use debian-12, or enrol a machine owner key by hand" in words
    assert "0 of 0" not in words


def test_large_reports_name_passed_checks_without_their_titles() -> None:
    report = REPORTS["big"]
    words = Page(render_html(report)).words
    assert words.count("What the check number 149 proves") == 1
    assert words.count("a-check-number-149") == 1 + len(report.cells)


def test_instances_and_simulated_checks_are_told() -> None:
    checks = [make_check(instance="nvidia-drm", simulated=True), make_check("a.b", "skip")]
    words = Page(render_html(build_report(make_run(), [make_cell(checks=checks)]))).words
    assert "modules.signature[nvidia-drm]" in words
    assert "simulated" in words


@pytest.mark.slow
def test_a_thousand_cells_in_time_and_size() -> None:
    report: Report = big_report(1000, 200)
    began = time.monotonic()
    source = render_html(report)
    assert time.monotonic() - began < 10
    assert len(source.encode()) < 20_000_000


def test_time_grows_with_size_only() -> None:
    """Ten times the checks may cost some fifteen times the time, not a hundred."""
    small, large = big_report(20, 100), big_report(200, 100)
    render_html(small)

    def cost(report: Report) -> float:
        def once() -> float:
            began = time.process_time()
            render_html(report)
            return time.process_time() - began

        return min(once() for _ in range(3))

    assert cost(large) < 30 * cost(small)
