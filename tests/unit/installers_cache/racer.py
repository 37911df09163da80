"""One of many processes that want the same entry. ``python -m ... FOLDER URL MARKS BUILD_SECONDS``.

Every build appends its process id to the file MARKS. FOLDER is the process's own directory; with
an empty URL it is shared and the only store.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from installers.cache.cache import Cache
from installers.cache.filestore import FileStore
from installers.cache.gcs import GcsStore
from installers.cache.store import Content, Store
from installers.cache.web import Web

KIND, INPUTS = "raced", {"kernel": "6.1"}


def main(folder: str, url: str, marks: str, seconds: str) -> None:
    def build() -> tuple[dict[str, Content], dict[str, Any]]:
        with Path(marks).open("a") as out:
            out.write(f"{os.getpid()}\n")
        time.sleep(float(seconds))
        return {"module.ko": b"built" * 1000}, {}

    local = FileStore(Path(folder))
    tiers: list[Store] = [local]
    if url:
        tiers.append(GcsStore("gs://lab-bucket/airlock-cache", Web(), url))
    entry = Cache(tiers, local, unsigned=True, every=0.2).obtain(KIND, INPUTS, build)
    assert entry.read("module.ko") == b"built" * 1000
    print(entry.hit or "built")


if __name__ == "__main__":
    main(*sys.argv[1:])
