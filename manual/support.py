"""What is supported and what is proved, from the tables that decide and the pages that say it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fixtures.scenarios import load_scenarios
from fixtures.scenarios.proofs import load_proofs
from harness.catalog import MATRICES, ROOMS, load_catalog
from harness.matrix import load_matrix
from installers.compat import image_trust
from manual import sources
from manual.markdown import code, table, text

#: The tables of the installers.
_GPU, _KERNELS = "installers/data/gpu_compat.json", "installers/data/kernel_trust.json"


def support() -> str:
    """Images, systems, GPUs, CUDA, kernels, and the Python that each system has."""
    gpu = json.loads(sources.repository_file(_GPU))
    trust = json.loads(sources.repository_file(_KERNELS))
    ranges = "Ranges begin with the first and end before the second."
    return "\n".join(
        [
            "# What is supported\n",
            f"Made of `{_GPU}`, `{_KERNELS}` and `matrices/`: the tables that decide, not a page"
            f" beside them. {ranges} What no row covers is not known, and is said to be.\n",
            "## Images\n",
            _images(),
            "## Whose keys a kernel takes for modules\n",
            table(
                ("system", "kernel", "key in `db`", "evidence"),
                [
                    [code(one["os"]), _span(one["kernel"]), _yes(one["trusts_db"]), _why(one)]
                    for one in trust["rules"]
                ],
            ),
            "## Systems\n",
            table(
                ("system", "version", "driver", "CUDA", "source"),
                [
                    [
                        *map(code, (one["os"], one["version"])),
                        *_spans(one, "driver", "cuda"),
                        _why(one),
                    ]
                    for one in gpu["systems"]
                ],
            ),
            "## GPUs\n",
            table(
                ("architecture", "open modules", "first branch", "last branch", "CUDA"),
                [
                    [
                        code(one["name"]),
                        _yes(one["open"]),
                        code(one["first_branch"]),
                        code(one["last_branch"]) or "newest",
                        _span(one["cuda"]),
                    ]
                    for one in gpu["architectures"]
                ],
            ),
            "## CUDA\n",
            table(
                ("CUDA", "newest", "driver", "at least", "cuDNN", "NCCL"),
                [
                    [code(name), *(code(row[key]) or "not known" for key in _CUDA)]
                    for name, row in gpu["cuda"].items()
                ],
            ),
            "## Kernels\n",
            table(
                ("kernel", "driver", "builds", "why", "source"),
                [
                    [
                        *_spans(one, "kernel", "driver"),
                        one["builds"],
                        text(one.get("why", "")),
                        _why(one),
                    ]
                    for one in gpu["kernels"]
                ],
            ),
            "## Python of each system\n",
            "What `airlock-node.pyz` runs on, and installs where there is none; see"
            " [the node file](../node-file.md).\n",
            _python(),
        ]
    )


_CUDA = ("newest", "driver", "minimum_driver", "cudnn", "nccl")


def _images() -> str:
    catalog = load_catalog()
    default = load_matrix(MATRICES / "default.toml", catalog)
    rows = []
    for image in catalog.images.values():
        cells = [cell for cell in default if cell.image.name == image.name]
        trusted = image_trust(image.family, image.version).trusts_db
        named = [f"{code(cell.scenario.name)} ({cell.expected.value})" for cell in cells]
        rows.append(
            [code(image.name), text(image.title), _yes(trusted), ", ".join(named) or "on request"]
        )
    head = ("image", "what it is", "modules signed by a key in `db`", "default matrix (expected)")
    return table(head, rows)


def _python() -> str:
    """The table that the tests of the node file keep."""
    page = sources.repository_file("docs/node-file.md")
    found = re.search(
        r"^\| system \| version \| Python .*?(?=^\s*$)", page, re.MULTILINE | re.DOTALL
    )
    assert found, "docs/node-file.md has lost its table of systems"
    return found.group() + "\n"


def _span(pair: list[str | None]) -> str:
    low, below = pair
    if low is None and below is None:
        return "any"
    return " ".join(filter(None, (low and f"from {code(low)}", below and f"below {code(below)}")))


def _spans(row: Mapping[str, Any], *keys: str) -> list[str]:
    return [_span(row[key]) for key in keys]


def _yes(value: object) -> str:
    return {True: "yes", False: "no"}.get(bool(value), "") if value is not None else "not known"


def _why(row: Mapping[str, Any]) -> str:
    said = row.get("evidence") or row.get("source") or ""
    return text("; ".join(said) if isinstance(said, list) else said)


def proved() -> str:
    """What the README says is proved; then what is not, collected from every page."""
    readme = sources.repository_file("README.md")
    head = "## What is proved, and what is not"
    own = readme.partition(head)[2].partition("\n## ")[0]
    assert own, f"README.md has lost {head!r}"
    scenarios, proofs = load_scenarios(), load_proofs()
    seen = [name for name in scenarios if name in proofs]
    lines = [
        f"# What is proved, and what is not\n{own}",
        "## Row by row\n",
        *(f"- [{_title(name)}]({name})" for name in _requirement_pages()),
        "- [Security](security.md): every claim with its test\n",
        "## Environments of customers\n",
        f"{len(seen)} of {len(scenarios)} [scenarios](scenarios.md) were seen on a virtual machine,"
        " symptom and named cause; the page has the days.\n",
    ]
    for path in sorted((ROOMS / "docs").glob("*.md")):
        for part in re.split(r"^## ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            title, _, body = part.partition("\n")
            if title.strip().lower() in ("what is not proved", "not proved"):
                lines.append(
                    f"## Not proved: [{_title(path.name)}]({path.name})\n\n{body.strip()}\n"
                )
    return "\n".join(lines)


def _requirement_pages() -> list[str]:
    return sorted(path.name for path in (ROOMS / "docs").glob("requirements*.md"))


def _title(name: str) -> str:
    return sources.repository_file(f"docs/{name}").partition("\n")[0].removeprefix("# ")
