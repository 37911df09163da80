"""The compatibility table as a page: ``python -m installers.gputable > docs/gpu-table.md``."""

from __future__ import annotations

from typing import Any

from installers import gpus

_HEAD = """\
# What goes together: GPUs, drivers, CUDA, systems

Made of `installers/data/gpu_compat.json` by `python -m installers.gputable`; a test keeps it equal.
The data names the source of every row. A span ends below its last number, but for driver branches,
whose last one is in it; `–` is no limit. What no row has is unknown, and `plan` says so.
"""


def page() -> str:
    """The whole page."""
    table = gpus.table()
    parts = [
        _HEAD,
        "\n## GPUs\n",
        _rows(
            ("generation", "PCI ids (hex)", "sm", "modules", "driver branches", "CUDA"),
            [
                (
                    row["name"],
                    ", ".join("–".join(span) for span in row["ids"]),
                    ", ".join(str(sm) for sm in row["sm"]),
                    ", ".join(kind for kind in ("open", "proprietary") if row[kind]),
                    f"{row['first_branch']} to {row['last_branch'] or '–'}",
                    _span(row["cuda"]),
                )
                for row in table["architectures"]
            ],
        ),
        "\n## CUDA\n",
        _rows(
            ("CUDA", "newest", "driver at least", "driver by default", "cuDNN", "NCCL"),
            [
                (minor, *(row[key] or "–" for key in _OF_CUDA))
                for minor, row in table["cuda"].items()
            ],
        ),
        "\n## `cuda-version=default`\n",
        _rows(("Dataproc image", "CUDA"), list(table["images"].items())),
        f"\nSource: {table['images_source']}.\n",
        "\n## Systems\n",
        _rows(
            ("system", "driver", "CUDA"),
            [
                (f"{row['os']} {row['version']}", _span(row["driver"]), _span(row["cuda"]))
                for row in table["systems"]
            ],
        ),
        f"\nMachines: {', '.join(table['machines'])}.\n",
    ]
    return "\n".join(part.rstrip("\n") for part in parts) + "\n"


_OF_CUDA = ("newest", "minimum_driver", "driver", "cudnn", "nccl")


def _span(span: list[Any]) -> str:
    return f"{span[0] or '–'} to {span[1] or '–'}"


def _rows(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [titles, ("---",) * len(titles), *rows]
    return "\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    print(page(), end="")
