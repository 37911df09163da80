"""The site as it is built: strict, offline, and with everything in it that the code has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import conformance
from fixtures.scenarios import load_scenarios
from harness.catalog import MATRICES, load_catalog
from harness.cli import VERBS, parser_of
from installers import registry
from installers.exits import Exit
from manual import hooks, sources
from reports.schema import schema
from tests.unit.reports.hostile import ATTACK

ROOT = Path(__file__).resolve().parents[3]
#: Elements that fetch what they name as soon as a page is open.
_FETCHING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Read(HTMLParser):
    """The text of a page, the ids in it, where it leads, and what it fetches."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.text, self.ids = "", set[str]()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids |= {values[key] for key in ("id", "name") if key in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if values.get(_FETCHING.get(tag, "")) and values.get("rel") != "canonical":
            self.fetched.append(values[_FETCHING[tag]])

    def handle_data(self, data: str) -> None:
        self.text += data


def build(
    target: Path, *, config: Path = ROOT / "properdocs.yml"
) -> subprocess.CompletedProcess[str]:
    """``make docs``, into another directory."""
    words = ["build", "--strict", "--config-file", str(config), "--site-dir", str(target)]
    return subprocess.run(
        [sys.executable, "-m", "properdocs", *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(target)
    assert done.returncode == 0, done.stderr[-3000:]
    return target


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, Read]:
    """Every page by its path in the site."""
    return {
        str(path.relative_to(site)): Read(path.read_text(encoding="utf-8"))
        for path in sorted(site.rglob("*.html"))
    }


def words(text: str) -> str:
    return " ".join(text.split())


def test_every_page_of_the_repository_is_there(pages: dict[str, Read]) -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        place = hooks.OUTSIDE.get(path.name, path.name)
        title = re.sub(r"[`*]", "", path.read_text().partition("\n")[0].removeprefix("# "))
        assert words(title) in words(pages[place.replace(".md", ".html")].text), path.name


def test_every_link_leads_somewhere(site: Path, pages: dict[str, Read]) -> None:
    broken = []
    for place, page in pages.items():
        for link in page.links:
            path, _, fragment = link.partition("#")
            if re.match(r"[a-z]+:", link) or place == "404.html":
                continue
            goal = (site / place).parent / path if path else site / place
            there = pages.get(str(goal.resolve().relative_to(site.resolve())))
            if not goal.exists() or (fragment and there and fragment not in there.ids):
                broken.append(f"{place}: {link}")
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site: Path, pages: dict[str, Read]) -> None:
    told = {place: page.fetched for place, page in pages.items()}
    assert any(told.values())
    assert not [url for urls in told.values() for url in urls if re.match(r"(?:[a-z]+:)?//", url)]
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert styles
    assert not [one for style in styles for one in re.findall(r"url\([\"']?(?:https?:)?//", style)]
    scripts = [*site.rglob("*.html")]
    # The theme's script fetches its program for diagrams where a page has one.
    assert not [path for path in scripts if 'class="mermaid"' in path.read_text()]
    analytics = re.compile(r"google-analytics|googletagmanager|gtag\(|fonts\.g(?:oogleapis|static)")
    assert not [path for path in scripts if analytics.search(path.read_text())]


def test_every_check_is_there_with_what_is_known_of_it(pages: dict[str, Read]) -> None:
    """Counted in the files themselves, not by what made the page."""
    page = pages["reference/checks.html"]
    files = Path(str(conformance.__file__)).parent.glob("*/test_*.py")
    ids = {
        one for path in files for one in re.findall(r'^    id="([\w.-]+)"', path.read_text(), re.M)
    }
    checks = {check.id: check for check in sources.checks()}
    assert ids == set(checks)
    assert len(ids) > 70
    shown = words(page.text)
    for check in checks.values():
        assert check.id.replace(".", "-") in page.ids
        for said in (
            check.title,
            check.remedy,
            check.source,
            *(one.needs for one in check.requires),
        ):
            assert words(said) in shown, check.id


def test_every_sabotage_is_there_by_the_checks_that_it_kills(pages: dict[str, Read]) -> None:
    shown = words(pages["reference/checks.html"].text)
    files = [*(ROOT / "conformance").glob("*/sabotage.toml")]
    names = []
    for path in files:
        for part in path.read_text().split("[[sabotage]]")[1:]:
            if "\nkills" in part:
                # The shell of a break may set a name as well.
                names += re.findall(r'^name = "(.+)"', part, re.MULTILINE)[:1]
    assert len(names) > 40
    assert [name for name in names if f"{name}: " not in shown] == []


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_there_with_its_options(pages: dict[str, Read], verb: str) -> None:
    page = pages["reference/command-line.html"]
    assert verb in page.ids
    parser = parser_of(verb)
    assert f"usage: airlock {verb}" in words(page.text)
    options = {word for action in parser._actions for word in action.option_strings}
    assert [word for word in options if word not in page.text] == []


def test_the_words_below_a_verb_are_there(pages: dict[str, Read]) -> None:
    for usage in ("airlock node up", "airlock keys rotate", "airlock cache warm"):
        assert f"usage: {usage}" in words(pages["reference/command-line.html"].text)


def test_every_exit_code_is_there(pages: dict[str, Read]) -> None:
    shown = words(pages["reference/exit-codes.html"].text)
    for one in Exit:
        assert re.search(rf"\b{one.value} {one.name} \w", shown), one


