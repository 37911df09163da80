"""Hooks of the site's builder: pages of the code, pages from outside docs/, and links that hold.

Every page is written for a forge, where it lies in the repository; in the site the same links lead
to the same pages. Ids of checks and codes of refusals are linked to where the reference has them.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fixtures.scenarios import load_scenarios
from harness.catalog import ROOMS
from manual import reference, sources, support
from manual.markdown import anchor

if TYPE_CHECKING:
    from properdocs.config.defaults import MkDocsConfig
    from properdocs.structure.files import Files
    from properdocs.structure.pages import Page

#: Files at the root of the repository -> their place in the site.
OUTSIDE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changes.md",
    "LICENSE": "LICENSE.txt",
}
GENERATED: dict[str, Callable[[], str]] = {
    "reference/checks.md": reference.checks,
    "reference/installers.md": reference.installers,
    "reference/command-line.md": reference.command_line,
    "reference/exit-codes.md": reference.exit_codes,
    "reference/report-schema.md": reference.report_schema,
    "reference/support.md": support.support,
    "proved.md": support.proved,
}
_ROW = r'| <span id="scenario-\1" markdown>`\1`</span> |'
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_SPAN = re.compile(r"(?<![`\[>])`([a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9-]+)?)`(?![`\]])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Pages that the navigation does not name get a place: rows of requirements by the others."""
    nav: list[Any] = config.nav or []
    named = re.findall(r"[\w/.-]+\.md", str(nav))
    proofs = next(one["What is proved"] for one in nav if "What is proved" in one)
    rest = next(one["The project"] for one in nav if "The project" in one)
    for path in sorted((ROOMS / "docs").glob("*.md")):
        if path.name not in named:
            (proofs if path.name.startswith("requirements") else rest).append(path.name)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what docs/ does not hold."""
    from properdocs.structure.files import File

    for name, place in OUTSIDE.items():
        files.append(File.generated(config, place, content=sources.repository_file(name)))
    for place, make in GENERATED.items():
        files.append(File.generated(config, place, content=make()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Lead links to where their pages are here, and names to where the reference has them."""
    place = page.file.src_uri
    if place == "scenarios.md":
        # Rows of a table have no anchors; here each is led to.
        markdown = re.sub(r"^\| `([\w.-]+)` \|", _ROW, markdown, flags=re.MULTILINE)
    own = {site: name for name, site in OUTSIDE.items()}.get(place, f"docs/{place}")
    linked = place not in GENERATED
    lines, fence = [], ""
    for line in markdown.split("\n"):
        opened = re.match(r"\s*(`{3,}|~{3,})", line)
        if opened and (not fence or opened[1].startswith(fence)):
            fence = "" if fence else opened[1]
        elif not fence:
            line = _LINK.sub(lambda found: _led(found, own, place), line)
            if linked and not line.startswith("#"):
                line = _SPAN.sub(lambda found: _named(found, place), line)
        lines.append(line)
    return "\n".join(lines)


def _led(found: re.Match[str], own: str, place: str) -> str:
    """One link. What is no page, such as a file of code, is named by its path instead."""
    shown, target, fragment = found.groups()
    if "://" in target or place in GENERATED:
        return found.group()
    path = posixpath.normpath(posixpath.join(posixpath.dirname(own), target))
    goal = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else "")
    if not goal:
        return f"{shown} (`{path}`)"
    there = posixpath.relpath(goal, posixpath.dirname(place) or ".")
    return f"[{shown}]({there}{fragment or ''})"


def _named(found: re.Match[str], place: str) -> str:
    """A code span, linked if it is the id of a check or a code."""
    name = found[1]
    if name in {check.id for check in sources.checks()}:
        goal = f"reference/checks.md#{anchor(name)}"
    elif name in sources.codes():
        goal = f"reference/installers.md#{anchor('code-' + name)}"
    elif place == "troubleshooting.md" and name in load_scenarios():
        goal = f"scenarios.md#scenario-{name}"
    else:
        return found.group()
    return f"[`{name}`]({posixpath.relpath(goal, posixpath.dirname(place) or '.')})"
