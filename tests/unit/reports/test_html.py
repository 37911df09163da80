"""The HTML page: whole, offline, accessible, and harmless whatever a node says."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
import time
import zlib
from html.parser import HTMLParser

import pytest

from reports.model import Evidence, Phase, Report
from reports.render import html, overview
from reports.render.html import render_html
from reports.render.view import EVIDENCE_LIMIT
from reports.summary import build_report
from tests.unit.reports.hostile import hostile_report
from tests.unit.reports.sample import (
    big_report,
    error_cell,
    failing_cell,
    good_report,
    make_cell,
    make_check,
    make_run,
    mixed_report,
    refused_cell,
)

BLOCKS = {"td", "th", "dt", "dd", "p", "li", "small"}
VOID = {"meta", "link", "br", "img", "hr", "input", "col"}


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


def test_asks_for_nothing_and_runs_only_its_own(page: Page) -> None:
    """Offline: no source, every link stays in the page; one script and one style, by hash."""
    names = [name for name, _ in page.elements]
    assert not set(names) & {"img", "iframe", "object", "embed", "form", "base", "use", "image"}
    scripts = [attributes.get("type") for attributes in page.all("script")]
    assert scripts[-1] is None
    assert set(scripts[:-1]) <= {"text/plain"}
    assert names.count("style") == 1
    for name, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes), name
        assert not set(attributes) & {"src", "srcset", "action", "ping", "background"}, name
        assert "style" not in attributes, name
        assert (attributes.get("href") or "#").startswith("data:," if name == "link" else "#")


def test_the_policy_names_the_script_and_the_style() -> None:
    source = render_html(hostile_report())
    page = Page(source)
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in (policy["content"] or "").split(";"))
    assert rules.pop("default-src") == rules.pop("base-uri") == "'none'"
    assert rules.pop("form-action") == "'none'"
    assert rules.pop("img-src") == "data:"
    for name in ("style", "script"):
        text = re.findall(f"<{name}>(.*?)</{name}>", source, re.DOTALL)
        assert len(text) == 1
        digest = base64.b64encode(hashlib.sha256(text[0].encode()).digest()).decode()
        assert rules.pop(f"{name}-src") == f"'sha256-{digest}'"
    assert rules == {}


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
            assert _contrast(colour[ink], colour[ground]) >= 4.5, (ink, ground)


def test_plots_stand_out_in_light_and_dark() -> None:
    """WCAG AA: a contrast of 3 between what a bar says and what it stands on."""
    for theme in re.findall(r":root {(.*?)}", render_html(good_report()), re.DOTALL):
        colour = dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", theme))
        bars = [name for name in colour if re.fullmatch(r"k\d", name)]
        assert len(bars) == 9
        for name in bars:
            assert _contrast(colour[name], colour["panel"]) >= 3, name


def _contrast(one: str, other: str) -> float:
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


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


@pytest.mark.parametrize("room", [html.PLAIN_LIMIT, 0], ids=["plain", "packed"])
def test_hostile_text_stays_text(room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "PLAIN_LIMIT", room)
    monkeypatch.setattr(overview, "DENSE", room)
    source = render_html(hostile_report())
    assert ('class="matrix dense"' in source) == (room == 0)
    assert source.count("<style>") == 1
    pages = [source, *unpacked(source)]
    assert len(pages) == (1 if room else 7)
    for text in pages:
        page = Page(text)
        assert "<script>alert(1)</script>" in page.words
        assert "{{ 7*7 }}" in page.words
        assert "onerror" not in {key for _, attributes in page.elements for key in attributes}
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe]", text)
        assert "\\x00" in page.words
        assert "\\u202e" in page.words
        assert text == source or not page.all("script")


def unpacked(source: str) -> list[str]:
    """The pages that a report keeps packed, in the order of their cells."""
    found = re.search(
        r'<script type="text/plain" id="packed">\n(.*?)\n</script>', source, re.DOTALL
    )
    lines = found[1].split("\n") if found else []
    return [zlib.decompress(base64.b64decode(line)).decode() for line in lines]


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
    words = words[words.index("Next debian-13+proxy-intercept+gpu") :]
    order = [
        "Failed checks",
        "modules.signature",
        "nvidia.ko carries no signature",
        "Remedy sign the module after strip and before compression",
        "the end of nvidia.ko",
        "1 check failed because of it",
        "modules.load-ours",
        "Evidence",
        "secureboot: enabled",
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
    for text in ("6.1.0-42-amd64", "535.261.03", "5f" * 32, "conftest-gcc", "61.2 MB", "↺ hit"):
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
    assert re.findall(r'<rect class="k\d( bad)?" x="([\d.]+)" width="([\d.]+)"', source) == 2 * [
        ("", "0.0", "20.0"),
        ("", "20.0", "60.0"),
        (" bad", "80.0", "20.0"),
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


def test_large_reports_pack_the_pages_that_have_no_room() -> None:
    """Those in trouble come first; every cell has its page, and says in plain what became of it."""
    cells = [
        make_cell(
            f"image-{at}+scenario+gpu",
            checks=[make_check(f"a.b{number}", title="x" * 300) for number in range(120)],
        )
        for at in range(60)
    ]
    bad = [failing_cell(f"image-{at}+other+gpu") for at in range(3)]
    source = render_html(build_report(make_run(), [*cells, *bad]))
    page = Page(source)
    sections = {
        a["id"]: "data-packed" in a for a in page.all("section") if a.get("class") == "cell"
    }
    assert len(sections) == 63
    assert 10 < sum(sections.values()) < 60
    assert not any(sections[f"cell-image-{at}-other-gpu"] for at in range(3))
    pages = unpacked(source)
    waiting = [name for name, packed in sections.items() if packed]
    assert len(pages) == len(waiting)
    for name, text in zip(waiting, pages, strict=True):
        assert f'<h2 id="{name}-title">' in text
        assert f'<h2 id="{name}-title">' in source
        assert "a.b119" in text
    assert len(source) < html.PLAIN_LIMIT * 1.5


def test_a_packed_cell_says_its_causes_in_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "PLAIN_LIMIT", 0)
    words = Page(render_html(build_report(make_run(), [failing_cell(), make_cell()]))).words
    words = words[words.index("← All cells") :]
    assert "nvidia.ko carries no signature" in words
    assert "Remedy sign the module after strip and before compression" in words
    assert "the rest of this page is packed" in words


def test_one_cause_of_many_cells_is_told_once() -> None:
    cells = [failing_cell(f"image-{at}+scenario+gpu") for at in range(40)]
    words = Page(render_html(build_report(make_run(), [*cells, error_cell()]))).words
    words = words[: words.index("Matrix")]
    assert words.count("nvidia.ko carries no signature") == 1
    assert "40 cells: image-0+scenario+gpu," in words
    assert "and 28 more" in words
    assert "Failed because of it: modules.load-ours" in words
    assert words.index("modules.signature") < words.index("the VM was not ready after 300 s")


def test_plots_say_their_numbers() -> None:
    words = Page(render_html(good_report())).words
    for text in (
        "build 6 min 16 s",
        "base image 2 of 2",
        "modules 0 of 2 122 MB fetched",
        "origin.airlock.test 18",
        "mirror.airlock.test 10",
    ):
        assert text in words


def test_many_cells_have_a_histogram() -> None:
    phase = [Phase(name="boot", seconds=10.0 + at, outcome="ok") for at in range(40)]
    cells = [make_cell(f"i{at}+s+gpu", phases=[phase[at]]) for at in range(40)]
    words = Page(render_html(build_report(make_run(), cells))).words
    assert "Shortest 10.0 s, median 29.5 s, 95 % within 47.0 s" in words


def test_lines_that_a_check_saw_stand_together() -> None:
    seen = [Evidence(text="one"), Evidence(text="two")]
    cell = make_cell(verdict="fail", checks=[make_check(outcome="fail", evidence=seen)])
    source = render_html(build_report(make_run(), [cell]))
    assert '<pre tabindex="0">one\ntwo</pre>' in source


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