def test_every_scenario_is_there(pages: dict[str, Read]) -> None:
    shown = words(pages["scenarios.html"].text)
    for scenario in load_scenarios().values():
        assert f"{scenario.name} {words(scenario.title)}" in shown, scenario.name
        assert f"scenario-{scenario.name}" in pages["scenarios.html"].ids
    led = [link for link in pages["troubleshooting.html"].links if "scenarios.html#" in link]
    assert len(led) > 20


def test_it_can_be_searched(site: Path, pages: dict[str, Read]) -> None:
    index = json.loads((site / "search/search_index.json").read_text())
    places = {one["location"].partition("#")[0] for one in index["docs"]}
    assert {"reference/checks.html", "troubleshooting.html", "scenarios.html"} <= places
    assert "__search" in pages["index.html"].ids


def test_every_installer_is_there_in_order_with_keys_that_it_reads(pages: dict[str, Read]) -> None:
    shown = words(pages["reference/installers.html"].text)
    places = [shown.index(f"{number}. {name}") for number, name in enumerate(registry.ORDER, 1)]
    assert places == sorted(places)
    keys = {one.name: one.keys for one in sources.installers()}
    assert "http-proxy" in sources.shared_keys()
    assert {"gpu-driver-version", "airlock-driver-sha256", "airlock-cache"} <= {*keys["driver"]}
    assert "airlock-environment-locks" in keys["environments"]
    assert "no-proxy" in keys["proxy"]
    assert {"ENABLE_MIG", "airlock-spark-gpu", "dataproc-role"} <= {*keys["deferred"]}
    assert "airlock-repositories" in keys["keyrings"]
    assert [key for own in keys.values() for key in own if key not in shown] == []


def test_every_code_of_a_refusal_is_there(pages: dict[str, Read]) -> None:
    ids = pages["reference/installers.html"].ids
    assert {
        "code-driver-no-signer",
        "code-disk-space",
        "code-gpu-kernel",
        "code-clock-wrong",
    } <= ids
    assert "code-fake-refusal" not in ids


def test_the_reports_types_are_there(pages: dict[str, Read]) -> None:
    page = pages["reference/report-schema.html"]
    for name, kind in schema()["$defs"].items():
        assert name.lower() in page.ids
        assert [key for key in kind.get("properties", ()) if key not in page.text] == []


def test_the_support_matrix_has_every_image_and_system(pages: dict[str, Read]) -> None:
    shown = words(pages["reference/support.html"].text)
    assert [one for one in load_catalog(MATRICES).images if one not in shown] == []
    for cell in ("almalinux 8 3.11", "blackwell", "debian below 5.11 no"):
        assert cell in shown


def test_what_is_not_proved_is_collected(pages: dict[str, Read]) -> None:
    shown = words(pages["proved.html"].text)
    assert "that a GPU computes" in shown
    for path in ROOT.glob("docs/*.md"):
        if re.search(
            r"^## (What is not|Not) proved$", path.read_text(), re.MULTILINE | re.IGNORECASE
        ):
            assert f"Not proved: {path.read_text().partition(chr(10))[0][2:]}" in shown


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text("# A\n\n[nowhere](absent.md)\n")
    config = tmp_path / "properdocs.yml"
    kept = (
        (ROOT / "properdocs.yml").read_text().partition("validation:")[2].partition("nav:\n  -")[0]
    )
    config.write_text(f"site_name: a\nvalidation:{kept}theme: material\n")
    done = build(tmp_path / "site", config=config)
    assert done.returncode != 0
    assert "absent.md" in done.stderr


class _File:
    src_uri = "node-file.md"


class _Page:
    file = _File()


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("see [it](../CHANGELOG.md#a)", "see [it](changes.md#a)"),
        ("[code](../installers/pem.py)", "code (`installers/pem.py`)"),
        ("[x](https://a.test/b)", "[x](https://a.test/b)"),
        ("`trust.os-store` fails", "[`trust.os-store`](reference/checks.md#trust-os-store) fails"),
        ("## `trust.os-store`", "## `trust.os-store`"),
        (
            "```\n[x](../LICENSE) `trust.os-store`\n```",
            "```\n[x](../LICENSE) `trust.os-store`\n```",
        ),
        ("`disk.space`", "[`disk.space`](reference/installers.md#code-disk-space)"),
        ("`no.code`", "`no.code`"),
    ],
)
def test_links_hold_in_both_places(written: str, shown: str) -> None:
    page: Any = _Page()
    assert hooks.on_page_markdown(written, page) == shown


def hostile_pages() -> Iterator[tuple[str, str]]:
    from markdown import Markdown

    from manual import markdown

    made = Markdown(extensions=["tables", "attr_list", "md_in_html", "pymdownx.superfences"])
    written = {
        "text": markdown.text(ATTACK),
        "code": markdown.code(ATTACK),
        "prose": markdown.prose(ATTACK + "``" + ATTACK.replace("`", "") + "``"),
        "block": markdown.block(ATTACK + "\n```\n<b>"),
        "cell": markdown.table(("a", "b"), [(markdown.text(ATTACK), markdown.code(ATTACK))]),
    }
    for name, text in written.items():
        made.reset()
        yield name, made.convert(f"# A\n\n{text}\n")


@pytest.mark.parametrize(("name", "page"), [*hostile_pages()])
def test_hostile_text_stays_text(name: str, page: str) -> None:
    """What is made of data is shown as it is: no element, no link, no further column."""
    tags = {tag.lower() for tag in re.findall(r"<([a-zA-Z][\w-]*)", page)}
    allowed = {"h1", "p", "code", "div", "pre", "span", "table", "thead", "tbody", "tr", "th", "td"}
    assert tags <= allowed, tags - allowed
    assert "<script" not in page
    if name == "cell":
        assert page.count("<td>") == 2
    assert "alert(1)" in page
