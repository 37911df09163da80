"""A real browser without a window: Debian's Chromium, driven by its own driver."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSER = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Start one; it has a profile of its own and ends with the block."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(BROWSER)
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--disable-component-update",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def show(
    driver: webdriver.Chrome,
    page: Path,
    anchor: str = "",
    *,
    width: int = 1280,
    dark: bool = False,
    scripts: bool = True,
) -> None:
    """Open a page anew, as it is on a screen of ``width`` CSS pixels."""
    said = driver.execute_cdp_cmd
    said("Emulation.setDeviceMetricsOverride",
         {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False})  # fmt: skip
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    said("Emulation.setEmulatedMedia", {"features": [scheme]})
    said("Emulation.setScriptExecutionDisabled", {"value": not scripts})
    # From a page to an anchor of the same page nothing would be loaded.
    driver.get("about:blank")
    for kind in ("performance", "browser"):
        driver.get_log(kind)  # type: ignore[no-untyped-call]
    driver.get(f"{page.as_uri()}{anchor and '#' + anchor}")


def asked_for(driver: webdriver.Chrome) -> list[str]:
    """The addresses that were asked for since the page was opened."""
    events = [
        json.loads(entry["message"])["message"]
        for entry in driver.get_log("performance")  # type: ignore[no-untyped-call]
    ]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


def complaints(driver: webdriver.Chrome) -> list[str]:
    """What the browser's console says: errors of scripts, and what the policy refused."""
    entries: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries]
