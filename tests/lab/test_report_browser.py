"""The HTML report in a real browser: keyboard, narrow screen, no request, without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("selenium")

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from reports.model import Report
from reports.render import html
from reports.summary import build_report
from tests.lab.browser import BROWSER, DRIVER, asked_for, browser, complaints, show
from tests.unit.reports.hostile import hostile_report
from tests.unit.reports.sample import (
    big_report,
    failing_cell,
    make_cell,
    make_run,
    mixed_report,
)

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium and chromium-driver"),
    pytest.mark.xdist_group("browser"),
]

FAILING = "cell-debian-13-proxy-intercept-gpu"


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The reports as files. ``packed`` has no room for any cell's page."""
    folder = tmp_path_factory.mktemp("pages")
    many = [make_cell(f"image-{at % 9}+scenario-{at // 9}+gpu") for at in range(80)]
    reports: dict[str, tuple[Report, int]] = {
        "mixed": (mixed_report(), html.PLAIN_LIMIT),
        "hostile": (hostile_report(), html.PLAIN_LIMIT),
        "packed": (hostile_report(), 0),
        "many": (build_report(make_run(), [*many, failing_cell("image-0+x+gpu")]), 0),
        "one": (build_report(make_run(), [failing_cell()]), html.PLAIN_LIMIT),
        "none": (build_report(make_run(finished=None), []), html.PLAIN_LIMIT),
        "large": (big_report(60, 200), html.PLAIN_LIMIT),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, (report, room) in reports.items():
            patch.setattr(html, "PLAIN_LIMIT", room)
            (folder / f"{name}.html").write_text(html.render_html(report), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in reports}


def _keys(driver: webdriver.Chrome, *keys: str) -> None:
    for key in keys:
        ActionChains(driver).send_keys(key).perform()


def _focused(driver: webdriver.Chrome) -> str:
    """What has the focus, as somebody would name it."""
    return str(driver.execute_script(
        "const e = document.activeElement;"
        "return e.getAttribute('aria-label') || e.id || e.textContent.trim()"
    ))  # fmt: skip


def _there(selector: str) -> Callable[[webdriver.Chrome], bool]:
    """A condition to wait for: something matches the selector."""
    return lambda driver: bool(driver.find_elements(By.CSS_SELECTOR, selector))


def _shown(driver: webdriver.Chrome, selector: str) -> list[str]:
    return [e.text for e in driver.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()]


@pytest.mark.parametrize("name", ["mixed", "hostile", "packed", "many", "one", "none", "large"])
def test_nothing_is_asked_for_and_nothing_complains(
    name: str, driver: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(driver, pages[name])
    assert driver.execute_script("return document.readyState") == "complete"
    asked = asked_for(driver)
    assert asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file")] == [pages[name].as_uri()]
    assert complaints(driver) == []


@pytest.mark.parametrize("name", ["hostile", "packed"])
def test_a_hostile_node_runs_nothing(
    name: str, driver: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    """Its text is text, on the first page and on a cell's, packed or not."""
    show(driver, pages[name])
    anchors = driver.execute_script(
        "return Array.from(document.querySelectorAll('section.cell'), (s) => s.id)"
    )
    assert len(anchors) == 6
    for anchor in anchors:
        driver.execute_script("location.hash = arguments[0]", anchor)
        selector = f"[id='{anchor}']:not([data-packed]) .facts"
        WebDriverWait(driver, 10).until(_there(selector))
    assert "<script>alert(1)</script>" in driver.page_source.replace("&lt;", "<").replace(
        "&gt;", ">"
    )
    found = driver.execute_script(
        "return [document.querySelectorAll('script:not([type])').length,"
        " document.querySelectorAll('img, iframe, object, embed, form, svg[onload]').length,"
        " document.querySelectorAll('[onerror], [onload], [style]').length]"
    )
    assert found == [1, 0, 0]
    assert complaints(driver) == []
    assert {url.split(":")[0] for url in asked_for(driver)} <= {"file", "data"}


@pytest.mark.parametrize(
    ("name", "anchor"),
    [
        ("mixed", ""),
        ("mixed", FAILING),
        ("mixed", "everything"),
        ("hostile", ""),
        ("hostile", "everything"),
        ("many", ""),
        ("one", ""),
        ("none", ""),
    ],
)
def test_a_narrow_screen_scrolls_one_way_only(
    name: str, anchor: str, driver: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(driver, pages[name], anchor, width=375)
    driver.execute_script("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert driver.execute_script("return innerWidth") == 375
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 375


def test_the_keyboard_reaches_everything(
    driver: webdriver.Chrome, pages: dict[str, Path]
) -> None:  # fmt: skip
    show(driver, pages["mixed"])
    _keys(driver, Keys.TAB)
    assert _focused(driver) == "Skip to the cells"
    _keys(driver, Keys.ENTER, Keys.TAB)
    assert _focused(driver) == "find"
    _keys(driver, *"modules.sig")
    assert _shown(driver, "#list tbody th") == ["debian-13+proxy-intercept+gpu"]
    assert _shown(driver, "#found") == ["1 of 6"]
    assert driver.execute_script("return document.querySelectorAll('.matrix .faded').length") == 5
    _keys(driver, Keys.TAB)
    assert _focused(driver) == "show"
    # The table that scrolls, the heads that sort, and the one cell that is left.
    for _ in range(20):
        _keys(driver, Keys.TAB)
        if _focused(driver) == "debian-13+proxy-intercept+gpu":
            break
    _keys(driver, Keys.ENTER)
    assert _shown(driver, "section.cell h2") == ["debian-13+proxy-intercept+gpu"]
    assert _shown(driver, "#overview") == []
    assert _focused(driver) == FAILING
    _keys(driver, Keys.TAB)
    assert _focused(driver) == "← All cells"
    _keys(driver, Keys.ENTER)
    assert _shown(driver, "section.cell") == []


@pytest.mark.parametrize("name", ["mixed", "many"])
def test_the_matrix_is_one_stop_and_arrows_walk_it(
    name: str, driver: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(driver, pages[name])
    stops = "return document.querySelectorAll('.matrix a:not([tabindex=\"-1\"])').length"
    assert driver.execute_script(stops) == 1
    driver.execute_script("document.querySelector('.matrix a').focus()")
    hashes = []
    for key in (Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_LEFT, Keys.ARROW_UP, Keys.ARROW_UP):
        _keys(driver, key)
        hashes.append(driver.execute_script("return document.activeElement.hash"))
    assert driver.execute_script(stops) == 1
    places = {
        "mixed": ["debian-12+proxy-auth", "debian-13+proxy-auth", "debian-13+proxy-intercept",
                  "debian-12+proxy-intercept", "debian-12+proxy-intercept"],
        "many": ["image-0+scenario-1", "image-1+scenario-1", "image-1+scenario-0",
                 "image-0+scenario-0", "image-0+scenario-0"],
    }  # fmt: skip
    assert hashes == [f"#cell-{place.replace('+', '-')}-gpu" for place in places[name]]


def test_a_packed_page_is_unpacked_when_it_is_looked_at(
    driver: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(driver, pages["many"])
    waiting = "return document.querySelectorAll('section[data-packed]').length"
    assert driver.execute_script(waiting) == 81
    driver.execute_script("location.hash = 'cell-image-3-scenario-4-gpu'")
    heads = WebDriverWait(driver, 10).until(
        lambda d: "Installers" in (found := _shown(d, "section.cell h3")) and found
    )
    assert "All checks" in heads
    assert _shown(driver, "section.cell h2") == ["image-3+scenario-4+gpu"]
    assert driver.execute_script(waiting) == 80
    # And at once, when its address is opened.
    show(driver, pages["many"], "cell-image-0-x-gpu")
    WebDriverWait(driver, 10).until(lambda d: "Evidence" in _shown(d, "section.cell h3"))


def test_without_scripts_all_is_readable(
    driver: webdriver.Chrome, pages: dict[str, Path]
) -> None:  # fmt: skip
    show(driver, pages["mixed"], FAILING, scripts=False)
    assert _shown(driver, "section.cell h2") == ["debian-13+proxy-intercept+gpu"]
    assert "Remedy sign the module after strip" in " ".join(_shown(driver, ".failure"))
    show(driver, pages["mixed"], scripts=False)
    assert _shown(driver, ".filters") == []
    assert len(_shown(driver, "#list tbody tr")) == 6
    show(driver, pages["many"], "cell-image-0-x-gpu", scripts=False)
    text = " ".join(_shown(driver, "section.cell"))
    assert "nvidia.ko carries no signature" in text
    assert "shown where scripts may run" in text
    show(driver, pages["mixed"])


def test_a_click_on_a_head_sorts(driver: webdriver.Chrome, pages: dict[str, Path]) -> None:
    show(driver, pages["mixed"])
    button = driver.find_elements(By.CSS_SELECTOR, "#list thead button")[-1]
    head = driver.find_elements(By.CSS_SELECTOR, "#list thead th")[-1]
    orders = []
    for _ in range(2):
        button.click()
        orders.append((head.get_attribute("aria-sort"), _shown(driver, "#list tbody th")[0]))
    assert orders[0] == ("descending", "debian-12+proxy-auth+gpu")
    assert orders[1][0] == "ascending"
    assert _shown(driver, "#list tbody th")[-1] == "debian-12+proxy-auth+gpu"


def test_dark_is_dark(driver: webdriver.Chrome, pages: dict[str, Path]) -> None:
    grounds = []
    for dark in (False, True):
        show(driver, pages["mixed"], dark=dark)
        grounds.append(
            driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
    assert grounds == ["rgb(245, 246, 248)", "rgb(17, 20, 24)"]


def test_what_can_be_used_has_a_name(driver: webdriver.Chrome, pages: dict[str, Path]) -> None:
    """As a screen reader sees it: the browser's own accessibility tree."""
    show(driver, pages["mixed"], "everything")
    nodes: list[dict[str, Any]] = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
    assert {"main", "banner", "contentinfo", "search", "table", "searchbox"} <= set(roles)
    for node in nodes:
        role = node.get("role", {}).get("value")
        if not node["ignored"] and role in ("link", "button", "searchbox", "combobox", "image"):
            assert node["name"]["value"].strip(), node
    assert roles.count("main") == 1
