"""The JSON Schema of the report, generated from the model.

``python -m reports.schema > reports/schema.json`` renews the committed copy.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from reports.model import SCHEMA_VERSION, Report


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of ``report.json``."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Airlock report, schema version {SCHEMA_VERSION}",
        **msgspec.json.schema(Report),
    }


def schema_text() -> str:
    """Return the schema as it is committed: indented, with a newline at the end."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
